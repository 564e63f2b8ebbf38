//! A model of the share beside which a session is served: it says what each reply has to be.
//!
//! It knows which node numbers and handles the guest holds, and follows the tree: kinds, names, numbers of links, sizes,
//! contents of small files, one extended attribute. What is asked comes from the bytes of the request, what is due from
//! [`tree`] alone.
//!
//! Where it cannot know, it says so and believes nothing about that from then on: a file that space was reserved in has
//! content that is [`tree::Content::Unsure`]; a host that changes something makes the whole tree uncertain. The form of
//! a reply, node numbers and handles are checked all the same.

mod files;
mod message;
mod names;
mod tree;

use std::collections::BTreeMap;

use virtiofs_protocol::Opcode;

use crate::oracle::Reply;
use crate::world::World;
use message::Message;
use tree::{Id, Tree, errno, kind};

/// What a model believes.
#[derive(Debug)]
pub struct Model {
    tree: Tree,
    /// Whether the tree is as it says.
    is_sure: bool,
    /// Objects of the nodes that the guest knows, where that is certain.
    nodes: BTreeMap<u64, Id>,
    handles: BTreeMap<u64, Open>,
    limits: Limits,
    setxattrs: Setxattrs,
}

/// How long a SETXATTR is in front of the attribute's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setxattrs {
    /// As it was before ACLs.
    Short,
    /// What was agreed on decides.
    Unsure,
}

/// Whether the daemon may know only so many inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// As many as there are.
    None,
    /// A few: beyond them, what makes another one known is refused.
    FewInodes,
}

/// Something that the guest has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    /// `None` where that is not certain.
    id: Option<Id>,
    as_what: As,
}

/// As what it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    File { reads: bool, writes: bool },
    Directory,
    Unsure,
}

/// What a node number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The guest was never given it, or gave it back.
    Nobodys,
    /// Something that the model cannot name.
    Somebodys,
    Known(Id),
}

/// What a request has to come to.
type Due = Result<(), i32>;

/// Errors that a few inodes are the reason for.
const NO_ROOM: [i32; 3] = [12, 23, 24];
/// Errors that rights are the reason for.
const NO_RIGHT: [i32; 2] = [errno::PERM, errno::ACCES];

impl Model {
    /// The share as a run finds it; one of its links leads to `secret`.
    pub fn new(secret: &[u8], limits: Limits, setxattrs: Setxattrs) -> Self {
        Self {
            tree: Tree::new(secret),
            is_sure: true,
            nodes: BTreeMap::from([(World::ROOT, Tree::ROOT)]),
            handles: BTreeMap::new(),
            limits,
            setxattrs,
        }
    }

    /// Somebody on the host has changed something.
    pub fn lose_sight(&mut self) {
        self.is_sure = false;
    }

    /// The session is over: the guest knows nothing, and nothing is open.
    pub fn end(&mut self) {
        self.nodes = BTreeMap::from([(World::ROOT, Tree::ROOT)]);
        self.handles.clear();
    }

    /// Compares a reply with what was due, and follows what has happened. `world` is what the guest knew when it asked.
    ///
    /// # Panics
    ///
    /// Where they differ.
    pub fn follow(&mut self, message: &[u8], world: &World, reply: &Reply) {
        self.nodes.retain(|node, _| world.knows(*node));
        let Some(message) = Message::read(message) else {
            return match Message::opcode_of(message) {
                Some(Opcode::Setxattr) => self.follow_setxattr(message, reply),
                Some(opcode) if may_change(opcode) => self.lose_track(opcode, reply),
                _ => {}
            };
        };
        if goes_by_node(message.opcode) && self.whose(message.node, world) == Whose::Nobodys {
            // Some attributes are refused by their name alone, some requests by what they ask for.
            let is_due = match message.opcode {
                Opcode::Getxattr | Opcode::Removexattr => reply.errno != 0,
                _ => [errno::STALE, errno::INVAL].contains(&reply.errno),
            };
            assert!(is_due, "{}: {message:?}, which is nobody's", reply.errno);
            return;
        }
        if self.is_sure {
            self.follow_names(&message, world, reply);
            self.follow_files(&message, world, reply);
        }
        self.follow_handles(&message, reply);
    }

    /// A request that has no proper form; what it has done is not followed.
    fn lose_track(&mut self, opcode: Opcode, reply: &Reply) {
        if reply.errno != 0 {
            return;
        }
        self.is_sure = false;
        if opens(opcode) {
            let at = reply.body.len().saturating_sub(16);
            self.handles
                .insert(message::long(&reply.body, at), Open::UNSURE);
        }
        // Something may have been closed.
        for open in self.handles.values_mut() {
            *open = Open::UNSURE;
        }
    }

    fn whose(&self, node: u64, world: &World) -> Whose {
        match self.nodes.get(&node) {
            Some(id) => Whose::Known(*id),
            None if world.knows(node) => Whose::Somebodys,
            None => Whose::Nobodys,
        }
    }

    fn known(&self, node: u64) -> Option<Id> {
        self.nodes.get(&node).copied()
    }

    /// Compares an error with what was due; true when the request was carried out.
    fn hold(&self, message: &Message<'_>, due: Due, reply: &Reply) -> bool {
        let errno = reply.errno;
        let refused_by_rights = match message.uid {
            0 => false,
            // Nobody has this number.
            u32::MAX => errno == errno::INVAL || NO_RIGHT.contains(&errno),
            _ => NO_RIGHT.contains(&errno),
        };
        let refused_by_limits = self.limits == Limits::FewInodes && NO_ROOM.contains(&errno);
        if !refused_by_rights && !refused_by_limits {
            assert_eq!(errno, due.err().unwrap_or(0), "{message:?}");
        }
        errno == 0
    }

    /// An entry of a reply: the number stands for this object and no other.
    fn bind(&mut self, id: Id, entry: &[u8]) {
        let node = message::long(entry, 0);
        if let Some(other) = self.nodes.get(&node) {
            assert_eq!(*other, id, "node {node} stands for two files");
        }
        for (known, other) in &self.nodes {
            assert!(
                *other != id || *known == node,
                "one file is node {known} and node {node}"
            );
        }
        self.nodes.insert(node, id);
        self.compare(id, &entry[40..]);
    }

    /// `struct fuse_attr` of an object.
    fn compare(&self, id: Id, attributes: &[u8]) {
        let object = self.tree.object(id);
        let (size, mode) = (message::long(attributes, 8), message::word(attributes, 60));
        assert_eq!(mode & kind::MASK, object.kind, "another kind of file");
        if object.kind == kind::FILE
            && let Some(len) = object.len()
        {
            assert_eq!(size, len, "another length");
        }
        if object.kind != kind::DIRECTORY {
            let links = message::word(attributes, 64);
            assert_eq!(links, object.names, "another number of links");
        }
    }

    /// Handles are followed whatever is known about the tree.
    fn follow_handles(&mut self, message: &Message<'_>, reply: &Reply) {
        let is_open = message.handle.map(|handle| self.handles.get(&handle));
        if is_open == Some(None) {
            assert_ne!(reply.errno, 0, "{:?} of what is not open", message.opcode);
        }
        match message.opcode {
            Opcode::Release | Opcode::Releasedir => {
                if let Some(handle) = message.handle {
                    let due = match self.handles.remove(&handle) {
                        Some(Open {
                            as_what: As::Unsure,
                            ..
                        }) => return,
                        Some(_) => 0,
                        None => errno::BADF,
                    };
                    assert_eq!(reply.errno, due, "closing handle {handle}");
                }
            }
            opcode if opens(opcode) && reply.errno == 0 => {
                let at = reply.body.len() - 16;
                let id = match message.opcode {
                    Opcode::Open | Opcode::Opendir => self.known(message.node),
                    _ => self.known(message::long(&reply.body, 0)),
                };
                let as_what = match message.opcode {
                    Opcode::Opendir => As::Directory,
                    _ => message.access(),
                };
                let handle = message::long(&reply.body, at);
                let before = self.handles.insert(handle, Open { id, as_what });
                assert!(
                    before.is_none_or(|open| open.as_what == As::Unsure),
                    "handle {handle} was given twice"
                );
            }
            _ => {}
        }
    }
}

impl Open {
    const UNSURE: Self = Self {
        id: None,
        as_what: As::Unsure,
    };
}

/// Whether a request is about its node, and not about something open.
fn goes_by_node(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Lookup
            | Opcode::Readlink
            | Opcode::Symlink
            | Opcode::Mknod
            | Opcode::Mkdir
            | Opcode::Unlink
            | Opcode::Rmdir
            | Opcode::Rename
            | Opcode::Rename2
            | Opcode::Link
            | Opcode::Open
            | Opcode::Opendir
            | Opcode::Create
            | Opcode::Setxattr
            | Opcode::Getxattr
            | Opcode::Listxattr
            | Opcode::Removexattr
    )
}

/// Whether a reply brings a handle.
fn opens(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Open | Opcode::Opendir | Opcode::Create | Opcode::Tmpfile
    )
}

/// Whether anything can be different afterwards, also where the daemon looks for a node.
fn may_change(opcode: Opcode) -> bool {
    opens(opcode)
        || matches!(
            opcode,
            Opcode::Setattr
                | Opcode::Symlink
                | Opcode::Mknod
                | Opcode::Mkdir
                | Opcode::Unlink
                | Opcode::Rmdir
                | Opcode::Rename
                | Opcode::Rename2
                | Opcode::Link
                | Opcode::Write
                | Opcode::Release
                | Opcode::Releasedir
                | Opcode::Removexattr
                | Opcode::Readdirplus
                | Opcode::Ioctl
                | Opcode::Fallocate
                | Opcode::CopyFileRange
                | Opcode::CopyFileRange64
        )
}
