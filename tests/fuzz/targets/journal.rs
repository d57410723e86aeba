//! The journal's file after whatever happened to the disk. The first byte chooses: the bytes as
//! they are, or as the body of a slot whose digest holds.

#![no_main]

use fuzz::upgrade::journal::understand;
use libfuzzer_sys::fuzz_target;
use shared::hex::Hasher;

fn slot(generation: u64, body: &[u8]) -> Vec<u8> {
    let generation = generation.to_be_bytes();
    let length = u32::try_from(body.len()).expect("inputs are small");
    let mut hasher = Hasher::new();
    hasher.update(&generation);
    hasher.update(body);
    let digest = hasher.finish().0;
    [b"MUJRNL01".as_slice(), &length.to_be_bytes(), &generation, &digest, body].concat()
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let content = match choice % 2 {
        0 => bytes.to_vec(),
        _ => slot(u64::from(choice), bytes),
    };
    let _ = understand(&content);
});
