//! Checks that come out in every way there is, to see that each is told.

use super::kit::*;

super::checks!("planted": passes, fails, differs, is_refused_otherwise, is_not_here, panics, dies, hangs);

fn passes() -> Outcome {
    new("f").map(drop)
}

fn fails() -> Outcome {
    holds(exists("f"), "a file is there")
}

fn differs() -> Outcome {
    is(of(".")?.st_size, -1)
}

fn is_refused_otherwise() -> Outcome {
    refused(open("f", OFlags::RDONLY), Errno::EXIST)
}

fn is_not_here() -> Outcome {
    Err(Errno::OPNOTSUPP)?
}

fn panics() -> Outcome {
    assert!(exists("f"));
    Ok(())
}

fn dies() -> Outcome {
    Ok(rustix::process::kill_process(
        rustix::process::getpid(),
        rustix::process::Signal::ABORT,
    )?)
}

fn hangs() -> Outcome {
    loop {
        std::thread::park();
    }
}
