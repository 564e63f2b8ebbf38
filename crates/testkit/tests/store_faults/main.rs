//! Each call that a request makes of the store is made to fail, one after the other.

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::{can_mount, skipped};
use virtiofs_testkit::frontend::trace::{Call, Counted, Trace, now_secs, paid};
use virtiofs_testkit::fuse::Failure;

mod rig;
mod table;

use rig::{Gained, Rig, Store, Subject};
use table::{Failed, ROWS, Row, errors};

fn cannot() -> bool {
    let cannot = !can_mount() || !Trace::is_available();
    if cannot {
        skipped("needs root and strace");
    }
    cannot
}

/// Whether a call asks nothing of the store: who the thread is, and what is closed, a build's own check of it included.
fn is_of_the_process(call: &Call) -> bool {
    let names = [
        "setresuid",
        "setresgid",
        "setgroups",
        "capget",
        "capset",
        "close",
    ];
    names.contains(&call.name.as_str()) || call.line.contains("F_GETFD")
}

/// The calls of a request that is carried out.
fn calls_of(rig: &mut Rig, row: &Row) -> Result<Vec<Call>> {
    let subject = rig.subject()?;
    let trace = rig.trace(&[], &[])?;
    let begin = now_secs();
    let gained = (row.send)(rig.client(), &subject).context(row.what)?;
    let end = now_secs();
    let calls = trace.finish()?;
    rig.give_back(subject, gained)?;
    let mut made = paid(&calls, begin..end, Counted::UntilAnswered);
    made.retain(|call| !is_of_the_process(call));
    Ok(made.into_iter().cloned().collect())
}

#[test]
fn each_request_makes_the_calls_of_its_row() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let mut rig = Rig::new(Store::Tmpfs)?;
    let mut wrong = Vec::new();
    for row in ROWS {
        let made = calls_of(&mut rig, row)?;
        let names = made.iter().map(|call| call.name.as_str());
        if !names.eq(row.calls.iter().map(|(name, _)| *name)) {
            let lines: Vec<&str> = made.iter().map(|call| call.line.as_str()).collect();
            wrong.push(format!("{}:\n{}", row.what, lines.join("\n")));
        }
    }
    rig.is_unharmed()?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// How the answer to one request went of which one call failed.
type Answer = Result<Gained, Failure>;

/// What met a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    Request,
    /// Something else that the daemon did, or nothing.
    Other,
}

/// Sends a request while one of its calls fails.
fn failing(
    rig: &mut Rig,
    row: &Row,
    subject: &Subject,
    fault: &Fault<'_>,
) -> Result<(Hit, Answer)> {
    let call = fault.call;
    let lasting = if fault.lasts == Lasts::ForGood {
        "+"
    } else {
        ""
    };
    let (errno, number) = (fault.errno.raw_os_error(), fault.number);
    let inject = format!("inject={call}:error={errno}:when={number}{lasting}");
    // The host's pressure is read in this way, too, and locks are not all that descriptors are asked about.
    let file = subject.place.join("file");
    let paths: &[_] = match call {
        "pread64" | "fcntl" => &[file.as_path()],
        _ => &[],
    };
    let trace = rig.trace(&[&inject], paths)?;
    let begin = now_secs();
    let answer = (row.send)(rig.client(), subject);
    let end = now_secs();
    let calls = trace.finish()?;
    let failed = |call: &&Call| call.line.contains("(INJECTED)");
    let in_time = |call: &Call| (begin..end).contains(&call.at_secs);
    let hit = calls.iter().filter(failed).any(in_time);
    Ok((if hit { Hit::Request } else { Hit::Other }, answer))
}

/// How long a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasts {
    Once,
    /// As long as the request is served.
    ForGood,
}

/// One call that fails.
#[derive(Debug)]
struct Fault<'a> {
    call: &'a str,
    /// Which of the request's calls of that name.
    number: usize,
    errno: Errno,
    lasts: Lasts,
}

/// What has to come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    CarriedOut,
    Refused,
    /// The error is told, and what was done stands.
    DoneAndRefused,
}

impl Fault<'_> {
    fn outcome(&self, failed: Failed) -> Outcome {
        match (failed, self.lasts) {
            (Failed::Unless(errno), Lasts::Once) if errno == self.errno => Outcome::CarriedOut,
            (Failed::Whole | Failed::Unless(_), _) | (Failed::OtherWay, Lasts::ForGood) => {
                Outcome::Refused
            }
            (Failed::OtherWay | Failed::Look, Lasts::Once) | (Failed::Nothing, _) => {
                Outcome::CarriedOut
            }
            (Failed::Look, Lasts::ForGood) => Outcome::DoneAndRefused,
        }
    }
}

/// What came of a request, in the same words, and what it gave.
fn judged(answer: Answer, fault: &Fault<'_>, changed: bool) -> Result<(Outcome, Gained)> {
    match answer {
        Ok(gained) => Ok((Outcome::CarriedOut, gained)),
        Err(Failure::Errno(errno)) if errno == fault.errno => {
            let outcome = if changed {
                Outcome::DoneAndRefused
            } else {
                Outcome::Refused
            };
            Ok((outcome, Gained::default()))
        }
        Err(failure) => bail!("answered {failure}"),
    }
}

/// Sends a request one call of which fails, and then the same again; what came of the first.
fn meets(rig: &mut Rig, row: &Row, fault: &Fault<'_>) -> Result<Outcome> {
    // The daemon may do something of its own accord meanwhile, and meet the failure instead.
    for _ in 0..5 {
        let subject = rig.subject()?;
        let before = subject.tree()?;
        let (hit, answer) = failing(rig, row, &subject, fault)?;
        let (got, gained) = judged(answer, fault, before != subject.tree()?)?;
        let gained = if got == Outcome::Refused {
            (row.send)(rig.client(), &subject).context("without an error")?
        } else {
            gained
        };
        rig.give_back(subject, gained)?;
        if hit == Hit::Request {
            return Ok(got);
        }
        ensure!(
            got == Outcome::CarriedOut,
            "refused, and nothing had failed"
        );
    }
    bail!("the call was never met")
}

/// Each call of each request, with each error that fits it.
fn each_fault(lasts: Lasts, errors: impl Fn(&str) -> &'static [Errno]) -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let mut rig = Rig::new(Store::Tmpfs)?;
    let mut wrong = Vec::new();
    for row in ROWS {
        for (index, (call, failed)) in row.calls.iter().enumerate() {
            let before = row.calls[..=index].iter();
            let number = before.filter(|(name, _)| name == call).count();
            for errno in errors(call) {
                let fault = Fault {
                    call,
                    number,
                    errno: *errno,
                    lasts,
                };
                let (want, got) = (fault.outcome(*failed), meets(&mut rig, row, &fault));
                if !got.as_ref().is_ok_and(|got| *got == want) {
                    wrong.push(format!(
                        "{}, {fault:?}: {want:?} expected, {got:?}",
                        row.what
                    ));
                }
            }
        }
        rig.is_unharmed().context(row.what)?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn each_call_that_fails_is_told_by_the_request_that_made_it() -> Result<()> {
    each_fault(Lasts::Once, errors)
}

#[test]
fn a_store_that_fails_for_good_refuses_each_request_with_its_error() -> Result<()> {
    each_fault(Lasts::ForGood, |_| &[Errno::IO, Errno::STALE])
}

/// There each inode has a descriptor, which takes other calls: whichever fails, either all is done or nothing.
#[test]
fn where_inodes_are_held_a_call_that_fails_leaves_nothing_half_done() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let mut rig = Rig::new(Store::Overlay)?;
    let mut refused = 0;
    for row in ROWS {
        // Once before it counts: a mount's ways are learned from the first.
        calls_of(&mut rig, row)?;
        let calls = calls_of(&mut rig, row)?;
        for (index, call) in calls.iter().enumerate() {
            let before = calls[..=index].iter();
            let fault = Fault {
                call: &call.name,
                number: before.filter(|other| other.name == call.name).count(),
                errno: Errno::IO,
                lasts: Lasts::Once,
            };
            let what = || format!("{}, {fault:?}", row.what);
            let got = meets(&mut rig, row, &fault).with_context(what)?;
            ensure!(got != Outcome::DoneAndRefused, "{}: half done", what());
            refused += usize::from(got == Outcome::Refused);
        }
        rig.is_unharmed().context(row.what)?;
    }
    // Most calls are what the request is for.
    ensure!(refused >= ROWS.len(), "{refused} requests met an error");
    Ok(())
}
