//! How long threads of this host have waited for a processor, from `/proc/pressure/cpu`.
//!
//! Opened for reading before the sandbox, and read from inside. It tells no more than how busy the host
//! is, which whoever can measure time finds out anyway.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use virtiofs_device::ProcessorPressure;

/// Since Linux 4.20, where it is switched on.
const PATH: &str = "/proc/pressure/cpu";

/// Two lines, of less than a hundred bytes each.
const MOST_BYTES: usize = 256;

#[derive(Debug)]
struct Pressure(File);

/// The host's, where it tells.
pub(crate) fn open() -> Option<Arc<dyn ProcessorPressure>> {
    let pressure = Pressure(File::open(PATH).ok()?);
    if pressure.waited().is_none() {
        tracing::debug!("{PATH} tells nothing: looking before sleeping goes by experience alone");
        return None;
    }
    Some(Arc::new(pressure))
}

impl ProcessorPressure for Pressure {
    fn waited(&self) -> Option<Duration> {
        let mut bytes = [0; MOST_BYTES];
        let len = self.0.read_at(&mut bytes, 0).ok()?;
        parse(std::str::from_utf8(bytes.get(..len)?).ok()?)
    }
}

/// The total of the line "some": microseconds in which at least one thread waited.
fn parse(text: &str) -> Option<Duration> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some
        .split(' ')
        .find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_what_is_told() {
        let text = "some avg10=83.24 avg60=82.00 avg300=75.99 total=1186067762\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(parse(text), Some(Duration::from_micros(1_186_067_762)));
        for other in ["", "full total=5", "some avg10=1.00", "some total=many"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_this_host_tells_never_falls() {
        // A kernel without it is one of the cases: then nothing is told, and nothing is looked at.
        let Some(pressure) = open() else {
            assert!(std::fs::read(PATH).is_err(), "{PATH} can be read");
            return;
        };
        let before = pressure.waited();
        assert!(before.is_some() && pressure.waited() >= before);
    }
}
