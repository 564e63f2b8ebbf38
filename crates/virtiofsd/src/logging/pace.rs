//! How many messages a minute are told: a guest that breaks its ring and sets it up again, or a front-end that
//! connects and misbehaves in a loop, must not fill the host's disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

/// Most messages of a minute: a front-end that comes and goes says four each time.
pub(super) const MOST: u32 = 200;

const MINUTE: Duration = Duration::from_secs(60);

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is told.
    Told,
    /// It is the last one of this minute.
    Last,
    /// It is told, after so many that were not.
    After(u32),
    /// It is not told.
    LeftOut,
}

/// Counts the messages of a minute.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    begun: Option<Instant>,
    told: u32,
    left_out: u32,
}

impl Pace {
    /// Decides about a message; what the operator asked for beyond the usual is not counted.
    pub(super) fn admit(&self, level: Level, now: Instant) -> Admission {
        if level > Level::INFO {
            return Admission::Told;
        }
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |begun| now.saturating_duration_since(begun) >= MINUTE;
        if count.begun.is_none_or(is_over) {
            let left_out = count.left_out;
            *count = Count {
                begun: Some(now),
                told: 1,
                left_out: 0,
            };
            return match left_out {
                0 => Admission::Told,
                number => Admission::After(number),
            };
        }
        if count.told == MOST {
            count.left_out = count.left_out.saturating_add(1);
            return Admission::LeftOut;
        }
        count.told += 1;
        if count.told == MOST {
            Admission::Last
        } else {
            Admission::Told
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_tells_so_many_messages_and_the_next_how_many_were_left_out() {
        let pace = Pace::default();
        let start = Instant::now();
        let admit = |secs| pace.admit(Level::ERROR, start + Duration::from_secs(secs));
        for _ in 1..MOST {
            assert_eq!(admit(0), Admission::Told);
        }
        assert_eq!(admit(59), Admission::Last);
        for _ in 0..7 {
            assert_eq!(admit(59), Admission::LeftOut);
        }
        assert_eq!(admit(60), Admission::After(7));
        assert_eq!(admit(61), Admission::Told);
        // A quiet minute says nothing of those before it.
        assert_eq!(admit(200), Admission::Told);
    }

    #[test]
    fn what_the_operator_asked_for_beyond_the_usual_is_always_told() {
        let pace = Pace::default();
        let now = Instant::now();
        for _ in 0..2 * MOST {
            assert_eq!(pace.admit(Level::DEBUG, now), Admission::Told);
        }
        assert_eq!(pace.admit(Level::INFO, now), Admission::Told);
    }

    /// The clock is one that never goes back; two threads may still read it in one order and come here in the other.
    #[test]
    fn k_a_clock_that_goes_back_begins_no_minute_and_loses_no_count() {
        let pace = Pace::default();
        let start = Instant::now() + Duration::from_secs(86_400);
        for _ in 1..MOST {
            assert_eq!(pace.admit(Level::WARN, start), Admission::Told);
        }
        let earlier = start.checked_sub(Duration::from_secs(86_000)).unwrap();
        assert_eq!(pace.admit(Level::WARN, earlier), Admission::Last);
        assert_eq!(pace.admit(Level::WARN, earlier), Admission::LeftOut);
        let decades = start + Duration::from_secs(3_000_000_000);
        assert_eq!(pace.admit(Level::WARN, decades), Admission::After(1));
    }
}
