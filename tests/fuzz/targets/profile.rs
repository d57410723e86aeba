//! A profile that somebody wrote by hand: understood, or refused with a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::profile::ToolProfile;

fuzz_target!(|text: &str| {
    match ToolProfile::parse(text) {
        Ok(profile) => {
            let (expected, longest) = profile.dark_window_s();
            assert!(expected <= longest);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
