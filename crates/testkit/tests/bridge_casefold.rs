//! Names whatever their case, as Linux's client meets them: its own cache takes each spelling for a name of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::on_tmpfs;

const UNICODE: &[&str] = &["--casefold", "unicode", "--cache", "always"];

fn errno(result: std::io::Result<()>) -> Option<Errno> {
    Errno::from_io_error(&result.err()?)
}

fn sorted(place: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(place)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[test]
fn a_path_is_walked_whatever_its_case_and_what_is_made_keeps_its_own() -> Result<()> {
    let Some((shared, share)) = on_tmpfs(UNICODE)? else {
        return Ok(());
    };
    let inside = share.path();
    std::fs::create_dir_all(inside.join("Users/\u{c4}nne"))?;
    std::fs::write(inside.join("USERS/\u{e4}NNE/Notes.txt"), "kept")?;
    ensure!(std::fs::read(inside.join("users/\u{e4}nne/NOTES.TXT"))? == b"kept");
    ensure!(std::fs::read(shared.path().join("Users/\u{c4}nne/Notes.txt"))? == b"kept");
    // Made again and written again it is the same file.
    std::fs::write(inside.join("users/\u{c4}NNE/notes.TXT"), "anew")?;
    ensure!(sorted(&shared.path().join("Users/\u{c4}nne"))? == ["Notes.txt"]);
    ensure!(sorted(&inside.join("USERS/\u{c4}NNE"))? == ["Notes.txt"]);
    let again = errno(std::fs::create_dir(inside.join("USERS")));
    ensure!(again == Some(Errno::EXIST), "{again:?}");
    let moved = errno(std::fs::rename(
        inside.join("users/\u{e4}nne/notes.txt"),
        inside.join("Out"),
    ));
    ensure!(moved.is_none(), "{moved:?}");
    ensure!(sorted(shared.path())? == ["Out", "Users"]);
    share.finish()
}

/// With everything cached a name that is kept would outlive its file, and one that is thought free hide it.
#[test]
fn what_is_made_or_removed_by_one_spelling_is_there_or_gone_by_every_other() -> Result<()> {
    let Some((shared, share)) = on_tmpfs(UNICODE)? else {
        return Ok(());
    };
    let at = |name: &str| share.path().join(name);
    for round in 0..20 {
        let spellings = ["file", "FILE", "File"];
        for spelling in spellings {
            ensure!(!at(spelling).exists(), "round {round}: {spelling} is there");
        }
        let (made, removed) = (spellings[round % 3], spellings[(round + 1) % 3]);
        std::fs::write(at(made), "x")?;
        ensure!(shared.path().join(made).exists());
        for spelling in spellings {
            ensure!(
                at(spelling).exists(),
                "round {round}: {spelling} is not there"
            );
        }
        std::fs::remove_file(at(removed))?;
    }
    ensure!(sorted(shared.path())?.is_empty());
    share.finish()
}

/// Linux finds both names to be one directory; a working directory goes on by whatever name.
#[test]
fn a_directory_that_is_known_by_two_spellings_is_one() -> Result<()> {
    let Some((_shared, share)) = on_tmpfs(UNICODE)? else {
        return Ok(());
    };
    let script = "set -e; mkdir -p Deep/Er; cd Deep/Er; echo one > file; cat ../../DEEP/ER/FILE; \
        echo two > ../../deep/er/other; cat OTHER; test \"$(ls)\" = \"$(printf 'file\\nother')\"; \
        rm FILE other; cd ../..; rmdir DEEP/er; rmdir deep; test -z \"$(ls)\"";
    let ran = Command::new("sh")
        .args(["-c", script])
        .current_dir(share.path())
        .output()?;
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(ran.status.success(), "{errors}");
    ensure!(ran.stdout == b"one\ntwo\n", "{:?}", ran.stdout);
    share.finish()
}

/// It looks the new name up first, and finds that source and target are one file.
#[test]
fn a_linux_client_renames_to_another_case_without_asking() -> Result<()> {
    let Some((shared, share)) = on_tmpfs(UNICODE)? else {
        return Ok(());
    };
    std::fs::write(share.path().join("file"), "x")?;
    std::fs::rename(share.path().join("file"), share.path().join("FILE"))?;
    ensure!(sorted(shared.path())? == ["file"]);
    // By way of a third name it is done.
    std::fs::rename(share.path().join("file"), share.path().join("other"))?;
    std::fs::rename(share.path().join("other"), share.path().join("FILE"))?;
    ensure!(sorted(shared.path())? == ["FILE"]);
    share.finish()
}
