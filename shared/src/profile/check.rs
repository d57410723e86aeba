//! What TOML's types cannot say about a profile.

use super::{Follow, ImageArgument, Output, ProfileError, Timeouts, ToolProfile, key};

/// Longest pattern, in bytes, and most of them in one list.
const PATTERN: usize = 200;
const PATTERNS: usize = 32;

const DAY_S: u64 = 24 * 3600;

impl ToolProfile {
    pub(super) fn check(&self) -> Result<(), ProfileError> {
        if self.name.parse::<crate::ids::Slot>().is_err() {
            return Err(key("name", "must be 1 to 32 characters of a-z, 0-9 and '-'"));
        }
        self.check_tool()?;
        if let Some(follow) = &self.follow {
            check_follow(follow)?;
        }
        check_output(&self.output)?;
        check_timeouts(&self.timeouts)?;
        self.check_surroundings()?;
        self.options.iter().try_for_each(|(name, rule)| {
            rule.check().map_err(|problem| key(format!("options.{name}"), problem))
        })
    }

    fn check_tool(&self) -> Result<(), ProfileError> {
        let tool = &self.tool;
        check_program("tool.program", &tool.program)?;
        let install = ["{image}", "{diag}", "{usb}", "{usb_id}", "{state_dir}"];
        check_argv("tool.argv", &tool.argv, &install)?;
        let recover = ["{image}", "{port}", "{usb}", "{usb_id}", "{state_dir}"];
        check_argv("tool.recovery_argv", &tool.recovery_argv, &recover)?;
        if !tool.recovery_argv.is_empty() && self.fits.download_mode.is_empty() {
            return Err(key("fits.download_mode", "needed for tool.recovery_argv"));
        }
        if tool.argv.iter().any(|argument| argument == "{diag}") && !self.needs.diag {
            return Err(key("needs.diag", "must be true: tool.argv has {diag}"));
        }
        match (&tool.image_name, tool.image) {
            (Some(name), ImageArgument::Named) => check_file_name("tool.image_name", name)?,
            (None, ImageArgument::Named) => {
                return Err(key("tool.image_name", "needed for tool.image = \"named\""));
            }
            (Some(_), ImageArgument::Descriptor | ImageArgument::Path) => {
                return Err(key("tool.image_name", "only with tool.image = \"named\""));
            }
            (None, ImageArgument::Descriptor | ImageArgument::Path) => {}
        }
        for (name, value) in &tool.environment {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(plain) || value.contains(char::is_control) {
                return Err(key(
                    format!("tool.environment.{name}"),
                    "must be a plain name and a value without control characters",
                ));
            }
        }
        Ok(())
    }
}

fn check_follow(follow: &Follow) -> Result<(), ProfileError> {
    check_program("follow.program", &follow.program)?;
    check_argv("follow.argv", &follow.argv, &["{state_dir}"])?;
    if !(1..=3600).contains(&follow.every_s) {
        return Err(key("follow.every_s", "must be 1 to 3600"));
    }
    check_patterns("follow.running", &follow.running)?;
    if follow.running.is_empty() {
        return Err(key("follow.running", "needed, or nothing would be waited for"));
    }
    follow.log.iter().try_for_each(|name| check_file_name("follow.log", name))
}

fn check_program(name: &str, program: &str) -> Result<(), ProfileError> {
    if program.starts_with('/') && !program.contains(char::is_control) {
        Ok(())
    } else {
        Err(key(name, "must be an absolute path"))
    }
}

fn check_argv(name: &str, argv: &[String], known: &[&str]) -> Result<(), ProfileError> {
    for argument in argv {
        if argument.contains(['{', '}']) && !known.contains(&argument.as_str()) {
            return Err(key(name, format!("{argument:?} is not one of {}", known.join(" "))));
        }
        if argument.contains(char::is_control) {
            return Err(key(name, format!("{argument:?} has control characters")));
        }
    }
    Ok(())
}

fn check_output(output: &Output) -> Result<(), ProfileError> {
    for (name, list) in [
        ("output.progress", &output.progress),
        ("output.success", &output.success),
        ("output.failure", &output.failure),
        ("output.refusal", &output.refusal),
    ] {
        check_patterns(name, list)?;
    }
    match output.progress.iter().find(|pattern| !pattern.contains("{percent}")) {
        Some(odd) => Err(key("output.progress", format!("{odd:?} has no {{percent}}"))),
        None => Ok(()),
    }
}

fn check_patterns(name: &str, list: &[String]) -> Result<(), ProfileError> {
    if list.len() > PATTERNS {
        return Err(key(name, format!("more than {PATTERNS} patterns")));
    }
    for pattern in list {
        if pattern.trim_matches(['*', ' ']).is_empty() {
            return Err(key(name, format!("{pattern:?} would mean every line")));
        }
        if pattern.len() > PATTERN || pattern.contains(char::is_control) {
            return Err(key(name, format!("{pattern:?} is too long or has control characters")));
        }
    }
    Ok(())
}

fn check_timeouts(timeouts: &Timeouts) -> Result<(), ProfileError> {
    let Timeouts { idle_s, total_s, grace_s, typical_s, boot_s, network_s } = *timeouts;
    for (name, value, most) in [
        ("idle_s", idle_s, DAY_S),
        ("total_s", total_s, DAY_S),
        ("typical_s", typical_s, total_s),
        ("grace_s", grace_s, 600),
        ("boot_s", boot_s, 3600),
        ("network_s", network_s.unwrap_or(1), DAY_S),
    ] {
        if !(1..=most).contains(&value) {
            return Err(key(format!("timeouts.{name}"), format!("must be 1 to {most} (seconds)")));
        }
    }
    Ok(())
}

/// A name that is one path component and no option.
fn check_file_name(name: &str, file: &str) -> Result<(), ProfileError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (1..=64).contains(&file.len())
        && file.chars().all(plain)
        && file.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        Ok(())
    } else {
        Err(key(name, "must be a plain file name"))
    }
}
