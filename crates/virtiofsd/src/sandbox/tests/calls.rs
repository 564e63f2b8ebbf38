//! From inside, with the filter: which system calls end the process, and which are made.

use super::*;

/// Calls of each family that a share never needs.
#[test]
fn calls_that_serve_no_share_end_the_process() {
    if !is_root() {
        return;
    }
    const USER: usize = 0x1000_0000;
    const CHILD: usize = 17;
    const EXECUTABLE: usize = 5;
    let cases: &[(&str, libc::c_long, [usize; 5])] = &[
        ("mount", libc::SYS_mount, [0; 5]),
        ("umount", libc::SYS_umount2, [0; 5]),
        ("pivot_root", libc::SYS_pivot_root, [0; 5]),
        ("chroot", libc::SYS_chroot, [0; 5]),
        ("fsopen", libc::SYS_fsopen, [0; 5]),
        ("open_tree", libc::SYS_open_tree, [0; 5]),
        ("move_mount", libc::SYS_move_mount, [0; 5]),
        ("unshare of users", libc::SYS_unshare, [USER, 0, 0, 0, 0]),
        (
            "clone with users",
            libc::SYS_clone,
            [USER | CHILD, 0, 0, 0, 0],
        ),
        ("fork", libc::SYS_clone, [CHILD, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [0; 5]),
        ("ptrace", libc::SYS_ptrace, [16, 1, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [0; 5]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [0; 5]),
        ("kill", libc::SYS_kill, [0; 5]),
        ("socket", libc::SYS_socket, [1, 1, 0, 0, 0]),
        ("connect", libc::SYS_connect, [0; 5]),
        ("bind", libc::SYS_bind, [0; 5]),
        ("execve", libc::SYS_execve, [0; 5]),
        ("execveat", libc::SYS_execveat, [0; 5]),
        (
            "executable memory",
            libc::SYS_mmap,
            [0, 4096, EXECUTABLE, 0x22, 0],
        ),
        (
            "memory made executable",
            libc::SYS_mprotect,
            [0, 0, EXECUTABLE, 0, 0],
        ),
        ("bpf", libc::SYS_bpf, [0; 5]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 5]),
        ("userfaultfd", libc::SYS_userfaultfd, [0; 5]),
        ("keyctl", libc::SYS_keyctl, [0; 5]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0; 5]),
        ("init_module", libc::SYS_init_module, [0; 5]),
        ("finit_module", libc::SYS_finit_module, [0; 5]),
        ("kexec_load", libc::SYS_kexec_load, [0; 5]),
        ("reboot", libc::SYS_reboot, [0; 5]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0; 5]),
        ("ioctl", libc::SYS_ioctl, [0; 5]),
        ("chdir", libc::SYS_chdir, [0; 5]),
        ("fchdir", libc::SYS_fchdir, [0; 5]),
        ("to be dumpable", libc::SYS_prctl, [4, 1, 0, 0, 0]),
        ("memfd_create", libc::SYS_memfd_create, [0; 5]),
    ];
    let place = Place::new();
    for mode in MODES {
        for (name, number, arguments) in cases {
            for seccomp in ["kill", "trap"] {
                let attempt = |_: &Confined| sys::attempt(*number, *arguments);
                let got = place.attempt((mode, seccomp), attempt);
                assert_eq!(got, KILLED, "{name}, {mode}, --seccomp {seccomp}");
            }
        }
    }
}

#[test]
fn other_doors_into_the_kernel_are_shut() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for mode in MODES {
        // The C library is to use clone, whose flags can be read.
        let clone3 = place.attempt((mode, "kill"), |_| sys::attempt(libc::SYS_clone3, [0; 5]));
        assert_eq!(clone3, libc::ENOSYS, "{mode}");
        #[cfg(target_arch = "x86_64")]
        {
            let x32 = |_: &Confined| sys::attempt(0x4000_0000 | libc::SYS_getpid, [0; 5]);
            assert_eq!(place.attempt((mode, "kill"), x32), KILLED, "{mode}");
            let i386 = |_: &Confined| {
                sys::enter_as_i386();
                Ok(())
            };
            for seccomp in ["kill", "log", "trap"] {
                assert_eq!(
                    place.attempt((mode, seccomp), i386),
                    KILLED,
                    "{mode} {seccomp}"
                );
            }
        }
    }
}

#[test]
fn what_the_filter_only_logs_is_done() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for seccomp in ["log", "none"] {
        let got = place.attempt(("none", seccomp), |_| {
            sys::attempt(libc::SYS_getppid, [0; 5])
        });
        assert_eq!(got, 0, "{seccomp}");
    }
    let threads = |_: &Confined| {
        let thread = std::thread::Builder::new()
            .name("another".into())
            .spawn(|| 7);
        thread
            .map_err(|_| Errno::AGAIN)?
            .join()
            .map_err(|_| Errno::IO)
            .map(drop)
    };
    for mode in MODES {
        assert_eq!(place.attempt((mode, "kill"), threads), 0, "{mode}");
    }
}

/// A panic is told and ends its thread, with the filter on: what unwinding needs is on the list.
#[test]
fn a_panic_stays_within_the_list() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for mode in MODES {
        let got = place.attempt((mode, "kill"), |_| {
            let caught = std::thread::spawn(|| {
                std::panic::set_hook(Box::new(|_| {}));
                let empty: Vec<u8> = std::hint::black_box(Vec::new());
                empty[0]
            })
            .join();
            // Malloc grows and gives back.
            let large = std::hint::black_box(vec![1_u8; 300 << 20]);
            caught
                .map_or(Ok(()), |_| Err(Errno::IO))
                .and(if large[7] == 1 {
                    Ok(())
                } else {
                    Err(Errno::IO)
                })
        });
        assert_eq!(got, 0, "{mode}");
    }
}
