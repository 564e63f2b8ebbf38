//! Names of every kind that are kept as they are (man 7 path_resolution).

use rustix::fs::{rename, rmdir, unlink};

use super::kit::*;

super::checks!("names":
    mkdir_over_a_name_is_refused, mkdir_in_what_is_not_there, mkdir_with_a_slash, a_name_of_dots,
    a_name_of_255_bytes, a_name_that_is_no_text, names_that_differ_in_case,
    names_that_differ_in_form, a_name_with_a_line_feed, a_backslash_is_a_letter,
    a_colon_is_a_letter, dot_names, names_that_look_like_orders,
);

fn mkdir_over_a_name_is_refused() -> Outcome {
    new("f")?;
    dir("d")?;
    refused(rustix::fs::mkdir("f", mode(0o755)), Errno::EXIST)?;
    refused(rustix::fs::mkdir("d", mode(0o755)), Errno::EXIST)?;
    refused(rustix::fs::mkdir(".", mode(0o755)), Errno::EXIST)
}

fn mkdir_in_what_is_not_there() -> Outcome {
    new("f")?;
    refused(rustix::fs::mkdir("d/e", mode(0o755)), Errno::NOENT)?;
    refused(rustix::fs::mkdir("f/e", mode(0o755)), Errno::NOTDIR)
}

fn mkdir_with_a_slash() -> Outcome {
    dir("d/")?;
    rmdir("d/")?;
    is(exists("d"), false)
}

/// A name is kept as it is: made, listed, found, renamed, removed.
fn name_is_kept(name: &std::ffi::CStr) -> Outcome {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    rustix::fs::open(name, flags, mode(0o644))?;
    use std::os::unix::ffi::OsStrExt;
    let listed: Vec<_> = std::fs::read_dir(".")?
        .map(|entry| entry.map(|entry| entry.file_name().as_bytes().to_vec()))
        .collect::<Result<_, _>>()?;
    is(listed, vec![name.to_bytes().to_vec()])?;
    rustix::fs::lstat(name)?;
    rename(name, "other")?;
    rename("other", name)?;
    Ok(unlink(name)?)
}

fn a_name_of_dots() -> Outcome {
    name_is_kept(c"...")?;
    name_is_kept(c"..a")
}

fn a_name_of_255_bytes() -> Outcome {
    let name = std::ffi::CString::new("n".repeat(255)).unwrap_or_default();
    name_is_kept(&name)
}

/// Some stores have names of text only.
fn a_name_that_is_no_text() -> Outcome {
    name_is_kept(c"\xff\xfe\x80")
}

fn names_that_differ_in_case() -> Outcome {
    with("name", b"small")?;
    with("NAME", b"large")?;
    is(std::fs::read("name")?, b"small".to_vec())
}

/// The same letter, composed and decomposed.
fn names_that_differ_in_form() -> Outcome {
    with("\u{e9}", b"one")?;
    with("e\u{301}", b"two")?;
    is(std::fs::read("\u{e9}")?, b"one".to_vec())
}

fn a_name_with_a_line_feed() -> Outcome {
    name_is_kept(c"a\nb\tc")
}

fn a_backslash_is_a_letter() -> Outcome {
    name_is_kept(c"a\\b")
}

fn a_colon_is_a_letter() -> Outcome {
    name_is_kept(c"a:b?*\"<>|")
}

fn dot_names() -> Outcome {
    name_is_kept(c".hidden")?;
    name_is_kept(c"end.")?;
    name_is_kept(c" ")
}

fn names_that_look_like_orders() -> Outcome {
    name_is_kept(c"-rf")?;
    name_is_kept(c"$HOME")?;
    name_is_kept(c"nul")
}
