use std::io::{IoSlice, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};

use super::*;

/// A front-end's end of a socket, and ours with what ends its waits.
struct Rig {
    theirs: UnixStream,
    ours: UnixStream,
    stop: OwnedFd,
    alarm: OwnedFd,
    spare: Spare,
}

impl Rig {
    fn new() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Self {
            spare: Spare::where_there_are_plenty(ours.as_fd()),
            theirs,
            ours,
            stop: event(),
            alarm: event(),
        }
    }

    fn wire(&self) -> Wire<'_> {
        Wire {
            socket: &self.ours,
            stop: self.stop.as_fd(),
            alarm: self.alarm.as_fd(),
            spare: &self.spare,
        }
    }

    fn send(&self, bytes: &[u8], descriptors: usize) {
        let one = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let all = vec![one.as_fd(); descriptors];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if descriptors > 0 {
            assert!(control.push(SendAncillaryMessage::ScmRights(&all)));
        }
        let iov = [IoSlice::new(bytes)];
        sendmsg(&self.theirs, &iov, &mut control, SendFlags::empty()).unwrap();
    }
}

fn message(request: u32, flags: u32, size: u32) -> Vec<u8> {
    [request, flags, size]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

fn with_payload(request: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = message(request, VERSION, u32::try_from(payload.len()).unwrap());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn a_padded_memory_table_is_read_as_it_is() {
    // User-mode Linux 6.1: 72 bytes for one region of 40.
    let rig = Rig::new();
    let mut payload = vec![0; 72];
    payload[0] = 1;
    payload[8..40].copy_from_slice(&[7; 32]);
    rig.send(&with_payload(request::SET_MEM_TABLE, &payload), 1);
    let message = rig.wire().receive().unwrap();
    assert_eq!(message.payload.len(), 72);
    assert_eq!(message.descriptors.len(), 1);
    assert_eq!(message.words::<1>(), Some([1]));
    assert_eq!(message.longs::<4>(8), Some([0x0707_0707_0707_0707; 4]));
    assert_eq!(message.longs::<4>(40), Some([0; 4]));
    assert_eq!(message.longs::<4>(41), None);
    assert_eq!(message.words::<19>(), None);
}

#[test]
fn a_message_may_come_byte_by_byte() {
    let rig = Rig::new();
    let bytes = with_payload(request::SET_VRING_NUM, &[1, 0, 0, 0, 2, 0, 0, 0]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for byte in &bytes {
                (&rig.theirs).write_all(&[*byte]).unwrap();
                thread::yield_now();
            }
        });
        let message = rig.wire().receive().unwrap();
        assert_eq!(message.words(), Some([1, 2]));
    });
}

#[test]
fn messages_that_cannot_be_told_apart_end_the_connection() {
    let cases = [
        ("version 0", message(1, 0, 0)),
        ("version 2", message(1, 2, 0)),
        ("version 3", message(1, 3, 0)),
        ("a byte more than any has", message(1, VERSION, 4097)),
        ("4 GiB", message(1, VERSION, u32::MAX)),
        ("half a header", message(1, VERSION, 0)[..6].to_vec()),
        ("half a payload", with_payload(1, &[0; 8])[..16].to_vec()),
    ];
    for (what, bytes) in cases {
        let Rig {
            theirs,
            ours,
            stop,
            alarm,
            spare,
        } = Rig::new();
        (&theirs).write_all(&bytes).unwrap();
        drop(theirs);
        let wire = Wire {
            socket: &ours,
            stop: stop.as_fd(),
            alarm: alarm.as_fd(),
            spare: &spare,
        };
        let halt = wire.receive().unwrap_err();
        assert!(
            matches!(halt, Halt::Failed(ConnectionError::Protocol(_))),
            "{what}: {halt:?}"
        );
    }
}

#[test]
fn more_descriptors_than_a_message_takes_end_the_connection() {
    for (count, fits) in [(MOST_DESCRIPTORS, true), (MOST_DESCRIPTORS + 1, false)] {
        let rig = Rig::new();
        rig.send(&message(1, VERSION, 0), count);
        assert_eq!(rig.wire().receive().is_ok(), fits, "{count}");
    }
}

#[test]
fn a_closed_socket_is_no_failure() {
    let Rig {
        theirs,
        ours,
        stop,
        alarm,
        spare,
    } = Rig::new();
    drop(theirs);
    let wire = Wire {
        socket: &ours,
        stop: stop.as_fd(),
        alarm: alarm.as_fd(),
        spare: &spare,
    };
    assert!(matches!(wire.receive(), Err(Halt::Closed)));
    assert!(matches!(wire.reply(1, &[0; 8]), Err(Halt::Closed)));
}

#[test]
fn silence_in_the_middle_of_a_message_does_not_keep_the_daemon_from_stopping() {
    for sent in [0, 5, 12] {
        let rig = Rig::new();
        if sent > 0 {
            (&rig.theirs)
                .write_all(&message(1, VERSION, 8)[..sent])
                .unwrap();
        }
        let (told, tells) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| told.send(matches!(rig.wire().receive(), Err(Halt::Stopped))));
            rustix::io::write(&rig.stop, &1_u64.to_ne_bytes()).unwrap();
            let stopped = tells.recv_timeout(Duration::from_secs(10));
            assert_eq!(stopped, Ok(true), "after {sent} bytes");
        });
    }
}

#[test]
fn a_front_end_that_never_reads_does_not_keep_the_daemon_from_stopping() {
    let rig = Rig::new();
    let (told, tells) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let halt = loop {
                if let Err(halt) = rig.wire().reply(1, &[0; 4096]) {
                    break halt;
                }
            };
            told.send(matches!(halt, Halt::Stopped))
        });
        rustix::io::write(&rig.stop, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(tells.recv_timeout(Duration::from_secs(20)), Ok(true));
    });
}

#[test]
fn lost_guest_memory_ends_the_wait() {
    let rig = Rig::new();
    rustix::io::write(&rig.alarm, &1_u64.to_ne_bytes()).unwrap();
    let halt = rig.wire().receive().unwrap_err();
    assert!(matches!(halt, Halt::Failed(ConnectionError::Memory)));
}
