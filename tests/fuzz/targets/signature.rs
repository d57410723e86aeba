//! Signature and key files: what is understood can be written and says the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::signature::{Keyring, PublicKey, SecretKey, Signature};

fuzz_target!(|text: &str| {
    if let Ok(signature) = Signature::parse(text) {
        let again = Signature::parse(&signature.to_text("again")).expect("what was read");
        assert_eq!(again.number, signature.number);
        assert!(Keyring::default().verify(b"message", text).is_err(), "nobody is trusted");
    }
    if let Ok(key) = PublicKey::parse(text) {
        let again = PublicKey::parse(&key.to_text("again")).expect("what was read");
        assert_eq!(again.number, key.number);
    }
    let _ = SecretKey::parse(text);
});
