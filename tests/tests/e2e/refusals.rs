//! What must not reach a modem: each is a clear failure with its stage and kind, and the modem was
//! not touched.

use crate::{enrolled, scene};
use lab::{
    faults::{ToolFault, ToolFaultKind, take_tool_faults, write_tool_faults},
    modem::FlashCondition,
    release::{FROM, Key, Release, Wanted},
    router::Router,
    scene::Scene,
    watch::{self, until},
};
use serde_json::json;
use std::{fs, path::Path};

/// Consumed by the first run of the tool: still there means that none ran.
pub const UNUSED: ToolFault =
    ToolFault { kind: ToolFaultKind::Fail { at_percent: 0 }, times: Some(1) };

/// A scene with one router that refuses one release after the other.
struct Refusals {
    // Ends before what it lies in.
    router: Router,
    scene: Scene,
    device: String,
    made: u64,
}

impl Refusals {
    async fn start(name: &str) -> Self {
        let scene = scene(&format!("refusals-{name}"));
        let (router, device) = enrolled(&scene, &[UNUSED]).await;
        Self { router, scene, device, made: 0 }
    }

    /// A good release, a build of its own.
    fn release(&mut self) -> Release {
        self.made += 1;
        let build = Some(format!("case-{}", self.made));
        self.scene.release(&Wanted { build, size: 2 << 20, ..Wanted::default() }).unwrap()
    }

    fn upload(&self, release: &Release) -> String {
        release.upload(&self.scene.coordinator).unwrap()
    }

    /// Changes the stored image behind the API's back: what a coordinator in wrong hands would do.
    fn forge(&self, image: &str, column: &str, value: &dyn rusqlite::ToSql) {
        let statement = format!("UPDATE images SET {column} = ?2 WHERE id = ?1");
        let changed = self.scene.database().unwrap().execute(&statement, (image, value)).unwrap();
        assert_eq!(changed, 1);
    }

    /// Upgrades with `image` and expects it to be refused.
    async fn refused(&self, case: &str, image: &str, stage: &str, kind: &str) {
        let operation = watch::assign(&self.scene.api, &self.device, image).await.unwrap();
        expect_refused(&self.scene, &self.router, case, &operation, stage, kind).await;
    }
}

pub async fn expect_refused(
    scene: &Scene,
    router: &Router,
    case: &str,
    operation: &str,
    stage: &str,
    kind: &str,
) {
    let ended = scene.ended(operation).await;
    let ended = ended.unwrap_or_else(|error| panic!("{case}: {error:#}\n{}", router.agent_log()));
    let failure = &ended["failure"];
    let found = ["stage", "kind", "condition"].map(|name| failure[name].as_str().unwrap_or("?"));
    assert_eq!(found, [stage, kind, "untouched"], "{case}: {ended:#}");
    assert_eq!(ended["status"], "aborted", "{case}");
    assert!(!failure["detail"].as_str().unwrap().is_empty(), "{case}: no detail");
    assert_untouched(router, case);
}

fn assert_untouched(router: &Router, case: &str) {
    let flash = router.modem.state().unwrap().flash;
    assert_eq!((flash.begun, flash.condition), (0, FlashCondition::Whole), "{case}");
    assert_eq!(flash.versions.package, FROM, "{case}");
    assert_eq!(router.holder_calls(), Vec::<String>::new(), "{case}: something was held");
    // Looking takes it, so it is put back.
    let left = take_tool_faults(&router.dir).unwrap();
    assert_eq!(left, [UNUSED.kind], "{case}: the tool ran");
    write_tool_faults(&router.dir, &[UNUSED]).unwrap();
}

/// What the API says to an upload that it refuses.
fn assert_upload_refused(release: &Release, scene: &Scene, field: &str) {
    let error = format!("{:#}", release.upload(&scene.coordinator).unwrap_err());
    assert!(error.contains(field), "the field {field} is not named: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_trusted_key_signed_is_taken() {
    let mut all = Refusals::start("trust").await;

    let release = all.release();
    let image = all.upload(&release);
    all.forge(&image, "signature", &"");
    all.refused("unsigned", &image, "inspecting", "not_signed").await;

    let stranger = Key::make(&all.scene.coordinator, &all.scene.dir.join("stranger")).unwrap();
    let release = all.release();
    release.alter(&stranger, |_| {}).unwrap();
    let image = all.upload(&release);
    all.refused("another's key", &image, "inspecting", "unknown_key").await;

    // The right key's number, another manifest's signature.
    let (release, other) = (all.release(), all.release());
    other.alter(&all.scene.key, |manifest| manifest["sequence"] = json!(99)).unwrap();
    fs::copy(other.signature(), release.signature()).unwrap();
    let image = all.upload(&release);
    all.refused("another's signature", &image, "inspecting", "bad_signature").await;

    let retired = Key::make(&all.scene.coordinator, &all.scene.dir.join("retired")).unwrap();
    fs::write(all.router.dir.join("keys/retired.pub"), &retired.public).unwrap();
    fs::create_dir_all(all.router.dir.join("keys/revoked")).unwrap();
    fs::write(all.router.dir.join("keys/revoked/retired.pub"), &retired.public).unwrap();
    let release = all.release();
    release.alter(&retired, |_| {}).unwrap();
    let image = all.upload(&release);
    all.refused("revoked key", &image, "inspecting", "key_revoked").await;

    // The manifest is another one than the operator signed, and the job says so too.
    let release = all.release();
    let image = all.upload(&release);
    let mut bytes = fs::read(release.manifest()).unwrap();
    bytes.push(b'\n');
    all.forge(&image, "manifest", &bytes);
    all.refused("changed manifest", &image, "inspecting", "bad_signature").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_without_a_manifest_cannot_be_assigned() {
    let mut all = Refusals::start("no-manifest").await;
    let release = all.release();
    fs::remove_file(release.manifest()).unwrap();
    let image = all.upload(&release);
    let error = watch::assign(&all.scene.api, &all.device, &image).await.unwrap_err().to_string();
    assert!(error.contains(" 400 ") && error.contains("\"image\""), "{error}");
    assert_untouched(&all.router, "no manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_the_manifests_is_refused() {
    let mut all = Refusals::start("artifact").await;
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("bit flipped", |file| file[(1 << 20) + 77] ^= 0x10),
        ("truncated by a byte", |file| file.truncate(file.len() - 1)),
        ("truncated to a block", |file| file.truncate(1 << 20)),
        ("oversized", |file| file.push(0)),
    ];
    for (case, damage) in damages {
        let release = all.release();
        let mut content = fs::read(&release.file).unwrap();
        // Each case has a file of its own: contents are stored once.
        content[5000] ^= u8::try_from(all.made).unwrap();
        fs::write(&release.file, &content).unwrap();
        let digest = |bytes: &[u8]| shared::hex::sha256(bytes).to_string();
        let whole = digest(&content);
        release
            .alter(&all.scene.key, |manifest| {
                manifest["file"]["sha256"] = json!(whole);
                manifest["blocks"][0] = json!(digest(&content[..1 << 20]));
            })
            .unwrap();
        let image = all.upload(&release);
        let stored = all.scene.coordinator.data.join("artifacts").join(&whole[..2]).join(&whole);
        damage(&mut content);
        // Another file under the same name: the stored one may be write-protected.
        fs::remove_file(&stored).unwrap();
        fs::write(&stored, &content).unwrap();
        all.refused(case, &image, "downloading", "checksum_mismatch").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_does_not_fit_is_refused() {
    let mut all = Refusals::start("manifest").await;
    let key = all.scene.key.clone();

    let release = all.release();
    release.alter(&key, |manifest| manifest["models"] = json!(["FN990A40"])).unwrap();
    let image = all.upload(&release);
    all.refused("another model", &image, "inspecting", "wrong_model").await;

    let release = all.release();
    let from = json!([[{ "command": "+CGMR", "line": 1, "value": "M0R.009999" }]]);
    release.alter(&key, |manifest| manifest["from"] = from).unwrap();
    let image = all.upload(&release);
    all.refused("another start", &image, "inspecting", "wrong_start_version").await;

    let release = all.release();
    release.alter(&key, |manifest| manifest["not_after"] = json!(1_600_000_000_000_u64)).unwrap();
    let image = all.upload(&release);
    all.refused("expired", &image, "inspecting", "manifest_expired").await;

    // The second of two equal keys would win in one reader and lose in another.
    let release = all.release();
    let good = fs::read_to_string(release.manifest()).unwrap();
    let image = all.upload(&release);
    let twice = good.replacen('{', "{\"sequence\": 1,", 1);
    all.made += 1;
    let refused = all.release();
    refused.sign(&key, twice.as_bytes()).unwrap();
    assert_upload_refused(&refused, &all.scene, "manifest");
    all.forge(&image, "manifest", &twice.as_bytes());
    all.forge(&image, "signature", &fs::read_to_string(refused.signature()).unwrap());
    all.refused("duplicate keys", &image, "inspecting", "bad_manifest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_options_beyond_the_routers_profile_are_refused() {
    let mut all = Refusals::start("options").await;
    let key = all.scene.key.clone();
    for options in [
        json!({ "program": "/tmp/other-tool" }),
        json!({ "tool_path": "/tmp/other-tool" }),
        json!({ "speed": "--file=/etc/passwd" }),
        json!({ "speed": "115200; reboot" }),
        json!({ "speed": "$(reboot)" }),
        json!({ "debug": "-rf" }),
        json!({ "speed": 115_201 }),
    ] {
        let release = all.release();
        let case = options.to_string();
        release.alter(&key, |manifest| manifest["tool"]["options"] = options).unwrap();
        match release.upload(&all.scene.coordinator) {
            Ok(image) => all.refused(&case, &image, "inspecting", "option_refused").await,
            Err(error) => panic!("{case}: the upload was refused: {error:#}"),
        }
    }

    // The job's own options stop at the API, with the field named.
    let release = all.release();
    let image = all.upload(&release);
    let path = format!("device/{}/modem-firmware/", all.device);
    for options in [json!({ "speed": "-rf" }), json!({ "speed": "1;reboot" }), json!({ "x": "y" })]
    {
        let body = json!({ "image": image, "upgrade_options": options });
        let answer = all.scene.api.call(reqwest::Method::PUT, &path, Some(&body)).await.unwrap();
        assert_eq!(answer.0, 400, "{options}: {}", answer.1);
        assert!(answer.1["upgrade_options"].is_array(), "{options}: {}", answer.1);
    }
    // And at the router, should a coordinator pass them on.
    let operation = watch::assign(&all.scene.api, &all.device, &image);
    all.router.link.cut();
    let operation = operation.await.unwrap();
    let forged = json!({ "script": "x" }).to_string();
    let statement = "UPDATE operations SET upgrade_options = ?2 WHERE id = ?1";
    all.scene.database().unwrap().execute(statement, (&operation, forged)).unwrap();
    all.router.link.restore();
    let (scene, router) = (&all.scene, &all.router);
    expect_refused(scene, router, "job", &operation, "inspecting", "option_refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_sequence_than_installed_is_refused() {
    let scene = scene("refusals-sequence");
    let (router, device) = enrolled(&scene, &[]).await;
    let image = scene.image(&Wanted { sequence: 7, ..Wanted::default() }).unwrap();
    let first = watch::assign(&scene.api, &device, &image).await.unwrap();
    let first = scene.ended(&first).await.unwrap();
    assert_eq!(first["status"], "success", "{first:#}");
    let held = router.holder_calls();

    let older = Wanted { package: "45.00.003".into(), sequence: 6, ..Wanted::default() };
    let image = scene.image(&older).unwrap();
    let second = watch::assign(&scene.api, &device, &image).await.unwrap();
    let second = scene.ended(&second).await.unwrap();
    let failure = &second["failure"];
    assert_eq!(failure["kind"], "sequence_too_low", "{second:#}");
    assert_eq!(
        (&failure["stage"], &failure["condition"]),
        (&json!("inspecting"), &json!("untouched"))
    );
    assert_eq!((router.modem.state().unwrap().flash.begun, router.holder_calls()), (1, held));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modem_that_the_tool_does_not_reach_is_refused() {
    let scene = scene("refusals-bus");
    let image = scene.image(&Wanted::default()).unwrap();
    for (number, case) in [(1, "on PCIe"), (2, "1bc7:1070 on USB")] {
        let mut router = scene.router(number, false).await.unwrap();
        write_tool_faults(&router.dir, &[UNUSED]).unwrap();
        if number == 1 {
            until("the modem is there", || router.move_to_pcie().is_ok()).await.unwrap();
        } else {
            router.edit("profiles/telit-uxfp.toml", "\"1bc7:1070\", ", "").unwrap();
        }
        let device = scene.enrol(&mut router).await.unwrap();
        let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
        expect_refused(&scene, &router, case, &operation, "inspecting", "no_profile").await;
        let ended = scene.ended(&operation).await.unwrap();
        let detail = ended["failure"]["detail"].as_str().unwrap();
        assert!(detail.contains(case) && ended["granted"] == false, "{ended:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_place_is_refused() {
    let scene = scene("refusals-place");
    let image = scene.image(&Wanted::default()).unwrap();
    let memory = format!("/dev/shm/modem-upgrader-lab-{}", std::process::id());
    let full = "[image]\nreserve_bytes = 9000000000000000\n\n[modem]\n";
    let volatile = |dir: &str| (format!("staging = [\"{dir}/staging\"]"), memory.clone());
    for (number, sole, kind) in [(1, false, "no_space"), (2, true, "no_durable_staging")] {
        let mut router = scene.router(number, sole).await.unwrap();
        write_tool_faults(&router.dir, &[UNUSED]).unwrap();
        if sole {
            let (from, to) = volatile(&router.dir.to_string_lossy());
            router.edit("agent.toml", &from, &format!("staging = [{to:?}]")).unwrap();
        } else {
            router.edit("agent.toml", "[modem]\n", full).unwrap();
        }
        let device = scene.enrol(&mut router).await.unwrap();
        let operation = watch::assign(&scene.api, &device, &image).await.unwrap();
        expect_refused(&scene, &router, kind, &operation, "waiting", kind).await;
        let staged =
            || !holds_files(Path::new(&memory)) && !holds_files(&router.dir.join("staging"));
        until("nothing is left behind", staged).await.unwrap();
    }
    let _ = fs::remove_dir_all(&memory);
}

fn holds_files(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}
