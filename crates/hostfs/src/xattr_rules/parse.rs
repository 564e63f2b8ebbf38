//! The rules' language: `SEP type SEP scope SEP key SEP prepend SEP`, again and again.
//!
//! The separator is a rule's own: its first character that is not white space. White space may stand between
//! rules. `SEP map SEP key SEP prepend SEP` is short for a list that is usual, and ends the map.

use super::{Rule, Scope, Verdict};

/// What is wrong with a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadXattrMap {
    /// There is no rule in it.
    Empty,
    /// A rule ends before its last separator; which field was being read.
    Unfinished {
        /// The rule's number, counted from 1.
        rule: usize,
        /// The field.
        field: &'static str,
    },
    /// A field has a value that is not known.
    Unknown {
        /// The rule's number, counted from 1.
        rule: usize,
        /// The field.
        field: &'static str,
        /// What stands there.
        found: String,
    },
    /// Something follows a `map` rule.
    AfterMap {
        /// The rule's number, counted from 1.
        rule: usize,
    },
    /// A guest may use a name that no rule matches.
    Incomplete,
    /// A NUL byte, which no attribute's name has.
    Nul,
}

impl std::fmt::Display for BadXattrMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("the map has no rule"),
            Self::Unfinished { rule, field } => {
                write!(
                    f,
                    "rule {rule} ends inside its {field}: a separator is missing"
                )
            }
            Self::Unknown { rule, field, found } => {
                let known = match *field {
                    "scope" => "client, server or all",
                    _ => "prefix, ok, bad, unsupported or map",
                };
                write!(f, "rule {rule} has the {field} '{found}', not {known}")
            }
            Self::AfterMap { rule } => {
                write!(f, "rule {rule} is of type map, which has to be the last")
            }
            Self::Incomplete => f.write_str(
                "some names are matched by no rule: end the map with one for all, as ':bad:all:::'",
            ),
            Self::Nul => f.write_str("the map has a NUL byte"),
        }
    }
}

impl std::error::Error for BadXattrMap {}

pub(super) fn rules(map: &[u8]) -> Result<Vec<Rule>, BadXattrMap> {
    if map.contains(&0) {
        return Err(BadXattrMap::Nul);
    }
    let mut rules = Vec::new();
    let mut text = Text {
        rest: map.trim_ascii(),
        rule: 0,
        separator: 0,
    };
    while text.begin_rule() {
        let kind = text.field("type")?;
        if kind == b"map" {
            let (key, prepend) = (text.field("key")?, text.field("prepend")?);
            if !text.rest.trim_ascii().is_empty() {
                return Err(BadXattrMap::AfterMap { rule: text.rule });
            }
            rules.extend(map_rule(key, prepend));
            return Ok(rules);
        }
        let verdict = match kind {
            b"prefix" => Verdict::Prefix,
            b"ok" => Verdict::Same,
            b"bad" => Verdict::Bad,
            b"unsupported" => Verdict::Unsupported,
            other => return Err(text.unknown("type", other)),
        };
        let scope = match text.field("scope")? {
            b"client" => Scope::Client,
            b"server" => Scope::Server,
            b"all" => Scope::All,
            other => return Err(text.unknown("scope", other)),
        };
        rules.push(rule(
            verdict,
            scope,
            text.field("key")?,
            text.field("prepend")?,
        ));
    }
    if rules.is_empty() {
        return Err(BadXattrMap::Empty);
    }
    Ok(rules)
}

fn rule(verdict: Verdict, scope: Scope, key: &[u8], prepend: &[u8]) -> Rule {
    Rule {
        verdict,
        scope,
        key: key.into(),
        prepend: prepend.into(),
    }
}

/// What `map` is short for.
fn map_rule(key: &[u8], prepend: &[u8]) -> Vec<Rule> {
    use Scope::{All, Client, Server};
    let renamed = rule(Verdict::Prefix, All, key, prepend);
    if key.is_empty() {
        // Every name gets the prefix, so what has none on the host is not the guest's.
        return vec![renamed, rule(Verdict::Bad, All, b"", b"")];
    }
    vec![
        renamed,
        rule(Verdict::Bad, Server, b"", key),
        rule(Verdict::Bad, Client, prepend, b""),
        rule(Verdict::Same, All, b"", b""),
    ]
}

/// What is left of the map, and the rule that is being read.
struct Text<'a> {
    rest: &'a [u8],
    rule: usize,
    separator: u8,
}

impl<'a> Text<'a> {
    /// Takes a rule's first character, which is its separator; false at the end of the map.
    fn begin_rule(&mut self) -> bool {
        let Some((separator, rest)) = self.rest.trim_ascii_start().split_first() else {
            return false;
        };
        (self.separator, self.rest) = (*separator, rest);
        self.rule += 1;
        true
    }

    fn field(&mut self, field: &'static str) -> Result<&'a [u8], BadXattrMap> {
        let end = self.rest.iter().position(|byte| *byte == self.separator);
        let end = end.ok_or(BadXattrMap::Unfinished {
            rule: self.rule,
            field,
        })?;
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(value)
    }

    fn unknown(&self, field: &'static str, found: &[u8]) -> BadXattrMap {
        BadXattrMap::Unknown {
            rule: self.rule,
            field,
            found: String::from_utf8_lossy(found).into_owned(),
        }
    }
}
