//! `users role`

use anyhow::Context;
use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::output::{Output, cell};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The user's name
    user: String,
    /// The organization's slug
    organization: String,
    #[arg(value_enum)]
    role: Role,
}

/// Each includes the one before.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Not a member any more
    None,
    /// Sees everything of it
    Viewer,
    /// Also uploads and upgrades
    Operator,
    /// Also looks after members, devices, enrolment tokens and the audit log
    Administrator,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

pub async fn run(client: &Client, arguments: Arguments, output: Output) -> anyhow::Result<()> {
    let Arguments { user, organization, role } = arguments;
    let members = members(client, &organization).await?;
    let known = client.all(&members, &[]).await?;
    let known = known.iter().find(|member| member["username"] == user.as_str());
    let path = known.map(|member| format!("{members}{}/", cell(&member["user"])));
    let name = role.name();
    let answer = match (path, role) {
        (Some(path), Role::None) => {
            client.delete(&path).await?;
            Value::Null
        }
        (None, Role::None) => Value::Null,
        (Some(path), _) => client.send(Method::PATCH, &path, &json!({ "role": name })).await?,
        (None, _) => {
            let body = json!({ "username": user, "role": name });
            client.send(Method::POST, &members, &body).await?
        }
    };
    output.say(&answer, format!("{user}: {organization}={name}"))?;
    Ok(())
}

/// Where the members of the organization with this slug are.
pub async fn members(client: &Client, slug: &str) -> anyhow::Result<String> {
    let mut found = client.all("organization/", &[("slug", slug.to_owned())]).await?;
    found.retain(|organization| organization["slug"] == slug);
    let organization = found.first().with_context(|| {
        format!("no organization {slug}: `modem-upgrader organizations` lists yours")
    })?;
    Ok(format!("organization/{}/member/", cell(&organization["id"])))
}
