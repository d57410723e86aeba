//! The copy of an encoded image that the tool gets: decoded beside it, a block at a time, with the
//! same care for room and durability.
//!
//! ```text
//! image/fw.bin.zst ──decode──▶ image/fw.bin.part ──size and digest as signed──▶ image/fw.bin
//! ```

use super::{ImageFile, Staged, StagingError};
use crate::files;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use shared::{
    hex::{Hasher, Sha256},
    limits,
    manifest::{Decoded, File},
};
use std::{
    fs::OpenOptions,
    io::{self, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
};

/// Why there is no decoded copy.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The encoded file is damaged, or never was what the manifest says.
    #[error("the image cannot be decoded: {0}")]
    Encoding(String),
    #[error("the image decodes to {found} bytes or more, not to {expected}")]
    Size { expected: u64, found: u64 },
    #[error("the image decodes to something with the digest {found}")]
    Digest { found: Sha256 },
}

/// Makes the decoded copy of `file`. The decoder keeps at most [`limits::ZSTD_WINDOW`] bytes.
///
/// # Errors
/// See [`Undecodable`]; a half-made copy is not mistaken for a whole one.
pub fn decode(staged: &Staged, file: &File, decoded: &Decoded) -> Result<(), Undecodable> {
    let part = format!("{}.part", decoded.name);
    let copy = staged.open_image(&part)?;
    copy.cut(0)?;
    let encoded = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(staged.image_path(&file.name))
        .map_err(StagingError::from)?;
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(limits::ZSTD_WINDOW);
    let reader = StreamingDecoder::new_with_decoder(BufReader::new(encoded), decoder)
        .map_err(|error| Undecodable::Encoding(error.to_string()))?;
    let found = write(reader, &copy, decoded.size)?;
    if found != decoded.sha256 {
        return Err(Undecodable::Digest { found });
    }
    let (from, to) = (staged.image_path(&part), staged.image_path(&decoded.name));
    files::rename(&from, &to).and_then(|()| files::sync_parent(&to)).map_err(StagingError::from)?;
    Ok(())
}

/// Writes what `reader` gives, exactly `size` bytes, and returns its digest.
fn write(mut reader: impl Read, copy: &ImageFile, size: u64) -> Result<Sha256, Undecodable> {
    let mut hasher = Hasher::new();
    let mut block = Vec::new();
    let mut done = 0;
    loop {
        block.clear();
        let broken = |error: io::Error| Undecodable::Encoding(error.to_string());
        reader.by_ref().take(limits::BLOCK).read_to_end(&mut block).map_err(broken)?;
        if block.is_empty() {
            break;
        }
        let end = done + block.len() as u64;
        if end > size {
            return Err(Undecodable::Size { expected: size, found: end });
        }
        hasher.update(&block);
        copy.write_block(done, &block)?;
        done = end;
    }
    if done == size {
        Ok(hasher.finish())
    } else {
        Err(Undecodable::Size { expected: size, found: done })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{staging::Staging, testing::firmware};
    use shared::{
        hex::{Hex, sha256},
        manifest::Encoding,
    };

    struct Case {
        _directory: tempfile::TempDir,
        staged: Staged,
        file: File,
        decoded: Decoded,
    }

    /// 2.5 MB of firmware and its encoded form with a window of `1 << window_log` bytes.
    fn case(window_log: u32) -> Case {
        let plain = firmware(2_500_000);
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(window_log).unwrap();
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        let bytes = encoder.finish().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let staging = Staging::new(vec![directory.path().to_owned()], 0, vec![]);
        let staged = staging.stage(&Hex([9; 32]), 1, 1, false).unwrap();
        std::fs::write(staged.image_path("fw.bin.zst"), &bytes).unwrap();
        let file = File {
            name: "fw.bin.zst".into(),
            size: bytes.len() as u64,
            sha256: sha256(&bytes),
            encoding: Encoding::Zstd,
            decoded: None,
        };
        let decoded =
            Decoded { name: "fw.bin".into(), size: plain.len() as u64, sha256: sha256(&plain) };
        Case { _directory: directory, staged, file, decoded }
    }

    impl Case {
        fn decode(&self) -> Result<(), Undecodable> {
            decode(&self.staged, &self.file, &self.decoded)
        }

        fn copy(&self) -> Option<Vec<u8>> {
            std::fs::read(self.staged.image_path("fw.bin")).ok()
        }
    }

    #[test]
    fn the_copy_is_what_was_encoded_also_over_a_half_made_one() {
        let case = case(20);
        std::fs::write(case.staged.image_path("fw.bin.part"), vec![1; 3_000_000]).unwrap();
        case.decode().unwrap();
        assert_eq!(case.copy().unwrap(), firmware(2_500_000));
        assert!(!case.staged.image_path("fw.bin.part").exists());
    }

    #[test]
    fn a_window_that_does_not_fit_into_a_router_is_refused() {
        assert!(matches!(case(22).decode(), Err(Undecodable::Encoding(_))));
    }

    #[test]
    fn what_is_not_as_signed_is_no_copy() {
        let mut longer = case(20);
        longer.decoded.size += 1;
        assert!(matches!(longer.decode(), Err(Undecodable::Size { .. })));
        let mut shorter = case(20);
        shorter.decoded.size -= 1;
        assert!(matches!(shorter.decode(), Err(Undecodable::Size { .. })));
        let mut other = case(20);
        other.decoded.sha256 = Hex([1; 32]);
        assert!(matches!(other.decode(), Err(Undecodable::Digest { .. })));
        for case in [longer, shorter, other] {
            assert_eq!(case.copy(), None);
        }
    }

    #[test]
    fn damage_is_found() {
        let case = case(20);
        let path = case.staged.image_path("fw.bin.zst");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(case.decode().is_err());
        let mut flipped = whole;
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        std::fs::write(&path, flipped).unwrap();
        assert!(case.decode().is_err());
        assert_eq!(case.copy(), None);
    }
}
