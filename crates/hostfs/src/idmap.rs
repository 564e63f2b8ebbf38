//! Users and groups by their numbers in the guest and on the host.
//!
//! Each direction has a table of its own: what the guest says becomes a number of the host
//! (owners that it sets, callers that create), what the host says one of the guest (owners that are
//! answered). A number without a rule stays what it is. The types keep the sides apart: no system
//! call takes a [`Guest`], no reply a [`Host`].

use virtiofs_protocol::{Errno, Gid, Guest, Uid};

/// A value in the host's numbering: never shown to a guest before it was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host<T>(pub(crate) T);

/// Numbers that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// How many; at least one.
    pub count: u32,
}

impl IdRange {
    /// The last number; `None` where the range is empty or holds 2^32-1, which names nobody.
    fn last(self) -> Option<u32> {
        self.first
            .checked_add(self.count)
            .filter(|_| self.count > 0)
            .map(|end| end - 1)
    }
}

/// One rule of `--translate-uid` or `--translate-gid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdRule {
    /// What the guest says becomes numbers of the host from this one on.
    Guest(IdRange, u32),
    /// What the host says becomes numbers of the guest from this one on.
    Host(IdRange, u32),
    /// All that the guest says becomes one number of the host.
    SquashGuest(IdRange, u32),
    /// All that the host says becomes one number of the guest.
    SquashHost(IdRange, u32),
    /// The guest may not make these the owner of anything.
    ForbidGuest(IdRange),
    /// Numbers of the guest are those of the host from this one on, both ways.
    Map(IdRange, u32),
}

/// Why rules make no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadIdRules {
    /// A range is empty or ends beyond the last number that names somebody.
    Range {
        /// The first number.
        first: u32,
        /// How many.
        count: u32,
    },
    /// A number has two meanings.
    Twice {
        /// Whose number it is.
        side: &'static str,
        /// The number.
        id: u32,
    },
}

impl std::fmt::Display for BadIdRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Range { first, count } => write!(
                f,
                "a range holds at least one id and ends before 4294967295; this one starts at {first} and holds {count}"
            ),
            Self::Twice { side, id } => write!(f, "{side} id {id} has more than one rule"),
        }
    }
}

impl std::error::Error for BadIdRules {}

/// What becomes of the numbers of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// They follow one another from this one on.
    From(u32),
    /// All are this one.
    One(u32),
    /// They may not be used.
    Forbidden,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u32,
    last: u32,
    meaning: Meaning,
}

/// One direction: spans in order, none of which meets another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table(Vec<Span>);

impl Table {
    fn add(&mut self, range: IdRange, meaning: Meaning) -> Result<(), BadIdRules> {
        let IdRange { first, count } = range;
        let target = match meaning {
            Meaning::From(first) => IdRange { first, count },
            Meaning::One(first) => IdRange { first, count: 1 },
            Meaning::Forbidden => range,
        };
        let bad = |IdRange { first, count }| BadIdRules::Range { first, count };
        target.last().ok_or_else(|| bad(target))?;
        let last = range.last().ok_or_else(|| bad(range))?;
        self.0.push(Span {
            first,
            last,
            meaning,
        });
        Ok(())
    }

    fn sorted(mut self, side: &'static str) -> Result<Self, BadIdRules> {
        self.0.sort_unstable_by_key(|span| span.first);
        let meets = self.0.windows(2).find(|two| two[1].first <= two[0].last);
        match meets {
            Some(two) => Err(BadIdRules::Twice {
                side,
                id: two[1].first,
            }),
            None => Ok(self),
        }
    }

    /// The number on the other side; `None` where it is forbidden.
    fn get(&self, id: u32) -> Option<u32> {
        let behind = self.0.partition_point(|span| span.first <= id);
        let span = behind.checked_sub(1).and_then(|at| self.0.get(at));
        match span.filter(|span| id <= span.last) {
            None => Some(id),
            Some(span) => match span.meaning {
                // No overflow: the target of the whole range was checked when it was added.
                Meaning::From(first) => Some(first + (id - span.first)),
                Meaning::One(id) => Some(id),
                Meaning::Forbidden => None,
            },
        }
    }
}

/// Numbers of one kind, users or groups, on both sides. The default changes none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    to_host: Table,
    to_guest: Table,
}

impl IdMap {
    /// Puts rules together.
    ///
    /// # Errors
    ///
    /// [`BadIdRules`] when a range is none, or two rules speak about one number.
    pub fn new(rules: impl IntoIterator<Item = IdRule>) -> Result<Self, BadIdRules> {
        let (mut to_host, mut to_guest) = (Table::default(), Table::default());
        for rule in rules {
            match rule {
                IdRule::Guest(from, to) => to_host.add(from, Meaning::From(to))?,
                IdRule::Host(from, to) => to_guest.add(from, Meaning::From(to))?,
                IdRule::SquashGuest(from, to) => to_host.add(from, Meaning::One(to))?,
                IdRule::SquashHost(from, to) => to_guest.add(from, Meaning::One(to))?,
                IdRule::ForbidGuest(ids) => to_host.add(ids, Meaning::Forbidden)?,
                IdRule::Map(guest, host) => {
                    to_host.add(guest, Meaning::From(host))?;
                    let back = IdRange {
                        first: host,
                        count: guest.count,
                    };
                    to_guest.add(back, Meaning::From(guest.first))?;
                }
            }
        }
        Ok(Self {
            to_host: to_host.sorted("guest")?,
            to_guest: to_guest.sorted("host")?,
        })
    }
}

/// Users and groups on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// `--translate-uid`.
    pub users: IdMap,
    /// `--translate-gid`.
    pub groups: IdMap,
}

impl Identities {
    /// Whether every number is the same on both sides.
    pub fn are_the_same(&self) -> bool {
        *self == Self::default()
    }

    /// A user that is going to own something.
    ///
    /// # Errors
    ///
    /// EPERM for one that the guest may not use: what chown(2) answers to who may not give away.
    pub(crate) fn host_user(&self, user: Guest<Uid>) -> Result<Host<Uid>, Errno> {
        let id = self.users.to_host.get(user.0.0).ok_or(Errno::PERM)?;
        Ok(Host(Uid(id)))
    }

    /// As [`Self::host_user`], for a group.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn host_group(&self, group: Guest<Gid>) -> Result<Host<Gid>, Errno> {
        let id = self.groups.to_host.get(group.0.0).ok_or(Errno::PERM)?;
        Ok(Host(Gid(id)))
    }

    /// The owner of something, as the guest is told.
    pub(crate) fn guest_user(&self, Host(Uid(id)): Host<Uid>) -> Guest<Uid> {
        Guest(Uid(self.users.to_guest.get(id).unwrap_or(id)))
    }

    /// As [`Self::guest_user`], for a group.
    pub(crate) fn guest_group(&self, Host(Gid(id)): Host<Gid>) -> Guest<Gid> {
        Guest(Gid(self.groups.to_guest.get(id).unwrap_or(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last number that names somebody.
    const LAST: u32 = u32::MAX - 1;

    const fn range(first: u32, count: u32) -> IdRange {
        IdRange { first, count }
    }

    /// One direction: numbers with what they become.
    type Becomes<'a> = &'a [(u32, Option<u32>)];

    /// Each row is the meaning of one kind of rule, both ways and at both ends of its range.
    #[test]
    fn each_kind_of_rule_translates_one_direction_and_map_both() {
        let cases: &[(IdRule, Becomes<'_>, Becomes<'_>)] = &[
            (
                IdRule::Guest(range(10, 5), 100),
                &[
                    (9, Some(9)),
                    (10, Some(100)),
                    (14, Some(104)),
                    (15, Some(15)),
                ],
                &[(100, Some(100)), (10, Some(10))],
            ),
            (
                IdRule::Host(range(100, 5), 10),
                &[(10, Some(10)), (100, Some(100))],
                &[
                    (99, Some(99)),
                    (100, Some(10)),
                    (104, Some(14)),
                    (105, Some(105)),
                ],
            ),
            (
                IdRule::SquashGuest(range(0, u32::MAX), 99),
                &[(0, Some(99)), (1, Some(99)), (LAST, Some(99))],
                &[(99, Some(99)), (0, Some(0))],
            ),
            (
                IdRule::SquashHost(range(5, u32::MAX - 5), 99),
                &[(5, Some(5)), (99, Some(99))],
                &[(4, Some(4)), (5, Some(99)), (LAST, Some(99))],
            ),
            (
                IdRule::ForbidGuest(range(3, 2)),
                &[(2, Some(2)), (3, None), (4, None), (5, Some(5))],
                &[(3, Some(3)), (4, Some(4))],
            ),
            (
                IdRule::Map(range(0, 2), LAST - 1),
                &[(0, Some(LAST - 1)), (1, Some(LAST)), (2, Some(2))],
                &[(LAST - 1, Some(0)), (LAST, Some(1)), (0, Some(0))],
            ),
        ];
        for (rule, to_host, to_guest) in cases {
            let map = IdMap::new([*rule]).unwrap();
            for (table, ids) in [(&map.to_host, to_host), (&map.to_guest, to_guest)] {
                for (id, becomes) in *ids {
                    assert_eq!(table.get(*id), *becomes, "{rule:?}: {id}");
                }
            }
        }
    }

    #[test]
    fn rules_work_together_in_whatever_order_they_come() {
        let rules = [
            IdRule::Map(range(1000, 10), 5000),
            IdRule::ForbidGuest(range(1010, 10)),
            IdRule::Guest(range(0, 1), 4000),
            IdRule::SquashHost(range(0, 1000), 65534),
        ];
        let forwards = IdMap::new(rules).unwrap();
        assert_eq!(
            forwards,
            IdMap::new(rules.into_iter().rev()).unwrap(),
            "the order says nothing"
        );
        let identities = Identities {
            users: forwards,
            groups: IdMap::default(),
        };
        assert!(!identities.are_the_same());
        assert_eq!(identities.host_user(Guest(Uid(1009))), Ok(Host(Uid(5009))));
        assert_eq!(identities.host_user(Guest(Uid(1010))), Err(Errno::PERM));
        assert_eq!(identities.host_user(Guest(Uid(0))), Ok(Host(Uid(4000))));
        assert_eq!(identities.guest_user(Host(Uid(5000))), Guest(Uid(1000)));
        assert_eq!(identities.guest_user(Host(Uid(0))), Guest(Uid(65534)));
        assert_eq!(identities.host_group(Guest(Gid(1010))), Ok(Host(Gid(1010))));
        assert_eq!(identities.guest_group(Host(Gid(0))), Guest(Gid(0)));
    }

    #[test]
    fn a_number_with_two_meanings_and_one_that_names_nobody_are_refused() {
        let twice = |side, id| Err(BadIdRules::Twice { side, id });
        let beyond = |first, count| Err(BadIdRules::Range { first, count });
        let cases: &[(&[IdRule], Result<(), BadIdRules>)] = &[
            (
                &[
                    IdRule::Guest(range(0, 5), 100),
                    IdRule::SquashGuest(range(4, 1), 7),
                ],
                twice("guest", 4),
            ),
            (
                &[
                    IdRule::ForbidGuest(range(0, 5)),
                    IdRule::Map(range(2, 1), 100),
                ],
                twice("guest", 2),
            ),
            (
                &[IdRule::Map(range(0, 5), 100), IdRule::Map(range(5, 5), 104)],
                twice("host", 104),
            ),
            (
                &[
                    IdRule::Guest(range(0, 5), 100),
                    IdRule::Guest(range(5, 5), 100),
                    IdRule::Host(range(0, 5), 100),
                ],
                Ok(()),
            ),
            (&[IdRule::Guest(range(0, 0), 0)], beyond(0, 0)),
            (
                &[IdRule::ForbidGuest(range(1, u32::MAX))],
                beyond(1, u32::MAX),
            ),
            (&[IdRule::Guest(range(0, 2), LAST)], beyond(LAST, 2)),
            (
                &[IdRule::SquashGuest(range(0, 2), u32::MAX)],
                beyond(u32::MAX, 1),
            ),
        ];
        for (rules, want) in cases {
            let made = IdMap::new(rules.iter().copied()).map(drop);
            assert_eq!(made, *want, "{rules:?}");
        }
    }
}
