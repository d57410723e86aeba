//! The stand-in tool where all goes well, and where it touches nothing.

use crate::router::{NEW, OLD, Router, expected, text, versions_of};
use lab::{
    faults::ToolFaultKind,
    firmware::{Header, Model},
    modem::Mode,
};
use std::{fs, path::Path};

#[tokio::test]
async fn the_tool_moves_every_byte_and_the_modem_says_the_new_version() {
    let router = Router::new();
    router.ready().await;
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let output = router.flash(&firmware, &[]).await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("UXFP version 1.14.5-0\n"));
    for line in [
        "[+] checking connected devices...\n",
        "[+] enter boot mode phase 2: the device will disconnect and reconnect\n",
        "[+] enter boot mode OK\n",
        "[+] firmware uploaded successfully!\n",
    ] {
        assert!(said.contains(line), "{line} not in {said}");
    }
    assert!(said.contains(" 50%, transferred ") && said.contains(" B\r[+] flashing ["), "{said}");
    let mut ready = router.ready().await;
    assert_eq!(versions_of(&mut ready).await, expected(NEW));
    let flash = router.modem.state().unwrap().flash;
    assert_eq!((flash.begun, flash.completed), (1, 1));
    let mut file = fs::File::open(&firmware).unwrap();
    let header = Header::read(&mut file).unwrap();
    assert_eq!(flash.payload_sha256, Some(header.payload_sha256));
}

#[tokio::test]
async fn the_tool_takes_a_descriptor_and_reports_json() {
    let router = Router::new();
    router.ready().await;
    let firmware = router.firmware(Model::Fn990a28, NEW);
    let output = router
        .flash_command(Path::new("/proc/self/fd/0"))
        .await
        .arg("--json")
        .stdin(fs::File::open(firmware).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lines: Vec<serde_json::Value> =
        text(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    assert!(of("LOG") > 3 && of("PROGRESS") > 3);
    assert_eq!(lines.last().unwrap()["type"], "REPORT");
    assert_eq!(router.modem.versions().unwrap().package, NEW);
}

#[tokio::test]
async fn the_tool_lists_diag_ports() {
    let router = Router::new();
    router.until(|state| state.mode == Mode::Normal).await;
    let list = || {
        let output = router.tool(&["--show-diag-ports"]).env("LAB_ROUTER", router.path()).output();
        output.unwrap()
    };
    let said = text(&list());
    assert!(said.contains("found 1 compatible modems"), "{said}");
    assert!(said.contains("1BC7:1070 - serial number: ") && said.contains("diag port: "), "{said}");
    router.modem.power_cut().unwrap();
    let none = list();
    assert!(!none.status.success());
    assert!(text(&none).contains("no device with compatible VID/PID has been found."));
}

#[tokio::test]
async fn the_wrong_model_is_refused_with_the_modem_untouched() {
    let router = Router::new();
    router.ready().await;
    let output = router.flash(&router.firmware(Model::Fn990a40, "45.00.014"), &[]).await;
    assert!(!output.status.success());
    assert!(text(&output).contains("Invalid model 40 VS 28"), "{}", text(&output));
    let state = router.modem.state().unwrap();
    assert_eq!((state.mode, state.flash.begun), (Mode::Normal, 0));
    assert_eq!(state.flash.versions.package, OLD);
}

#[tokio::test]
async fn a_tool_that_lies_leaves_the_old_version() {
    let router = Router::new();
    router.ready().await;
    router.faults(&[ToolFaultKind::Lie]);
    let output = router.flash(&router.firmware(Model::Fn990a28, NEW), &[]).await;
    assert!(output.status.success());
    assert!(text(&output).contains("[+] firmware uploaded successfully!"));
    assert_eq!(router.modem.state().unwrap().flash.begun, 0);
    assert_eq!(versions_of(&mut router.ready().await).await, expected(OLD));
}
