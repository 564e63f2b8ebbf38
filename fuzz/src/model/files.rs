//! Requests about what files are and hold.

use virtiofs_protocol::Opcode;

use super::message::{Message, long, word};
use super::tree::{Content, Id, errno, kind};
use super::{As, Model, Whose};
use crate::oracle::Reply;
use crate::world::World;

/// Offsets from here on are refused by some file systems.
const FAR: u64 = 1 << 41;
/// The attribute that is followed.
const ATTRIBUTE: &[u8] = b"user.a";

impl Model {
    pub(super) fn follow_files(&mut self, message: &Message<'_>, world: &World, reply: &Reply) {
        match message.opcode {
            Opcode::Getattr => self.getattr(message, world, reply),
            Opcode::Setattr => self.setattr(message, reply),
            Opcode::Open => self.open(message, reply),
            Opcode::Opendir => {
                if let Some(id) = self.known(message.node) {
                    let due = match self.tree.object(id).kind {
                        kind::DIRECTORY => Ok(()),
                        _ => Err(errno::NOTDIR),
                    };
                    self.hold(message, due, reply);
                }
            }
            Opcode::Read => self.read(message, reply),
            Opcode::Write => self.write(message, reply),
            Opcode::Readdir | Opcode::Readdirplus => self.list(message, reply),
            Opcode::Fallocate => self.forget_content(message.handle, reply),
            Opcode::CopyFileRange | Opcode::CopyFileRange64 => {
                self.forget_content(Some(long(message.arguments, 24)), reply);
            }
            Opcode::Getxattr => self.getxattr(message, reply),
            Opcode::Removexattr => self.removexattr(message, reply),
            _ => {}
        }
    }

    /// The object behind a handle that may do what is asked; `None` where that is not certain.
    fn opened(&self, message: &Message<'_>, may: impl Fn(As) -> bool) -> Option<Id> {
        let open = self.handles.get(&message.handle?)?;
        open.id.filter(|_| may(open.as_what))
    }

    fn getattr(&self, message: &Message<'_>, world: &World, reply: &Reply) {
        const BY_HANDLE: u32 = 1;
        let by_handle = word(message.arguments, 0) & BY_HANDLE != 0;
        match self.whose(message.node, world) {
            Whose::Nobodys => assert!(by_handle || reply.errno == errno::STALE),
            Whose::Known(id) if !by_handle => {
                if self.hold(message, Ok(()), reply) {
                    self.compare(id, &reply.body[16..]);
                }
            }
            Whose::Somebodys | Whose::Known(_) => {}
        }
    }

    fn setattr(&mut self, message: &Message<'_>, reply: &Reply) {
        const SIZE: u32 = 1 << 3;
        const BY_HANDLE: u32 = 1 << 6;
        let valid = word(message.arguments, 0);
        if valid & SIZE == 0 {
            return;
        }
        let id = match valid & BY_HANDLE {
            0 => self.known(message.node),
            _ => None,
        };
        let Some(id) = id else {
            // Of whatever file.
            self.is_sure &= reply.errno != 0;
            return;
        };
        let object = self.tree.object_mut(id);
        if reply.errno != 0 {
            // Some of it may have been done.
            object.content = match object.kind {
                kind::FILE => Content::Unsure,
                _ => return,
            };
            return;
        }
        assert_eq!(object.kind, kind::FILE, "the length of something else");
        object.resize(long(message.arguments, 16));
        self.compare(id, &reply.body[16..]);
    }

    fn open(&mut self, message: &Message<'_>, reply: &Reply) {
        let Some(id) = self.known(message.node) else {
            self.is_sure &= reply.errno != 0 || !message.truncates();
            return;
        };
        let object = self.tree.object_mut(id);
        if object.kind != kind::FILE {
            return assert_ne!(reply.errno, 0, "opened what is no file");
        }
        if message.truncates() {
            // With some flags that is for the guest to do.
            object.content = Content::Unsure;
        }
        if message.access() != As::Unsure {
            self.hold(message, Ok(()), reply);
        }
    }

    fn read(&mut self, message: &Message<'_>, reply: &Reply) {
        let reads = |as_what| matches!(as_what, As::File { reads: true, .. });
        let Some(id) = self.opened(message, reads) else {
            return;
        };
        let (offset, len) = (long(message.arguments, 8), word(message.arguments, 16));
        if offset >= FAR {
            return;
        }
        if !self.hold(message, Ok(()), reply) {
            return;
        }
        if let Some(bytes) = self.tree.object(id).range(offset, len.into()) {
            // What there is no room for is not read.
            let (got, most) = (reply.body.len(), bytes.len());
            assert_eq!(reply.body, bytes[..got.min(most)], "other bytes of a file");
            assert!(got == most || got >= 8000, "{got} bytes of {most}");
        }
    }

    fn write(&mut self, message: &Message<'_>, reply: &Reply) {
        let writes = |as_what| matches!(as_what, As::File { writes: true, .. });
        let Some(id) = self.opened(message, writes) else {
            let open = message.handle.and_then(|handle| self.handles.get(&handle));
            match open.map(|open| (open.as_what, open.id)) {
                Some((As::File { writes: false, .. }, Some(_))) => {
                    assert_ne!(reply.errno, 0, "written through an open that only reads");
                }
                // To whatever file.
                _ => self.is_sure &= reply.errno != 0,
            }
            return;
        };
        let (offset, written) = (long(message.arguments, 8), &message.arguments[40..]);
        if offset >= FAR {
            self.is_sure &= reply.errno != 0;
            return;
        }
        if self.hold(message, Ok(()), reply) {
            let count = word(&reply.body, 0) as usize;
            assert_eq!(count, written.len(), "another number of bytes was written");
            self.tree.object_mut(id).write(offset, written);
        }
    }

    /// A whole listing from its beginning names what is there.
    fn list(&mut self, message: &Message<'_>, reply: &Reply) {
        let open = message.handle.and_then(|handle| self.handles.get(&handle));
        if open.and_then(|open| open.id) != self.known(message.node) {
            // What READDIRPLUS lists is then looked up in a directory where it is not: a guest misleads itself.
            self.is_sure &= message.opcode == Opcode::Readdir || reply.errno != 0;
            return;
        }
        let Some(id) = self.opened(message, |as_what| as_what == As::Directory) else {
            return;
        };
        let (offset, room) = (long(message.arguments, 8), word(message.arguments, 16));
        let is_whole = offset == 0 && room >= 4096 && self.tree.object(id).names > 0;
        if !is_whole || !self.hold(message, Ok(()), reply) {
            return;
        }
        let plus = match message.opcode {
            Opcode::Readdirplus => 128,
            _ => 0,
        };
        let (mut names, mut left) = (Vec::new(), &reply.body[..]);
        while left.len() > plus + 24 {
            let len = word(left, plus + 16) as usize;
            let name = left[plus + 24..plus + 24 + len].to_vec();
            if plus > 0
                && long(left, 0) != 0
                && let Ok(found) = self.tree.find(id, &name)
            {
                self.bind(found, &left[..128]);
            }
            names.push(name);
            left = &left[(plus + 24 + len).next_multiple_of(8)..];
        }
        names.sort();
        assert_eq!(names, Self::listing(&self.tree, id), "another listing");
    }

    fn forget_content(&mut self, handle: Option<u64>, reply: &Reply) {
        if reply.errno != 0 && reply.errno == errno::BADF {
            return;
        }
        match handle.and_then(|handle| self.handles.get(&handle)?.id) {
            Some(id) => self.tree.object_mut(id).content = Content::Unsure,
            None => self.is_sure &= reply.errno != 0,
        }
    }

    /// The attribute of an object, where it is followed.
    fn attribute(&self, message: &Message<'_>) -> Option<(Id, Option<&[u8]>)> {
        let id = self.known(message.node)?;
        let object = self.tree.object(id);
        let may_have = matches!(object.kind, kind::FILE | kind::DIRECTORY);
        let value = object.attribute.as_ref()?;
        (may_have && message.names == [ATTRIBUTE]).then_some((id, value.as_deref()))
    }

    fn getxattr(&self, message: &Message<'_>, reply: &Reply) {
        let Some((_, value)) = self.attribute(message) else {
            return;
        };
        const RANGE: i32 = 34;
        let size = word(message.arguments, 0) as usize;
        let due = match value {
            None => Err(errno::NODATA),
            Some(value) if size > 0 && size < value.len() => Err(RANGE),
            Some(_) => Ok(()),
        };
        if self.hold(message, due, reply)
            && let Some(value) = value
        {
            match size {
                0 => assert_eq!(word(&reply.body, 0) as usize, value.len()),
                _ => assert_eq!(reply.body, value, "another value"),
            }
        }
    }

    fn removexattr(&mut self, message: &Message<'_>, reply: &Reply) {
        let Some((id, value)) = self.attribute(message) else {
            let is_somebodys = self.known(message.node).is_none();
            self.is_sure &= reply.errno != 0 || !is_somebodys;
            return;
        };
        let due = value.map(drop).ok_or(errno::NODATA);
        if self.hold(message, due, reply) {
            self.tree.object_mut(id).attribute = Some(None);
        }
    }

    /// An attribute is set: its name and value stand where the guest's kernel of this session puts them.
    pub(super) fn follow_setxattr(&mut self, message: &[u8], reply: &Reply) {
        if reply.errno != 0 {
            return;
        }
        let (node, arguments) = (long(message, 16), &message[40..]);
        let Some(id) = self.known(node) else {
            return self.lose_sight();
        };
        let behind = arguments[8..].strip_prefix(ATTRIBUTE);
        let value = behind.and_then(|behind| behind.strip_prefix(&[0]));
        let object = self.tree.object_mut(id);
        match (value, self.setxattrs) {
            (Some(value), super::Setxattrs::Short) => {
                let value = &value[..value.len().min(word(arguments, 0) as usize)];
                object.attribute = Some(Some(value.to_vec()));
            }
            (None, super::Setxattrs::Short) => {}
            (_, super::Setxattrs::Unsure) => object.attribute = None,
        }
    }
}
