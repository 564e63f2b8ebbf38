//! A guest whose clock jumps: nothing that the daemon does depends on it, nor on what it makes of times.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::guest::share::{GuestShare, guest_or_skip};
use virtiofs_testkit::guest::{Machine, Root, scenarios};

const LIMIT: Duration = Duration::from_secs(180);

/// The moments that the script sets its clock to: the year, and seconds since 1970.
const MOMENTS: [(&str, i64); 5] = [
    ("2090", 3_786_912_000),
    ("1980", 320_673_600),
    ("2037", 2_145_916_799),
    ("1971", 31_536_001),
    ("2026", 1_781_512_200),
];

/// Changes what the guest asks for, until told to stop.
fn take_part(share: &Path, stop: &AtomicBool) -> Result<()> {
    let mut last = String::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = fs::read_to_string(share.join("ask")).unwrap_or_default();
        let asked = asked.trim();
        if !asked.is_empty() && asked != last {
            fs::write(share.join("shared"), asked)?;
            fs::write(share.join(format!("done-{asked}")), "")?;
            asked.clone_into(&mut last);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn k_a_guest_whose_clock_jumps_reads_writes_and_sees_the_host_as_before() -> Result<()> {
    let Some(guest) = guest_or_skip(Machine::Uml72, Root::Busybox)? else {
        return Ok(());
    };
    let caches: [&[&str]; 3] = [
        &["--cache=auto"],
        &["--cache=adaptive"],
        // Here the guest's kernel keeps times, and writes them back.
        &["--cache=adaptive", "--writeback"],
    ];
    for options in caches {
        let mut share = GuestShare::start(options)?;
        let place = share.path().to_path_buf();
        fs::write(place.join("steady"), "steady")?;
        fs::write(place.join("shared"), "none")?;
        fs::create_dir(place.join("listed"))?;
        for number in 0..50 {
            fs::write(place.join(format!("listed/{number}")), "x")?;
        }
        let stop = AtomicBool::new(false);
        let ran = std::thread::scope(|scope| {
            let host = scope.spawn(|| take_part(&place, &stop));
            let ran = share.run(&guest, scenarios::CLOCK, LIMIT);
            stop.store(true, Ordering::Relaxed);
            let took_part = host.join().map_err(|_| anyhow::anyhow!("panicked"));
            ran.and(took_part?)
        });
        ran.with_context(|| format!("with {options:?}"))?;
        for (year, secs) in MOMENTS {
            let made = place.join(format!("in-{year}/moved"));
            ensure!(fs::read_to_string(&made)? == format!("{year}\nagain\n"));
            let told = made.metadata()?;
            ensure!(
                (told.mtime(), told.mtime_nsec()) == (secs, 0),
                "{options:?}, {year}: {}",
                told.mtime()
            );
        }
    }
    Ok(())
}
