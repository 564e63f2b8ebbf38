//! What does not come out on a share as on its store, and why it cannot.
//!
//! `docs/SEMANTICS.md` tells the same to users. A check that is listed must fail, so that no list
//! outlives its reason.

/// A check that comes out otherwise on a share, as documented.
#[derive(Clone, Copy, Debug)]
pub struct Known(
    /// Its name.
    pub &'static str,
    /// Why it must be so.
    pub &'static str,
);

/// What makes everything available that a share can do.
pub const EVERYTHING: &[&str] = &[
    "--xattr",
    "--posix-acl",
    "--posix-lock",
    "--flock",
    "--allow-direct-io",
    "--preserve-noatime",
    "--modcaps=+sys_admin:+linux_immutable",
];

/// What makes a guest write later, and believe what it has.
pub const WRITE_BACK: &[&str] = &["--cache", "always", "--writeback"];

/// What no share does, with whatever options.
pub const NEVER: &[Known] = &[
    Known("space::collapsing_takes_a_part_out", NO_REQUEST),
    Known("space::collapsing_to_the_end_is_refused", NO_REQUEST),
    Known("space::collapsing_a_part_of_a_block_is_refused", NO_REQUEST),
    Known("space::inserting_moves_the_rest", NO_REQUEST),
    Known("space::inserting_at_the_end_is_refused", NO_REQUEST),
    Known("space::inserting_a_part_of_a_block_is_refused", NO_REQUEST),
    Known("syncs::extents_are_told", NO_REQUEST),
    Known("syncs::an_empty_file_has_no_extent", NO_REQUEST),
    Known("copies::a_clone", NO_REQUEST),
    Known(
        "offsets::preadv2_without_waiting",
        "Linux's client has no reading that does not wait",
    ),
    Known(
        "flags::they_show_in_statx",
        "Linux's client has them for who asks for flags only",
    ),
];

const NO_REQUEST: &str = "the protocol has no request for it";

/// What the host does with each write.
pub const WRITTEN_AT_ONCE: &[Known] = &[Known(
    "privileges::group_id_without_execution_stays",
    "the host is not told who else is in a file's group, and drops the bit",
)];

/// What comes of writing later, and of believing what is known.
pub const WRITTEN_LATER: &[Known] = &[
    Known(
        "flags::a_change_shows_in_ctime",
        "Linux's client keeps the attributes that it has when it sets flags",
    ),
    Known("flags::append_only_is_appended_to", NO_APPENDING),
    Known("flags::append_only_is_not_cut", NO_APPENDING),
    Known(
        "flags::immutable_is_not_written_through_an_old_descriptor",
        "the store is asked when it is written back",
    ),
    Known(
        "numbers::blocks_of_an_open_file",
        "they are asked for anew when it is closed",
    ),
    Known("space::a_hole_is_found", NO_SEARCH),
    Known("space::data_is_found", NO_SEARCH),
    Known("space::in_a_hole_at_the_end_no_data_is_found", NO_SEARCH),
    Known("space::searching_sets_the_position", NO_SEARCH),
    Known("space::what_was_punched_is_a_hole", NO_SEARCH),
    Known("space::what_was_written_is_data", NO_SEARCH),
    Known(
        "movements::reading_moves_atime",
        "what was written is still there, and is not read on the host",
    ),
];

const NO_APPENDING: &str = "what is written back later has no place in a file that only grows";
const NO_SEARCH: &str = "a file has no holes for a guest that writes back later";

/// With `--no-killpriv-v2`, where O_TRUNC becomes a request of its own.
pub const CUT_BY_SETATTR: &[Known] = &[Known(
    "movements::opening_with_trunc_moves_mtime",
    "an empty file is cut as truncate(2) does it, which moves no time",
)];

/// Only in guests: what Linux's virtio-fs driver does not send.
pub const UNINTERRUPTED: &[Known] = &[Known(
    "locks::a_killed_wait_takes_nothing",
    "Linux's virtio-fs driver sends no INTERRUPT",
)];

/// Only in user-mode Linux, which is built without fanotify's permission events.
pub const NOT_ASKED: &[Known] = &[
    Known(
        "notices::an_opening_that_is_forbidden_is_eperm",
        NO_QUESTIONS,
    ),
    Known("notices::an_opening_that_is_allowed_goes_on", NO_QUESTIONS),
];

const NO_QUESTIONS: &str = "CONFIG_FANOTIFY_ACCESS_PERMISSIONS is off in these guests' kernels";

/// Only in guests: what Linux 6.1 does not ask for or tell.
pub const LINUX_6_1: &[Known] = &[
    Known("numbers::a_birth_is_there", NO_STATX),
    Known("numbers::a_birth_stays", NO_STATX),
    Known("numbers::a_birth_is_not_after_the_change", NO_STATX),
    Known(
        "privileges::a_file_for_a_group_one_is_in",
        "before Linux 6.3 the further group is not told that makes it one's own",
    ),
];

const NO_STATX: &str = "before Linux 6.6 the time of birth is not asked for";
