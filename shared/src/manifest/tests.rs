use super::*;
use crate::hex::Hex;

/// The golden one, for an image of two blocks.
fn manifest() -> Manifest {
    let golden = include_bytes!("../../tests/golden/manifest.json");
    let mut manifest = Manifest::parse(golden).unwrap();
    manifest.file.size = limits::BLOCK + 1;
    manifest.blocks = vec![Hex([1; 32]), Hex([2; 32])];
    manifest
}

fn parse(manifest: &Manifest) -> Result<Manifest, ManifestError> {
    Manifest::parse(&serde_json::to_vec(manifest).unwrap())
}

#[test]
fn a_sound_manifest_is_read() {
    let m = parse(&manifest()).unwrap();
    assert_eq!((m.block_len(0), m.block_len(1), m.block_len(2)), (limits::BLOCK, 1, 0));
    assert!(m.fits("Telit Cinterion", "FN990A28"));
    assert!(!m.fits("Telit", "FN990A40"));
    assert!(!m.fits("Quectel", "FN990A28"));
}

fn encoded() -> Manifest {
    let mut manifest = manifest();
    manifest.file.encoding = Encoding::Zstd;
    manifest.file.name = "fn990.bin.zst".into();
    manifest.file.decoded =
        Some(Decoded { name: "fn990.bin".into(), size: 3 << 20, sha256: Hex([3; 32]) });
    manifest
}

#[test]
fn the_tool_gets_what_the_file_decodes_to() {
    let (plain, encoded) = (manifest(), parse(&encoded()).unwrap());
    assert_eq!(plain.tool_file().name, plain.file.name);
    assert_eq!(plain.tool_file().size, limits::BLOCK + 1);
    assert_eq!((encoded.tool_file().name, encoded.tool_file().size), ("fn990.bin", 3 << 20));
    assert_eq!(*encoded.tool_file().sha256, Hex([3; 32]));
}

#[test]
fn an_encoded_file_says_what_it_decodes_to() {
    let with = |change: fn(&mut Decoded)| {
        let mut manifest = encoded();
        change(manifest.file.decoded.as_mut().unwrap());
        parse(&manifest).unwrap_err().to_string()
    };
    assert!(with(|d| d.size = 0).contains("file.decoded.size"));
    assert!(with(|d| d.size = u64::MAX).contains("file.decoded.size"));
    assert!(with(|d| d.name = "fn990.bin.zst".into()).contains("file.decoded.name"));
    assert!(with(|d| d.name = "../fn990.bin".into()).contains("file.decoded.name"));
    let mut bare = encoded();
    bare.file.decoded = None;
    assert!(parse(&bare).unwrap_err().to_string().contains("file.decoded"));
    let mut plain = manifest();
    plain.file.decoded = encoded().file.decoded;
    assert!(parse(&plain).unwrap_err().to_string().contains("not encoded"));
}

type Change = fn(&mut Manifest);

#[test]
fn what_does_not_fit_together_is_refused() {
    let cases: [(&str, Change); 15] = [
        ("format 2", |m| m.format = 2),
        ("critical", |m| m.critical = vec!["quantum".into()]),
        ("blocks", |m| m.blocks.truncate(1)),
        ("blocks", |m| m.file.size = 0),
        ("blocks", |m| m.file.size = u64::MAX),
        ("block_size", |m| m.block_size = 0),
        ("file.name", |m| m.file.name = "../../etc/passwd".into()),
        ("file.name", |m| m.file.name = "-f".into()),
        ("sequence", |m| m.sequence = 1 << 63),
        ("models", |m| m.models.clear()),
        ("vendor", |m| m.vendor = "a\nb".into()),
        ("reaches", |m| m.reaches.clear()),
        ("reaches", |m| m.reaches[0].command = "#REBOOT;+CFUN=0".into()),
        ("reaches", |m| m.reaches[0].line = 0),
        ("from", |m| m.from[0][0].command = "#REBOOT;".into()),
    ];
    for (index, (word, change)) in cases.into_iter().enumerate() {
        let mut bad = manifest();
        change(&mut bad);
        let error = parse(&bad).expect_err(&format!("case {index}")).to_string();
        assert!(error.contains(word), "case {index}: {error}");
    }
}

#[test]
fn unknown_fields_pass_unless_critical() {
    let mut json = serde_json::to_value(manifest()).unwrap();
    json["colour"] = "blue".into();
    assert!(Manifest::parse(json.to_string().as_bytes()).is_ok());
    json["critical"] = vec!["colour"].into();
    assert!(matches!(
        Manifest::parse(json.to_string().as_bytes()),
        Err(ManifestError::Critical(name)) if name == "colour"
    ));
}

#[test]
fn duplicate_keys_and_size_are_refused() {
    let text = serde_json::to_string(&manifest()).unwrap();
    let doubled = text.replacen('{', r#"{"sequence":9,"#, 1);
    assert!(matches!(Manifest::parse(doubled.as_bytes()), Err(ManifestError::Json(_))));
    let large = format!("{text}{}", " ".repeat(limits::MANIFEST));
    assert!(matches!(Manifest::parse(large.as_bytes()), Err(ManifestError::TooLarge(_))));
}
