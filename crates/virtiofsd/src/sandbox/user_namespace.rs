//! Who is who inside a user namespace: the maps of users and groups (man 7 user_namespaces).

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{CapabilitySet, set_thread_res_gid, set_thread_res_uid};

use super::{Mode, Owner, SandboxError, step};
use crate::cli::values::IdMapEntry;

/// The maps of a user namespace, and who writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maps {
    users: Map,
    groups: Map,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Map {
    entries: Vec<IdMapEntry>,
    writer: Writer,
}

/// Who may write a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// We do: one line of our own id, or any as CAP_SETUID or CAP_SETGID allows.
    Ourselves,
    /// A program that looks into `/etc/subuid` or `/etc/subgid` for what this user was given.
    Program,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    Users,
    Groups,
}

impl Ids {
    fn program(self) -> &'static str {
        match self {
            Self::Users => "newuidmap",
            Self::Groups => "newgidmap",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Users => "uid_map",
            Self::Groups => "gid_map",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Users => "--uid-map",
            Self::Groups => "--gid-map",
        }
    }

    fn privilege(self) -> CapabilitySet {
        match self {
            Self::Users => CapabilitySet::SETUID,
            Self::Groups => CapabilitySet::SETGID,
        }
    }

    fn own(self) -> u32 {
        match self {
            Self::Users => geteuid().as_raw(),
            Self::Groups => getegid().as_raw(),
        }
    }
}

impl Maps {
    /// What was asked for; where nothing was, every id as itself, or our own alone where no more is allowed.
    pub(super) fn new(users: &[IdMapEntry], groups: &[IdMapEntry], have: CapabilitySet) -> Self {
        Self {
            users: Map::new(Ids::Users, users, have),
            groups: Map::new(Ids::Groups, groups, have),
        }
    }

    /// Writes both maps of a process that waits for them.
    pub(crate) fn write(&self, process: i32) -> Result<(), SandboxError> {
        if self.groups.writer == Writer::Ourselves && !self.keeps_groups_droppable() {
            // Else a group that denies access could be dropped by anyone (man 7 user_namespaces).
            let path = format!("/proc/{process}/setgroups");
            std::fs::write(&path, "deny").map_err(|error| refused(path, &error))?;
        }
        self.groups.write(Ids::Groups, process)?;
        self.users.write(Ids::Users, process)
    }

    fn keeps_groups_droppable(&self) -> bool {
        rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETGID))
    }

    /// Becomes somebody whom the maps know, where our own id is not among them.
    pub(super) fn take_identity(&self) -> Result<(), SandboxError> {
        const ADVICE: &str = "map the daemon's own id, or 0";
        if let Some(gid) = self.groups.identity(Ids::Groups) {
            let gid = Gid::from_raw(gid);
            set_thread_res_gid(gid, gid, gid).map_err(step("setresgid", ADVICE))?;
        }
        if let Some(uid) = self.users.identity(Ids::Users) {
            let uid = Uid::from_raw(uid);
            set_thread_res_uid(uid, uid, uid).map_err(step("setresuid", ADVICE))?;
        }
        Ok(())
    }
}

impl Map {
    fn new(ids: Ids, asked: &[IdMapEntry], have: CapabilitySet) -> Self {
        let own = ids.own();
        let privileged = have.contains(ids.privilege());
        let alone = |entry: &IdMapEntry| entry.host == own && entry.count == 1;
        let entries = match asked {
            [] if privileged => every_id_as_itself(ids).unwrap_or_else(|| vec![as_itself(own)]),
            [] => vec![as_itself(own)],
            asked => asked.to_vec(),
        };
        let writer = if privileged || (entries.len() == 1 && entries.iter().all(alone)) {
            Writer::Ourselves
        } else {
            Writer::Program
        };
        Self { entries, writer }
    }

    fn write(&self, ids: Ids, process: i32) -> Result<(), SandboxError> {
        match self.writer {
            Writer::Ourselves => {
                let path = format!("/proc/{process}/{}", ids.file());
                std::fs::write(&path, self.lines()).map_err(|error| refused(path, &error))
            }
            Writer::Program => run(ids, &self.arguments(process)),
        }
    }

    fn lines(&self) -> String {
        self.entries.iter().fold(String::new(), |mut text, entry| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} {} {}", entry.inside, entry.host, entry.count);
            text
        })
    }

    /// The process, then three numbers for each line (man 1 newuidmap).
    fn arguments(&self, process: i32) -> Vec<String> {
        let numbers = self
            .entries
            .iter()
            .flat_map(|entry| [entry.inside, entry.host, entry.count]);
        std::iter::once(process.to_string())
            .chain(numbers.map(|number| number.to_string()))
            .collect()
    }

    /// The id to take on inside: none where the one we come with is mapped.
    fn identity(&self, ids: Ids) -> Option<u32> {
        let inside_own = ids.own();
        let holds = |first: u32, count: u32, id: u32| id >= first && id - first < count;
        if self
            .entries
            .iter()
            .any(|entry| holds(entry.inside, entry.count, inside_own) && !is_overflow(inside_own))
        {
            return None;
        }
        let root = self
            .entries
            .iter()
            .any(|entry| holds(entry.inside, entry.count, 0));
        if root {
            return Some(0);
        }
        self.entries.first().map(|entry| entry.inside)
    }
}

/// What the kernel shows for an id that no map knows (`/proc/sys/kernel/overflowuid`).
fn is_overflow(id: u32) -> bool {
    id == 65534
}

/// What is of no use here: a user namespace of ours refuses device nodes, and in one with a single id, ours or a
/// container's, there is nobody to act as.
pub(super) fn useless(mode: &Mode) -> CapabilitySet {
    let mut useless = CapabilitySet::empty();
    if let Mode::Namespace(Owner::User(_)) = mode {
        useless |= CapabilitySet::MKNOD;
    }
    let one = |ids| every_id_as_itself(ids).is_some_and(|entries| is_one_id(&entries));
    if one(Ids::Users) && one(Ids::Groups) {
        useless |= CapabilitySet::SETUID | CapabilitySet::SETGID;
    }
    useless
}

fn is_one_id(entries: &[IdMapEntry]) -> bool {
    entries.len() == 1 && entries.iter().all(|entry| entry.count == 1)
}

fn as_itself(id: u32) -> IdMapEntry {
    IdMapEntry {
        inside: id,
        host: id,
        count: 1,
    }
}

/// Each id that this process's own user namespace knows, as itself.
fn every_id_as_itself(ids: Ids) -> Option<Vec<IdMapEntry>> {
    let text = std::fs::read_to_string(format!("/proc/self/{}", ids.file())).ok()?;
    identity_of(&text)
}

fn identity_of(text: &str) -> Option<Vec<IdMapEntry>> {
    let line = |line: &str| {
        let numbers: Vec<u32> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let [inside, _, count] = numbers[..] else {
            return None;
        };
        Some(IdMapEntry {
            inside,
            host: inside,
            count,
        })
    };
    text.lines().map(line).collect()
}

fn run(ids: Ids, arguments: &[String]) -> Result<(), SandboxError> {
    let name = ids.program();
    let map = |why: String| SandboxError::IdMap {
        option: ids.option(),
        why,
    };
    let program = found(name).ok_or_else(|| {
        map(format!("{name} is needed to map ids other than one's own and is not installed; it comes with 'uidmap' or 'shadow'"))
    })?;
    let output = Command::new(&program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| map(format!("{}: {error}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // A set-id bit or a file capability counts for nothing then (man 2 prctl).
    let advice = if rustix::thread::no_new_privs().unwrap_or(false) {
        "it has no privileges under no-new-privileges: map one's own id alone, or lift that"
            .to_owned()
    } else {
        format!("see /etc/sub{}", &ids.file()[..3])
    };
    Err(map(format!(
        "{}: {}; {advice}",
        program.display(),
        said.lines().next().unwrap_or("failed without a word"),
    )))
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn refused(path: String, error: &std::io::Error) -> SandboxError {
    step(
        path,
        "this host or container forbids the map; see --uid-map and --gid-map, or try --sandbox auto",
    )(rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::PERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: CapabilitySet = CapabilitySet::empty();

    fn entry(inside: u32, host: u32, count: u32) -> IdMapEntry {
        IdMapEntry {
            inside,
            host,
            count,
        }
    }

    #[test]
    fn an_ordinary_user_gets_its_own_id_and_needs_nobody() {
        let own = geteuid().as_raw();
        let map = Map::new(Ids::Users, &[], NOTHING);
        assert_eq!(
            (map.lines(), map.writer),
            (format!("{own} {own} 1\n"), Writer::Ourselves)
        );
        let zero = Map::new(Ids::Users, &[entry(0, own, 1)], NOTHING);
        assert_eq!(zero.writer, Writer::Ourselves);
    }

    #[test]
    fn other_ids_are_mapped_by_the_program_or_with_the_privilege() {
        let own = geteuid().as_raw();
        let asked = [entry(0, own, 1), entry(1, 100_000, 65_536)];
        let map = Map::new(Ids::Users, &asked, NOTHING);
        assert_eq!(map.writer, Writer::Program);
        assert_eq!(
            map.arguments(77),
            ["77", "0", &own.to_string(), "1", "1", "100000", "65536"]
        );
        let map = Map::new(Ids::Users, &asked, CapabilitySet::SETUID);
        assert_eq!(map.writer, Writer::Ourselves);
        assert_eq!(map.lines(), format!("0 {own} 1\n1 100000 65536\n"));
    }

    #[test]
    fn with_the_privilege_every_known_id_is_itself() {
        assert_eq!(
            identity_of("         0          0 4294967295\n"),
            Some(vec![entry(0, 0, u32::MAX)])
        );
        assert_eq!(
            identity_of("0 1000 1\n1 100000 65536\n"),
            Some(vec![entry(0, 0, 1), entry(1, 1, 65_536)])
        );
        assert_eq!(identity_of("nonsense"), None);
    }

    #[test]
    fn one_line_of_one_id_is_nobody_but_ourselves() {
        assert!(is_one_id(&[entry(0, 0, 1)]));
        assert!(!is_one_id(&[entry(0, 0, 2)]));
        assert!(!is_one_id(&[entry(0, 0, 1), entry(1, 1, 1)]));
        assert!(!is_one_id(&[]));
    }

    #[test]
    fn an_id_that_is_not_mapped_becomes_root_or_the_first() {
        let map = |entries: &[IdMapEntry]| Map {
            entries: entries.to_vec(),
            writer: Writer::Ourselves,
        };
        let own = geteuid().as_raw();
        assert_eq!(map(&[entry(own, 5, 1)]).identity(Ids::Users), None);
        let others = own + 10;
        assert_eq!(
            map(&[entry(others, 100, 5)]).identity(Ids::Users),
            Some(others)
        );
    }
}
