//! The ranges that one owner has locked, as the host's kernel has them.

use std::collections::BTreeMap;

use virtiofs_protocol::op::{LockRange, LockType};

/// Last byte, included, and type.
type Held = (u64, LockType);

/// Ranges by their first byte. No two overlap, and neighbours of one type are one range.
#[derive(Debug, Default)]
pub(crate) struct Ranges(BTreeMap<u64, Held>);

impl Ranges {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any byte of this range is locked.
    pub(crate) fn touch(&self, range: LockRange) -> bool {
        let last = self.0.range(..=range.end).next_back();
        last.is_some_and(|(_, (end, _))| *end >= range.start)
    }

    /// How many more ranges there may be after a call.
    pub(crate) fn growth(&self, lock_type: LockType, range: LockRange) -> usize {
        match lock_type {
            // At most in the middle of one that goes on at both ends.
            LockType::Read | LockType::Write => 2,
            LockType::Unlock => {
                let around = self.0.range(..range.start).next_back();
                usize::from(around.is_some_and(|(_, (end, _))| *end > range.end))
            }
        }
    }

    /// What a call that succeeded has made of them.
    pub(crate) fn set(&mut self, lock_type: LockType, range: LockRange) {
        let LockRange { mut start, mut end } = range;
        if let Some((&before, &(last, held))) = self.0.range(..start).next_back()
            && last >= start
        {
            self.0.insert(before, (start - 1, held));
            self.keep_behind(end, (last, held));
        }
        while let Some((&inside, &rest)) = self.0.range(start..=end).next() {
            self.0.remove(&inside);
            self.keep_behind(end, rest);
        }
        if lock_type == LockType::Unlock {
            return;
        }
        if let Some((&before, &(last, held))) = self.0.range(..start).next_back()
            && last + 1 == start
            && held == lock_type
        {
            start = before;
        }
        if let Some(next) = end.checked_add(1)
            && let Some(&(last, held)) = self.0.get(&next)
            && held == lock_type
        {
            self.0.remove(&next);
            end = last;
        }
        self.0.insert(start, (end, lock_type));
    }

    fn keep_behind(&mut self, end: u64, (last, held): Held) {
        if last > end {
            self.0.insert(end + 1, (last, held));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::lock::LAST_BYTE;

    fn range(start: u64, end: u64) -> LockRange {
        LockRange { start, end }
    }

    /// Each row: calls one after the other, and what is held then.
    #[test]
    fn calls_cut_join_and_convert_ranges() {
        use LockType::{Read, Unlock, Write};
        type Calls<'a> = &'a [(LockType, u64, u64)];
        let cases: &[(Calls<'_>, Calls<'_>)] = &[
            (&[(Read, 0, 9)], &[(Read, 0, 9)]),
            (&[(Read, 0, 9), (Read, 10, 19)], &[(Read, 0, 19)]),
            (&[(Read, 10, 19), (Read, 0, 9)], &[(Read, 0, 19)]),
            (
                &[(Read, 0, 9), (Write, 10, 19)],
                &[(Read, 0, 9), (Write, 10, 19)],
            ),
            (
                &[(Read, 0, 9), (Write, 4, 5)],
                &[(Read, 0, 3), (Write, 4, 5), (Read, 6, 9)],
            ),
            (
                &[(Read, 0, 9), (Write, 4, 5), (Read, 4, 5)],
                &[(Read, 0, 9)],
            ),
            (
                &[(Write, 0, LAST_BYTE), (Unlock, 5, 5)],
                &[(Write, 0, 4), (Write, 6, LAST_BYTE)],
            ),
            (
                &[(Write, 5, 9), (Read, 12, 15), (Unlock, 7, 13)],
                &[(Write, 5, 6), (Read, 14, 15)],
            ),
            (&[(Write, 5, 9), (Unlock, 0, LAST_BYTE)], &[]),
            (
                &[(Read, 5, 9), (Write, 0, LAST_BYTE)],
                &[(Write, 0, LAST_BYTE)],
            ),
        ];
        for (calls, want) in cases {
            let mut ranges = Ranges::default();
            for (lock_type, start, end) in *calls {
                let most = ranges.len() + ranges.growth(*lock_type, range(*start, *end));
                ranges.set(*lock_type, range(*start, *end));
                assert!(ranges.len() <= most, "{calls:?}");
            }
            let held: Vec<_> = ranges
                .0
                .iter()
                .map(|(start, (end, held))| (*held, *start, *end))
                .collect();
            assert_eq!(held, *want, "{calls:?}");
        }
    }

    #[test]
    fn a_range_is_touched_where_a_byte_of_it_is_locked() {
        let mut ranges = Ranges::default();
        ranges.set(LockType::Read, range(10, 19));
        let cases = [
            (0, 9, false),
            (0, 10, true),
            (15, 15, true),
            (19, 30, true),
            (20, 30, false),
        ];
        for (start, end, touched) in cases {
            assert_eq!(ranges.touch(range(start, end)), touched, "{start}..={end}");
        }
    }
}
