//! The static daemon alone in containers of a real runtime, rootless included, and real guests that
//! mount what it shares. `docs/CONTAINERS.md` says the same to who operates them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, skipped};
use virtiofs_testkit::container::{Container, Engine, Limits, Recipe, unavailable};
use virtiofs_testkit::fuse::Session;
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::guest::share::{TAG, guest_or_skip};
use virtiofs_testkit::guest::{Machine, Root};

const MINUTE: Duration = Duration::from_secs(60);

/// What KubeVirt adds to socket and share; user-mode Linux cannot do without the tag.
const KUBEVIRT: [&str; 3] = ["--sandbox=none", "--cache=auto", "--tag=share"];
/// KubeVirt's user.
const QEMU: u32 = 107;

/// What container engines leave to root.
const OF_AN_ENGINE: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
/// What the runtime gives where nothing is said.
const OF_THE_RUNTIME: &[&str] = &["AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"];
/// The same, with the one that chroot needs.
const AND_CHROOT: &[&str] = &["AUDIT_WRITE", "KILL", "NET_BIND_SERVICE", "SYS_CHROOT"];

const NEW_FILES: &str = "new files belong to the daemon's user";
const TAKEN_OVER: &str = "--sandbox none: a daemon that is taken over";

fn cannot() -> bool {
    let why = unavailable();
    if let Some(why) = &why {
        skipped(why);
    }
    why.is_some()
}

/// Fields of `/proc/PID/status`, as they stand there.
fn status(pid: u32, field: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    Ok(line.context(field.to_owned())?.trim().to_owned())
}

/// It is what was asked for: not a container that merely looks like it.
fn is_confined(container: &Container) -> Result<()> {
    let (pid, recipe) = (container.pid()?, container.recipe());
    ensure!(status(pid, "NoNewPrivs:")? == "1");
    let uid = recipe.host_id(recipe.uid).to_string();
    let uids = status(pid, "Uid:")?;
    ensure!(uids.split_whitespace().all(|one| one == uid), "{uids}");
    if recipe.capabilities.is_empty() {
        for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"] {
            let bits = status(pid, set)?;
            ensure!(bits.bytes().all(|digit| digit == b'0'), "{set} {bits}");
        }
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    // In chroot it sees the share's mount alone.
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(4);
        (fields.next()? == "/").then(|| fields.next())?
    });
    let chrooted = recipe.arguments.iter().any(|one| one.contains("chroot"));
    ensure!(
        chrooted || root.is_some_and(|options| options.starts_with("ro")),
        "{mounts}"
    );
    Ok(())
}

/// Runs a script in a guest; it must end with 0, then the daemon and its container too.
fn works(mut container: Container, script: &str, warnings: &[&str]) -> Result<Option<Container>> {
    let Some(guest) = guest_or_skip(Machine::Uml72, Root::Busybox)? else {
        return Ok(None);
    };
    let outcome = guest
        .share(&container.socket(), TAG)
        .run(script, 3 * MINUTE)
        .with_context(|| container.log())?;
    let log = container.log();
    println!("{}\n{log}", outcome.output);
    ensure!(
        outcome.exit_code == 0,
        "{}: {}\n{log}",
        outcome.exit_code,
        outcome.output
    );
    let ended = container.exit()?;
    let log = container.log();
    ensure!(ended.success(), "{ended}: {log}");
    let told = |line: &&str| line.contains(" WARN ") || line.contains("ERROR ");
    let told: Vec<&str> = log.lines().filter(told).collect();
    ensure!(
        told.len() == warnings.len()
            && warnings
                .iter()
                .zip(&told)
                .all(|(want, got)| got.contains(want)),
        "{told:#?}"
    );
    Ok(Some(container))
}

/// What works whoever the daemon is.
const WORK: &str = "set -e
    grep -q '^share /mnt virtiofs ' /proc/mounts
    test \"$(cat 'from the host')\" = 'read me'
    echo written >'from the guest'
    mkdir -m 750 folder
    mv 'from the guest' folder/renamed
    ln -s renamed folder/link
    ln folder/renamed folder/second
    chmod 640 folder/renamed
    dd if=/dev/urandom of=big bs=64k count=64 2>/dev/null
    sync
    cp big copy
    echo 3 >/proc/sys/vm/drop_caches
    cmp big copy
    rm big
    mkfifo folder/fifo
    ";

fn share() -> Result<tempfile::TempDir> {
    let share = tempfile::tempdir()?;
    fs::write(share.path().join("from the host"), "read me")?;
    Ok(share)
}

/// [`WORK`] was done, and everything it made belongs to that host user.
fn was_done(share: &Path, owner: u32) -> Result<()> {
    ensure!(fs::read(share.join("folder/link"))? == b"written\n");
    ensure!(fs::metadata(share.join("copy"))?.len() == 64 << 16);
    ensure!(!share.join("big").exists());
    let made = fs::metadata(share.join("folder/second"))?;
    ensure!(made.permissions().mode() & 0o7777 == 0o640 && made.nlink() == 2);
    for name in [
        "folder",
        "folder/renamed",
        "folder/link",
        "folder/fifo",
        "copy",
    ] {
        let metadata = fs::symlink_metadata(share.join(name))?;
        let owners = (metadata.uid(), metadata.gid());
        ensure!(owners == (owner, owner), "{name}: {owners:?}");
    }
    Ok(())
}

/// What the guest sees of a daemon that can be nobody else: one owner, and no way to change it.
const ONE_OWNER: &str = "
    test \"$(stat -c %u:%g folder/renamed)\" = \"$OWNER:$OWNER\"
    ! chown 5:5 folder/renamed 2>/dev/null
    ! mknod folder/device c 1 3 2>/dev/null
    test \"$(ls folder)\" = \"$(printf 'fifo\\nlink\\nrenamed\\nsecond')\"
    # Not even root of the guest reads what the daemon's user may not.
    ! cat secret 2>/dev/null
    chmod 777 .
    su -s /bin/sh daemon -c 'echo mine >of-a-user'
    test \"$(stat -c %u of-a-user)\" = \"$OWNER\"";

/// A share with a file in it that only the host's root may read.
fn share_with_a_secret() -> Result<tempfile::TempDir> {
    let share = share()?;
    let secret = share.path().join("secret");
    fs::write(&secret, "not for you")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    Ok(share)
}

#[test]
fn kubevirts_container_shares_with_a_guest() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let share = share_with_a_secret()?;
    let recipe = Recipe::new(Engine::Root, QEMU, &KUBEVIRT);
    let container = Container::start(recipe, share.path())?;
    is_confined(&container)?;
    let script = format!("OWNER={QEMU}\n{WORK}{ONE_OWNER}");
    let Some(_) = works(container, &script, &[TAKEN_OVER, NEW_FILES])? else {
        return Ok(());
    };
    was_done(share.path(), QEMU)
}

#[test]
fn a_rootless_container_with_every_capability_dropped_shares_with_a_guest() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let share = share_with_a_secret()?;
    let recipe = Recipe::new(Engine::Rootless, 0, &KUBEVIRT);
    let owner = recipe.host_id(0);
    let container = Container::start(recipe, share.path())?;
    is_confined(&container)?;
    let script = format!("OWNER=0\n{WORK}{ONE_OWNER}");
    let Some(_) = works(container, &script, &[TAKEN_OVER, NEW_FILES])? else {
        return Ok(());
    };
    was_done(share.path(), owner)
}

/// Capabilities do not help where the user namespace has one id.
#[test]
fn a_rootless_root_with_an_engines_capabilities_is_still_one_user() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let share = share_with_a_secret()?;
    let recipe = Recipe::new(Engine::Rootless, 0, &["--sandbox=chroot", "--tag=share"]);
    let recipe = recipe.with(OF_AN_ENGINE);
    let owner = recipe.host_id(0);
    let container = Container::start(recipe, share.path())?;
    is_confined(&container)?;
    let script = format!("OWNER=0\n{WORK}{ONE_OWNER}");
    let Some(_) = works(container, &script, &[NEW_FILES])? else {
        return Ok(());
    };
    was_done(share.path(), owner)
}

/// With the right to be somebody else, each guest user's files are that user's.
const MANY_OWNERS: &str = "
    test \"$(stat -c %u:%g folder/renamed)\" = 0:0
    chmod 777 .
    su -s /bin/sh daemon -c 'echo mine >of-a-user'
    test \"$(stat -c %u:%g of-a-user)\" = 1:1
    chown 5:6 of-a-user
    test \"$(stat -c %u:%g of-a-user)\" = 5:6";

#[test]
fn chroot_in_a_container_with_an_engines_capabilities_keeps_owners() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    for (engine, rest) in [
        (Engine::Root, "mknod device c 1 3"),
        // The owner of a user namespace must not make devices of the host.
        (Engine::Mapped, "! mknod device c 1 3 2>/dev/null"),
    ] {
        let share = share()?;
        let recipe =
            Recipe::new(engine, 0, &["--sandbox=chroot", "--tag=share"]).with(OF_AN_ENGINE);
        let (root, of_a_user) = (recipe.host_id(0), (recipe.host_id(5), recipe.host_id(6)));
        let container = Container::start(recipe, share.path())?;
        is_confined(&container)?;
        let script = format!("{WORK}{MANY_OWNERS}\n{rest}\n");
        let Some(_) = works(container, &script, &[]).context(format!("{engine:?}"))? else {
            return Ok(());
        };
        was_done(share.path(), root)?;
        let theirs = fs::metadata(share.path().join("of-a-user"))?;
        ensure!((theirs.uid(), theirs.gid()) == of_a_user, "{theirs:?}");
    }
    Ok(())
}

#[test]
fn chroot_needs_one_capability_more_than_the_runtime_gives() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let share = share_with_a_secret()?;
    // Root without the right to pass permissions is the owner of root's files all the same.
    let script = format!("{WORK}\n! chown 5:5 copy 2>/dev/null\ncat secret");
    let recipe = Recipe::new(Engine::Root, 0, &["--sandbox=chroot", "--tag=share"]);
    let container = Container::start(recipe.clone().with(AND_CHROOT), share.path())?;
    is_confined(&container)?;
    let Some(_) = works(container, &script, &[])? else {
        return Ok(());
    };
    was_done(share.path(), 0)?;
    let refused = Container::start(recipe.with(OF_THE_RUNTIME), share.path());
    let said = refused.err().context("it started")?.to_string();
    ensure!(said.contains("exit status: 1"), "{said}");
    ensure!(
        said.contains("it needs CAP_SYS_CHROOT; try --sandbox none or auto"),
        "{said}"
    );
    Ok(())
}

/// Engine, user, capabilities and what the log says.
type Choice = (Engine, u32, &'static [&'static str], &'static str);

const CHOICES: [Choice; 7] = [
    (Engine::Root, 0, OF_AN_ENGINE, "auto: chroot, because"),
    (Engine::Root, 0, AND_CHROOT, "auto: chroot, because"),
    (Engine::Root, 0, OF_THE_RUNTIME, "auto: none, because"),
    (
        Engine::Root,
        QEMU,
        &[],
        "auto: namespace in a user namespace, because",
    ),
    (Engine::Mapped, 0, OF_AN_ENGINE, "auto: chroot, because"),
    (Engine::Rootless, 0, OF_AN_ENGINE, "auto: chroot, because"),
    (Engine::Rootless, 0, &[], "auto: none, because"),
];

#[test]
fn auto_says_what_it_picks_in_each_container_and_serves() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    for (engine, uid, capabilities, says) in CHOICES {
        let share = share()?;
        let recipe = Recipe::new(engine, uid, &["--sandbox=auto"]).with(capabilities);
        let case = format!("{engine:?}, {uid}, {capabilities:?}");
        let owner = recipe.host_id(uid);
        let mut container = Container::start(recipe, share.path()).context(case.clone())?;
        let mut session = Session::open(&container.socket()).with_context(|| container.log())?;
        session.client().mkdir(ROOT, "made", 0o750)?;
        let made = fs::metadata(share.path().join("made"))?;
        ensure!(made.uid() == owner, "{case}: {made:?}");
        drop(session);
        let ended = container.exit()?;
        let log = container.log();
        ensure!(
            ended.success() && log.contains(says),
            "{case}: {ended} {log}"
        );
    }
    Ok(())
}

const FILES: u32 = 50_000;

/// A tree that takes a while to look at.
fn make_tree(share: &Path) -> Result<()> {
    for number in 0..FILES {
        let folder = share.join(format!("folder-{}", number / 500));
        if number % 500 == 0 {
            fs::create_dir(&folder)?;
        }
        fs::write(folder.join(format!("file-{number}")), "x")?;
    }
    for entry in fs::read_dir(share)? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// What it has in memory of its own; guest memory that it has touched is not.
fn own_kib(pid: u32) -> Result<u64> {
    let kib = |field: &str| -> Result<u64> {
        let text = status(pid, field)?;
        Ok(text.split_whitespace().next().context("kB")?.parse()?)
    };
    Ok(kib("RssAnon:")? + kib("RssFile:")?)
}

/// Looks at a process until it has ended; the most it had.
fn watched(pid: u32) -> u64 {
    let mut most_kib = 0;
    while let Ok(now_kib) = own_kib(pid) {
        most_kib = most_kib.max(now_kib);
        std::thread::sleep(Duration::from_millis(20));
    }
    most_kib
}

/// The guest walks twice through 50,000 files, opens and reads a tenth of them, and reads a file that is
/// larger than the limit. It has touched its memory before, as a monitor that allocates it at start has:
/// pages that the daemon is the first to touch count as the daemon's.
#[test]
fn fifty_thousand_files_fit_kubevirts_limits() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    // In memory: 50,000 files are made and removed quickly there.
    let share = Tmpfs::new()?;
    make_tree(share.path())?;
    fs::write(share.path().join("big"), vec![b'x'; 200 << 20])?;
    let limits = Limits {
        memory_bytes: 80_000_000,
        cpu_percent: 10,
    };
    let recipe = Recipe {
        limits: Some(limits),
        ..Recipe::new(Engine::Root, QEMU, &KUBEVIRT)
    };
    let container = Container::start(recipe, share.path())?;
    let pid = container.pid()?;
    let at_start_kib = own_kib(pid)?;
    let script = format!(
        "set -e
        dd if=/dev/zero of=/dev/shm/fill bs=1M count=400 2>/dev/null || true
        rm /dev/shm/fill
        now() {{ echo \"$1 $(cut -d ' ' -f 1 /proc/uptime)\"; }}
        now begun
        test $(find . -name 'file-*' | wc -l) = {FILES}
        now found
        test $(ls -lR . | grep -c ' file-') = {FILES}
        now listed
        test $(cat folder-?/file-* | wc -c) = 5000
        now read
        test $(wc -c <big) = {}
        now 'read all of it'",
        200 << 20
    );
    let watch = std::thread::spawn(move || watched(pid));
    let worked = works(container, &script, &[TAKEN_OVER])?;
    let most_kib = watch.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    if worked.is_none() {
        return Ok(());
    }
    println!("own memory: {at_start_kib} KiB at start, {most_kib} KiB at most");
    ensure!(most_kib * 1024 < limits.memory_bytes / 2, "{most_kib} KiB");
    Ok(())
}
