//! A tree of files of all kinds, and a listing of everything that a copy must keep.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Files in one folder.
const FOLDER: u32 = 50;

/// Makes `count` files below `root`, spread over folders: plain files of many
/// sizes, modes, owners and times, with symbolic and hard links among them.
pub fn make(root: &Path, count: u32) -> Result<()> {
    fs::create_dir(root)?;
    for number in 0..count {
        let folder = root.join(format!("folder {}", number / FOLDER));
        if number % FOLDER == 0 {
            fs::create_dir(&folder)?;
        }
        let path = folder.join(format!("file {number}"));
        make_one(&path, number).with_context(|| path.display().to_string())?;
    }
    // Last: a folder's time changes with each file in it.
    for number in 0..count.div_ceil(FOLDER) {
        let folder = root.join(format!("folder {number}"));
        fs::set_permissions(&folder, Permissions::from_mode(0o2700 | (number % 0o100)))?;
        set_time(&File::open(folder)?, number)?;
    }
    set_time(&File::open(root)?, count)
}

fn make_one(path: &Path, number: u32) -> Result<()> {
    let before = |distance: u32| path.with_file_name(format!("file {}", number - distance));
    match number % 10 {
        8 => symlink(format!("file {}", number - 1), path)?,
        9 => fs::hard_link(before(2), path)?,
        _ => {
            let mut file = File::create(path)?;
            let content = number.wrapping_mul(2_654_435_761).to_le_bytes();
            let size = usize::try_from(number * number % 20_011)?;
            file.write_all(&content.repeat(size / 4))?;
            chown(path, Some(number % 7), Some(number % 11))?;
            // After the owner, whose change takes setuid and setgid away.
            fs::set_permissions(path, Permissions::from_mode(mode(number)))?;
            set_time(&file, number)?;
        }
    }
    Ok(())
}

/// All permission bits occur, setuid, setgid and sticky among them.
fn mode(number: u32) -> u32 {
    number.wrapping_mul(0o1357) % 0o10_000
}

/// A time with nanoseconds, before or long after 1970.
fn set_time(file: &File, number: u32) -> Result<()> {
    let offset = Duration::new(u64::from(number) * 100_003, number % 1000 * 999_983);
    let time = if number % 17 == 3 {
        UNIX_EPOCH - offset
    } else {
        UNIX_EPOCH + offset
    };
    Ok(file.set_modified(time)?)
}

/// One line for each file: name, type, mode, owner, links, size, time and target,
/// as the copy's script has `find` print them.
pub fn listing(root: &Path) -> Result<String> {
    let mut lines = Vec::new();
    list(root, "", &mut lines)?;
    lines.sort();
    Ok(lines.concat())
}

fn list(path: &Path, name: &str, lines: &mut Vec<String>) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let letter = if kind.is_dir() {
        'd'
    } else if kind.is_symlink() {
        'l'
    } else if kind.is_fifo() {
        'p'
    } else {
        'f'
    };
    let size = if kind.is_dir() {
        "-".to_owned()
    } else {
        metadata.len().to_string()
    };
    let target = if kind.is_symlink() {
        fs::read_link(path)?.display().to_string()
    } else {
        String::new()
    };
    lines.push(format!(
        "{name}\t{letter}\t{:o}\t{}:{}\t{}\t{size}\t{}\t{target}\n",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
        metadata.nlink(),
        time(metadata.mtime(), metadata.mtime_nsec()),
    ));
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let below = entry.file_name().to_string_lossy().into_owned();
            let below = if name.is_empty() {
                below
            } else {
                format!("{name}/{below}")
            };
            list(&entry.path(), &below, lines)?;
        }
    }
    Ok(())
}

/// Seconds as `find -printf %T@` writes them: with ten places, and with the
/// nanoseconds of a time before 1970 counted forward from its second.
fn time(secs: i64, nanos: i64) -> String {
    format!("{secs}.{nanos:09}0")
}
