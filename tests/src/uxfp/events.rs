//! What a run of the tool was given, for those who judge it: a line a start in a file that only the
//! campaign makes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// Beside the router's `dev`; nothing is noted where it is missing.
pub const LOG: &str = "tool-starts.log";

/// One start of the tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub pid: u32,
    pub arguments: Vec<String>,
    /// Lowercase hex, of the file it was given.
    pub sha256: String,
    /// No other run of the tool was alive.
    pub alone: bool,
}

impl Start {
    #[must_use]
    pub fn is_recovery(&self) -> bool {
        self.arguments.iter().any(|argument| argument == "--lossrecovery")
    }
}

/// Notes this run. What it returns shows that it lives, and goes with the process.
pub fn note(router: &Path, image: Option<&Path>) -> io::Result<Option<File>> {
    let path = router.join(LOG);
    if !path.exists() {
        return Ok(None);
    }
    let life = File::options().create(true).append(true).open(router.join("tool.lock"))?;
    let alone = life.try_lock().is_ok();
    let bytes = image.map(std::fs::read).transpose()?.unwrap_or_default();
    let start = Start {
        pid: std::process::id(),
        arguments: std::env::args().skip(1).collect(),
        sha256: crate::firmware::hex(&Sha256::digest(bytes)),
        alone,
    };
    let mut line = serde_json::to_vec(&start)?;
    line.push(b'\n');
    OpenOptions::new().append(true).open(path)?.write_all(&line)?;
    Ok(Some(life))
}

/// The starts so far.
///
/// # Errors
/// The file is not there or says something else.
pub fn starts(router: &Path) -> io::Result<Vec<Start>> {
    let text = std::fs::read_to_string(router.join(LOG))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
