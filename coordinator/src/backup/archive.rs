//! A backup's file: a tar archive (POSIX ustar), so that `tar` can look into it, that ends with the
//! SHA-256 of all that is before. What lacks its end is no backup.
//!
//! ```text
//! coordinator.db │ tls/… │ tokens/… │ artifacts/ab/<sha256> … │ SHA256SUMS │ two empty blocks
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use shared::hex::{Hasher, Sha256};

const BLOCK: usize = 512;
const SUMS: &str = "SHA256SUMS";
/// A line for each file: far more than any coordinator has images.
const LARGEST_SUMS: u64 = 64 << 20;
/// What fits the eleven octal digits of a size.
const OCTAL: u64 = 1 << 33;

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it is no backup of modem-upgrader: {0}")]
    Foreign(&'static str),
    #[error("it is cut short: the backup was not finished, or not copied whole")]
    CutShort,
    #[error("{0} is not what was backed up: the file was damaged or changed")]
    Damaged(String),
}

/// Writes an archive, a file after the other.
pub struct Writer<W> {
    out: W,
    modified: u64,
    sums: BTreeMap<String, Sha256>,
}

impl<W: Write> Writer<W> {
    /// `modified` in unix seconds is what the files in it are dated.
    pub fn new(out: W, modified: u64) -> Self {
        Self { out, modified, sums: BTreeMap::new() }
    }

    /// Adds a file of exactly `size` bytes.
    ///
    /// # Errors
    /// The archive cannot be written, or `content` is shorter.
    pub fn add(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        let sum = self.put(name, size, content)?;
        self.sums.insert(name.to_owned(), sum);
        Ok(())
    }

    /// Seals the archive.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let lines = self.sums.iter().map(|(name, sum)| format!("{sum}  {name}\n"));
        let text: String = lines.collect();
        self.put(SUMS, text.len() as u64, text.as_bytes())?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<Sha256> {
        let header = header(name, size, self.modified)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidFilename, name))?;
        self.out.write_all(&header)?;
        let mut hashing = Hashing { inner: &mut self.out, hasher: Hasher::new() };
        if io::copy(&mut content.take(size), &mut hashing)? < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let sum = hashing.hasher.finish();
        self.out.write_all(&[0; BLOCK][..padding(size)])?;
        Ok(sum)
    }
}

/// Reads an archive; nothing of it is to be believed before [`Reader::entry`] says that there is no more.
pub struct Reader<R> {
    from: R,
    found: BTreeMap<String, Sha256>,
}

/// A file in the archive, to be read before the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// Bytes.
    pub size: u64,
}

impl<R: Read> Reader<R> {
    pub fn new(from: R) -> Self {
        Self { from, found: BTreeMap::new() }
    }

    /// The next file; none where the sums begin, which are checked.
    ///
    /// # Errors
    /// No archive of ours, or one that is not what it was.
    pub fn entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut header = [0; BLOCK];
        fill(&mut self.from, &mut header)?;
        let entry = parse(&header)?;
        if entry.name == SUMS {
            self.check(&entry)?;
            return Ok(None);
        }
        Ok(Some(entry))
    }

    /// Copies the file to `out`.
    ///
    /// # Errors
    /// The archive ends too early, or `out` takes no more.
    pub fn copy(&mut self, entry: &Entry, out: impl Write) -> Result<(), ArchiveError> {
        let mut hashing = Hashing { inner: out, hasher: Hasher::new() };
        let copied = io::copy(&mut (&mut self.from).take(entry.size), &mut hashing)?;
        if copied < entry.size {
            return Err(ArchiveError::CutShort);
        }
        let sum = hashing.hasher.finish();
        fill(&mut self.from, &mut [0; BLOCK][..padding(entry.size)])?;
        if self.found.insert(entry.name.clone(), sum).is_some() {
            return Err(ArchiveError::Foreign("it has a file twice"));
        }
        Ok(())
    }

    fn check(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        if entry.size > LARGEST_SUMS {
            return Err(ArchiveError::Foreign("its list of sums is too long"));
        }
        let mut text = String::new();
        (&mut self.from).take(entry.size).read_to_string(&mut text)?;
        if (text.len() as u64) < entry.size {
            return Err(ArchiveError::CutShort);
        }
        let mut told = BTreeMap::new();
        for line in text.lines() {
            let known =
                line.split_once("  ").and_then(|(sum, name)| Some((name, sum.parse().ok()?)));
            let (name, sum) = known.ok_or(ArchiveError::Foreign("its sums cannot be read"))?;
            told.insert(name.to_owned(), sum);
        }
        for (name, sum) in &told {
            match self.found.get(name) {
                Some(found) if found == sum => {}
                _ => return Err(ArchiveError::Damaged(name.clone())),
            }
        }
        match self.found.keys().find(|name| !told.contains_key(*name)) {
            Some(name) => Err(ArchiveError::Damaged(name.clone())),
            None => Ok(()),
        }
    }
}

struct Hashing<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<(), ArchiveError> {
    from.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::CutShort,
        _ => error.into(),
    })
}

/// From the end of a file to the next block.
fn padding(size: u64) -> usize {
    match usize::try_from(size % BLOCK as u64) {
        Ok(0) | Err(_) => 0,
        Ok(rest) => BLOCK - rest,
    }
}

/// ustar, section "ustar Interchange Format" of POSIX's pax; sizes from 8 GiB on as GNU tar and
/// others write them, in binary. None for a name that does not fit.
fn header(name: &str, size: u64, modified: u64) -> Option<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    if name.is_empty() || name.len() >= 100 {
        return None;
    }
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < OCTAL {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80]);
        put(128, &size.to_be_bytes());
    }
    put(136, format!("{:011o}\0", modified.min(OCTAL - 1)).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

fn parse(block: &[u8; BLOCK]) -> Result<Entry, ArchiveError> {
    if block.iter().all(|byte| *byte == 0) {
        return Err(ArchiveError::Foreign("it has no sums"));
    }
    if &block[257..262] != b"ustar" || octal(&block[148..156]) != Some(checksum(block)) {
        return Err(ArchiveError::Foreign("it is no tar archive"));
    }
    if !matches!(block[156], b'0' | 0) {
        return Err(ArchiveError::Foreign("it has other things than files in it"));
    }
    let end = block[..100].iter().position(|byte| *byte == 0).unwrap_or(100);
    let name = std::str::from_utf8(&block[..end]).ok();
    let name = name.ok_or(ArchiveError::Foreign("it has names that are no text"))?;
    let size = if block[124] == 0x80 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&block[128..136]);
        u64::from_be_bytes(bytes)
    } else {
        octal(&block[124..136]).ok_or(ArchiveError::Foreign("it has a file without a size"))?
    };
    Ok(Entry { name: name.to_owned(), size })
}

/// Of a header with blanks where the checksum is.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let outside = block[..148].iter().chain(&block[156..]);
    outside.map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ')
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), 1_800_000_000);
        for (name, content) in files {
            writer.add(name, content.len() as u64, *content).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let mut reader = Reader::new(bytes);
        let mut files = Vec::new();
        while let Some(entry) = reader.entry()? {
            let mut content = Vec::new();
            reader.copy(&entry, &mut content)?;
            files.push((entry.name, content));
        }
        Ok(files)
    }

    #[test]
    fn files_come_back_as_they_went_in() {
        let large = vec![7; 1025];
        let files = [("coordinator.db", &large[..]), ("tls/key.pem", b""), ("a", &large[..512])];
        let read = read(&archive(&files)).unwrap();
        let same = read.iter().zip(files).all(|(read, file)| (&*read.0, &*read.1) == file);
        assert!(same && read.len() == files.len());
    }

    #[test]
    fn every_change_and_every_cut_is_noticed() {
        let whole = archive(&[("coordinator.db", b"one"), ("tokens/es256.pkcs8", b"two")]);
        for at in (0..whole.len() - 2 * BLOCK).filter(|at| whole[*at] != 0) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
        for length in 0..whole.len() - 2 * BLOCK - BLOCK {
            assert!(read(&whole[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn what_is_missing_or_added_is_noticed() {
        let (one, two) = (archive(&[("a", b"1")]), archive(&[("a", b"1"), ("b", b"2")]));
        let file = 2 * BLOCK;
        let without = [&two[..file], &two[2 * file..]].concat();
        assert!(matches!(read(&without), Err(ArchiveError::Damaged(name)) if name == "b"));
        let added = [&two[..2 * file], &one[file..]].concat();
        assert!(matches!(read(&added), Err(ArchiveError::Damaged(name)) if name == "b"));
        let twice = [&two[..file], &two[..]].concat();
        assert!(matches!(read(&twice), Err(ArchiveError::Foreign(_))));
    }

    #[test]
    fn files_beyond_octal_digits_keep_their_size() {
        for size in [0, 511, OCTAL - 1, OCTAL, u64::MAX] {
            let header = header("coordinator.db", size, 0).unwrap();
            assert_eq!(parse(&header).unwrap().size, size);
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut writer = Writer::new(Vec::new(), 0);
        let short = writer.add("a", 9, &b"short"[..]).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
