//! The one dispatch: each request to the method that serves it.

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::{Access, Session};
use crate::abi::{
    AttrOut, CopyFileRangeOut, EntryOut, FileLock, GetxattrOut, IoctlOut, Kstatfs, LseekOut,
    OpenOut, StatxOut, WriteOut,
};
use crate::cancel::HangUp;
use crate::filesystem::{Context, Filesystem, Opened, Outcome, Refusal};
use crate::flags::InitFlags;
use crate::op::{HeldLock, IoctlCommand, LockKind, Op};
use crate::pages::{GuestPages, PageWriter};
use crate::reply::ReplySpace;
use crate::request::Request;

/// `O_ACCMODE`, `O_RDONLY` and `O_TRUNC` as Linux numbers them for a guest.
const ACCESS_MODE: u32 = 3;
const TRUNCATE: u32 = 0o1000;

impl<F: Filesystem> Session<F> {
    /// Serves everything that has an answer; returns the length of its body.
    #[expect(
        clippy::too_many_lines,
        reason = "the one exhaustive match over all requests, a line or two each"
    )]
    pub(super) fn dispatch(
        &self,
        cx: &Context<'_>,
        op: Op<'_>,
        request: &mut Request<'_>,
    ) -> Outcome<usize> {
        if self.options.access == Access::ReadOnly && changes_something(&op) {
            return Err(Refusal::Errno(Errno::ROFS));
        }
        let node = request.head.node();
        let fs = &self.fs;
        let reply = &mut request.reply;
        match op {
            Op::Lookup(op) => put(reply, &fs.lookup(cx, node, op)?.to_wire()),
            Op::Getattr(op) => put(reply, &fs.getattr(cx, node, op)?.to_wire()),
            Op::Statx(op) => put(reply, &fs.statx(cx, node, op)?.to_wire()),
            Op::Ioctl(op) => ioctl(reply, &fs.ioctl(cx, node, op)?),
            Op::Setattr(op) => put(reply, &fs.setattr(cx, node, op)?.to_wire()),
            Op::Readlink => {
                let mut into = reply.bytes(usize::MAX);
                fs.readlink(cx, node, &mut into)?;
                Ok(into.written_bytes())
            }
            Op::Symlink(op) => put(reply, &fs.symlink(cx, node, op)?.to_wire()),
            Op::Mknod(op) => put(reply, &fs.mknod(cx, node, op)?.to_wire()),
            Op::Mkdir(op) => put(reply, &fs.mkdir(cx, node, op)?.to_wire()),
            Op::Create(op) => {
                let (entry, opened) = fs.create(cx, node, op)?;
                put(
                    reply,
                    &Created {
                        entry: entry.to_wire(),
                        opened: opened.to_wire(),
                    },
                )
            }
            Op::Tmpfile(op) => {
                let (entry, opened) = fs.tmpfile(cx, node, op)?;
                put(
                    reply,
                    &Created {
                        entry: entry.to_wire(),
                        opened: opened.to_wire(),
                    },
                )
            }
            Op::Link(op) => put(reply, &fs.link(cx, node, op)?.to_wire()),
            Op::Unlink(op) => empty(fs.unlink(cx, node, op)),
            Op::Rmdir(op) => empty(fs.rmdir(cx, node, op)),
            Op::Rename(op) => empty(fs.rename(cx, node, op)),
            Op::Open(op) => put(reply, &fs.open(cx, node, op)?.to_wire()),
            Op::Read(op) => fs.read(cx, node, op, reply.body_pages(op.size_bytes)),
            Op::Write(op) => {
                if request.payload.len_bytes() < op.size_bytes {
                    return Err(Refusal::Errno(Errno::INVAL));
                }
                request.payload.truncate(op.size_bytes);
                let size = fs.write(cx, node, op, request.payload.reborrow())?;
                put(
                    reply,
                    &WriteOut {
                        size: short(size).into(),
                        padding: 0.into(),
                    },
                )
            }
            Op::Flush(op) => empty(fs.flush(cx, node, op)),
            Op::Fsync(op) => empty(fs.fsync(cx, node, op)),
            Op::Release(op) => empty(fs.release(cx, node, op)),
            Op::Opendir(op) => put(reply, &fs.opendir(cx, node, op)?.to_wire()),
            Op::Readdir(op) => {
                let mut into = reply.entries(op.size_bytes);
                fs.readdir(cx, node, op, &mut into)?;
                Ok(into.written_bytes())
            }
            Op::Readdirplus(op) => {
                let mut into = reply.entries(op.size_bytes);
                fs.readdirplus(cx, node, op, &mut into)?;
                Ok(into.written_bytes())
            }
            Op::Fsyncdir(op) => empty(fs.fsyncdir(cx, node, op)),
            Op::Releasedir(op) => empty(fs.releasedir(cx, node, op)),
            Op::Statfs => put(reply, &fs.statfs(cx, node)?.to_wire()),
            Op::Syncfs => empty(fs.syncfs(cx, node)),
            Op::Fallocate(op) => empty(fs.fallocate(cx, node, op)),
            Op::Lseek(op) => put(
                reply,
                &LseekOut {
                    offset: fs.lseek(cx, node, op)?.into(),
                },
            ),
            Op::CopyFileRange(mut op) => {
                // The reply counts in 32 bits; a page less than 4 GiB keeps the rest aligned.
                op.len_bytes = op.len_bytes.min(0xffff_f000);
                let size = fs.copy_file_range(cx, node, op)?;
                put(
                    reply,
                    &WriteOut {
                        size: u32::try_from(size).unwrap_or(u32::MAX).into(),
                        padding: 0.into(),
                    },
                )
            }
            Op::CopyFileRange64(op) => put(
                reply,
                &CopyFileRangeOut {
                    bytes_copied: fs.copy_file_range(cx, node, op)?.into(),
                },
            ),
            Op::Setxattr(op) => empty(fs.setxattr(cx, node, op)),
            Op::Getxattr(op) => xattr(reply, op.size_bytes, |into| fs.getxattr(cx, node, op, into)),
            Op::Listxattr(op) => xattr(reply, op.size_bytes, |into| {
                fs.listxattr(cx, node, op, into)
            }),
            Op::Removexattr(op) => empty(fs.removexattr(cx, node, op)),
            Op::Init(op) => self.init(op, reply),
            Op::Destroy => {
                self.end(HangUp::SessionEnded);
                Ok(0)
            }
            // Not served; ENOSYS tells a Linux guest to do without from now on.
            Op::Access { .. } | Op::Poll(_) | Op::Bmap(_) => absent(),
            Op::Setupmapping | Op::Removemapping => absent(),
            // A guest that did not agree keeps these locks to itself, and sends none.
            Op::Getlk(op) | Op::Setlk(op) | Op::Setlkw(op) if !agreed(cx, op.kind) => absent(),
            Op::Getlk(op) => put(reply, &HeldLock::to_wire(fs.getlk(cx, node, op)?)),
            Op::Setlk(op) => empty(fs.setlk(cx, node, op)),
            Op::Setlkw(op) => empty(fs.setlkw(cx, node, op)),
            // Answered by nothing at all, before this.
            Op::Forget(_) | Op::BatchForget(_) | Op::Interrupt(_) => Ok(0),
        }
    }
}

/// Reply of CREATE and TMPFILE.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Created {
    entry: EntryOut,
    opened: OpenOut,
}

impl Opened {
    fn to_wire(self) -> OpenOut {
        OpenOut {
            fh: self.handle.raw().into(),
            open_flags: self.flags.bits().into(),
            backing_id: 0.into(),
        }
    }
}

/// Bytes of the body of replies that have one fixed size; 0 for the others.
pub(super) fn fixed_reply_bytes(op: &Op<'_>) -> usize {
    match op {
        Op::Lookup(_) | Op::Symlink(_) | Op::Mknod(_) | Op::Mkdir(_) | Op::Link(_) => {
            size_of::<EntryOut>()
        }
        Op::Create(_) | Op::Tmpfile(_) => size_of::<Created>(),
        Op::Getattr(_) | Op::Setattr(_) => size_of::<AttrOut>(),
        Op::Open(_) | Op::Opendir(_) => size_of::<OpenOut>(),
        Op::Write(_) | Op::CopyFileRange(_) => size_of::<WriteOut>(),
        Op::CopyFileRange64(_) => size_of::<CopyFileRangeOut>(),
        Op::Lseek(_) => size_of::<LseekOut>(),
        Op::Statfs => size_of::<Kstatfs>(),
        Op::Init(_) => size_of::<crate::abi::InitOut>(),
        Op::Forget(_) | Op::BatchForget(_) | Op::Interrupt(_) | Op::Destroy => 0,
        Op::Readlink | Op::Read(_) | Op::Readdir(_) | Op::Readdirplus(_) => 0,
        Op::Unlink(_)
        | Op::Rmdir(_)
        | Op::Rename(_)
        | Op::Flush(_)
        | Op::Fsync(_)
        | Op::Release(_) => 0,
        Op::Fsyncdir(_) | Op::Releasedir(_) | Op::Syncfs | Op::Fallocate(_) | Op::Access { .. } => {
            0
        }
        Op::Setxattr(_) | Op::Getxattr(_) | Op::Listxattr(_) | Op::Removexattr(_) => 0,
        Op::Statx(_) => size_of::<StatxOut>(),
        Op::Ioctl(op) => size_of::<IoctlOut>().saturating_add(op.output_bytes),
        Op::Getlk(_) => size_of::<FileLock>(),
        Op::Setlk(_) | Op::Setlkw(_) | Op::Poll(_) => 0,
        Op::Bmap(_) | Op::Setupmapping | Op::Removemapping => 0,
    }
}

/// What a read-only share refuses: everything that changes a file, a name or an attribute.
fn changes_something(op: &Op<'_>) -> bool {
    match op {
        Op::Setattr(_)
        | Op::Symlink(_)
        | Op::Mknod(_)
        | Op::Mkdir(_)
        | Op::Create(_)
        | Op::Tmpfile(_) => true,
        Op::Link(_)
        | Op::Unlink(_)
        | Op::Rmdir(_)
        | Op::Rename(_)
        | Op::Write(_)
        | Op::Fallocate(_) => true,
        Op::CopyFileRange(_) | Op::CopyFileRange64(_) | Op::Setxattr(_) | Op::Removexattr(_) => {
            true
        }
        Op::Open(op) => {
            op.options.guest_flags & ACCESS_MODE != 0 || op.options.guest_flags & TRUNCATE != 0
        }
        Op::Lookup(_) | Op::Forget(_) | Op::BatchForget(_) | Op::Getattr(_) | Op::Statx(_) => false,
        Op::Access { .. }
        | Op::Readlink
        | Op::Read(_)
        | Op::Flush(_)
        | Op::Fsync(_)
        | Op::Release(_) => false,
        Op::Opendir(_)
        | Op::Readdir(_)
        | Op::Readdirplus(_)
        | Op::Fsyncdir(_)
        | Op::Releasedir(_) => false,
        Op::Statfs | Op::Syncfs | Op::Lseek(_) | Op::Getxattr(_) | Op::Listxattr(_) => false,
        Op::Ioctl(op) => op.command.is_some_and(IoctlCommand::changes_something),
        Op::Poll(_) | Op::Bmap(_) => false,
        Op::Getlk(_) | Op::Setlk(_) | Op::Setlkw(_) => false,
        Op::Setupmapping | Op::Removemapping | Op::Init(_) | Op::Interrupt(_) | Op::Destroy => {
            false
        }
    }
}

fn put<T: IntoBytes + Immutable>(reply: &mut ReplySpace<'_>, body: &T) -> Outcome<usize> {
    // The space was checked before the operation, so this is about replies nobody measured.
    reply.put(body).ok_or(Refusal::Errno(Errno::INVAL))
}

/// `struct fuse_ioctl_out`, and the command's output behind it. The space was checked before.
fn ioctl(reply: &mut ReplySpace<'_>, output: &[u8]) -> Outcome<usize> {
    let mut into = reply.bytes(usize::MAX);
    if into.push(IoctlOut::default().as_bytes()) && into.push(output) {
        Ok(into.written_bytes())
    } else {
        Err(Refusal::Errno(Errno::INVAL))
    }
}

fn empty(outcome: Outcome<()>) -> Outcome<usize> {
    outcome.map(|()| 0)
}

/// Whether locks of this family are taken here.
fn agreed(cx: &Context<'_>, kind: LockKind) -> bool {
    cx.negotiated.flags.contains(match kind {
        LockKind::Posix => InitFlags::POSIX_LOCKS,
        LockKind::Flock => InitFlags::FLOCK_LOCKS,
    })
}

fn absent() -> Outcome<usize> {
    Err(Refusal::Errno(Errno::NOSYS))
}

fn short(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Value or names when the guest asks for bytes, their length when it asks with size 0.
fn xattr(
    reply: &mut ReplySpace<'_>,
    size_bytes: usize,
    get: impl FnOnce(&mut PageWriter<'_>) -> Outcome<usize>,
) -> Outcome<usize> {
    if size_bytes > 0 {
        let mut into = reply.bytes(size_bytes);
        get(&mut into)?;
        return Ok(into.written_bytes());
    }
    // Not the reply's own pages: the length goes there.
    let len = get(&mut PageWriter::new(GuestPages::none()))?;
    put(
        reply,
        &GetxattrOut {
            size: short(len).into(),
            padding: 0.into(),
        },
    )
}
