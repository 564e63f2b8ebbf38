//! How long a queue's thread looks for the next request before it sleeps.
//!
//! A wakeup costs tens of microseconds, and a driver that has got its answer often asks again
//! sooner. So the thread looks at the ring for a while, with kicks suppressed. By itself the time it
//! looks grows while requests come soon after it fell asleep, and shrinks to nothing when they do
//! not: like the polling of a halted virtual processor in KVM. What KVM sees and we do not is that
//! the driver needs this very processor to go on: then looking only keeps it from asking. After some
//! tries in vain it is given up for so many sleeps, and for twice as many the next time.
//!
//! It is never longer than a wakeup may take on a busy machine, so that looking costs at most as much again there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// What the operator wants (`--poll-us`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// Sleeps at once.
    #[default]
    Off,
    /// Looks as long as experience says.
    Auto,
    /// Looks so long each time.
    Fixed(Duration),
}

/// The first window that is tried.
const FIRST: Duration = Duration::from_micros(4);
/// The longest one: a driver that sleeps for its reply has to wake up before it asks again.
const LONGEST: Duration = Duration::from_micros(128);
/// A wait that ended within so long makes the next window longer. It may be more than the longest one: this
/// thread's own wakeup is a part of it, and not of what it takes to see the same request while looking.
const GROWS_WITHIN: Duration = Duration::from_micros(256);
/// How many times longer.
const GROWTH: u32 = 4;
/// Windows in vain, less what was caught, after which looking is given up for a while.
const TRIES: u32 = 5;
/// Sleeps until it is tried again; doubled each time that it is given up.
const FIRST_PAUSE: u32 = 64;
const LONGEST_PAUSE: u32 = 1 << 14;

/// Between two looks there is less, unless the thread lost its processor meanwhile.
const BETWEEN_LOOKS: Duration = Duration::from_micros(2);

/// How a request was seen in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// At the first look: no window was needed.
    AtOnce,
    /// It came while the thread looked: the driver runs elsewhere.
    Coming,
    /// It was there when the thread got its processor back, which the driver may have needed.
    There,
}

impl Seen {
    /// It was not there when the thread looked last, so long ago.
    pub(crate) fn after(since_last_look: Duration) -> Self {
        if since_last_look < BETWEEN_LOOKS {
            Self::Coming
        } else {
            Self::There
        }
    }
}

/// What all queues of a connection share: whether there are processors to look with.
#[derive(Debug, Default)]
pub(crate) struct Processors {
    processors: usize,
    queues: AtomicUsize,
    scarce: AtomicBool,
}

impl Processors {
    pub(crate) fn new(processors: usize) -> Self {
        Self {
            processors,
            queues: AtomicUsize::new(0),
            scarce: AtomicBool::new(false),
        }
    }

    /// So many request queues are served from now on.
    pub(crate) fn shared_by(&self, queues: usize) {
        self.queues.store(queues, Ordering::Relaxed);
    }

    /// Others wait for a processor, or not any more.
    pub(crate) fn are_scarce(&self, scarce: bool) {
        // Read first: the line stays shared between the threads.
        if self.scarce.load(Ordering::Relaxed) != scarce {
            self.scarce.store(scarce, Ordering::Relaxed);
        }
    }

    /// One for each queue, and one for the driver.
    fn suffice(&self) -> bool {
        self.queues.load(Ordering::Relaxed) < self.processors
    }
}

/// One queue's window, and what it has caught so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    polling: Polling,
    length: Duration,
    /// The length that caught a request last. It is taken up again after a late one, which tells little of the next.
    proven: Duration,
    in_vain: u32,
    pause: u32,
    next_pause: u32,
}

impl Window {
    pub(crate) fn new(polling: Polling) -> Self {
        Self {
            polling,
            length: Duration::ZERO,
            proven: Duration::ZERO,
            in_vain: 0,
            pause: 0,
            next_pause: FIRST_PAUSE,
        }
    }

    /// How long to look this time; `None` is to sleep without asking what time it is.
    pub(crate) fn open(&mut self, processors: &Processors) -> Option<Duration> {
        match self.polling {
            Polling::Off => None,
            _ if !processors.suffice() => None,
            Polling::Fixed(length) => Some(length),
            // What the operator has stated holds all the same.
            Polling::Auto if processors.scarce.load(Ordering::Relaxed) => None,
            Polling::Auto if self.pause > 0 => {
                self.pause -= 1;
                None
            }
            Polling::Auto => Some(self.length),
        }
    }

    /// A request came while it was open.
    pub(crate) fn caught(&mut self, seen: Seen) {
        match seen {
            Seen::AtOnce => {}
            Seen::Coming => {
                self.proven = self.length;
                self.in_vain = self.in_vain.saturating_sub(2);
                if self.in_vain == 0 {
                    self.next_pause = FIRST_PAUSE;
                }
            }
            Seen::There => self.looked_in_vain(),
        }
    }

    /// It closed, and the thread slept; the request came so long after it had opened.
    pub(crate) fn missed(&mut self, after: Duration) {
        let looked = !self.length.is_zero();
        self.length = if after > GROWS_WITHIN {
            Duration::ZERO
        } else if looked {
            LONGEST.min(self.length * GROWTH)
        } else {
            FIRST.max(self.proven)
        };
        if looked {
            self.looked_in_vain();
        }
    }

    fn looked_in_vain(&mut self) {
        self.in_vain += 1;
        if self.in_vain >= TRIES {
            self.pause = self.next_pause;
            self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
            self.in_vain = 0;
            self.length = Duration::ZERO;
            self.proven = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(10);
    const LATE: Duration = Duration::from_millis(1);

    fn enough() -> Processors {
        let processors = Processors::new(2);
        processors.shared_by(1);
        processors
    }

    /// Each request comes so long after the thread has run out of work; returns the window's length.
    fn request(window: &mut Window, after: Duration) -> Option<Duration> {
        let length = window.open(&enough());
        match length {
            Some(length) if length >= after => window.caught(Seen::Coming),
            Some(_) => window.missed(after),
            None => {}
        }
        length
    }

    #[test]
    fn it_grows_until_it_catches_and_stays() {
        let mut window = Window::new(Polling::Auto);
        let lengths: Vec<u128> = (0..6)
            .filter_map(|_| request(&mut window, SOON))
            .map(|length| length.as_micros())
            .collect();
        assert_eq!(lengths, [0, 4, 16, 16, 16, 16]);
    }

    /// One wakeup of the two that such a wait holds is this thread's, which it does not pay while it looks.
    #[test]
    fn it_grows_by_waits_longer_than_itself() {
        let mut window = Window::new(Polling::Auto);
        for _ in 0..3 {
            window.open(&enough());
            window.missed(GROWS_WITHIN);
        }
        assert_eq!(window.open(&enough()), Some(LONGEST / 2));
    }

    #[test]
    fn a_late_request_does_not_make_it_begin_anew() {
        let mut window = Window::new(Polling::Auto);
        for after in [SOON, SOON, SOON, LATE] {
            request(&mut window, after);
        }
        assert_eq!(request(&mut window, SOON), Some(Duration::ZERO));
        assert_eq!(request(&mut window, SOON), Some(4 * FIRST), "what caught");
        // What is given up is not proven any more.
        for _ in 0..TRIES {
            request(&mut window, LATE);
            request(&mut window, GROWS_WITHIN);
        }
        assert_eq!(window.proven, Duration::ZERO);
    }

    #[test]
    fn it_shrinks_to_nothing_at_once_when_requests_are_rare() {
        let mut window = Window::new(Polling::Auto);
        for _ in 0..10 {
            request(&mut window, SOON);
        }
        request(&mut window, LATE);
        for _ in 0..1000 {
            assert_eq!(request(&mut window, LATE), Some(Duration::ZERO));
        }
    }

    /// The driver needs the processor: whatever is waited for comes once the thread sleeps.
    #[test]
    fn where_it_never_catches_it_is_given_up_for_longer_and_longer() {
        let mut window = Window::new(Polling::Auto);
        let (mut looked, mut sleeps) = (Duration::ZERO, 0_u32);
        while sleeps < 100_000 {
            sleeps += 1;
            if let Some(length) = window.open(&enough()) {
                looked += length;
                window.missed(length + Duration::from_micros(3));
            }
        }
        assert!(looked > Duration::ZERO, "it was tried");
        assert!(looked / sleeps < Duration::from_nanos(50), "{looked:?}");
    }

    /// The driver takes the processor from the thread that looks.
    #[test]
    fn what_it_sees_after_losing_its_processor_is_no_success() {
        let mut window = Window::new(Polling::Auto);
        let mut looks = 0;
        for _ in 0..100_000 {
            match window.open(&enough()) {
                Some(length) if length.is_zero() => window.missed(SOON),
                Some(_) => {
                    looks += 1;
                    window.caught(Seen::after(Duration::from_micros(5)));
                }
                None => {}
            }
        }
        assert!((1..1000).contains(&looks), "{looks}");
        assert_eq!(Seen::after(Duration::from_nanos(150)), Seen::Coming);
    }

    #[test]
    fn what_it_catches_again_ends_the_pauses() {
        let mut window = Window::new(Polling::Auto);
        let in_vain = |window: &mut Window| {
            let mut paused = 0;
            for _ in 0..5000 {
                match window.open(&enough()) {
                    Some(length) => window.missed(length + SOON),
                    None => paused += 1,
                }
            }
            paused
        };
        assert!(in_vain(&mut window) > 4900);
        for _ in 0..LONGEST_PAUSE {
            request(&mut window, SOON);
        }
        assert_eq!(window.next_pause, FIRST_PAUSE);
        assert!(request(&mut window, SOON) >= Some(SOON));
    }

    #[test]
    fn nobody_looks_where_processors_are_scarce() {
        for (processors, queues, want) in
            [(1, 1, false), (2, 1, true), (2, 2, false), (4, 5, false)]
        {
            let shared = Processors::new(processors);
            shared.shared_by(queues);
            for polling in [Polling::Auto, Polling::Fixed(SOON)] {
                let looks = Window::new(polling).open(&shared).is_some();
                assert_eq!(looks, want, "{processors} for {queues}");
            }
        }
    }

    #[test]
    fn who_is_left_to_experience_does_not_look_while_others_wait() {
        let processors = enough();
        let opens = |polling| Window::new(polling).open(&processors).is_some();
        for scarce in [true, false] {
            processors.are_scarce(scarce);
            assert_eq!(opens(Polling::Auto), !scarce);
            assert!(opens(Polling::Fixed(SOON)));
        }
    }

    #[test]
    fn a_fixed_one_is_always_as_long_and_off_is_off() {
        let mut window = Window::new(Polling::Fixed(SOON));
        for after in [SOON, LATE, LATE, SOON] {
            assert_eq!(request(&mut window, after), Some(SOON));
        }
        assert_eq!(request(&mut Window::new(Polling::Off), SOON), None);
    }

    #[test]
    fn k_a_wait_of_any_length_leaves_a_window_of_its_bounds() {
        let (mut window, processors) = (Window::new(Polling::Auto), enough());
        for after in [Duration::ZERO, SOON, Duration::MAX, Duration::ZERO, LONGEST] {
            window.missed(after);
            let open = window.open(&processors);
            assert!(open.is_none_or(|open| open <= LONGEST), "{open:?}");
        }
        for since in [Duration::ZERO, Duration::MAX] {
            window.caught(Seen::after(since));
        }
        assert_eq!(Seen::after(Duration::MAX), Seen::There);
    }
}
