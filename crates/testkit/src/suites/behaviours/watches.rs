//! What watchers hear of their own doings (man 7 inotify).

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{rename, unlink};

use super::kit::*;

super::checks!("watches":
    a_watch_hears_of_a_new_file, a_watch_hears_of_a_write, a_watch_hears_of_a_removal,
    a_watch_hears_of_a_rename, a_watch_hears_of_a_change_of_mode,
    a_watch_hears_of_opening_and_closing, a_watch_of_a_file_hears_its_end,
    a_watch_that_is_taken_away, a_watch_of_what_is_not_there,
);

/// What a watch of `name` heard of a step.
fn heard(
    name: &str,
    of: WatchFlags,
    step: impl FnOnce() -> Outcome,
) -> Outcome<Vec<(ReadFlags, String)>> {
    let watcher = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watcher, name, of)?;
    step()?;
    events(&watcher)
}

fn events(watcher: &OwnedFd) -> Outcome<Vec<(ReadFlags, String)>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watcher, &mut buffer);
    let mut events = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned());
                events.push((event.events(), name.unwrap_or_default()));
            }
            Err(Errno::AGAIN) => return Ok(events),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn a_watch_hears_of_a_new_file() -> Outcome {
    dir("d")?;
    let events = heard("d", WatchFlags::CREATE, || {
        new("d/f")?;
        dir("d/e")
    })?;
    let (file, directory) = (ReadFlags::CREATE, ReadFlags::CREATE | ReadFlags::ISDIR);
    is(
        events,
        vec![(file, "f".to_owned()), (directory, "e".to_owned())],
    )
}

fn a_watch_hears_of_a_write() -> Outcome {
    let file = new("f")?;
    let events = heard("f", WatchFlags::MODIFY, || put(&file, b"x", 0))?;
    is(events, vec![(ReadFlags::MODIFY, String::new())])
}

fn a_watch_hears_of_a_removal() -> Outcome {
    dir("d")?;
    new("d/f")?;
    let events = heard("d", WatchFlags::DELETE, || Ok(unlink("d/f")?))?;
    is(events, vec![(ReadFlags::DELETE, "f".to_owned())])
}

fn a_watch_hears_of_a_rename() -> Outcome {
    dir("d")?;
    new("d/f")?;
    let events = heard("d", WatchFlags::MOVE, || Ok(rename("d/f", "d/g")?))?;
    is(
        events,
        vec![
            (ReadFlags::MOVED_FROM, "f".to_owned()),
            (ReadFlags::MOVED_TO, "g".to_owned()),
        ],
    )
}

fn a_watch_hears_of_a_change_of_mode() -> Outcome {
    new("f")?;
    let events = heard("f", WatchFlags::ATTRIB, || Ok(chmod("f", 0o600)?))?;
    is(events, vec![(ReadFlags::ATTRIB, String::new())])
}

fn a_watch_hears_of_opening_and_closing() -> Outcome {
    new("f")?;
    let of = WatchFlags::OPEN | WatchFlags::CLOSE;
    let events = heard("f", of, || Ok(open("f", OFlags::RDONLY).map(drop)?))?;
    is(
        events,
        vec![
            (ReadFlags::OPEN, String::new()),
            (ReadFlags::CLOSE_NOWRITE, String::new()),
        ],
    )
}

fn a_watch_of_a_file_hears_its_end() -> Outcome {
    new("f")?;
    let events = heard("f", WatchFlags::DELETE_SELF, || Ok(unlink("f")?))?;
    is(
        events,
        vec![
            (ReadFlags::DELETE_SELF, String::new()),
            (ReadFlags::IGNORED, String::new()),
        ],
    )
}

fn a_watch_that_is_taken_away() -> Outcome {
    dir("d")?;
    let watcher = inotify::init(CreateFlags::NONBLOCK)?;
    let watch = inotify::add_watch(&watcher, "d", WatchFlags::CREATE)?;
    inotify::remove_watch(&watcher, watch)?;
    new("d/f")?;
    is(events(&watcher)?, vec![(ReadFlags::IGNORED, String::new())])
}

fn a_watch_of_what_is_not_there() -> Outcome {
    let watcher = inotify::init(CreateFlags::NONBLOCK)?;
    refused(
        inotify::add_watch(&watcher, "f", WatchFlags::CREATE),
        Errno::NOENT,
    )
}
