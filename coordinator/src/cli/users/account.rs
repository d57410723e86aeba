//! `users create | password | activate | deactivate | remove`

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::find;
use crate::cli::output::{Output, cell};
use crate::cli::prompt;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a user; the password is asked for
    Create {
        name: String,
        /// May do everything everywhere
        #[arg(long)]
        superuser: bool,
        /// Nobody logs in as this user; tokens work
        #[arg(long)]
        no_password: bool,
    },
    /// Set a password; it ends all of the user's tokens
    Password {
        /// Whose, for superusers [default: yours]
        user: Option<String>,
    },
    /// Let a user in again
    Activate { user: String },
    /// Shut a user out; it ends all of the user's tokens
    Deactivate { user: String },
    /// Remove a user
    Remove {
        user: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub async fn run(client: &Client, verb: Verb, output: Output) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Create { name, superuser, no_password } => {
            let mut body = json!({ "username": name, "superuser": superuser });
            if !no_password {
                body["password"] = json!(new_password(&format!("Password for {name}"))?);
            }
            let made = client.send(Method::POST, "user/", &body).await?;
            let next = "give a role: modem-upgrader users role";
            let said = match superuser {
                true => format!("user {}", cell(&made["id"])),
                false => format!("user {}; {next} {name} ORGANIZATION ROLE", cell(&made["id"])),
            };
            output.say(&made, said)?;
        }
        Verb::Password { user: None } => {
            let me = client.get("user/me/", &[]).await?;
            let mut body = json!({});
            if me["has_password"] != false {
                body["current_password"] = json!(prompt::secret("Present password")?);
            }
            body["password"] = json!(new_password("New password")?);
            let changed = client.send(Method::PATCH, "user/me/", &body).await?;
            let next = "all of your tokens have ended; log in again";
            output.say(&changed, format!("The password is changed: {next}."))?;
        }
        Verb::Password { user: Some(user) } => {
            let password = new_password(&format!("Password for {user}"))?;
            let said = format!("The password of {user} is changed.");
            change(client, &user, &json!({ "password": password }), output, &said).await?;
        }
        Verb::Activate { user } => {
            let said = format!("{user} is active.");
            change(client, &user, &json!({ "active": true }), output, &said).await?;
        }
        Verb::Deactivate { user } => {
            let said = format!("{user} is shut out.");
            change(client, &user, &json!({ "active": false }), output, &said).await?;
        }
        Verb::Remove { user, yes } => {
            let path = path(client, &user).await?;
            let question =
                format!("Remove user {user}, and all of their tokens and roles with it?");
            if !prompt::confirm(yes, &question)? {
                return Ok(ExitCode::FAILURE);
            }
            client.delete(&path).await?;
            output.say(&Value::Null, format!("{user} is removed."))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn change(
    client: &Client,
    user: &str,
    change: &Value,
    output: Output,
    said: &str,
) -> anyhow::Result<()> {
    let changed = client.send(Method::PATCH, &path(client, user).await?, change).await?;
    output.say(&changed, said)?;
    Ok(())
}

async fn path(client: &Client, name: &str) -> anyhow::Result<String> {
    if find::is_id(name) {
        return Ok(format!("user/{name}/"));
    }
    let mut users = client.all("user/", &[("username", name.to_owned())]).await?;
    users.retain(|user| user["username"] == name);
    let user = users.first().with_context(|| format!("there is no user {name}"))?;
    Ok(format!("user/{}/", cell(&user["id"])))
}

/// A person types it twice.
fn new_password(what: &str) -> anyhow::Result<String> {
    let password = prompt::secret(what)?;
    if prompt::is_attended() && prompt::secret("Once more")? != password {
        anyhow::bail!("the two are not the same");
    }
    Ok(password)
}
