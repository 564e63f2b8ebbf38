//! `/dev/fuse`: mounting it and adding readers to it.
#![expect(unsafe_code, reason = "FUSE_DEV_IOC_CLONE is an ioctl")]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::mount::{MountFlags, mount};

/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)`.
const CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

/// One open `/dev/fuse`, connected to a mount.
///
/// The kernel takes the reply to a request only from the descriptor that
/// read it.
#[derive(Debug)]
pub(crate) struct FuseDevice(OwnedFd);

impl FuseDevice {
    /// Mounts a FUSE file system and becomes its server.
    ///
    /// The options are what virtio-fs fixes for itself: everyone may use the
    /// mount, and the client checks permissions.
    pub(crate) fn mount(at: &Path) -> Result<Self> {
        let device = Self::open()?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.0.as_raw_fd()
        );
        let options = CString::new(options)?;
        mount(
            "fuse-bridge",
            at,
            "fuse",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .with_context(|| format!("mount fuse at {}", at.display()))?;
        Ok(device)
    }

    /// Opens one more descriptor for the same mount.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        let device = Self::open()?;
        let original = u32::try_from(self.0.as_raw_fd())?;
        // SAFETY: the kernel reads one u32 (fuse_dev_ioctl_clone), whatever
        // direction the number encodes.
        let clone = unsafe { Setter::<CLONE, u32>::new(original) };
        // SAFETY: `original` is the number of an open `/dev/fuse`.
        unsafe { ioctl(&device.0, clone) }.context("FUSE_DEV_IOC_CLONE")?;
        Ok(device)
    }

    fn open() -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = open("/dev/fuse", flags, Mode::empty()).context("open /dev/fuse")?;
        Ok(Self(file))
    }
}

impl AsFd for FuseDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
