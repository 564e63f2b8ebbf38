//! What is shared: a directory or a single regular file, and whether it can be.

use std::fs::{File, FileType};
use std::io::ErrorKind;
use std::path::Path;

/// What a share is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory with all below it.
    Directory,
    /// One regular file.
    File,
}

/// Looks at the share before anything is made.
///
/// # Errors
///
/// One line for the operator.
pub fn kind(shared: &Path) -> Result<Kind, String> {
    let refused = |error: std::io::Error| {
        let advice = if error.kind() == ErrorKind::NotFound {
            "give the path of a directory that is there"
        } else if error.kind() == ErrorKind::PermissionDenied {
            "give the daemon's user the right to read it, or start it as another user"
        } else {
            "is it on a file system that is mounted and works?"
        };
        format!("cannot share {}: {error}; {advice}", shared.display())
    };
    let kind = kind_of(
        std::fs::metadata(shared).map_err(refused)?.file_type(),
        shared,
    )?;
    // A guest that could not even list the share had better not start.
    File::open(shared).map_err(refused)?;
    Ok(kind)
}

fn kind_of(found: FileType, shared: &Path) -> Result<Kind, String> {
    if found.is_dir() {
        Ok(Kind::Directory)
    } else if found.is_file() {
        Ok(Kind::File)
    } else {
        Err(format!(
            "cannot share {}: neither a directory nor a regular file; give the path of one",
            shared.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_regular_files_are_shared_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(kind(place.path()), Ok(Kind::Directory));
        assert_eq!(kind(&file), Ok(Kind::File));
        assert_eq!(kind(Path::new("/")), Ok(Kind::Directory));
        let cases = [
            (
                place.path().join("gone"),
                "No such file or directory (os error 2); give",
            ),
            ("/dev/null".into(), "neither a directory nor a regular file"),
        ];
        for (path, want) in cases {
            let refused = kind(&path).unwrap_err();
            assert!(refused.contains(want), "{refused}");
            assert!(refused.contains(&path.display().to_string()), "{refused}");
        }
    }
}
