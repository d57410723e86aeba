//! From what people call a thing to its id: a device, group or location by its name, a build as
//! `CATEGORY/VERSION`, a token by its name. An id is taken as it is.

use anyhow::{Context, bail};
use serde_json::Value;
use uuid::Uuid;

use super::client::Client;
use super::output::cell;

/// A device's id.
pub async fn device(client: &Client, word: &str) -> anyhow::Result<String> {
    match is_id(word) {
        true => Ok(word.to_owned()),
        false => named(client, "device", word).await,
    }
}

pub async fn devices(client: &Client, words: &[String]) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for word in words {
        ids.push(device(client, word).await?);
    }
    Ok(ids)
}

/// A group's or location's id; `kind` is its word in the API.
pub async fn place(client: &Client, kind: &str, word: &str) -> anyhow::Result<String> {
    match is_id(word) {
        true => Ok(word.to_owned()),
        false => named(client, kind, word).await,
    }
}

pub async fn build(client: &Client, word: &str) -> anyhow::Result<String> {
    if is_id(word) {
        return Ok(word.to_owned());
    }
    let (category, version) = word
        .split_once('/')
        .with_context(|| format!("{word:?} is no build: give its id, or CATEGORY/VERSION"))?;
    let query = [("version", version.to_owned())];
    let mut found = client.all("build/", &query).await?;
    found.retain(|build| build["category_relation"]["name"] == category);
    one(found, word, "`modem-upgrader builds` lists them")
}

async fn named(client: &Client, kind: &str, name: &str) -> anyhow::Result<String> {
    let mut found = client.all(&format!("{kind}/"), &[("name", name.to_owned())]).await?;
    // A server that does not filter by name answers with all.
    found.retain(|row| row["name"] == name);
    one(found, name, &format!("`modem-upgrader {kind}s` lists them"))
}

fn one(found: Vec<Value>, word: &str, advice: &str) -> anyhow::Result<String> {
    match found.as_slice() {
        [only] => Ok(cell(&only["id"])),
        [] => bail!("nothing is called {word:?}: {advice}"),
        several => {
            let ids: Vec<_> = several.iter().map(|row| cell(&row["id"])).collect();
            bail!("{} are called {word:?}: give the id, one of {}", ids.len(), ids.join(", "))
        }
    }
}

/// A token's id; `list` is the command that shows them, and the API's word for one with an s behind it.
pub async fn token(client: &Client, list: &str, word: &str) -> anyhow::Result<String> {
    if let Ok(id) = Uuid::try_parse(word) {
        return Ok(id.to_string());
    }
    let mut found = client.all(&format!("{}/", list.trim_end_matches('s')), &[]).await?;
    found.retain(|token| token["name"] == word);
    one(found, word, &format!("give an id or a name, as `modem-upgrader {list}` lists them"))
}

/// Parses an id; `list` is the command that shows them.
pub fn id(list: &'static str) -> impl Fn(&str) -> Result<Uuid, String> + Clone {
    move |word| {
        let id = Uuid::try_parse(word);
        id.map_err(|_| format!("this is no id: `modem-upgrader {list}` lists them"))
    }
}

pub fn is_id(word: &str) -> bool {
    Uuid::try_parse(word).is_ok()
}
