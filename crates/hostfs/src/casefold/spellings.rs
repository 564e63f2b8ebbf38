//! What is remembered of the names in directories, so that a directory is read once and not for each name.
//!
//! What was read is believed while the directory's times say that nothing has changed. The
//! guest's own changes are entered as they are made, and the times then taken over; a change of
//! the host at the same moment would be missed, so what was carried on like this is read again
//! after a second. One lock, held while nothing is called; memory is bounded, and the directory
//! that was used longest ago goes first.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::Statx;
use virtiofs_protocol::NodeId;

use super::index::Index;

/// All indexes together, in bytes: some half a million names.
pub(crate) const MOST_BYTES: usize = 32 << 20;

/// Directories that are remembered at once.
const MOST_DIRECTORIES: usize = 1024;

/// Changes that are kept while a directory is read; after more, what was read is not remembered.
const MOST_CHANGES: usize = 4096;

/// Two ticks of the slowest clock that Linux is built with: two changes within may bear the same time.
const TICK: Duration = Duration::from_millis(20);

/// How long a directory is believed whose times have been taken over from changes of our own.
const CARRIED: Duration = Duration::from_secs(1);

/// When a directory changed last, and whether another change would show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl Stamp {
    pub(crate) fn of(stat: &Statx) -> Self {
        Self {
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    /// Whether the clock has moved on since: what is changed from now on bears another time.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.ctime.0)
            .ok()
            .map(|secs| Duration::new(secs, self.ctime.1))
            .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        changed
            .and_then(|changed| now.duration_since(changed).ok())
            .is_some_and(|age| age >= TICK)
    }
}

/// A change that the guest has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Made,
    Removed,
}

/// What is remembered of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// The directory has to be read.
    Nothing,
    /// The host's spelling, if it has one.
    Spelling(Option<CString>),
}

#[derive(Debug)]
enum Directory {
    /// A thread is reading it: what changes meanwhile.
    Reading(Vec<(Change, CString)>),
    Read(Read),
}

#[derive(Debug)]
struct Read {
    index: Index,
    stamp: Stamp,
    at: Instant,
    belief: Belief,
    /// [`Directories::uses`] when it was used last.
    used: u64,
}

/// For how long a directory is believed that bears the time it bore when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    Lasting,
    /// It was read in the tick of the clock in which it changed.
    Tick,
    /// Changes of our own were entered since.
    Carried,
}

impl Read {
    fn holds(&self, stamp: Stamp, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.at);
        self.stamp == stamp
            && match self.belief {
                Belief::Lasting => true,
                Belief::Tick => age < TICK,
                Belief::Carried => age < CARRIED,
            }
    }
}

#[derive(Debug, Default)]
struct Directories {
    by_node: HashMap<NodeId, Directory>,
    bytes: usize,
    uses: u64,
}

/// What is remembered of all directories.
#[derive(Debug)]
pub(crate) struct Spellings {
    most_bytes: usize,
    directories: Mutex<Directories>,
}

impl Spellings {
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            directories: Mutex::default(),
        }
    }

    /// Finds the host's spelling of a folded name in a directory that bears this stamp now.
    pub(crate) fn find(&self, directory: NodeId, stamp: Stamp, folded: &[u8]) -> Remembered {
        let mut directories = self.directories();
        directories.uses += 1;
        let uses = directories.uses;
        match directories.by_node.get_mut(&directory) {
            Some(Directory::Read(read)) if read.holds(stamp, Instant::now()) => {
                read.used = uses;
                Remembered::Spelling(read.index.first_alike(folded).map(CStr::to_owned))
            }
            _ => Remembered::Nothing,
        }
    }

    /// A thread begins to read a directory; returns whether what it reads can be remembered.
    ///
    /// To be called before the directory's stamp is taken, and followed by [`Self::end_reading`].
    pub(crate) fn begin_reading(&self, directory: NodeId) -> bool {
        let mut directories = self.directories();
        match directories.by_node.get(&directory) {
            Some(Directory::Reading(_)) => return false,
            Some(Directory::Read(_)) | None => {}
        }
        directories.put(directory, Directory::Reading(Vec::new()));
        true
    }

    /// Remembers what was read of a directory, or nothing.
    pub(crate) fn end_reading(&self, directory: NodeId, read: Option<(Index, Stamp)>) {
        let mut directories = self.directories();
        let Some(Directory::Reading(changes)) = directories.take(directory) else {
            return;
        };
        let Some((mut index, stamp)) = read else {
            return;
        };
        let belief = if stamp.is_settled(SystemTime::now()) {
            Belief::Lasting
        } else {
            Belief::Tick
        };
        for (change, name) in changes {
            enter(&mut index, change, &name);
        }
        directories.uses += 1;
        let used = directories.uses;
        let read = Read {
            index,
            stamp,
            at: Instant::now(),
            belief,
            used,
        };
        directories.put(directory, Directory::Read(read));
        let gone = directories.shrink(self.most_bytes);
        drop(directories);
        // Given back without the lock: it may be many.
        drop(gone);
    }

    /// The guest has changed a name; the directory bears this stamp since.
    pub(crate) fn note(&self, directory: NodeId, change: Change, name: &CStr, stamp: Stamp) {
        let mut directories = self.directories();
        match directories.take(directory) {
            None => {}
            Some(Directory::Reading(mut changes)) if changes.len() < MOST_CHANGES => {
                changes.push((change, name.to_owned()));
                directories.put(directory, Directory::Reading(changes));
            }
            Some(Directory::Reading(_)) => {}
            Some(Directory::Read(mut read)) => {
                enter(&mut read.index, change, name);
                read.stamp = stamp;
                read.belief = Belief::Carried;
                directories.put(directory, Directory::Read(read));
            }
        }
    }

    /// Whether changes of a directory are worth telling.
    pub(crate) fn remembers(&self, directory: NodeId) -> bool {
        self.directories().by_node.contains_key(&directory)
    }

    /// What was remembered of a directory was wrong.
    pub(crate) fn forget(&self, directory: NodeId) {
        let mut directories = self.directories();
        if let Some(Directory::Read(_)) = directories.by_node.get(&directory) {
            directories.take(directory);
        }
    }

    pub(crate) fn clear(&self) {
        *self.directories() = Directories::default();
    }

    fn directories(&self) -> MutexGuard<'_, Directories> {
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directories {
    fn put(&mut self, node: NodeId, directory: Directory) {
        self.bytes += bytes(&directory);
        if let Some(old) = self.by_node.insert(node, directory) {
            self.bytes -= bytes(&old);
        }
    }

    fn take(&mut self, node: NodeId) -> Option<Directory> {
        let directory = self.by_node.remove(&node)?;
        self.bytes -= bytes(&directory);
        Some(directory)
    }

    /// Takes out what was used longest ago until the rest is small enough.
    fn shrink(&mut self, most_bytes: usize) -> Vec<Directory> {
        let mut gone = Vec::new();
        while self.bytes > most_bytes || self.by_node.len() > MOST_DIRECTORIES {
            let oldest = self
                .by_node
                .iter()
                .filter_map(|(node, directory)| match directory {
                    Directory::Read(read) => Some((read.used, *node)),
                    Directory::Reading(_) => None,
                })
                .min_by_key(|(used, _)| *used);
            let Some((_, node)) = oldest else { break };
            gone.extend(self.take(node));
        }
        gone
    }
}

/// A directory without a name takes room, too.
fn bytes(directory: &Directory) -> usize {
    size_of::<Directory>()
        + match directory {
            Directory::Reading(_) => 0,
            Directory::Read(read) => read.index.bytes(),
        }
}

fn enter(index: &mut Index, change: Change, name: &CStr) {
    match change {
        Change::Made => index.insert(name),
        Change::Removed => index.remove(name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CaseFold;
    use super::*;

    const ONE: NodeId = NodeId::from_raw(7);
    const OTHER: NodeId = NodeId::from_raw(8);

    fn at(secs: i64) -> Stamp {
        Stamp {
            mtime: (secs, 0),
            ctime: (secs, 0),
        }
    }

    fn spellings(most_bytes: usize) -> Spellings {
        Spellings::new(most_bytes)
    }

    fn read(spellings: &Spellings, directory: NodeId, names: &[&CStr], stamp: Stamp) {
        assert!(spellings.begin_reading(directory));
        let mut index = Index::new(CaseFold::Ascii);
        names.iter().for_each(|name| index.insert(name));
        spellings.end_reading(directory, Some((index, stamp)));
    }

    fn spelled(name: &CStr) -> Remembered {
        Remembered::Spelling(Some(name.to_owned()))
    }

    #[test]
    fn a_directory_is_believed_until_its_times_change() {
        let spellings = spellings(MOST_BYTES);
        assert_eq!(spellings.find(ONE, at(1), b"a"), Remembered::Nothing);
        read(&spellings, ONE, &[c"A"], at(1));
        assert_eq!(spellings.find(ONE, at(1), b"a"), spelled(c"A"));
        assert_eq!(spellings.find(ONE, at(1), b"b"), Remembered::Spelling(None));
        assert_eq!(spellings.find(ONE, at(2), b"a"), Remembered::Nothing);
        assert_eq!(spellings.find(OTHER, at(1), b"a"), Remembered::Nothing);
        spellings.forget(ONE);
        assert_eq!(spellings.find(ONE, at(1), b"a"), Remembered::Nothing);
    }

    #[test]
    fn a_directory_that_was_read_as_it_changed_is_read_again_when_the_clock_has_moved() {
        let spellings = spellings(MOST_BYTES);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let stamp = at(i64::try_from(now.unwrap().as_secs()).unwrap() + 3600);
        read(&spellings, ONE, &[c"A"], stamp);
        std::thread::sleep(TICK);
        assert_eq!(spellings.find(ONE, stamp, b"a"), Remembered::Nothing);
    }

    /// A directory that changed in the future, before 1970 or at the end of all time may change again unseen.
    #[test]
    fn k_only_a_change_that_any_clock_has_left_behind_is_settled() {
        let after = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 40);
        let clocks = [before, after(0), after(1_700_000_000), after(1 << 62)];
        for (changed, settled) in [
            (i64::MIN, [false; 4]),
            (-1, [false; 4]),
            (0, [false, false, true, true]),
            (1_700_000_000, [false, false, false, true]),
            (i64::MAX, [false; 4]),
        ] {
            let told = clocks.map(|now| at(changed).is_settled(now));
            assert_eq!(told, settled, "changed at {changed}");
        }
    }

    #[test]
    fn changes_of_the_guest_are_entered_and_believed_for_a_second() {
        let spellings = spellings(MOST_BYTES);
        read(&spellings, ONE, &[c"A"], at(1));
        let begun = Instant::now();
        spellings.note(ONE, Change::Made, c"B", at(2));
        spellings.note(ONE, Change::Removed, c"A", at(3));
        let (a, b) = (
            spellings.find(ONE, at(3), b"a"),
            spellings.find(ONE, at(3), b"b"),
        );
        if begun.elapsed() < CARRIED / 2 {
            assert_eq!((a, b), (Remembered::Spelling(None), spelled(c"B")));
        }
        std::thread::sleep(CARRIED);
        assert_eq!(spellings.find(ONE, at(3), b"b"), Remembered::Nothing);
    }

    #[test]
    fn what_changes_while_a_directory_is_read_is_in_what_was_read() {
        let spellings = spellings(MOST_BYTES);
        assert!(spellings.begin_reading(ONE));
        assert!(!spellings.begin_reading(ONE), "one thread is enough");
        spellings.note(ONE, Change::Made, c"B", at(2));
        spellings.note(ONE, Change::Removed, c"A", at(3));
        let mut index = Index::new(CaseFold::Ascii);
        index.insert(c"A");
        spellings.end_reading(ONE, Some((index, at(1))));
        assert_eq!(spellings.find(ONE, at(1), b"a"), Remembered::Spelling(None));
        assert_eq!(spellings.find(ONE, at(1), b"b"), spelled(c"B"));
    }

    #[test]
    fn a_reading_that_failed_or_met_too_many_changes_is_not_remembered() {
        let spellings = spellings(MOST_BYTES);
        assert!(spellings.begin_reading(ONE));
        spellings.end_reading(ONE, None);
        assert!(!spellings.remembers(ONE));
        assert!(spellings.begin_reading(ONE));
        for _ in 0..=MOST_CHANGES {
            spellings.note(ONE, Change::Made, c"B", at(2));
        }
        spellings.end_reading(ONE, Some((Index::new(CaseFold::Ascii), at(1))));
        assert_eq!(spellings.find(ONE, at(1), b"b"), Remembered::Nothing);
    }

    #[test]
    fn the_directory_that_was_used_longest_ago_makes_room() {
        let room = 3 * (1 + 48 + size_of::<Directory>());
        let spellings = spellings(room);
        for number in 1..=3 {
            read(&spellings, NodeId::from_raw(number), &[c"A"], at(1));
        }
        assert_eq!(
            spellings.find(NodeId::from_raw(1), at(1), b"a"),
            spelled(c"A")
        );
        read(&spellings, NodeId::from_raw(4), &[c"A"], at(1));
        let kept = (1..=4).map(|number| spellings.remembers(NodeId::from_raw(number)));
        assert_eq!(kept.collect::<Vec<_>>(), [true, false, true, true]);
        assert!(spellings.directories().bytes <= room);
        spellings.clear();
        assert_eq!(spellings.directories().bytes, 0);
    }

    #[test]
    fn directories_are_counted_even_if_they_are_empty() {
        let spellings = spellings(MOST_BYTES);
        for number in 0..2000 {
            read(&spellings, NodeId::from_raw(number), &[], at(1));
        }
        assert_eq!(spellings.directories().by_node.len(), MOST_DIRECTORIES);
        assert!(spellings.remembers(NodeId::from_raw(1999)));
    }
}
