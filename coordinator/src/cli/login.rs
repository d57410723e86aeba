//! `login`, `logout`

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::connection::Server;
use super::failure::Failure;
use super::output::{Output, cell, note, time};
use super::profile::{Name, Profile, Profiles};
use super::prompt;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Name of the user [default: asked for]
    #[arg(long, conflicts_with = "token")]
    user: Option<String>,
    /// Keep this API token instead of getting one for name and password; - reads it
    #[arg(long)]
    token: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// What is kept of who logged in.
struct Known {
    token: String,
    token_id: Option<String>,
    user: String,
    expires: Option<String>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut profiles = Profiles::load()?;
    let name = arguments.server.name(&profiles);
    let mut profile = arguments.server.profile(profiles.get(&name).cloned());
    let mut before = profiles.get(&name).cloned().unwrap_or_default();
    if before.url == profile.url {
        // As the server is recognized by now.
        (before.pin, before.ca) = (profile.pin, profile.ca.clone());
    }
    let client = profile.client(None)?;
    let known = match &arguments.token {
        Some(token) => with_token(&client, token).await?,
        None => with_password(&client, arguments.user, &profile).await?,
    };
    profile.token = Some(known.token);
    (profile.token_id, profile.expires) = (known.token_id, known.expires);
    profile.user = Some(known.user);
    // The profile is used from anywhere.
    let ca = profile.ca.take().map(std::path::absolute);
    profile.ca = ca.transpose()?;
    profiles.put(name.clone(), profile.clone());
    let path = profiles.save()?;
    // A user has so many logins at a time, and nobody has this one any more.
    if before.token != profile.token && end(&before).await == Ended::No {
        note!("{}", still_good(&before));
    }
    let shown = shown(&name, &profile, true);
    let until = profile.expires.as_ref().map(|at| format!(" until {}", time(&json!(at))));
    let (user, until) = (cell(&shown["user"]), until.unwrap_or_default());
    let said = format!(
        "Logged in to {} as {user}{until}: profile {name} in {}.",
        profile.url,
        path.display()
    );
    arguments.output.say(&shown, said)?;
    Ok(ExitCode::SUCCESS)
}

async fn with_token(client: &Client, given: &str) -> anyhow::Result<Known> {
    let token = match given {
        "-" => prompt::secret("API token")?,
        given => given.to_owned(),
    };
    let me = client.with_token(&token).get("user/me/", &[]).await?;
    Ok(Known { token, token_id: None, user: cell(&me["username"]), expires: None })
}

async fn with_password(
    client: &Client,
    user: Option<String>,
    profile: &Profile,
) -> anyhow::Result<Known> {
    let user = match user.or(profile.user.clone()) {
        Some(user) => user,
        None => prompt::line("User")?,
    };
    let password = prompt::secret(&format!("Password of {user}"))?;
    let body = json!({ "username": user, "password": password });
    let made = client.send(Method::POST, "users/token/", &body).await?;
    let Some(token) = made["token"].as_str() else { bail!("the server gave no token") };
    let token_id = id(&client.with_token(token), &made["expires"]).await?;
    let expires = made["expires"].as_str().map(str::to_owned);
    Ok(Known { token: token.to_owned(), token_id, user, expires })
}

/// What became of a profile's token at its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There was none, or it did not come of a password and may be somebody else's as well.
    NotOurs,
    Yes,
    /// The server was not reached, or did not want to.
    No,
}

/// Ends the login that a profile has.
pub async fn end(profile: &Profile) -> Ended {
    let (Some(token), Some(id)) = (&profile.token, &profile.token_id) else {
        return Ended::NotOurs;
    };
    let Ok(client) = profile.client(Some(token.clone())) else { return Ended::No };
    match client.delete(&format!("token/{id}/")).await {
        Ok(()) => Ended::Yes,
        // By its time, or by somebody's hand.
        Err(error) => match error.downcast_ref() {
            Some(Failure::Unauthorized(_) | Failure::NotFound) => Ended::Yes,
            _ => Ended::No,
        },
    }
}

/// Of a token that is forgotten here and has not ended.
pub fn still_good(profile: &Profile) -> String {
    let until = match &profile.expires {
        Some(at) => format!("until {}", time(&json!(at))),
        None => "until it expires".to_owned(),
    };
    let id = profile.token_id.as_deref().unwrap_or("ID");
    format!(
        "The token for {} is forgotten here. It is still good there {until}, or `modem-upgrader tokens \
         revoke {id}` ends it.",
        profile.url
    )
}

/// The id of the token that was just made: `logout` needs it.
async fn id(client: &Client, expires: &Value) -> anyhow::Result<Option<String>> {
    let query = [("ordering", "-created".to_owned())];
    let tokens = client.first("token/", &query, 10).await?;
    let new = tokens.iter().find(|token| token["login"] == true && token["expires"] == *expires);
    Ok(new.map(|token| cell(&token["id"])))
}

/// A profile without its secret.
pub fn shown(name: &Name, profile: &Profile, in_use: bool) -> Value {
    json!({
        "name": name,
        "in_use": in_use,
        "url": profile.url,
        "user": profile.user,
        "expires": profile.expires,
        "logged_in": profile.token.is_some(),
    })
}

#[derive(Debug, Args)]
pub struct Logout {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: Output,
}

/// Ends the login and forgets its token. Where the server is, and how to recognize it, stays known.
pub async fn logout(arguments: Logout) -> anyhow::Result<ExitCode> {
    let mut profiles = Profiles::load()?;
    let (Some(name), Some(mut profile)) = arguments.server.named(&profiles)? else {
        bail!("no profile is in use: nothing to log out from");
    };
    let before = profile.clone();
    (profile.token, profile.token_id, profile.expires) = (None, None, None);
    let current = profiles.current.clone();
    profiles.put(name.clone(), profile.clone());
    profiles.current = current;
    profiles.save()?;
    let said = match end(&before).await {
        _ if before.token.is_none() => format!("Profile {name} was not logged in."),
        Ended::Yes => format!("Logged out from {}.", profile.url),
        Ended::NotOurs | Ended::No => {
            note!("{}", still_good(&before));
            format!("Profile {name} has no token any more.")
        }
    };
    arguments
        .output
        .say(&shown(&name, &profile, profiles.current.as_ref() == Some(&name)), said)?;
    Ok(ExitCode::SUCCESS)
}
