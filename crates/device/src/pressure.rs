//! Whether others wait for the processor that a queue's thread looks with.
//!
//! KVM, which also looks before it sleeps, stops as soon as another thread can run on that
//! processor. From user space the nearest to that is how long threads of the whole machine have
//! waited for one so far ("some" in `/proc/pressure/cpu`, Linux's Documentation/accounting/psi).

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::polling::Processors;

/// How long at least one thread of this machine has been waiting for a processor, since some time in the past.
pub trait ProcessorPressure: Debug + Send + Sync {
    /// `None` where the host does not say.
    fn waited(&self) -> Option<Duration>;
}

/// Between two looks there is at least this.
const PERIOD: Duration = Duration::from_millis(100);
/// What lies further back says nothing of now.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// Of the time passed, in percent, that threads may wait before processors count as scarce. A guest and the daemon
/// with a processor each stay below 5, one busy process more than there are processors makes it 80.
const SCARCE_PERCENT: u32 = 25;

/// Looks at the pressure from time to time.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    pressure: Option<Arc<dyn ProcessorPressure>>,
    last: Option<(Instant, Duration)>,
}

impl Gauge {
    pub(crate) fn new(pressure: Option<Arc<dyn ProcessorPressure>>) -> Self {
        Self {
            pressure,
            last: None,
        }
    }

    /// Tells the queues whether processors are scarce, as far as that can be known at this time.
    pub(crate) fn look(&mut self, now: Instant, processors: &Processors) {
        let Some(pressure) = &self.pressure else {
            return;
        };
        let elapsed = self.last.map(|(at, _)| now.saturating_duration_since(at));
        if elapsed.is_some_and(|elapsed| elapsed < PERIOD) {
            return;
        }
        let Some(waited) = pressure.waited() else {
            // It will not say it the next time either.
            self.pressure = None;
            processors.are_scarce(false);
            return;
        };
        let before = self.last.replace((now, waited));
        if let (Some(elapsed), Some((_, before))) = (elapsed, before)
            && elapsed < FORGOTTEN
        {
            let of_it = waited.saturating_sub(before);
            processors.are_scarce(of_it * 100 > elapsed * SCARCE_PERCENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::polling::{Polling, Window};

    /// What is waited for between one look and the next, in milliseconds.
    #[derive(Debug)]
    struct Told(Mutex<(Duration, Vec<Option<u64>>)>);

    impl ProcessorPressure for Told {
        fn waited(&self) -> Option<Duration> {
            let (so_far, more) = &mut *self.0.lock().unwrap();
            *so_far += Duration::from_millis(more.remove(0)?);
            Some(*so_far)
        }
    }

    /// Whether queues look after each of these waits, with such a time between two.
    fn looks(between: Duration, waits: Vec<Option<u64>>) -> Vec<bool> {
        let processors = Processors::new(2);
        processors.shared_by(1);
        let count = waits.len();
        let told: Arc<dyn ProcessorPressure> = Arc::new(Told(Mutex::new((Duration::ZERO, waits))));
        let mut gauge = Gauge::new(Some(told));
        let begun = Instant::now();
        (0..count)
            .map(|number| {
                let now = begun + between * u32::try_from(number).unwrap();
                gauge.look(now, &processors);
                Window::new(Polling::Auto).open(&processors).is_some()
            })
            .collect()
    }

    #[test]
    fn queues_look_while_others_hardly_wait() {
        let waits = [50, 5, 60, 24, 26, 0].map(Some).to_vec();
        let expected = [true, true, false, true, false, true];
        assert_eq!(looks(PERIOD, waits), expected);
    }

    #[test]
    fn a_wait_long_ago_says_nothing_of_now() {
        let waits = [0, 900, 900].map(Some).to_vec();
        assert_eq!(looks(FORGOTTEN, waits), [true; 3]);
    }

    #[test]
    fn a_host_that_does_not_say_is_asked_no_more() {
        assert_eq!(
            looks(PERIOD, vec![Some(0), Some(90), None, Some(90)]),
            [true, false, true, true]
        );
    }

    #[test]
    fn it_is_asked_no_oftener_than_it_needs_to_be() {
        // The second look comes too early to be one.
        let waits = [0, 90].map(Some).to_vec();
        assert_eq!(looks(PERIOD / 2, waits), [true; 2]);
    }
}
