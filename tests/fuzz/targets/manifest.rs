//! A manifest's exact bytes: what passes keeps every promise that others rely on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::{limits, manifest::Manifest};

fuzz_target!(|input: &[u8]| {
    let Ok(manifest) = Manifest::parse(input) else { return };
    assert!(manifest.blocks.len() <= limits::MANIFEST_BLOCKS);
    let count = u64::try_from(manifest.blocks.len()).expect("few");
    let total: u64 = (0..count).map(|index| manifest.block_len(index)).sum();
    assert_eq!(total, manifest.file.size, "the blocks are the file");
    assert!(!manifest.reaches.is_empty(), "nothing would prove success");
    let _ = manifest.fits("Telit", "FN990A28");
});
