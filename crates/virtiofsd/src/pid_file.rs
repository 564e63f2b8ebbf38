//! `<socket>.pid`: which daemon has the socket, locked for its life.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A locked pid file. The lock goes with the process.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
}

impl PidFile {
    /// Takes the socket, unless a live daemon has it.
    ///
    /// # Errors
    ///
    /// One line for the operator; names the other daemon's pid.
    pub fn take(socket: &Path) -> Result<Self, String> {
        let path = path_for(socket);
        loop {
            let taken = Self::lock(socket, &path)?;
            // A daemon that ends removes its file; a lock on a file without a name keeps nobody out.
            if taken.is_at(&path) {
                return Ok(taken);
            }
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let ours = self.file.metadata().map(identity);
        let there = std::fs::symlink_metadata(path).map(identity);
        matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
    }

    fn lock(socket: &Path, path: &Path) -> Result<Self, String> {
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path);
        let mut file = open.map_err(|error| {
            format!(
                "pid file {}: {error}; is its directory there and writable?",
                path.display()
            )
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The number is a help for the operator; the refusal does not rest on it.
                let _ = file.read_to_string(&mut pid);
                return Err(format!(
                    "socket {} belongs to the daemon with pid {}; stop it, or choose another path",
                    socket.display(),
                    pid.trim()
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(format!("pid file {}: {error}", path.display()));
            }
        }
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// Removes it: there is going to be no daemon.
    pub fn remove(&self) {
        // What stays behind is taken over by the next start.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Writes the pid that an operator would signal.
    ///
    /// # Errors
    ///
    /// One line for the operator.
    pub fn write(&mut self, pid: u32) -> Result<(), String> {
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(self.file, "{pid}"));
        written.map_err(|error| format!("pid file: {error}"))
    }
}

/// Where the pid of a socket's daemon stands.
pub fn path_for(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".pid");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_the_pid_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let mut first = PidFile::take(&socket).unwrap();
        first.write(4711).unwrap();
        assert!(PidFile::take(&socket).unwrap_err().contains("pid 4711"));
        assert_eq!(
            std::fs::read_to_string(path_for(&socket)).unwrap(),
            "4711\n"
        );
        drop(first);
        PidFile::take(&socket).unwrap();
    }
}
