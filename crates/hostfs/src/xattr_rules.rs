//! Rules by which names of extended attributes differ between guest and host (`--xattrmap`).
//!
//! A list of rules; the first that matches a name decides. Rules about the *client* look at names that the guest
//! uses (set, get, remove), rules about the *server* at names that the host lists. Some rule has to match every
//! name of the guest; a host's name that no rule matches is hidden.

mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use virtiofs_protocol::Errno;

pub use parse::BadXattrMap;

/// Which names a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Client,
    Server,
    All,
}

/// What happens to a name that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The host's name is the guest's with something in front.
    Prefix,
    /// The same on both sides.
    Same,
    /// The guest is refused (EPERM), the host's name is hidden.
    Bad,
    /// The guest is told that such names do not exist here (EOPNOTSUPP), the host's name is hidden.
    Unsupported,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    verdict: Verdict,
    scope: Scope,
    /// How a guest's name begins.
    key: Box<[u8]>,
    /// How a host's name begins, and what is put in front of the guest's.
    prepend: Box<[u8]>,
}

/// A complete map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrRules(Vec<Rule>);

impl XattrRules {
    /// Reads a map as `--xattrmap` states it.
    ///
    /// # Errors
    ///
    /// [`BadXattrMap`], which says what was expected where.
    pub fn parse(map: &[u8]) -> Result<Self, BadXattrMap> {
        let rules = parse::rules(map)?;
        let matches_all = |rule: &Rule| rule.scope != Scope::Server && rule.key.is_empty();
        if rules.iter().any(matches_all) {
            Ok(Self(rules))
        } else {
            Err(BadXattrMap::Incomplete)
        }
    }

    /// The host's name of an attribute that the guest names.
    ///
    /// # Errors
    ///
    /// EPERM and EOPNOTSUPP as the rules have it; ERANGE for a name that grows beyond what Linux takes.
    pub(crate) fn host_name<'a>(&self, name: &'a CStr) -> Result<Cow<'a, CStr>, Errno> {
        let bytes = name.to_bytes();
        let applies = |rule: &&Rule| rule.scope != Scope::Server && bytes.starts_with(&rule.key);
        // `parse` has made sure that there is one.
        let rule = self.0.iter().find(applies).ok_or(Errno::PERM)?;
        match rule.verdict {
            Verdict::Same => Ok(Cow::Borrowed(name)),
            Verdict::Bad => Err(Errno::PERM),
            Verdict::Unsupported => Err(Errno::OPNOTSUPP),
            // Neither part holds a NUL: one was a C string, the other came from the command line.
            Verdict::Prefix => CString::new([&rule.prepend, bytes].concat())
                .map(Cow::Owned)
                .map_err(|_| Errno::INVAL),
        }
    }

    /// The guest's name of an attribute that the host lists; `None` where it is hidden.
    pub(crate) fn guest_name<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        let applies = |rule: &&Rule| rule.scope != Scope::Client && name.starts_with(&rule.prepend);
        let rule = self.0.iter().find(applies)?;
        match rule.verdict {
            Verdict::Same => Some(name),
            Verdict::Bad | Verdict::Unsupported => None,
            Verdict::Prefix => name
                .strip_prefix(&*rule.prepend)
                .filter(|rest| !rest.is_empty()),
        }
    }
}
