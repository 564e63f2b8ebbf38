//! Requests about names.

use virtiofs_protocol::Opcode;

use super::message::{Message, long, word};
use super::tree::{Content, Id, Rename, Tree, errno, kind};
use super::{As, Due, Model};
use crate::oracle::Reply;
use crate::world::World;

impl Model {
    pub(super) fn follow_names(&mut self, message: &Message<'_>, world: &World, reply: &Reply) {
        let Some(folder) = self.known(message.node) else {
            if changes_names(message.opcode) && reply.errno == 0 {
                self.is_sure = false;
            }
            return;
        };
        match message.opcode {
            Opcode::Lookup => self.look_up(message, folder, reply),
            Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir => self.make(message, folder, reply),
            Opcode::Create => self.create(message, folder, reply),
            Opcode::Tmpfile if reply.errno == 0 => {
                let id = self.tree.add_nameless();
                self.nodes.insert(long(&reply.body, 0), id);
            }
            Opcode::Link => self.link(message, folder, world, reply),
            Opcode::Unlink | Opcode::Rmdir => {
                let name = message.names[0];
                let due = match message.opcode {
                    Opcode::Unlink => self.tree.may_unlink(folder, name),
                    _ => self.tree.may_remove_directory(folder, name),
                };
                if self.hold(message, due, reply) {
                    self.tree.take(folder, name);
                }
            }
            Opcode::Rename | Opcode::Rename2 => self.rename(message, folder, world, reply),
            _ => {}
        }
    }

    fn look_up(&mut self, message: &Message<'_>, folder: Id, reply: &Reply) {
        let found = self.tree.find(folder, message.names[0]);
        // A name that is known not to be there may be answered with no node at all.
        let is_nothing = reply.errno == 0 && long(&reply.body, 0) == 0;
        if is_nothing {
            assert_eq!(found, Err(errno::NOENT), "{:?} is there", message.names[0]);
            return;
        }
        if self.hold(message, found.map(drop), reply)
            && let Ok(id) = found
        {
            self.bind(id, &reply.body);
        }
    }

    fn make(&mut self, message: &Message<'_>, folder: Id, reply: &Reply) {
        let (name, kind, content) = match message.opcode {
            Opcode::Symlink => (
                message.names[0],
                kind::SYMLINK,
                Content::Bytes(message.names[1].to_vec()),
            ),
            Opcode::Mkdir => (message.names[0], kind::DIRECTORY, Content::Unsure),
            _ => {
                let kind = word(message.arguments, 0) & kind::MASK;
                (message.names[0], kind, empty(kind))
            }
        };
        let is_made_otherwise = message.opcode == Opcode::Mknod && kind == kind::DIRECTORY;
        let due = match is_made_otherwise {
            true => Err(errno::INVAL),
            false => self.tree.is_free(folder, name),
        };
        if self.hold_made(message, due, reply) {
            let id = self.tree.add(folder, name, kind, content);
            self.bind(id, &reply.body);
        }
    }

    /// As [`Model::hold`], for what makes something: Linux refuses empty targets and odd modes before it looks.
    fn hold_made(&self, message: &Message<'_>, due: Due, reply: &Reply) -> bool {
        if reply.errno == errno::INVAL || reply.errno == errno::NOENT {
            let is_empty = message.names.iter().any(|name| name.is_empty());
            if is_empty {
                return false;
            }
        }
        self.hold(message, due, reply)
    }

    fn create(&mut self, message: &Message<'_>, folder: Id, reply: &Reply) {
        let name = message.names[0];
        if message.access() == As::Unsure {
            // Flags that mean something else than a file to be made.
            self.is_sure &= reply.errno != 0;
            return;
        }
        let found = self.tree.find(folder, name);
        let due = match found {
            Ok(_) if message.is_exclusive() => Err(errno::EXIST),
            Ok(id) if self.tree.object(id).kind == kind::FILE => Ok(()),
            // What cannot be opened is refused in more than one way.
            Ok(_) => return assert_ne!(reply.errno, 0, "{name:?} was opened as a file"),
            Err(errno::NOENT) => self.tree.is_free(folder, name),
            Err(errno) => Err(errno),
        };
        if !self.hold(message, due, reply) {
            return;
        }
        let id = match found {
            Ok(id) => id,
            Err(_) => self.tree.add(folder, name, kind::FILE, empty(kind::FILE)),
        };
        if message.truncates() {
            self.tree.object_mut(id).content = Content::Unsure;
        }
        self.bind(id, &reply.body[..128]);
    }

    fn link(&mut self, message: &Message<'_>, folder: Id, world: &World, reply: &Reply) {
        let (node, name) = (long(message.arguments, 0), message.names[0]);
        let Some(id) = self.known(node) else {
            assert!(
                world.knows(node) || reply.errno != 0,
                "a link to node {node}, which is nobody's"
            );
            self.is_sure &= reply.errno != 0;
            return;
        };
        let object = self.tree.object(id);
        if object.kind == kind::DIRECTORY || object.names == 0 {
            // Refused before or after the new name is looked at.
            self.is_sure &= reply.errno != 0;
            return;
        }
        let due = self.tree.is_free(folder, name);
        if self.hold(message, due, reply) {
            self.tree.put(folder, name, id);
            self.bind(id, &reply.body);
        }
    }

    fn rename(&mut self, message: &Message<'_>, folder: Id, world: &World, reply: &Reply) {
        let node = long(message.arguments, 0);
        let flags = match message.opcode {
            Opcode::Rename => 0,
            _ => word(message.arguments, 8),
        };
        let how = match flags {
            0 => Rename::Replace,
            1 => Rename::NoReplace,
            2 => Rename::Exchange,
            _ => {
                self.is_sure &= reply.errno != 0;
                return;
            }
        };
        let Some(into) = self.known(node) else {
            assert!(
                world.knows(node) || reply.errno != 0,
                "a rename into node {node}, which is nobody's"
            );
            self.is_sure &= reply.errno != 0;
            return;
        };
        let (from, to) = ((folder, message.names[0]), (into, message.names[1]));
        let due = self.tree.may_rename(from, to, how);
        if self.hold(message, due, reply) {
            self.tree.rename(from, to, how);
        }
    }

    /// Names of a whole directory as the model has them, its own and the one above included.
    pub(super) fn listing(tree: &Tree, folder: Id) -> Vec<Vec<u8>> {
        let entries = tree.object(folder).entries.keys().cloned();
        let mut names: Vec<_> = entries.chain([b".".to_vec(), b"..".to_vec()]).collect();
        names.sort();
        names
    }
}

/// What a new file of a kind holds.
fn empty(kind: u32) -> Content {
    match kind {
        kind::FILE => Content::Bytes(Vec::new()),
        _ => Content::Unsure,
    }
}

fn changes_names(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Symlink
            | Opcode::Mknod
            | Opcode::Mkdir
            | Opcode::Create
            | Opcode::Link
            | Opcode::Unlink
            | Opcode::Rmdir
            | Opcode::Rename
            | Opcode::Rename2
    )
}
