//! Private files that are made once, at the first start, and read at every later one: the TLS key
//! and the key that signs device tokens. Owns how they reach the disk: mode 0600 from the first
//! byte on, complete or absent, durable before anything depends on them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// No key or certificate chain of ours comes near this; a bigger file is not one of ours.
const LARGEST: u64 = 256 * 1024;

/// The content of `path`, made by `make` when there is no such file yet; `failed` says what a
/// failure of the file system is to the caller.
///
/// # Errors
/// What the file system or `make` answered, or a file over 256 KiB.
pub fn read_or_make<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    make: impl FnOnce() -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let content = make()?;
            write(path, &content).map_err(failed)?;
            Ok(content)
        }
        other => other.map_err(failed),
    }
}

/// Reads a file of bounded size.
///
/// # Errors
/// What the file system answered, or [`io::ErrorKind::FileTooLarge`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length <= LARGEST) {
        Ok(content)
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}

/// Writes `path` so that a power cut leaves either nothing or all of it.
///
/// # Errors
/// What the file system answered.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    make_folder(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = folder.join(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

/// As `create_dir_all`, durably: a file is not safer than the folders above it.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new("."));
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(if above.as_os_str().is_empty() { Path::new(".") } else { above })?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/key");
        let first = read_or_make(&path, |error| error, || Ok(b"one".to_vec())).unwrap();
        let second = read_or_make(&path, |error| error, || panic!("made twice")).unwrap();
        assert_eq!((first, second), (b"one".to_vec(), b"one".to_vec()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_left_over_of_an_interrupted_write_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key.new"), b"half").unwrap();
        write(&folder.path().join("key"), b"whole").unwrap();
        assert_eq!(read(&folder.path().join("key")).unwrap(), b"whole");
    }

    #[test]
    fn an_oversized_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, vec![0; 256 * 1024 + 1]).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
