//! From a name as the guest spells it to the host's, where names are found whatever their case.
//!
//! The guest's own spelling goes first, always and by asking the host. Only where that stands for
//! nothing is the directory searched: of what was read of it before while its times say that it is
//! the same, else by reading it, on a thread that may sleep. What comes out of a directory is a
//! [`Name`] like any other. Without the option nothing here makes a system call.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::OFlags;
use virtiofs_protocol::{Context, DirOffset, Errno, Name, NodeId, Outcome, Refusal};

use crate::PassthroughFs;
use crate::casefold::CaseFold;
use crate::casefold::index::Index;
use crate::casefold::spellings::{Change, MOST_BYTES, Remembered, Stamp};
use crate::handle::cursor::{Cursor, Visit};
use crate::inode::Node;
use crate::ops::{sleeps, still_waited_for};
use crate::sys;

/// A directory with its descriptor.
pub(crate) type Place<'a> = (&'a Node, BorrowedFd<'a>);

/// How often what was remembered may turn out to be gone.
const ATTEMPTS: usize = 4;

/// A name for the host.
#[derive(Debug)]
pub(crate) enum Spelling<'a> {
    Guests(Name<'a>),
    Hosts(CString),
}

impl Spelling<'_> {
    pub(crate) fn name(&self) -> Result<Name<'_>, Errno> {
        match self {
            Self::Guests(name) => Ok(*name),
            Self::Hosts(name) => Name::new(name),
        }
    }
}

/// What reading a directory for one name comes to.
struct Reading {
    folded: Vec<u8>,
    scratch: Vec<u8>,
    found: Option<CString>,
    /// The whole directory, unless it is too large to remember.
    index: Option<Index>,
    last: DirOffset,
}

impl PassthroughFs {
    /// Does something by the guest's spelling and, where that stands for nothing, by the host's.
    pub(crate) fn by_spelling<T>(
        &self,
        cx: &Context<'_>,
        place: Place<'_>,
        name: Name<'_>,
        act: impl Fn(Name<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        let done = act(name);
        if self.options.casefold == CaseFold::Off
            || !matches!(done, Err(Refusal::Errno(Errno::NOENT)))
        {
            return done;
        }
        match self.alike(cx, place, name)? {
            Some(host) => act(Name::new(&host)?),
            None => done,
        }
    }

    /// The name by which something is made or replaced: that of what the guest would find, if there is any.
    pub(crate) fn spelling<'a>(
        &self,
        cx: &Context<'_>,
        place: Place<'_>,
        name: Name<'a>,
    ) -> Outcome<Spelling<'a>> {
        if self.options.casefold == CaseFold::Off {
            return Ok(Spelling::Guests(name));
        }
        match sys::stat_name(place.1, name) {
            Err(Errno::NOENT) => {}
            // What else is wrong is told by what is to be done.
            Ok(_) | Err(_) => return Ok(Spelling::Guests(name)),
        }
        let host = self.alike(cx, place, name)?;
        Ok(host.map_or(Spelling::Guests(name), Spelling::Hosts))
    }

    /// The guest has made or removed a name.
    pub(crate) fn note_change(&self, place: Place<'_>, change: Change, name: Name<'_>) {
        if self.options.casefold == CaseFold::Off {
            return;
        }
        let directory = NodeId::from_raw(place.0.number);
        if !self.spellings.remembers(directory) {
            return;
        }
        match sys::stat_fd(place.1) {
            Ok(stat) => {
                let stamp = Stamp::of(&stat);
                self.spellings
                    .note(directory, change, name.as_c_str(), stamp);
            }
            Err(_) => self.spellings.forget(directory),
        }
    }

    /// What the host calls a name that it does not have in the guest's spelling.
    fn alike(
        &self,
        cx: &Context<'_>,
        place: Place<'_>,
        name: Name<'_>,
    ) -> Outcome<Option<CString>> {
        let directory = NodeId::from_raw(place.0.number);
        let folded = self.options.casefold.fold(name.to_bytes());
        for _ in 0..ATTEMPTS {
            let stamp = Stamp::of(&sys::stat_fd(place.1)?);
            let found = match self.spellings.find(directory, stamp, &folded) {
                Remembered::Spelling(found) => found,
                Remembered::Nothing => {
                    sleeps(cx)?;
                    self.read_spellings(cx, place, &folded)?
                }
            };
            let Some(host) = found else { return Ok(None) };
            match sys::stat_name(place.1, Name::new(&host)?) {
                // The host has removed it, and changed its directory as the guest did.
                Err(Errno::NOENT) => self.spellings.forget(directory),
                Ok(_) | Err(_) => return Ok(Some(host)),
            }
        }
        Ok(None)
    }

    /// Reads a directory, remembers it, and returns what one folded name is called in it.
    fn read_spellings(
        &self,
        cx: &Context<'_>,
        place: Place<'_>,
        folded: &[u8],
    ) -> Result<Option<CString>, Errno> {
        let directory = NodeId::from_raw(place.0.number);
        let remembers = self.spellings.begin_reading(directory);
        let read = self.read_names(cx, place.1, folded);
        let (found, kept) = match read {
            Ok((reading, stamp)) => (Ok(reading.found), reading.index.map(|index| (index, stamp))),
            // Whoever may not list a directory finds the names that it can tell exactly; one that
            // was removed has none.
            Err(Errno::ACCESS | Errno::NOENT) => (Ok(None), None),
            Err(errno) => (Err(errno), None),
        };
        if remembers {
            self.spellings.end_reading(directory, kept);
        }
        found
    }

    fn read_names(
        &self,
        cx: &Context<'_>,
        directory: BorrowedFd<'_>,
        folded: &[u8],
    ) -> Result<(Reading, Stamp), Errno> {
        let proc_self_fd = self.root.proc_self_fd.as_fd();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = self.retried(|| sys::reopen(proc_self_fd, directory, flags))?;
        // Before the first name is read: what changes from here on shows.
        let stamp = Stamp::of(&sys::stat_fd(&open)?);
        let mut reading = Reading {
            folded: folded.to_owned(),
            scratch: Vec::new(),
            found: None,
            index: Some(Index::new(self.options.casefold)),
            last: DirOffset(0),
        };
        let mut cursor = Cursor::default();
        loop {
            let from = reading.last;
            // Stops silently at an error behind some names; going on from there meets it again.
            cursor.walk(open.as_fd(), from, |entry, name| {
                reading.last = entry.next;
                if let Ok(name) = Name::new(name) {
                    reading.take(self.options.casefold, name);
                }
                // A directory may be long, and on a store that lies have no end.
                still_waited_for(cx)?;
                Ok(Visit::Next)
            })?;
            if reading.last == from {
                return Ok((reading, stamp));
            }
        }
    }
}

impl Reading {
    fn take(&mut self, rule: CaseFold, name: Name<'_>) {
        rule.fold_into(name.to_bytes(), &mut self.scratch);
        let first = |found: &CString| name.as_c_str() < found.as_c_str();
        if self.scratch == self.folded && self.found.as_ref().is_none_or(first) {
            self.found = Some(name.as_c_str().to_owned());
        }
        if let Some(index) = &mut self.index {
            index.insert(name.as_c_str());
            if index.bytes() > MOST_BYTES {
                self.index = None;
            }
        }
    }
}
