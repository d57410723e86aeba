//! A tool that returns while its work goes on: the log that it writes instead of its output, and the
//! program that says how it is.

use super::output::Output;
use super::progress::{Lines, Meaning, Patterns};
use super::record::Follow;
use super::watch::Watch;
use crate::clock;
use shared::profile::Output as Texts;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Milliseconds one answer may take.
const ANSWER_MS: u64 = 30_000;
/// Bytes of one answer; a real one has two lines.
const ANSWER: usize = 4 * 1024;
/// Bytes of the log read at one look.
const READ: usize = 256 * 1024;
/// Answers in a row that say nothing at all, after which nobody is asked any more.
const SPEECHLESS: u32 = 3;
const LOOK: Duration = Duration::from_millis(20);

/// What the program said.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// It was not asked: the last time was a moment ago.
    Later,
    Running,
    /// Its whole answer, for the profile's patterns; empty where it has none.
    Ended(Vec<u8>),
}

#[derive(Debug)]
pub struct Following {
    follow: Follow,
    /// All of the program's, as of the tool's.
    environment: BTreeMap<String, String>,
    answer: PathBuf,
    running: Patterns,
    asked_ms: Option<u64>,
    speechless: u32,
    works: bool,
    /// Bytes of the log that were read.
    read: u64,
}

impl Following {
    pub fn new(follow: Follow, environment: BTreeMap<String, String>, answer: PathBuf) -> Self {
        let running = Texts { success: follow.running.clone(), ..Texts::default() };
        let running = Patterns::of(&running);
        Self {
            follow,
            environment,
            answer,
            running,
            asked_ms: None,
            speechless: 0,
            works: false,
            read: 0,
        }
    }

    /// Whether the last answer was that the work goes on.
    pub fn is_running(&self) -> bool {
        self.works
    }

    /// Reads on in the log, which may not be there yet, and may begin anew.
    pub fn log(&mut self, watch: &mut Watch, now_ms: u64) {
        let Some(file) = self.follow.log.as_deref().and_then(|path| File::open(path).ok()) else {
            return;
        };
        let Ok(metadata) = file.metadata() else { return };
        if !metadata.is_file() {
            return;
        }
        if metadata.len() < self.read {
            self.read = 0;
        }
        let mut buffer = [0; 16 * 1024];
        let mut total = 0;
        while total < READ {
            match file.read_at(&mut buffer, self.read) {
                Ok(count) if count > 0 => {
                    watch.hear(&buffer[..count], now_ms);
                    self.read += count as u64;
                    total += count;
                }
                _ => return,
            }
        }
    }

    /// Asks, if it is time to.
    pub fn ask(&mut self, now_ms: u64) -> Word {
        if self.asked_ms.is_some_and(|at| now_ms.saturating_sub(at) < self.follow.every_ms) {
            return Word::Later;
        }
        self.asked_ms = Some(now_ms);
        let answer = self.answer().unwrap_or_else(|error| {
            log::warn!("{}: {error}", self.follow.program.display());
            Vec::new()
        });
        self.works = self.says_running(&answer);
        if self.works {
            self.speechless = 0;
            return Word::Running;
        }
        let says_nothing = answer.iter().all(u8::is_ascii_whitespace);
        self.speechless = if says_nothing { self.speechless + 1 } else { 0 };
        if (1..SPEECHLESS).contains(&self.speechless) {
            self.works = true;
            return Word::Running;
        }
        Word::Ended(answer)
    }

    fn says_running(&self, answer: &[u8]) -> bool {
        let (mut lines, mut running) = (Lines::default(), false);
        let mut look = |line: &str| {
            running |= matches!(self.running.read(line), Meaning::Success(_));
        };
        lines.feed(answer, |line, _| look(line));
        lines.finish(|line, _| look(line));
        running
    }

    /// What the program prints until it ends or its time is over.
    #[allow(
        clippy::disallowed_methods,
        reason = "the guardian is a process of its own without a runtime, and starts what the profile names"
    )]
    fn answer(&self) -> std::io::Result<Vec<u8>> {
        let mut output = Output::create(&self.answer)?;
        let mut child = Command::new(&self.follow.program)
            .args(&self.follow.argv)
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.answer.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(output.stream()?)
            .stderr(Stdio::null())
            .spawn()?;
        let began = clock::boottime_ms();
        while child.try_wait()?.is_none() {
            if clock::boottime_ms().saturating_sub(began) >= ANSWER_MS {
                child.kill()?;
                child.wait()?;
                break;
            }
            std::thread::sleep(LOOK);
        }
        let mut answer = vec![0; ANSWER];
        let count = output.read(&mut answer)?;
        answer.truncate(count);
        Ok(answer)
    }
}
