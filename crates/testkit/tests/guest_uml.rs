//! User-mode Linux guests: the kernel's own virtio-fs driver at near native speed.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::SeekFrom;
use virtiofs_testkit::bridge::share::{run_within, skipped};
use virtiofs_testkit::frontend::daemon_path;
use virtiofs_testkit::guest::share::{GuestShare, guest_or_skip};
use virtiofs_testkit::guest::{Machine, Root, Unavailable, demo, scenarios, tree};

const MINUTE: Duration = Duration::from_secs(60);

fn mounts_and_works(machine: Machine) -> Result<()> {
    let Some(guest) = guest_or_skip(machine, Root::Busybox)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&[])?;
    fs::write(share.path().join("from the host"), "read me")?;
    let script = "set -e
        grep -q '^share /mnt virtiofs ' /proc/mounts
        cat 'from the host'
        echo written >'from the guest'
        mkdir -m 750 folder
        mv 'from the guest' folder/renamed
        ln -s renamed folder/link";
    let outcome = share.run(&guest, script, MINUTE)?;
    ensure!(outcome.output == "read me", "{:?}", outcome.output);
    ensure!(fs::read(share.path().join("folder/link"))? == b"written\n");
    ensure!(!share.path().join("from the guest").exists());
    Ok(())
}

#[test]
fn linux_6_1_mounts_reads_writes_and_renames() -> Result<()> {
    mounts_and_works(Machine::Uml61)
}

#[test]
fn linux_7_2_mounts_reads_writes_and_renames() -> Result<()> {
    mounts_and_works(Machine::Uml72)
}

#[test]
fn a_scripts_exit_code_and_output_come_back() -> Result<()> {
    let Some(guest) = guest_or_skip(Machine::Uml61, Root::Busybox)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&[])?;
    let error = share
        .run(&guest, "echo last words; exit 7", MINUTE)
        .unwrap_err()
        .to_string();
    ensure!(error.contains("ended with 7"), "{error}");
    ensure!(error.contains("last words"), "{error}");
    Ok(())
}

/// Machine and daemon options: what is cached decides which requests come.
const CACHES: [(Machine, &[&str]); 3] = [
    (Machine::Uml61, &[]),
    (Machine::Uml72, &["--cache", "never"]),
    (Machine::Uml72, &["--cache", "always", "--writeback"]),
];

/// Runs a script on a share per cache policy, each prepared and judged by the host.
fn with_each_cache(
    script: &str,
    prepare: impl Fn(&Path) -> Result<()>,
    judge: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    for (machine, options) in CACHES {
        in_debian((machine, options), script, &prepare, &judge)
            .with_context(|| format!("on {machine} with {options:?}"))?;
    }
    Ok(())
}

fn in_debian(
    (machine, options): (Machine, &[&str]),
    script: &str,
    prepare: impl Fn(&Path) -> Result<()>,
    judge: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    let Some(guest) = guest_or_skip(machine, Root::Debian)? else {
        return Ok(());
    };
    println!("== {machine} {options:?}");
    let mut share = GuestShare::start(options)?;
    prepare(share.path())?;
    share.run(&guest, script, 5 * MINUTE)?;
    judge(share.path())
}

fn host(program: &str, arguments: &[&str], directory: &Path) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    let ran = run_within(MINUTE, &mut command)?;
    ensure!(ran.status.success(), "{command:?}: {}", ran.output);
    Ok(ran.output)
}

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest");

#[test]
fn a_c_project_is_unpacked_built_and_built_again() -> Result<()> {
    with_each_cache(
        scenarios::BUILD,
        |share| {
            let archive = share.join("project.tar").display().to_string();
            host("tar", &["-cf", &archive, "project"], PROJECT.as_ref()).map(drop)
        },
        |share| {
            let (ours, theirs) = (Path::new(PROJECT).join("project"), share.join("project"));
            for file in fs::read_dir(&ours)? {
                let name = file?.file_name();
                ensure!(fs::read(ours.join(&name))? == fs::read(theirs.join(&name))?);
            }
            let program = fs::read(theirs.join("wordcount"))?;
            ensure!(program.starts_with(b"\x7fELF"), "no program was built");
            let output = fs::read(theirs.join("output.txt"))?;
            ensure!(output == fs::read(ours.join("expected.txt"))?);
            Ok(())
        },
    )
}

#[test]
fn git_keeps_two_thousand_files() -> Result<()> {
    with_each_cache(
        &scenarios::with(&[("COUNT", "2000")], scenarios::GIT),
        |_| Ok(()),
        |share| {
            let git = |arguments: &[&str]| {
                let trusted = ["-c", "safe.directory=*"];
                host("git", &[&trusted, arguments].concat(), &share.join("work"))
            };
            git(&["fsck", "--full", "--strict", "--no-progress"])?;
            ensure!(git(&["status", "--porcelain"])?.is_empty());
            // The guest removed one folder of 37.
            let files = git(&["ls-files"])?.lines().count();
            ensure!(files == 2000 - 55, "{files} files");
            let renamed = fs::read(share.join("work/renamed/file1"))?;
            ensure!(renamed == b"file 1\nfile 1\n", "{renamed:?}");
            Ok(())
        },
    )
}

#[test]
fn a_copy_of_five_thousand_files_keeps_everything() -> Result<()> {
    with_each_cache(
        scenarios::COPY,
        |share| tree::make(&share.join("tree"), 5000),
        |share| {
            let original = tree::listing(&share.join("tree"))?;
            ensure!(original.lines().count() == 5101);
            same_lines(&original, &tree::listing(&share.join("copy"))?)?;
            same_lines(&original, &fs::read_to_string(share.join("listing"))?)?;
            host("diff", &["-r", "--no-dereference", "tree", "copy"], share).map(drop)
        },
    )
}

fn same_lines(want: &str, got: &str) -> Result<()> {
    let differing = want
        .lines()
        .zip(got.lines())
        .find(|(want, got)| want != got);
    ensure!(differing.is_none(), "{differing:#?}");
    ensure!(want.lines().count() == got.lines().count());
    Ok(())
}

/// In WAL mode the index of a database is a file that its users map and share.
/// Linux maps a file shared only through a cache, so with `--cache never` that
/// mode has to keep its index to one process.
#[test]
fn databases_stay_whole_in_every_journal_mode() -> Result<()> {
    for (cache, wal) in CACHES.into_iter().zip(["shared", "refused", "shared"]) {
        in_debian(
            cache,
            &scenarios::with(&[("WAL", wal)], scenarios::SQLITE),
            |_| Ok(()),
            |share| {
                for name in ["DELETE", "TRUNCATE", "PERSIST", "wal"] {
                    let bytes = fs::read(share.join(format!("{name}.db")))?;
                    ensure!(bytes.starts_with(b"SQLite format 3\0"), "{name}");
                }
                Ok(())
            },
        )
        .with_context(|| format!("{cache:?}"))?;
    }
    Ok(())
}

/// While the guest writes back later it takes every file for data, because it would not be told of its own;
/// the host has the holes all the same.
#[test]
fn a_file_past_four_gib_keeps_its_holes() -> Result<()> {
    for (machine, options) in CACHES {
        let seeks = if options.contains(&"--writeback") {
            "no"
        } else {
            "yes"
        };
        let script = scenarios::with(&[("SEEKS", seeks)], scenarios::SPARSE);
        in_debian((machine, options), &script, |_| Ok(()), has_its_holes)
            .with_context(|| format!("on {machine} with {options:?}"))?;
    }
    Ok(())
}

fn has_its_holes(share: &Path) -> Result<()> {
    let file = fs::File::open(share.join("sparse"))?;
    ensure!(file.metadata()?.len() == 5 << 30);
    let mib = |at: u64| at >> 20;
    let data = |from: u64| rustix::fs::seek(&file, SeekFrom::Data(from));
    let hole = |from: u64| rustix::fs::seek(&file, SeekFrom::Hole(from));
    ensure!(mib(data(0)?) == 1 && mib(hole(1 << 20)?) == 2);
    let second = data(2 << 20)?;
    ensure!(mib(second) == 4095, "{second}");
    let end = hole(second)?;
    ensure!(end == (4095 << 20) + (1 << 19), "{end}");
    ensure!(mib(data(end)?) == 5118);
    let mut block = vec![0; 1 << 20];
    file.read_exact_at(&mut block, 5118 << 20)?;
    let want = (1..=256_u32).flat_map(|n| [u8::try_from(n * 7 % 251).expect("below 251"); 4096]);
    ensure!(block.iter().copied().eq(want));
    Ok(())
}

/// What `cargo xtask demo` runs; it checks both sides itself.
#[test]
fn the_demonstration_succeeds() -> Result<()> {
    let directory = tempfile::tempdir()?;
    match demo::show(&daemon_path()?, directory.path()) {
        Err(error) if error.is::<Unavailable>() => skipped(&error.to_string()),
        shown => shown?,
    }
    Ok(())
}
