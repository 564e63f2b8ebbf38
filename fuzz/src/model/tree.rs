//! A directory tree in memory: what POSIX and Linux say that each change comes to.

use std::collections::BTreeMap;

use crate::share::{BESIDE, INNER, THINGS, Thing};

/// Types in a mode (`S_IFMT`).
pub(super) mod kind {
    pub(in crate::model) const MASK: u32 = 0o17_0000;
    pub(in crate::model) const FIFO: u32 = 0o1_0000;
    pub(in crate::model) const DIRECTORY: u32 = 0o4_0000;
    pub(in crate::model) const FILE: u32 = 0o10_0000;
    pub(in crate::model) const SYMLINK: u32 = 0o12_0000;
}

/// Errors (`errno.h`).
pub(super) mod errno {
    pub(in crate::model) const PERM: i32 = 1;
    pub(in crate::model) const NOENT: i32 = 2;
    pub(in crate::model) const BADF: i32 = 9;
    pub(in crate::model) const ACCES: i32 = 13;
    pub(in crate::model) const EXIST: i32 = 17;
    pub(in crate::model) const NOTDIR: i32 = 20;
    pub(in crate::model) const ISDIR: i32 = 21;
    pub(in crate::model) const INVAL: i32 = 22;
    pub(in crate::model) const NOTEMPTY: i32 = 39;
    pub(in crate::model) const NODATA: i32 = 61;
    pub(in crate::model) const STALE: i32 = 116;
}

/// Number of an object, which it keeps without a name.
pub(super) type Id = usize;
type Result<T> = std::result::Result<T, i32>;

/// Content is followed up to here, in bytes.
const MOST_CONTENT: u64 = 1 << 16;

/// What a file holds, as far as that is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes.
    Len(u64),
    /// Whatever.
    Unsure,
}

/// Something in the tree, or without a name.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: u32,
    /// Names that lead here; a directory has one or none.
    pub(super) names: u32,
    pub(super) content: Content,
    pub(super) entries: BTreeMap<Vec<u8>, Id>,
    above: Id,
    /// Its attribute `user.a`; the outer `None` where that is not certain.
    pub(super) attribute: Option<Option<Vec<u8>>>,
}

/// All objects; the root is the first.
#[derive(Debug)]
pub(super) struct Tree {
    objects: Vec<Object>,
}

impl Tree {
    pub(super) const ROOT: Id = 0;

    /// The share as a run finds it.
    pub(super) fn new(secret: &[u8]) -> Self {
        let mut tree = Self {
            objects: vec![Object::new(kind::DIRECTORY, Content::Unsure, Self::ROOT)],
        };
        tree.objects[Self::ROOT].names = 1;
        for (name, thing) in THINGS {
            let (kind, content) = match thing {
                Thing::File(bytes) => (kind::FILE, Content::Bytes(bytes.to_vec())),
                Thing::Directory(_) => (kind::DIRECTORY, Content::Unsure),
                Thing::Link => (kind::SYMLINK, Content::Bytes(BESIDE.into())),
                Thing::LinkFromRoot => (kind::SYMLINK, Content::Bytes(secret.to_vec())),
                Thing::Pipe => (kind::FIFO, Content::Unsure),
            };
            let made = tree.add(Self::ROOT, name.as_bytes(), kind, content);
            if let Thing::Directory(bytes) = thing {
                let content = Content::Bytes(bytes.to_vec());
                tree.add(made, INNER.as_bytes(), kind::FILE, content);
            }
        }
        tree
    }

    pub(super) fn object(&self, id: Id) -> &Object {
        &self.objects[id]
    }

    pub(super) fn object_mut(&mut self, id: Id) -> &mut Object {
        &mut self.objects[id]
    }

    /// Entries of a directory.
    fn folder(&self, id: Id) -> Result<&Object> {
        let object = &self.objects[id];
        match object.kind {
            kind::DIRECTORY => Ok(object),
            _ => Err(errno::NOTDIR),
        }
    }

    /// What stands under a name.
    pub(super) fn find(&self, folder: Id, name: &[u8]) -> Result<Id> {
        let entries = &self.folder(folder)?.entries;
        entries.get(name).copied().ok_or(errno::NOENT)
    }

    /// Whether a name is free in a directory that is there.
    pub(super) fn is_free(&self, folder: Id, name: &[u8]) -> Result<()> {
        match self.find(folder, name) {
            Ok(_) => Err(errno::EXIST),
            Err(errno::NOENT) if self.objects[folder].names > 0 => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Makes something under a name that is free.
    pub(super) fn add(&mut self, folder: Id, name: &[u8], kind: u32, content: Content) -> Id {
        let id = self.objects.len();
        self.objects.push(Object::new(kind, content, folder));
        self.put(folder, name, id);
        id
    }

    /// Makes something without a name.
    pub(super) fn add_nameless(&mut self) -> Id {
        self.objects
            .push(Object::new(kind::FILE, Content::Unsure, Self::ROOT));
        self.objects.len() - 1
    }

    /// One more name.
    pub(super) fn put(&mut self, folder: Id, name: &[u8], id: Id) {
        // The planted defect: a link more is not counted.
        if !cfg!(feature = "planted") || self.objects[id].names == 0 {
            self.objects[id].names += 1;
        }
        self.objects[id].above = folder;
        self.objects[folder].entries.insert(name.to_vec(), id);
    }

    /// Takes a name away.
    pub(super) fn take(&mut self, folder: Id, name: &[u8]) -> Option<Id> {
        let id = self.objects[folder].entries.remove(name)?;
        self.objects[id].names -= 1;
        Some(id)
    }

    /// Whether a name can be removed as UNLINK does it.
    pub(super) fn may_unlink(&self, folder: Id, name: &[u8]) -> Result<()> {
        match self.objects[self.find(folder, name)?].kind {
            kind::DIRECTORY => Err(errno::ISDIR),
            _ => Ok(()),
        }
    }

    /// Whether a name can be removed as RMDIR does it.
    pub(super) fn may_remove_directory(&self, folder: Id, name: &[u8]) -> Result<()> {
        let found = self.folder(self.find(folder, name)?)?;
        match found.entries.is_empty() {
            true => Ok(()),
            false => Err(errno::NOTEMPTY),
        }
    }

    /// Whether a directory is another one, or in it at any depth.
    fn is_within(&self, mut id: Id, other: Id) -> bool {
        loop {
            if id == other {
                return true;
            }
            if id == Self::ROOT || self.objects[id].names == 0 {
                return false;
            }
            id = self.objects[id].above;
        }
    }

    /// Whether a rename succeeds.
    pub(super) fn may_rename(&self, from: Place<'_>, to: Place<'_>, how: Rename) -> Result<()> {
        self.folder(to.0)?;
        let moved = self.find(from.0, from.1)?;
        let over = match self.find(to.0, to.1) {
            Ok(over) => Some(over),
            Err(errno::NOENT) if self.objects[to.0].names > 0 => None,
            Err(errno) => return Err(errno),
        };
        let is_folder = |id: Id| self.objects[id].kind == kind::DIRECTORY;
        match (how, over) {
            (Rename::NoReplace, Some(_)) => return Err(errno::EXIST),
            (Rename::Exchange, None) => return Err(errno::NOENT),
            _ => {}
        }
        if is_folder(moved) && self.is_within(to.0, moved) {
            return Err(errno::INVAL);
        }
        match (how, over) {
            (Rename::Exchange, Some(over)) if is_folder(over) && self.is_within(from.0, over) => {
                Err(errno::INVAL)
            }
            (Rename::Replace, Some(over)) if over != moved => self.may_replace(from.0, moved, over),
            _ => Ok(()),
        }
    }

    /// Whether something else can take the place of what stands under a name.
    fn may_replace(&self, from: Id, moved: Id, over: Id) -> Result<()> {
        let [moved, replaced] = [moved, over].map(|id| &self.objects[id]);
        match [moved.kind, replaced.kind].map(|kind| kind == kind::DIRECTORY) {
            // A directory above is not empty, whatever else there is to say.
            [_, true] if self.is_within(from, over) => Err(errno::NOTEMPTY),
            [true, false] => Err(errno::NOTDIR),
            [false, true] => Err(errno::ISDIR),
            [true, true] if !replaced.entries.is_empty() => Err(errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    /// Carries out a rename that succeeds.
    pub(super) fn rename(&mut self, from: Place<'_>, to: Place<'_>, how: Rename) {
        let over = self.find(to.0, to.1).ok();
        let same = over == self.find(from.0, from.1).ok();
        if same {
            // Two names of one file: nothing happens (man 2 rename).
            return;
        }
        let over = over.and_then(|_| self.take(to.0, to.1));
        if let Some(moved) = self.take(from.0, from.1) {
            self.put(to.0, to.1, moved);
        }
        if let (Rename::Exchange, Some(over)) = (how, over) {
            self.put(from.0, from.1, over);
        }
    }
}

/// A directory and a name in it.
pub(super) type Place<'a> = (Id, &'a [u8]);

/// How a rename treats what stands under the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

impl Object {
    fn new(kind: u32, content: Content, above: Id) -> Self {
        Self {
            kind,
            names: 0,
            content,
            entries: BTreeMap::new(),
            above,
            attribute: Some(None),
        }
    }

    /// Its length, if that is certain and means anything.
    pub(super) fn len(&self) -> Option<u64> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes.len() as u64),
            Content::Len(len) => Some(*len),
            Content::Unsure => None,
        }
    }

    /// The bytes of a range, as far as they are there; `None` where that is not certain.
    pub(super) fn range(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let Content::Bytes(bytes) = &self.content else {
            return None;
        };
        let most = bytes.len() as u64;
        let (start, end) = (offset.min(most), offset.saturating_add(len).min(most));
        Some(&bytes[start as usize..end as usize])
    }

    /// Bytes are written; behind a gap of zeroes where they begin after the end.
    pub(super) fn write(&mut self, offset: u64, written: &[u8]) {
        let end = offset.saturating_add(written.len() as u64);
        if written.is_empty() {
            return;
        }
        match &mut self.content {
            Content::Bytes(bytes) if end <= MOST_CONTENT => {
                let (start, end) = (offset as usize, end as usize);
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(written);
            }
            _ => {
                if let Some(len) = self.len() {
                    self.content = Content::Len(len.max(end));
                }
            }
        }
    }

    /// The length changes.
    pub(super) fn resize(&mut self, len: u64) {
        match &mut self.content {
            Content::Bytes(bytes) if len <= MOST_CONTENT => bytes.resize(len as usize, 0),
            _ => self.content = Content::Len(len),
        }
        if len == 0 {
            self.content = Content::Bytes(Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Id = Tree::ROOT;

    fn tree() -> Tree {
        Tree::new(b"/secret")
    }

    #[test]
    fn a_tree_begins_as_the_share_does() {
        let tree = tree();
        assert_eq!(tree.object(ROOT).entries.len(), THINGS.len());
        let file = tree.find(ROOT, b"file").unwrap();
        assert_eq!(tree.object(file).range(8, 100), Some(&b"89"[..]));
        let folder = tree.find(ROOT, b"dir").unwrap();
        assert!(tree.find(folder, b"inner").is_ok());
        assert_eq!(tree.find(file, b"inner"), Err(errno::NOTDIR));
    }

    #[test]
    fn renames_are_refused_as_linux_refuses_them() {
        let mut tree = tree();
        let folder = tree.find(ROOT, b"dir").unwrap();
        tree.add(ROOT, b"empty", kind::DIRECTORY, Content::Unsure);
        let cases: &[(Place<'_>, Place<'_>, Rename, Result<()>)] = &[
            (
                (ROOT, b"none"),
                (ROOT, b"new"),
                Rename::Replace,
                Err(errno::NOENT),
            ),
            (
                (ROOT, b"file"),
                (ROOT, b"new"),
                Rename::Exchange,
                Err(errno::NOENT),
            ),
            (
                (ROOT, b"file"),
                (ROOT, b"pipe"),
                Rename::NoReplace,
                Err(errno::EXIST),
            ),
            (
                (ROOT, b"file"),
                (ROOT, b"empty"),
                Rename::Replace,
                Err(errno::ISDIR),
            ),
            (
                (ROOT, b"empty"),
                (ROOT, b"file"),
                Rename::Replace,
                Err(errno::NOTDIR),
            ),
            (
                (ROOT, b"empty"),
                (ROOT, b"dir"),
                Rename::Replace,
                Err(errno::NOTEMPTY),
            ),
            (
                (ROOT, b"dir"),
                (folder, b"new"),
                Rename::Replace,
                Err(errno::INVAL),
            ),
            (
                (ROOT, b"dir"),
                (folder, b"inner"),
                Rename::NoReplace,
                Err(errno::EXIST),
            ),
            (
                (folder, b"inner"),
                (ROOT, b"dir"),
                Rename::Replace,
                Err(errno::NOTEMPTY),
            ),
            ((ROOT, b"dir"), (ROOT, b"empty"), Rename::Replace, Ok(())),
            ((ROOT, b"dir"), (ROOT, b"file"), Rename::Exchange, Ok(())),
        ];
        for (from, to, how, due) in cases {
            assert_eq!(
                tree.may_rename(*from, *to, *how),
                *due,
                "{from:?} {to:?} {how:?}"
            );
        }
    }

    #[test]
    fn a_rename_over_a_file_takes_its_name() {
        let mut tree = tree();
        let (file, pipe) = (
            tree.find(ROOT, b"file").unwrap(),
            tree.find(ROOT, b"pipe").unwrap(),
        );
        tree.rename((ROOT, b"file"), (ROOT, b"pipe"), Rename::Replace);
        assert_eq!(tree.find(ROOT, b"pipe"), Ok(file));
        assert_eq!((tree.object(file).names, tree.object(pipe).names), (1, 0));
    }

    #[test]
    fn a_write_behind_the_end_leaves_zeroes() {
        let mut object = Object::new(kind::FILE, Content::Bytes(b"ab".to_vec()), ROOT);
        object.write(4, b"x");
        assert_eq!(object.content, Content::Bytes(b"ab\0\0x".to_vec()));
        object.write(1 << 40, b"yz");
        assert_eq!(object.len(), Some((1 << 40) + 2));
        object.resize(0);
        object.write(0, b"new");
        assert_eq!(object.range(0, 10), Some(&b"new"[..]));
    }
}
