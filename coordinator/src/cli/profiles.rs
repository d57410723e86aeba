//! `profiles`: the servers that `login` remembers.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::login::{Ended, end, shown, still_good};
use super::output::{Output, cell, note, time};
use super::profile::{Name, Profiles};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them; the one in use has a star
    List,
    /// Use one from now on
    Use { name: Name },
    /// Remove one, and end its login
    Remove { name: Name },
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut profiles = Profiles::load()?;
    match &arguments.verb {
        None | Some(Verb::List) => list(&profiles, arguments.output)?,
        Some(Verb::Use { name }) => {
            profiles.choose(name)?;
            profiles.save()?;
            if let Some(profile) = profiles.get(name) {
                let said = format!("Profile {name} is in use: {}.", profile.url);
                arguments.output.say(&shown(name, profile, true), said)?;
            }
        }
        Some(Verb::Remove { name }) => {
            let gone = profiles.remove(name)?;
            profiles.save()?;
            let more = match end(&gone).await {
                _ if gone.token.is_none() => "",
                Ended::Yes => " Its login has ended.",
                Ended::NotOurs | Ended::No => {
                    note!("{}", still_good(&gone));
                    ""
                }
            };
            let said = format!("Profile {name} is removed.{more}");
            arguments.output.say(&shown(name, &gone, false), said)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(profiles: &Profiles, output: Output) -> anyhow::Result<()> {
    let shown = |(name, profile)| shown(name, profile, profiles.current.as_ref() == Some(name));
    let values = profiles.iter().map(shown).collect();
    output.list(["", "PROFILE", "SERVER", "USER", "EXPIRES"], values, |profile| {
        vec![[
            if profile["in_use"] == true { "*".to_owned() } else { String::new() },
            cell(&profile["name"]),
            cell(&profile["url"]),
            if profile["logged_in"] == true { cell(&profile["user"]) } else { String::new() },
            time(&profile["expires"]),
        ]]
    })
}
