//! For the tests: scripts that stand in for a router's programs, firmware and its manifest.

use shared::hex::sha256;
use shared::limits;
use shared::manifest::Manifest;
use shared::signature::SecretKey;
use std::path::Path;
use std::process::Command;

/// Makes an executable shell script. A child writes it: a test thread that forks while this
/// process has it open for writing would make it "text file busy".
#[allow(clippy::disallowed_methods, reason = "a child writes the script")]
pub fn script(path: &Path, body: &str) {
    let done = Command::new("/bin/sh")
        .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 755 "$0""#])
        .arg(path)
        .arg(body)
        .status()
        .unwrap();
    assert!(done.success());
}

/// Bytes without a pattern that a block could share with another.
pub fn firmware(size: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_u32;
    let mut next = || {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        word.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

/// The golden manifest, for `image` and for whatever version runs.
pub fn manifest_of(image: &[u8]) -> Manifest {
    let golden = include_bytes!("../../shared/tests/golden/manifest.json");
    let block = usize::try_from(limits::BLOCK).unwrap();
    let mut manifest = Manifest::parse(golden).unwrap();
    manifest.not_after = None;
    manifest.allow_rollback = false;
    manifest.from.clear();
    manifest.tool.options.clear();
    manifest.file.size = image.len() as u64;
    manifest.file.sha256 = sha256(image);
    manifest.blocks = image.chunks(block).map(sha256).collect();
    manifest
}

pub fn secret_key(number: u8) -> SecretKey {
    SecretKey::from_random([number; 32], [number; 8]).unwrap()
}
