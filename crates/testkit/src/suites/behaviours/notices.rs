//! What fanotify tells of files, and what it lets others forbid (man 7 fanotify).

use libc::{
    FAN_ACCESS, FAN_ALLOW, FAN_CLASS_CONTENT, FAN_CLASS_NOTIF, FAN_CLOSE_NOWRITE, FAN_CLOSE_WRITE,
    FAN_DENY, FAN_EVENT_ON_CHILD, FAN_MARK_ADD, FAN_MARK_IGNORED_MASK, FAN_MARK_REMOVE, FAN_MODIFY,
    FAN_ONDIR, FAN_OPEN, FAN_OPEN_PERM,
};

use super::kit::*;
use super::sys::notices::Notices;

super::checks!("notices":
    an_opening_is_told, a_reading_is_told, a_writing_is_told, a_closing_tells_whether_it_was_for_writing,
    a_mark_of_a_directory_tells_of_its_files, a_mark_of_a_directory_tells_of_itself,
    what_is_told_is_the_file_itself, it_is_told_who_it_was, a_mark_that_is_taken_away_tells_nothing,
    what_is_ignored_is_not_told, the_same_again_is_told_once, an_opening_that_is_forbidden_is_eperm,
    an_opening_that_is_allowed_goes_on, what_is_not_there_is_not_marked,
);

/// A group with a mark on a name.
fn marked(name: &str, mask: u64) -> Outcome<Notices> {
    let notices = Notices::new(FAN_CLASS_NOTIF)?;
    notices.mark(FAN_MARK_ADD, mask, name)?;
    Ok(notices)
}

/// What was told by now, one mask after the other.
fn told(notices: &Notices) -> Outcome<Vec<u64>> {
    let told = notices.within(std::time::Duration::ZERO)?;
    Ok(told.iter().map(|notice| notice.mask).collect())
}

fn an_opening_is_told() -> Outcome {
    new("f")?;
    let notices = marked("f", FAN_OPEN)?;
    open("f", OFlags::RDONLY)?;
    is(told(&notices)?, vec![FAN_OPEN])
}

fn a_reading_is_told() -> Outcome {
    let file = with("f", b"ab")?;
    let notices = marked("f", FAN_ACCESS)?;
    get(&file, 2, 0)?;
    is(told(&notices)?, vec![FAN_ACCESS])
}

fn a_writing_is_told() -> Outcome {
    let file = new("f")?;
    let notices = marked("f", FAN_MODIFY)?;
    put(&file, b"x", 0)?;
    is(told(&notices)?, vec![FAN_MODIFY])
}

fn a_closing_tells_whether_it_was_for_writing() -> Outcome {
    new("f")?;
    let notices = marked("f", FAN_CLOSE_WRITE | FAN_CLOSE_NOWRITE)?;
    open("f", OFlags::RDONLY)?;
    is(told(&notices)?, vec![FAN_CLOSE_NOWRITE])?;
    open("f", OFlags::RDWR)?;
    is(told(&notices)?, vec![FAN_CLOSE_WRITE])
}

fn a_mark_of_a_directory_tells_of_its_files() -> Outcome {
    dir("d")?;
    let file = new("d/f")?;
    let notices = marked("d", FAN_MODIFY | FAN_EVENT_ON_CHILD)?;
    put(&file, b"x", 0)?;
    is(told(&notices)?, vec![FAN_MODIFY])
}

fn a_mark_of_a_directory_tells_of_itself() -> Outcome {
    dir("d")?;
    let notices = marked("d", FAN_OPEN | FAN_ONDIR)?;
    open("d", OFlags::DIRECTORY)?;
    is(told(&notices)?, vec![FAN_OPEN])
}

fn what_is_told_is_the_file_itself() -> Outcome {
    let file = with("f", b"ab")?;
    let notices = marked("f", FAN_MODIFY)?;
    put(&file, b"xyz", 0)?;
    let told = notices.within(LIMIT)?;
    is(told.len(), 1)?;
    is(get(&told[0].file, 8, 0)?, b"xyz".to_vec())?;
    is(rustix::fs::fstat(&told[0].file)?.st_ino, of("f")?.st_ino)
}

fn it_is_told_who_it_was() -> Outcome {
    new("f")?;
    let notices = marked("f", FAN_OPEN)?;
    let task = Task::start(|| Ok(open("f", OFlags::RDONLY).map(drop)?))?;
    let told = notices.within(LIMIT)?;
    let pids: Vec<i32> = told.iter().map(|notice| notice.pid).collect();
    is(pids, vec![task.child().pid().as_raw_nonzero().get()])?;
    task.finish()
}

fn a_mark_that_is_taken_away_tells_nothing() -> Outcome {
    let file = new("f")?;
    let notices = marked("f", FAN_MODIFY)?;
    notices.mark(FAN_MARK_REMOVE, FAN_MODIFY, "f")?;
    put(&file, b"x", 0)?;
    is(told(&notices)?, vec![])
}

fn what_is_ignored_is_not_told() -> Outcome {
    dir("d")?;
    new("d/a")?;
    new("d/b")?;
    let notices = marked("d", FAN_OPEN | FAN_EVENT_ON_CHILD)?;
    notices.mark(FAN_MARK_ADD | FAN_MARK_IGNORED_MASK, FAN_OPEN, "d/a")?;
    open("d/a", OFlags::RDONLY)?;
    is(told(&notices)?, vec![])?;
    open("d/b", OFlags::RDONLY)?;
    is(told(&notices)?, vec![FAN_OPEN])
}

fn the_same_again_is_told_once() -> Outcome {
    let file = new("f")?;
    let notices = marked("f", FAN_MODIFY)?;
    for _ in 0..10 {
        put(&file, b"x", 0)?;
    }
    is(told(&notices)?, vec![FAN_MODIFY])
}

/// Opens a file in a child while this process says whether it may; what the child then meets.
fn asked(response: u32) -> Outcome<(bool, Outcome)> {
    with("f", b"ab")?;
    let notices = Notices::new(FAN_CLASS_CONTENT)?;
    notices.mark(FAN_MARK_ADD, FAN_OPEN_PERM, "f")?;
    let forbidden = response == FAN_DENY;
    let task = Task::start(move || match open("f", OFlags::RDONLY) {
        opened if forbidden => refused(opened, Errno::PERM),
        opened => is(get(opened?, 2, 0)?, b"ab".to_vec()),
    })?;
    let questions = notices.within(LIMIT)?;
    for question in &questions {
        notices.answer(question, response)?;
    }
    Ok((questions.len() == 1, task.finish()))
}

fn an_opening_that_is_forbidden_is_eperm() -> Outcome {
    let (was_asked, outcome) = asked(FAN_DENY)?;
    outcome?;
    holds(was_asked, "it is asked once")
}

fn an_opening_that_is_allowed_goes_on() -> Outcome {
    let (was_asked, outcome) = asked(FAN_ALLOW)?;
    outcome?;
    holds(was_asked, "it is asked once")
}

fn what_is_not_there_is_not_marked() -> Outcome {
    let notices = Notices::new(FAN_CLASS_NOTIF)?;
    refused(notices.mark(FAN_MARK_ADD, FAN_OPEN, "f"), Errno::NOENT)
}
