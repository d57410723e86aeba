//! Which modems a batch is for: the same words for the preview and for the batch itself.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::client::{Client, Query};
use crate::cli::find;

#[derive(Debug, Args)]
#[command(next_help_heading = "Which modems (all conditions must hold)")]
pub struct Selection {
    /// The build to upgrade to: its id, or CATEGORY/VERSION
    #[arg(long)]
    build: String,
    /// Whose devices, where the build is for several organizations
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Also modems that have no firmware assigned yet, or firmware of another category, which is
    /// replaced; --device implies it
    #[arg(long)]
    all: bool,
    /// Those in this group: its id or name
    #[arg(long)]
    group: Option<String>,
    /// Those in this location: its id or name
    #[arg(long)]
    location: Option<String>,
    /// Those of devices with this tag; repeat for any of several
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// That of this device: its id or name; repeat for several
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Those of this model; repeat for any of several
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// Those in routers of this board
    #[arg(long)]
    board: Option<String>,
    /// Those that run this version now; repeat for any of several
    #[arg(long = "from-version", value_name = "VERSION")]
    from_versions: Vec<String>,
    /// Also routers that do not check signatures
    #[arg(long)]
    include_unsigned: bool,
    /// Also where the image would not survive a power cut and the modem is the only uplink, as far
    /// as the router allows it
    #[arg(long)]
    allow_volatile_staging: bool,
}

/// With ids in the place of names.
pub struct Selected {
    /// The build's id.
    pub build: String,
    fields: Map<String, Value>,
}

impl Selection {
    pub async fn resolve(self, client: &Client) -> anyhow::Result<Selected> {
        let build = find::build(client, &self.build).await?;
        let mut fields = Map::new();
        let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        for (name, wanted) in [
            ("upgrade_all", self.all),
            ("include_unsigned", self.include_unsigned),
            ("allow_volatile_staging", self.allow_volatile_staging),
        ] {
            if wanted {
                set(name, json!(true));
            }
        }
        if let Some(organization) = self.organization {
            set("organization", json!(organization));
        }
        if let Some(group) = &self.group {
            set("group", json!(find::place(client, "group", group).await?));
        }
        if let Some(location) = &self.location {
            set("location", json!(find::place(client, "location", location).await?));
        }
        let devices = find::devices(client, &self.devices).await?;
        for (name, values) in [
            ("tags", self.tags),
            ("devices", devices),
            ("models", self.models),
            ("boards", self.board.into_iter().collect()),
            ("from_versions", self.from_versions),
        ] {
            if !values.is_empty() {
                set(name, json!(values));
            }
        }
        Ok(Selected { build, fields })
    }
}

impl Selected {
    /// For a POST.
    pub fn body(&self) -> Map<String, Value> {
        self.fields.clone()
    }

    /// For the dry run's GET: names are in the singular there, and come once for each value.
    pub fn query(&self) -> Query {
        let mut query = Query::new();
        for (name, singular) in [
            ("organization", "organization"),
            ("upgrade_all", "upgrade_all"),
            ("group", "group"),
            ("location", "location"),
            ("tags", "tag"),
            ("devices", "device"),
            ("models", "model"),
            ("boards", "board"),
            ("from_versions", "from_version"),
            ("include_unsigned", "include_unsigned"),
            ("allow_volatile_staging", "allow_volatile_staging"),
        ] {
            match self.fields.get(name) {
                Some(Value::Array(values)) => {
                    let values = values.iter().filter_map(Value::as_str);
                    query.extend(values.map(|value| (singular, value.to_owned())));
                }
                Some(Value::String(value)) => query.push((singular, value.clone())),
                Some(other) => query.push((singular, other.to_string())),
                None => {}
            }
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_asks_for_what_the_batch_will() {
        let fields = json!({ "upgrade_all": true, "group": "g", "tags": ["a", "b"] });
        let Value::Object(fields) = fields else { panic!() };
        let selected = Selected { build: "b".into(), fields };
        let pairs = [("upgrade_all", "true"), ("group", "g"), ("tag", "a"), ("tag", "b")];
        assert_eq!(selected.query(), pairs.map(|(name, value)| (name, value.to_owned())));
    }
}
