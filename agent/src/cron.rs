//! Root's cron jobs that open a modem's ports or restart things: no lock keeps them off, so a person has to
//! know of them. Told by the words in the job and in the script that it starts.

use std::path::Path;

use serde::Serialize;

use crate::files;

/// Longest crontab or script looked at, in bytes.
const MAX_FILE: usize = 64 * 1024;

/// What opens a modem's ports, or takes the ground from under a tool that does.
const WORDS: &[&str] = &[
    "ttyUSB",
    "ttyACM",
    "cdc-wdm",
    "wwan0",
    "sms_tool",
    "sendat",
    "gcom",
    "comgt",
    "atinout",
    "gammu",
    "gnokii",
    "microcom",
    "picocom",
    "minicom",
    "uqmi",
    "umbim",
    "mmcli",
    "qmicli",
    "mbimcli",
    "usbreset",
    "usb_modeswitch",
    "ifup",
    "ifdown",
    "reboot",
];

/// One job that may disturb a flash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suspect {
    /// The line of the crontab.
    pub job: String,
    /// What it was told by.
    pub word: &'static str,
}

/// The suspects of `crontab`, usually `/etc/crontabs/root`; none where there is no such file.
#[must_use]
pub fn suspects(crontab: &Path) -> Vec<Suspect> {
    let text = read(crontab).unwrap_or_default();
    among(&text, read)
}

fn read(path: &Path) -> Option<String> {
    let bytes = files::read_limited(path, MAX_FILE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn among(crontab: &str, script: impl Fn(&Path) -> Option<String>) -> Vec<Suspect> {
    let jobs = crontab.lines().map(str::trim).filter(|line| !line.is_empty());
    let jobs = jobs.filter(|line| !line.starts_with('#'));
    jobs.filter_map(|job| {
        let in_script = || {
            let paths = job.split_whitespace().filter(|word| word.starts_with('/'));
            paths.filter_map(|path| script(Path::new(path))).find_map(|text| suspicious(&text))
        };
        let word = suspicious(job).or_else(in_script)?;
        Some(Suspect { job: shared::limits::cut(job.to_owned()), word })
    })
    .collect()
}

/// The first such word that stands for itself; comments count for nothing.
fn suspicious(text: &str) -> Option<&'static str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    code.flat_map(|line| line.split(|c| !is_part(c))).find_map(|part| {
        let number = |c: char| c.is_ascii_digit();
        let port = part.trim_end_matches(number);
        WORDS.iter().copied().find(|word| *word == part || *word == port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_touch_ports_are_found_also_behind_a_script() {
        let crontab = "# m h dom mon dow\n*/5 * * * * /usr/bin/signal.sh >/dev/null\n\
                       0 4 * * * echo AT+CSQ > /dev/ttyUSB2\n30 3 * * 0 sleep 70 && reboot\n\
                       1 1 * * * /usr/bin/backup\n#0 0 * * * gcom\n";
        let script = |path: &Path| match path.to_str()? {
            "/usr/bin/signal.sh" => {
                Some("#!/bin/sh\n# reboot not\nsms_tool -d $PORT at AT+CSQ\n".to_owned())
            }
            "/usr/bin/backup" => Some("tar -c /rebooted /etc # my_reboot".to_owned()),
            _ => None,
        };
        let found: Vec<_> = among(crontab, script).into_iter().map(|s| s.word).collect();
        assert_eq!(found, ["sms_tool", "ttyUSB", "reboot"]);
    }

    #[test]
    fn no_crontab_has_no_suspects() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(suspects(&directory.path().join("root")), []);
        let crontab = directory.path().join("crontab");
        std::fs::write(&crontab, "* * * * * mmcli -m 0\n").unwrap();
        assert_eq!(suspects(&crontab)[0].word, "mmcli");
    }
}
