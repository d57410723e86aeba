//! `token`: whoever owns the data directory makes, lists and revokes tokens, whether the server
//! runs or not. It is also the way back in for who has lost theirs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use shared::hex::sha256;
use shared::ids::OrganizationSlug;
use uuid::Uuid;

use super::find;
use super::output::say;
use crate::clock::Clock;
use crate::secret;
use crate::store::Store;
use crate::store::audit::Entry;
use crate::store::bootstrap::NewEnrolmentToken;
use crate::store::user::{NewApiToken, TokenScope};

const DAY_MS: u64 = 24 * 3600 * 1000;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The server's data directory
    #[arg(
        long,
        env = "MODEM_UPGRADER_DATA",
        value_name = "DIR",
        default_value = "data",
        global = true
    )]
    data: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token and print it, this once
    New(New),
    /// List tokens; they themselves are not kept
    List,
    /// End a token, and the MQTT tokens of its user
    Revoke {
        /// As `list` shows it
        #[arg(value_parser = find::id("token list"))]
        id: Uuid,
    },
}

#[derive(Debug, Args)]
struct New {
    /// For people, to tell it by
    #[arg(long, default_value = "command line")]
    name: String,
    /// The user it speaks for
    #[arg(long, default_value = "admin", conflicts_with = "enrolment")]
    user: String,
    /// For reading only
    #[arg(long, conflicts_with = "enrolment")]
    read: bool,
    /// For devices of this organization to enrol with; they are let in at once
    #[arg(long, value_name = "ORGANIZATION")]
    enrolment: Option<OrganizationSlug>,
    /// Devices that may come with it; any number, if nothing is said
    #[arg(long, requires = "enrolment", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Whoever comes with it waits until somebody lets them in (`devices accept`)
    #[arg(long, requires = "enrolment")]
    pending: bool,
    /// How long it is good; for ever, if nothing is said
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let database = arguments.data.join("coordinator.db");
    anyhow::ensure!(
        database.is_file(),
        "no server has run in {} yet: it has no database",
        arguments.data.display()
    );
    anyhow::ensure!(
        !Store::is_older(&database)?,
        "the database is of an older version: start this version's server first, which brings it up to date; \
         back it up before that"
    );
    let store = Store::open(&database, Clock::System)?;
    match arguments.verb {
        Verb::New(new) => make(&store.on_record(entry("new token", "token")), new).await?,
        Verb::List => list(&store).await?,
        Verb::Revoke { id } => {
            let store = store.on_record(entry("revoke token", &id.to_string()));
            anyhow::ensure!(store.revoke_token(id).await?, "there is no token {id}");
            say!("revoked: {id}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn entry(action: &str, subject: &str) -> Entry {
    Entry {
        actor: "command line".into(),
        action: action.into(),
        subject: subject.into(),
        ..Entry::default()
    }
}

async fn make(store: &Store, new: New) -> anyhow::Result<()> {
    let expires = new.days.map(|days| store.clock().now() + u64::from(days) * DAY_MS);
    let (id, token, label) = match new.enrolment {
        Some(slug) => {
            let found = store.organization(slug.clone()).await?;
            let organization = found.with_context(|| format!("no organization {slug}"))?.id;
            let token = secret::make(secret::ENROLMENT)?;
            let digest = sha256(token.as_bytes());
            let name = new.name;
            let (auto_accept, uses) = (!new.pending, new.uses);
            let row = NewEnrolmentToken { organization, name, digest, auto_accept, uses, expires };
            (store.create_enrolment_token(row).await?, token, "enrolment_token")
        }
        None => {
            let found = store.user_named(new.user.clone()).await?;
            let user = found.with_context(|| format!("no user {}", new.user))?;
            let token = secret::make(secret::API)?;
            let digest = sha256(token.as_bytes());
            let scope = if new.read { TokenScope::Read } else { TokenScope::Write };
            let row = NewApiToken { user, name: new.name, digest, scope, expires };
            (store.create_api_token(row).await?, token, "api_token")
        }
    };
    say!("id: {id}\n{label}: {token}")?;
    Ok(())
}

async fn list(store: &Store) -> anyhow::Result<()> {
    for token in store.tokens().await? {
        say!(
            "{}  {:6}  {}  {:?}  created {}  expires {}  last used {}",
            token.id,
            token.scope,
            token.of,
            token.name,
            time(Some(token.created)),
            time(token.expires),
            time(token.last_used),
        )?;
    }
    Ok(())
}

fn time(ms: Option<u64>) -> String {
    let at = ms.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    at.map_or_else(|| "never".into(), |at| format!("{at:.0}"))
}
