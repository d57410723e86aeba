//! Firmware as routers decode it: one zstd frame with a window that fits into their memory.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::Context;
use shared::limits;

/// zstd's level: slow and small, for it is done once and fetched by thousands.
const LEVEL: i32 = 19;

/// Writes `from` compressed to `to`, beside it first, so that half a file never has the name.
pub fn compress(from: &Path, to: &Path) -> anyhow::Result<()> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    let new = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .with_context(|| format!("cannot write {}", to.display()))?;
    let mut plain = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    encode(&mut plain, new.as_file())
        .with_context(|| format!("cannot compress {}", from.display()))?;
    new.persist(to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}

fn encode(plain: &mut File, to: &File) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(to, LEVEL)?;
    encoder.window_log(limits::ZSTD_WINDOW.ilog2())?;
    io::copy(plain, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}
