//! Keys, manifests and signatures without a server, and the way of an image to one.

use std::path::Path;
use std::process::Command;

use crate::{Server, bad, good, offline};

/// A key pair `release.*`, and `fw.bin` signed by it.
pub fn signed(folder: &Path) {
    good(offline(folder, &["firmware", "keygen", "release"]));
    std::fs::write(folder.join("fw.bin"), vec![7; (1 << 20) + 5]).unwrap();
    good(offline(folder, &SIGN));
}

const SIGN: [&str; 18] = [
    "firmware",
    "sign",
    "--key",
    "release.sec",
    "--vendor",
    "Telit",
    "--model",
    "FN990A28",
    "--category",
    "FN990A",
    "--sequence",
    "7",
    "--reaches",
    "#SWPKGV:1=45.00.012",
    "--tool",
    "telit-uxfp",
    "--file",
    "fw.bin",
];

const VERIFY: [&str; 10] = [
    "firmware",
    "verify",
    "--key",
    "release.pub",
    "--manifest",
    "fw.bin.manifest.json",
    "--signature",
    "fw.bin.manifest.json.sig",
    "--file",
    "fw.bin",
];

#[test]
fn keys_are_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    good(offline(folder.path(), &["firmware", "keygen", "release"]));
    let secret = folder.path().join("release.sec");
    assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&secret).unwrap();
    let refused = bad(offline(folder.path(), &["firmware", "keygen", "release"]));
    assert!(refused.contains("never overwritten"), "{refused}");
    std::fs::remove_file(folder.path().join("release.pub")).unwrap();
    bad(offline(folder.path(), &["firmware", "keygen", "release"]));
    assert_eq!(std::fs::read(&secret).unwrap(), before);
}

#[test]
fn what_was_signed_verifies_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    signed(folder);
    assert!(good(offline(folder, &VERIFY)).contains("AT#SWPKGV line 1: 45.00.012"));

    std::fs::write(folder.join("fw.bin"), vec![8; (1 << 20) + 5]).unwrap();
    assert!(bad(offline(folder, &VERIFY)).contains("block 0"));
    std::fs::write(folder.join("fw.bin"), vec![7; 9]).unwrap();
    assert!(bad(offline(folder, &VERIFY)).contains("9 bytes"));

    let manifest = folder.join("fw.bin.manifest.json");
    let changed = std::fs::read_to_string(&manifest).unwrap().replace("FN990A28", "FN990A40");
    std::fs::write(&manifest, changed).unwrap();
    assert!(bad(offline(folder, &VERIFY)).contains("does not fit"));

    good(offline(folder, &["firmware", "keygen", "other"]));
    let mut other = VERIFY;
    other[3] = "other.pub";
    assert!(bad(offline(folder, &other)).contains("which no --key is"));
}

#[test]
fn compressed_firmware_is_signed_with_what_it_decodes_to() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    signed(folder);
    let mut arguments = SIGN.to_vec();
    arguments.push("--compress");
    assert!(good(offline(folder, &arguments)).contains("bytes of 1048581"));
    let mut verify = VERIFY;
    verify[5] = "fw.bin.zst.manifest.json";
    verify[7] = "fw.bin.zst.manifest.json.sig";
    verify[9] = "fw.bin.zst";
    good(offline(folder, &verify));
    let manifest = std::fs::read(folder.join("fw.bin.zst.manifest.json")).unwrap();
    let manifest = shared::manifest::Manifest::parse(&manifest).unwrap();
    assert_eq!((manifest.tool_file().name, manifest.tool_file().size), ("fw.bin", (1 << 20) + 5));
    assert!(manifest.file.size < 10_000);
}

#[test]
fn what_routers_would_refuse_is_not_signed() {
    let folder = tempfile::tempdir().unwrap();
    signed(folder.path());
    for (place, value, word) in [
        (13, "#REBOOT;+CFUN=0", "read command"),
        (13, "#SWPKGV", "COMMAND"),
        (17, "absent.bin", "absent.bin"),
        (3, "release.pub", "secret key"),
    ] {
        let mut arguments = SIGN;
        arguments[place] = value;
        let output = offline(folder.path(), &arguments);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(word), "{value}: {error}");
    }
    let mut option = SIGN.to_vec();
    option.extend(["--option", "speed=--help"]);
    assert!(bad(offline(folder.path(), &option)).contains("speed"));
}

#[test]
fn firmware_is_uploaded_and_lists_are_printed() {
    let server = Server::start();
    signed(server.folder.path());
    let file = server.folder.path().join("fw.bin");
    let file = file.to_str().unwrap();
    let upload =
        ["upload", "--category", "FN990A", "--version", "45.00.012", "--model", "FN990A", file];
    let image = server.json(&upload);
    assert_eq!(
        (&image["type"], &image["boards"]),
        (&"telit-uxfp".into(), &serde_json::json!(["FN990A28"]))
    );
    assert_eq!(image["size"], (1 << 20) + 5);
    assert!(image["signed_by"].is_string());
    let again = bad(server.run(&upload));
    assert!(again.contains("type: The build has an image of this type."), "{again}");
    let id = image["id"].as_str().unwrap();

    assert_eq!(server.json(&["devices"]), serde_json::json!([]));
    assert!(good(server.run(&["devices"])).starts_with("DEVICE"));
    assert!(good(server.run(&["operations"])).starts_with("OPERATION"));
    let nobody = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
    let unknown = bad(server.run(&["upgrade", "--device", nobody, "--image", id]));
    assert!(unknown.contains("not found"), "{unknown}");
    let odd = bad(server.run(&["operations", "--status", "odd"]));
    assert!(odd.contains("status: Select a valid choice"), "{odd}");
}

/// Needs signify-openbsd; run by .ci/run with `-- --ignored`.
#[test]
#[ignore = "needs signify-openbsd"]
fn signify_and_we_take_each_others_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    signed(folder);
    let signify = |arguments: &[&str]| {
        Command::new("signify-openbsd").args(arguments).current_dir(folder).output().unwrap()
    };
    let manifest = "fw.bin.manifest.json";
    good(signify(&["-V", "-p", "release.pub", "-m", manifest, "-x", "fw.bin.manifest.json.sig"]));

    good(signify(&["-G", "-n", "-p", "other.pub", "-s", "other.sec"]));
    let mut sign = SIGN;
    sign[3] = "other.sec";
    good(offline(folder, &sign));
    let mut verify = VERIFY;
    verify[3] = "other.pub";
    good(offline(folder, &verify));

    good(signify(&["-S", "-s", "other.sec", "-m", manifest, "-x", "by-signify.sig"]));
    verify[7] = "by-signify.sig";
    good(offline(folder, &verify));
    std::fs::write(folder.join(manifest), "{}").unwrap();
    assert!(
        !signify(&["-V", "-p", "other.pub", "-m", manifest, "-x", "by-signify.sig"])
            .status
            .success()
    );
    bad(offline(folder, &verify));
}
