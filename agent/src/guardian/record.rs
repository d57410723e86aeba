//! The files between agent and guardian, all in the run directory on tmpfs: what is to be done
//! (`plan.json`), how it goes (`progress.json`), how it ended (`exit.json`), and the locks.

use crate::files;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shared::profile::{Exit, ImageArgument, Output};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

use super::holders::Programs;

/// Version of the three files.
pub const FORMAT: u8 = 1;

/// No file between agent and guardian is larger.
const LIMIT: usize = 256 * 1024;

/// The descriptor the tool finds the image under.
pub const IMAGE_FD: i32 = 100;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct RunDir(PathBuf);

impl RunDir {
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// Locked as long as a guardian works or any process of its tool lives.
    #[must_use]
    pub fn guardian_lock(&self) -> PathBuf {
        self.0.join("guardian.lock")
    }
    /// Locked as long as a guardian itself watches its tool.
    #[must_use]
    pub fn watch_lock(&self) -> PathBuf {
        self.0.join("guardian.watch")
    }
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }
    #[must_use]
    pub fn progress(&self) -> PathBuf {
        self.0.join("progress.json")
    }
    #[must_use]
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }
    /// What the tool writes to; emptied as it is read.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.0.join("tool.out")
    }
    /// The tool's own directory, empty when it starts.
    #[must_use]
    pub fn tool_state(&self) -> PathBuf {
        self.0.join("tool")
    }
    /// What the program that is asked for the tool's state answers.
    #[must_use]
    pub fn answer(&self) -> PathBuf {
        self.0.join("tool.answer")
    }
    /// What is kept of it.
    #[must_use]
    pub fn transcript(&self) -> PathBuf {
        self.0.join("tool.log")
    }
    /// What a guardian has to say for itself.
    #[must_use]
    pub fn guardian_log(&self) -> PathBuf {
        self.0.join("guardian.log")
    }
    /// Holders taken and not yet given back.
    #[must_use]
    pub fn holders(&self) -> PathBuf {
        self.0.join("holders.json")
    }
    /// Locked while somebody takes holders or gives them back.
    #[must_use]
    pub fn holders_lock(&self) -> PathBuf {
        self.0.join("holders.lock")
    }
    /// Locked by the one guardian that waits for its agent to come back.
    #[must_use]
    pub fn orphan_lock(&self) -> PathBuf {
        self.0.join("guardian.orphan")
    }
}

/// One start of a tool, decided in every detail by the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub format: u8,
    /// Names this start; an exit record carries the same.
    pub id: Uuid,
    pub boot_id: String,
    /// Absolute.
    pub program: PathBuf,
    /// Without the program's name.
    pub argv: Vec<String>,
    /// All of the tool's environment.
    pub environment: BTreeMap<String, String>,
    pub working_dir: PathBuf,
    pub image: Image,
    pub output: Output,
    /// For a tool that returns while its work goes on.
    #[serde(default)]
    pub follow: Option<Follow>,
    pub timeouts: Timeouts,
    /// How holders are given back when no agent is there to do it.
    pub holders: Programs,
    /// Locked as long as an agent lives, see [`super::Presence::lock_path`].
    pub agent_lock: PathBuf,
    /// Seconds without an agent after which the guardian does so.
    pub orphan_grace_s: u64,
}

/// The verified file, as the guardian checks it again before the tool starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub argument: ImageArgument,
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// A link to `path` that the guardian makes, under the name that the tool wants.
    #[serde(default)]
    pub link: Option<PathBuf>,
}

/// How the tool is asked whether its work goes on: [`shared::profile::Follow`], resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    pub program: PathBuf,
    pub argv: Vec<String>,
    pub every_ms: u64,
    pub running: Vec<String>,
    pub log: Option<PathBuf>,
}

/// Milliseconds, each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Silence after which the tool counts as stalled.
    pub idle_ms: u64,
    /// After this it is asked to end.
    pub total_ms: u64,
    /// After this it is killed.
    pub grace_ms: u64,
}

/// How a running tool gets on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub format: u8,
    pub plan: Uuid,
    /// The highest seen; absent until the tool says one.
    pub percent: Option<u8>,
    /// The last line, without control characters.
    pub line: String,
    /// Silent for longer than the profile's idle time.
    pub stalled: bool,
    /// Bytes of output so far.
    pub bytes: u64,
    /// CLOCK_BOOTTIME in milliseconds when the tool started.
    pub started_ms: u64,
}

/// How a tool ended, once all of its processes are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub format: u8,
    pub plan: Uuid,
    pub boot_id: String,
    pub status: Status,
    /// The total time was over and the tool, or what it left behind, was ended.
    pub timed_out: bool,
    /// Patterns of the profile that were seen.
    pub hints: Hints,
    pub percent: Option<u8>,
    /// The last lines of the output, at most 512 bytes.
    pub last_lines: Vec<String>,
    /// CLOCK_BOOTTIME in milliseconds.
    pub started_ms: u64,
    pub ended_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Exited(u8),
    Signaled(i32),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    pub success: Vec<String>,
    pub failure: Vec<String>,
    pub refusal: Vec<String>,
}

/// What the tool itself says of its end: a hint, which the versions read back confirm or refute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Succeeded,
    Failed,
    /// Another attempt with this image would end the same.
    Refused,
    TimedOut,
}

impl ExitRecord {
    /// Weighs text and status, which are known to contradict each other in both directions: a
    /// success text counts more than a status, a failure text more than status 0.
    #[must_use]
    pub fn verdict(&self, exit: &Exit) -> Verdict {
        let says = |codes: &[u8]| matches!(self.status, Status::Exited(c) if codes.contains(&c));
        if self.timed_out {
            Verdict::TimedOut
        } else if !self.hints.success.is_empty() {
            Verdict::Succeeded
        } else if !self.hints.refusal.is_empty() || says(&exit.refusal) {
            Verdict::Refused
        } else if says(&exit.success) && self.hints.failure.is_empty() {
            Verdict::Succeeded
        } else {
            Verdict::Failed
        }
    }
}

impl std::fmt::Display for ExitRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Status::Exited(code) => write!(f, "exit status {code}")?,
            Status::Signaled(signal) => write!(f, "ended by signal {signal}")?,
        }
        if self.timed_out {
            f.write_str(" after its time was over")?;
        }
        match self.last_lines.last() {
            Some(line) => write!(f, ", last line {line:?}"),
            None => f.write_str(", no output"),
        }
    }
}

/// Reads one of the files; torn or foreign content is an error of kind `InvalidData`.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = files::read_limited(path, LIMIT)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: Status, success: bool, failure: bool, refusal: bool) -> ExitRecord {
        let seen = |yes: bool| if yes { vec!["seen".to_owned()] } else { vec![] };
        ExitRecord {
            format: FORMAT,
            plan: Uuid::nil(),
            boot_id: "boot".into(),
            status,
            timed_out: false,
            hints: Hints { success: seen(success), failure: seen(failure), refusal: seen(refusal) },
            percent: Some(7),
            last_lines: vec!["bye".into()],
            started_ms: 1,
            ended_ms: 2,
        }
    }

    #[test]
    fn text_and_status_are_weighed() {
        use Status::{Exited, Signaled};
        use Verdict::{Failed, Refused, Succeeded};
        let exit = Exit { success: vec![0], refusal: vec![3] };
        for (status, success, failure, refusal, verdict) in [
            (Exited(0), false, false, false, Succeeded),
            (Exited(0), false, true, false, Failed),
            (Exited(0), true, true, false, Succeeded),
            (Exited(251), true, false, false, Succeeded),
            (Exited(251), false, false, false, Failed),
            (Exited(251), false, false, true, Refused),
            (Exited(3), false, false, false, Refused),
            (Signaled(9), false, false, false, Failed),
        ] {
            assert_eq!(record(status, success, failure, refusal).verdict(&exit), verdict);
        }
        let late = ExitRecord { timed_out: true, ..record(Exited(0), true, false, false) };
        assert_eq!(late.verdict(&exit), Verdict::TimedOut);
    }

    #[test]
    fn the_record_on_disk_keeps_its_form() {
        let json =
            String::from_utf8(to_json(&record(Status::Exited(0), true, false, false)).unwrap());
        let golden = concat!(
            r#"{"format":1,"plan":"00000000-0000-0000-0000-000000000000","boot_id":"boot","#,
            r#""status":{"exited":0},"timed_out":false,"#,
            r#""hints":{"success":["seen"],"failure":[],"refusal":[]},"percent":7,"#,
            r#""last_lines":["bye"],"started_ms":1,"ended_ms":2}"#
        );
        assert_eq!(json.unwrap(), golden);
    }
}
