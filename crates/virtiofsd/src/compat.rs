//! Legacy lists: `-o source=/srv,cache=none,no_writeback` as the long options that mean the same.
//!
//! The list is replaced where it stands, so that of a repeated option the last one wins across both spellings.
//! Names are those that the daemon shipped with QEMU and the first releases of the Rust daemon accept.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What is wrong with a legacy list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum BadList {
    #[error("'-o' takes a list of options")]
    Missing,
    #[error("unknown option '{0}' in '-o'")]
    Unknown(String),
    #[error("'-o {0}' takes a value, as in '-o {0}=...'")]
    NeedsValue(&'static str),
    #[error("'-o {0}' takes no value")]
    TakesNoValue(&'static str),
}

/// What a name in a list stands for.
enum Meaning {
    /// A complete argument.
    Switch(&'static str),
    /// An option whose value follows `=`.
    Value(&'static str),
    /// As `Value`, but the value is dropped: only the option's name is remembered.
    Dropped(&'static str),
}
use Meaning::{Dropped, Switch, Value};

const NAMES: &[(&str, Meaning)] = &[
    ("source", Value("--shared-dir")),
    ("sandbox", Value("--sandbox")),
    ("chroot", Switch("--sandbox=chroot")),
    ("no_chroot", Switch("--sandbox=namespace")),
    ("cache", Value("--cache")),
    ("timeout", Value("--timeout")),
    ("writeback", Switch("--writeback")),
    ("no_writeback", Switch("--no-writeback")),
    ("readdirplus", Switch("--readdirplus")),
    ("no_readdirplus", Switch("--no-readdirplus")),
    ("allow_direct_io", Switch("--allow-direct-io")),
    ("no_allow_direct_io", Switch("--no-allow-direct-io")),
    ("announce_submounts", Switch("--announce-submounts")),
    ("xattr", Switch("--xattr")),
    ("no_xattr", Switch("--no-xattr")),
    ("xattrmap", Value("--xattrmap")),
    ("posix_acl", Switch("--posix-acl=always")),
    ("no_posix_acl", Switch("--posix-acl=never")),
    ("security_label", Switch("--security-label=always")),
    ("no_security_label", Switch("--security-label=never")),
    ("killpriv_v2", Switch("--killpriv-v2")),
    ("no_killpriv_v2", Switch("--no-killpriv-v2")),
    ("flock", Switch("--flock")),
    ("no_flock", Switch("--no-flock")),
    ("posix_lock", Switch("--posix-lock")),
    ("no_posix_lock", Switch("--no-posix-lock")),
    ("modcaps", Value("--modcaps")),
    ("log_level", Value("--log-level")),
    ("loglevel", Value("--log-level")),
    ("debug", Switch("--debug")),
    ("max_write", Value("--max-write")),
    ("max_readahead", Value("--max-readahead")),
    ("max_background", Value("--max-background")),
    (
        "max_idle_threads",
        Dropped("--without-effect=max_idle_threads"),
    ),
    ("allow_root", Switch("--without-effect=allow_root")),
];

/// Every name that a list may hold.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// Replaces every legacy list in `arguments`, the program's name first, by long options.
pub fn expand(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, BadList> {
    let mut arguments = arguments.into_iter();
    let mut expanded: Vec<OsString> = arguments.by_ref().take(1).collect();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            expanded.push(argument);
            break;
        }
        let Some((switches, attached)) = split_cluster(argument.as_bytes()) else {
            expanded.push(argument);
            continue;
        };
        if !switches.is_empty() {
            expanded.push(OsString::from_vec([b"-", switches].concat()));
        }
        let list = match attached {
            [] => arguments.next().ok_or(BadList::Missing)?,
            attached => {
                OsStr::from_bytes(attached.strip_prefix(b"=").unwrap_or(attached)).to_owned()
            }
        };
        expand_list(list.as_bytes(), &mut expanded)?;
    }
    expanded.extend(arguments);
    Ok(expanded)
}

/// Splits `-o`, `-oLIST` or `-dfoLIST` into the switches before the `o` and what is attached to it.
fn split_cluster(argument: &[u8]) -> Option<(&[u8], &[u8])> {
    let letters = argument.strip_prefix(b"-")?;
    let at = letters
        .iter()
        .position(|letter| !matches!(letter, b'd' | b'f' | b'h' | b'V'))?;
    (letters[at] == b'o').then(|| (&letters[..at], &letters[at + 1..]))
}

fn expand_list(list: &[u8], into: &mut Vec<OsString>) -> Result<(), BadList> {
    for item in split_at_commas(list) {
        let mut parts = item.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let value = parts.next();
        let (name, meaning) = NAMES
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .ok_or_else(|| BadList::Unknown(String::from_utf8_lossy(name).into_owned()))?;
        into.push(match (meaning, value) {
            (Switch(argument), None) => argument.into(),
            (Value(option), Some(value)) => {
                OsString::from_vec([option.as_bytes(), b"=", value].concat())
            }
            (Dropped(argument), Some(_)) => argument.into(),
            (Switch(_), Some(_)) => return Err(BadList::TakesNoValue(name)),
            (Value(_) | Dropped(_), None) => return Err(BadList::NeedsValue(name)),
        });
    }
    Ok(())
}

/// The items of a list. Two commas are one that belongs to the value; empty items are left out.
fn split_at_commas(list: &[u8]) -> Vec<Vec<u8>> {
    let mut items = vec![Vec::new()];
    let mut bytes = list.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let literal = byte != b',' || bytes.next_if_eq(&b',').is_some();
        match items.last_mut() {
            Some(item) if literal => item.push(byte),
            _ => items.push(Vec::new()),
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(line: &str) -> Result<String, BadList> {
        let arguments = line.split(' ').map(OsString::from);
        expand(arguments).map(|list| {
            list.iter()
                .map(|a| a.to_string_lossy())
                .collect::<Vec<_>>()
                .join(" ")
        })
    }

    #[test]
    fn lists_become_the_long_options_that_mean_the_same() {
        let cases = [
            ("v -o source=/srv", "v --shared-dir=/srv"),
            ("v -osource=/srv,xattr", "v --shared-dir=/srv --xattr"),
            ("v -o=source=/srv", "v --shared-dir=/srv"),
            (
                "v -o source=/a,,b,cache=none",
                "v --shared-dir=/a,b --cache=none",
            ),
            ("v -o source=/a=b", "v --shared-dir=/a=b"),
            ("v -o source=/a,,,,b", "v --shared-dir=/a,,b"),
            (
                "v -o source=/a,,,cache=none",
                "v --shared-dir=/a, --cache=none",
            ),
            ("v -o ,xattr,", "v --xattr"),
            ("v -o chroot", "v --sandbox=chroot"),
            ("v -o no_chroot", "v --sandbox=namespace"),
            ("v -o sandbox=chroot -d", "v --sandbox=chroot -d"),
            ("v -o flock,no_posix_lock", "v --flock --no-posix-lock"),
            (
                "v -o log_level=warn,loglevel=err",
                "v --log-level=warn --log-level=err",
            ),
            (
                "v -o timeout=1.5,max_write=65536",
                "v --timeout=1.5 --max-write=65536",
            ),
            (
                "v -o modcaps=+sys_admin:-chown",
                "v --modcaps=+sys_admin:-chown",
            ),
            (
                "v -o max_idle_threads=3,allow_root",
                "v --without-effect=max_idle_threads --without-effect=allow_root",
            ),
            ("v -dfo xattr", "v -df --xattr"),
            ("v -d -f --xattr", "v -d -f --xattr"),
            (
                "v --cache=none -o cache=auto --tag t",
                "v --cache=none --cache=auto --tag t",
            ),
            ("v -- -o xattr", "v -- -o xattr"),
            ("v", "v"),
        ];
        for (line, want) in cases {
            assert_eq!(expanded(line).as_deref(), Ok(want), "{line}");
        }
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused_by_name() {
        let cases = [
            ("v -o", BadList::Missing),
            ("v -o nonsense", BadList::Unknown("nonsense".to_owned())),
            (
                "v -o cache=none,surce=/srv",
                BadList::Unknown("surce".to_owned()),
            ),
            ("v -o =x", BadList::Unknown(String::new())),
            ("v -o source", BadList::NeedsValue("source")),
            (
                "v -o max_idle_threads",
                BadList::NeedsValue("max_idle_threads"),
            ),
            ("v -o xattr=1", BadList::TakesNoValue("xattr")),
            ("v -o chroot=/srv", BadList::TakesNoValue("chroot")),
        ];
        for (line, want) in cases {
            assert_eq!(expanded(line), Err(want), "{line}");
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_passes_unchanged() {
        let arguments = vec![
            "v".into(),
            "-o".into(),
            OsString::from_vec(b"source=/\xff,,".to_vec()),
        ];
        let want: Vec<OsString> = vec![
            "v".into(),
            OsString::from_vec(b"--shared-dir=/\xff,".to_vec()),
        ];
        assert_eq!(expand(arguments), Ok(want));
    }
}
