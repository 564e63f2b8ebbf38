//! Where a queue's thread sleeps: until the driver kicks, or until somebody nudges it.
//!
//! A kick is an edge: the counter of an eventfd is never read, which saves a system call for each
//! time that the thread sleeps. What has an end of its own, such as a pipe, would fill up and is
//! emptied. No wakeup has a clock: the monitor keeps the time for all queues.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::error::DeviceError;

const KICK: u64 = 0;
const NUDGE: u64 = 1;

/// What a kick leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// A number that only grows.
    Counter,
    /// Bytes, for which there is room until they are read.
    Bytes,
}

/// A queue's bell; one thread sleeps by it at a time.
#[derive(Debug)]
pub(crate) struct Doorbell {
    epoll: OwnedFd,
    kick: OwnedFd,
    nudge: OwnedFd,
    leaves: Trace,
}

impl Doorbell {
    /// Listens to a kick.
    ///
    /// # Errors
    ///
    /// The kernel's, for a descriptor that nobody can wait for or when there are none left.
    pub(crate) fn new(kick: OwnedFd) -> Result<Self, Errno> {
        let stat = statx(&kick, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
        let leaves = match FileType::from_raw_mode(stat.stx_mode.into()) {
            // An eventfd is an anonymous inode, which has no type.
            FileType::Unknown => Trace::Counter,
            FileType::Fifo
            | FileType::Socket
            | FileType::RegularFile
            | FileType::Directory
            | FileType::Symlink
            | FileType::CharacterDevice
            | FileType::BlockDevice => Trace::Bytes,
        };
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let edge = EventFlags::IN | EventFlags::ET;
        let of_kick = match leaves {
            Trace::Counter => edge,
            Trace::Bytes => EventFlags::IN,
        };
        epoll::add(&epoll, &kick, EventData::new_u64(KICK), of_kick)?;
        epoll::add(&epoll, &nudge, EventData::new_u64(NUDGE), edge)?;
        Ok(Self {
            epoll,
            kick,
            nudge,
            leaves,
        })
    }

    /// Wakes the thread, or lets it not fall asleep.
    pub(crate) fn nudge(&self) {
        let _ = rustix::io::write(&self.nudge, &1_u64.to_ne_bytes());
    }

    /// Sleeps until the next kick or nudge. May wake up for nothing.
    ///
    /// # Errors
    ///
    /// A kick that cannot come any more.
    pub(crate) fn sleep(&self) -> Result<(), DeviceError> {
        let none = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(NUDGE),
        };
        let mut events = [none; 2];
        let count = loop {
            match epoll::wait(&self.epoll, &mut events, None) {
                // No signal has a message for this thread: it was stopped and goes on.
                Err(Errno::INTR) => {}
                waited => break waited.map_err(DeviceError::Kick)?,
            }
        };
        for event in events.iter().take(count) {
            // Copied out: the kernel's struct is packed.
            let Event { flags, data } = *event;
            if data.u64() != KICK {
                continue;
            }
            if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                return Err(DeviceError::Kick(Errno::BADF));
            }
            if self.leaves == Trace::Bytes {
                self.empty()?;
            }
        }
        Ok(())
    }

    /// Takes bytes out and never waits, even if somebody else has taken them meanwhile and
    /// O_NONBLOCK away: the flag is shared with the front-end.
    fn empty(&self) -> Result<(), DeviceError> {
        /// As `read(2)` does, at no position (man 2 preadv2).
        const NO_POSITION: u64 = u64::MAX;
        let mut bytes = [0; 64];
        let mut into = [std::io::IoSliceMut::new(&mut bytes)];
        let kick = self.kick.as_fd();
        let taken = match preadv2(kick, &mut into, NO_POSITION, ReadWriteFlags::NOWAIT) {
            // Kernels before 5.8 know no such wish here, and there is no seek in a pipe.
            Err(Errno::OPNOTSUPP | Errno::SPIPE) => rustix::io::read(kick, &mut bytes),
            taken => taken,
        };
        match taken {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(DeviceError::Kick(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn kick() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
    }

    /// Sleeps `times` times on a thread of its own and says each time that it woke.
    fn sleeper(bell: Doorbell, times: usize) -> mpsc::Receiver<bool> {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for _ in 0..times {
                let woke = bell.sleep().is_ok();
                let _ = tell.send(woke);
            }
        });
        told
    }

    fn wakes(told: &mpsc::Receiver<bool>) -> Option<bool> {
        told.recv_timeout(Duration::from_millis(200)).ok()
    }

    #[test]
    fn each_kick_wakes_and_none_is_read() {
        let kick = kick();
        let told = sleeper(Doorbell::new(kick.try_clone().unwrap()).unwrap(), 4);
        assert_eq!(wakes(&told), None, "nobody has kicked");
        for kicks in 1..=3_u64 {
            rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
            assert_eq!(wakes(&told), Some(true), "kick {kicks}");
            assert_eq!(wakes(&told), None, "woken once by kick {kicks}");
        }
        let mut count = [0; 8];
        rustix::io::read(&kick, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 3);
    }

    #[test]
    fn a_kick_before_the_sleep_is_not_lost() {
        let kick = kick();
        rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
        let bell = Doorbell::new(kick.try_clone().unwrap()).unwrap();
        let told = sleeper(bell, 1);
        assert_eq!(wakes(&told), Some(true));
    }

    #[test]
    fn a_nudge_wakes_each_time() {
        let bell = Doorbell::new(kick()).unwrap();
        for _ in 0..3 {
            bell.nudge();
            bell.sleep().unwrap();
        }
    }

    #[test]
    fn a_pipe_never_fills_up() {
        let (ours, mut theirs) = std::io::pipe().unwrap();
        let bell = Doorbell::new(ours.into()).unwrap();
        for _ in 0..10_000 {
            theirs.write_all(&[1; 8]).unwrap();
            bell.sleep().unwrap();
        }
        drop(theirs);
        assert!(bell.sleep().is_err(), "nobody can kick any more");
    }
}
