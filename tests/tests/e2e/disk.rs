//! File systems that can be spoilt, and a device that sees what becomes of its acks.

use lab::{
    bench::fleet::{self, Member},
    coordinator::{Coordinator, client},
    demo,
};
use serde_json::Value;
use shared::{
    event::{Event, EventBody, Events},
    ids::Slot,
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A file system of its own; needs root. Unmounted with this value.
pub struct Disk(pub PathBuf);

impl Disk {
    /// A tmpfs.
    pub fn small(path: PathBuf, size: &str) -> Option<Self> {
        let size = format!("size={size}");
        Self::mount(path, &["-t", "tmpfs", "-o", &size, "none"])
    }

    /// An ext4 in a file, which becomes read-only where it meets an error.
    pub fn ext4(path: PathBuf, image: &Path) -> Option<Self> {
        fs::File::create(image).unwrap().set_len(32 << 20).unwrap();
        does(
            "an ext4 cannot be made here",
            Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image),
        )?;
        Self::of(path, image)
    }

    /// The ext4 in this file.
    pub fn of(path: PathBuf, image: &Path) -> Option<Self> {
        Self::mount(path, &["-o", "loop,errors=remount-ro", image.to_str().unwrap()])
    }

    fn mount(path: PathBuf, how: &[&str]) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        does("a file system cannot be mounted here", Command::new("mount").args(how).arg(&path))?;
        Some(Self(path))
    }

    /// An error of the file system's own: nothing is written from here on.
    pub fn fail(&self) -> Option<()> {
        let source = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.0).output();
        let source = String::from_utf8(source.ok()?.stdout).unwrap();
        let device = source.trim().rsplit('/').next().unwrap();
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        match fs::write(&trigger, "a test") {
            Ok(()) => Some(()),
            Err(why) => {
                eprintln!("SKIPPED: this kernel makes no errors of file systems: {trigger}: {why}");
                None
            }
        }
    }

    pub fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes every byte there is.
    pub fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(self.filler()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }
}

/// Whether it goes well; else the test that wants it is skipped, and says so.
fn does(without: &str, command: &mut Command) -> Option<()> {
    match command.output() {
        Ok(output) if output.status.success() => Some(()),
        why => {
            eprintln!("SKIPPED: {without}: {why:?}");
            None
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Over HTTPS, as an agent does without its line.
pub struct Reporter {
    pub client: reqwest::Client,
    url: String,
    pub member: Member,
}

impl Reporter {
    /// A device with an upgrade, which has reported nothing so far.
    pub async fn enrol(coordinator: &Coordinator, work: &Path) -> Self {
        let firmware = demo::make_firmware(coordinator, work, 1 << 20).unwrap();
        let members = fleet::enrol(coordinator, &firmware.image, 1).await.unwrap();
        let client = client(&coordinator.bootstrap.pin).unwrap();
        Self { client, url: coordinator.url(), member: members[0].clone() }
    }

    fn event(&self, seq: u64) -> Event {
        Event {
            operation: self.member.operation,
            slot: Slot::default(),
            stream: self.member.stream,
            seq,
            attempt: 0,
            at: None,
            body: EventBody::Postponed { reason: format!("{seq:0500}") },
        }
    }

    pub async fn report(&self, from: u64, count: u64) -> reqwest::Response {
        let events = Events::new((from..from + count).map(|seq| self.event(seq)).collect());
        let url = format!("{}/api/v1/agent/events", self.url);
        let request = self.client.post(url).bearer_auth(&self.member.tokens.api.token);
        request.json(&events).send().await.unwrap()
    }

    /// The answers to events `1..=count`.
    pub async fn again(&self, count: u64) -> Vec<String> {
        let mut answers = Vec::new();
        for from in (1..=count).step_by(20) {
            let answer = self.report(from, 20.min(count + 1 - from)).await;
            let acks: Value = answer.json().await.unwrap();
            let results = acks["acks"].as_array().unwrap().iter();
            answers.extend(results.map(|ack| ack["result"].as_str().unwrap().to_owned()));
        }
        answers
    }
}

pub async fn ready(coordinator: &Coordinator, client: &reqwest::Client) -> (u16, String) {
    let answer = client.get(format!("{}/readyz", coordinator.url())).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}
