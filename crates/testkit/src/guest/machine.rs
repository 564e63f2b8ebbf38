//! The machines that guests run on: what each is made of, and how it is started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::packages::{self, Suite, Tree};
use super::{Attendance, Files, cache};

/// A monitor and the kernel that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// User-mode Linux 6.1: near native speed; one processor, one request queue.
    Uml61,
    /// User-mode Linux 7.2, the newest FUSE.
    Uml72,
    /// QEMU 7.2 with Linux 6.1: virtio over PCI, an old front-end.
    Qemu72,
    /// QEMU 10.0 with Linux 6.12: several request queues.
    Qemu100,
    /// QEMU 11.1 with Linux 7.2.
    Qemu111,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uml61 => "user-mode Linux 6.1",
            Self::Uml72 => "user-mode Linux 7.2",
            Self::Qemu72 => "QEMU 7.2 with Linux 6.1",
            Self::Qemu100 => "QEMU 10.0 with Linux 6.12",
            Self::Qemu111 => "QEMU 11.1 with Linux 7.2",
        })
    }
}

/// Whose monitor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Uml,
    Qemu,
}

/// What a guest is given.
#[derive(Clone, Debug)]
pub(super) struct Hardware {
    pub(super) memory_mib: u32,
    pub(super) request_queues: u16,
    pub(super) socket: PathBuf,
    pub(super) kernel_options: Vec<String>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            memory_mib: 512,
            request_queues: 1,
            socket: PathBuf::new(),
            kernel_options: Vec::new(),
        }
    }
}

/// A machine's packages, unpacked.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    tree: Tree,
    /// The folder of the kernel's modules.
    modules: PathBuf,
}

/// Kernel modules in the order in which they are loaded; what a kernel does
/// not have as a module is built into it.
pub(super) const MODULES: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "overlay",
    "fuse",
    "virtiofs",
];

impl Kernel {
    /// The modules of [`MODULES`] that are files of this kernel, unpacked.
    pub(super) fn modules(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut list = Command::new(packages::busybox()?);
        list.args(["find", ".", "-name", "*.ko*"])
            .current_dir(&self.modules);
        let files = String::from_utf8(packages::output_of(&mut list)?)?;
        let named = |name: &str| {
            files.lines().find(|path| {
                let file = path.rsplit('/').next().unwrap_or(path);
                file.strip_suffix(".xz").unwrap_or(file) == format!("{name}.ko")
            })
        };
        MODULES
            .iter()
            .filter_map(|name| Some((*name, self.modules.join(named(name)?))))
            .map(|(name, path)| Ok((name, read_module(&path)?)))
            .collect()
    }
}

/// The bytes of a module; newer kernels have them compressed.
fn read_module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|suffix| suffix == "xz") {
        let mut unxz = Command::new(packages::busybox()?);
        return packages::output_of(unxz.args(["unxz", "-c"]).arg(path));
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}

impl Machine {
    /// Every machine.
    pub const ALL: [Self; 5] = [
        Self::Uml61,
        Self::Uml72,
        Self::Qemu72,
        Self::Qemu100,
        Self::Qemu111,
    ];

    /// What it is called on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uml61 => "uml-6.1",
            Self::Uml72 => "uml-7.2",
            Self::Qemu72 => "qemu-7.2",
            Self::Qemu100 => "qemu-10.0",
            Self::Qemu111 => "qemu-11.1",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Uml61 | Self::Uml72 => Kind::Uml,
            Self::Qemu72 | Self::Qemu100 | Self::Qemu111 => Kind::Qemu,
        }
    }

    fn suite(self) -> Suite {
        match self {
            Self::Uml61 | Self::Qemu72 => Suite::Bookworm,
            Self::Qemu100 => Suite::BookwormBackports,
            Self::Uml72 | Self::Qemu111 => Suite::Forky,
        }
    }

    /// Fetches what it is made of.
    pub(super) fn kernel(self) -> Result<Kernel> {
        let (packages, modules): (&[&str], _) = match self.kind() {
            Kind::Uml => (&["user-mode-linux"], "usr/lib/uml/modules"),
            Kind::Qemu => (
                &["qemu-system-x86", "linux-image-cloud-amd64"],
                "usr/lib/modules",
            ),
        };
        let tree = Tree::fetch(self.suite(), packages)?;
        let modules = tree.only_entry(modules)?;
        Ok(Kernel { tree, modules })
    }

    /// The guest's device that carries output and exit code.
    pub(super) fn channel(self) -> &'static str {
        match self.kind() {
            Kind::Uml => "/dev/ttyS0",
            Kind::Qemu => "/dev/ttyS1",
        }
    }

    /// The terminal that a shell runs on.
    pub(super) fn console(self) -> &'static str {
        match self.kind() {
            Kind::Uml => "/dev/tty0",
            Kind::Qemu => "/dev/ttyS0",
        }
    }

    /// The guest's device with the Debian root.
    pub(super) fn disk(self) -> &'static str {
        match self.kind() {
            Kind::Uml => "/dev/ubda",
            Kind::Qemu => "/dev/vda",
        }
    }

    /// The command that boots it.
    pub(super) fn command(
        self,
        kernel: &Kernel,
        hardware: &Hardware,
        files: &Files,
        attendance: Attendance,
    ) -> Result<Command> {
        match self.kind() {
            Kind::Uml => uml(kernel, hardware, files, attendance),
            Kind::Qemu => qemu(kernel, hardware, files),
        }
    }
}

/// User-mode Linux is a program; its devices are files and descriptors.
fn uml(
    kernel: &Kernel,
    hardware: &Hardware,
    files: &Files,
    attendance: Attendance,
) -> Result<Command> {
    ensure!(hardware.request_queues == 1, "it has one request queue");
    // Only the shell can hand a further descriptor on without unsafe code.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", r#"exec 3>>"$1"; shift; exec "$@""#, "sh"])
        .arg(&files.channel)
        .arg(uml_program(&kernel.tree)?);
    let path = |path: &Path| path.display().to_string();
    // Number 26 is the file system device (virtio 1.3, 5); user-mode Linux
    // numbers what it finds from 1.
    command.args([
        format!("mem={}M", hardware.memory_mib),
        format!("initrd={}", path(&files.initrd)),
        format!("virtio_uml.device={}:26:1", path(&hardware.socket)),
        format!("uml_dir={}/", path(&files.place)),
        "umid=guest".to_owned(),
        "con=null".to_owned(),
        "con0=fd:0,fd:1".to_owned(),
        "ssl0=null,fd:3".to_owned(),
    ]);
    command.args(&hardware.kernel_options);
    if let Some(disk) = &files.disk {
        command.arg(format!("ubd0r={}", path(disk)));
    }
    if attendance == Attendance::Interactive {
        command.arg("quiet");
    }
    // The guest's memory is a file there.
    if let Some(place) = memory_place(hardware, &files.place)? {
        command.env("TMPDIR", place);
    }
    Ok(command)
}

/// Where else than `/dev/shm` the guest's memory has to be, if that is too small (as in containers).
fn memory_place<'a>(hardware: &Hardware, otherwise: &'a Path) -> Result<Option<&'a Path>> {
    let space = rustix::fs::statvfs("/dev/shm")?;
    // User-mode Linux adds up to 200 MiB to what is asked for.
    let need_bytes = (u64::from(hardware.memory_mib) + 256) << 20;
    Ok((space.f_bavail * space.f_frsize < need_bytes).then_some(otherwise))
}

/// `linux.uml`, made to find its tree's loader and libraries.
///
/// It runs itself anew at the start, so starting it through the loader, as
/// [`Tree::command`] does, is not enough.
fn uml_program(tree: &Tree) -> Result<PathBuf> {
    let recipe = format!("1 {}", tree.path("").display());
    let folder = cache::entry("uml-program", &recipe, |staging| {
        let program = staging.join("linux.uml");
        crate::program::copy(tree.path("usr/bin/linux.uml"), &program)?;
        let mut patchelf = Tree::fetch(Suite::Bookworm, &["patchelf"])?.command("usr/bin/patchelf");
        patchelf
            .arg("--set-interpreter")
            .arg(tree.loader())
            .args(["--force-rpath", "--set-rpath"])
            .arg(tree.libraries())
            .arg(program);
        packages::output_of(&mut patchelf).map(drop)
    })?;
    Ok(folder.join("linux.uml"))
}

/// QEMU emulates a PC: every instruction in software, so that it runs everywhere.
fn qemu(kernel: &Kernel, hardware: &Hardware, files: &Files) -> Result<Command> {
    let tree = &kernel.tree;
    let mut command = tree.command("usr/bin/qemu-system-x86_64");
    command.env("QEMU_MODULE_DIR", tree.libraries().join("qemu"));
    for folder in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        command.arg("-L").arg(tree.path(folder));
    }
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ]);
    // With cx16, QEMU 7.2 crashes guests of two processors.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"]);
    let path = |path: &Path| path.display().to_string();
    let (memory_mib, queues) = (hardware.memory_mib, hardware.request_queues);
    let mut device = "vhost-user-fs-pci,queue-size=1024,chardev=share,tag=share".to_owned();
    if queues > 1 {
        device.push_str(&format!(",num-request-queues={queues}"));
    }
    let mut kernel_line = "console=ttyS0 quiet panic=-1".to_owned();
    for option in &hardware.kernel_options {
        kernel_line.push_str(&format!(" {option}"));
    }
    let share = path(&hardware.socket);
    let memory = format!("memory-backend-memfd,id=mem,size={memory_mib}M,share=on");
    let options = [
        ("-m", format!("{memory_mib}M")),
        ("-smp", queues.to_string()),
        ("-object", memory),
        ("-numa", "node,memdev=mem".to_owned()),
        ("-chardev", format!("socket,id=share,path={share}")),
        ("-device", device),
        ("-kernel", path(&kernel_image(tree)?)),
        ("-initrd", path(&files.initrd)),
        ("-append", kernel_line),
        ("-serial", "stdio".to_owned()),
        ("-serial", format!("file:{}", path(&files.channel))),
    ];
    for (name, value) in options {
        command.arg(name).arg(value);
    }
    if let Some(disk) = &files.disk {
        // Nobody writes to it; user-mode Linux guests of another run may have it locked.
        let locking = "file.locking=off";
        let drive = format!(
            "file={},format=raw,if=virtio,readonly=on,{locking}",
            path(disk)
        );
        command.arg("-drive").arg(drive);
    }
    Ok(command)
}

/// The kernel, in `/boot`, or since Debian 14 beside its modules.
fn kernel_image(tree: &Tree) -> Result<PathBuf> {
    let modules = tree.only_entry("usr/lib/modules")?;
    let release = modules.file_name().context("a release")?;
    let mut in_boot = std::ffi::OsString::from("boot/vmlinuz-");
    in_boot.push(release);
    let candidates = [tree.path("").join(in_boot), modules.join("vmlinuz")];
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .context("a package of a kernel has no kernel")
}
