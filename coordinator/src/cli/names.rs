//! What devices are called, whom operations know by their ids: each is asked for once.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::client::Client;
use super::failure::Failure;
use super::output::cell;

/// Devices in a page of their list.
const PAGE: usize = 100;

/// Names that were asked for one by one, after which the whole list is.
const SINGLE: usize = 10;

pub struct Names<'a> {
    client: &'a Client,
    known: HashMap<String, String>,
    /// How many have a name.
    bearers: HashMap<String, usize>,
    single: usize,
}

impl<'a> Names<'a> {
    pub fn new(client: &'a Client) -> Self {
        Self { client, known: HashMap::new(), bearers: HashMap::new(), single: 0 }
    }

    /// Those of the devices of all these operations, one by one or from the list of devices: whichever is
    /// fewer requests.
    pub async fn learn(&mut self, operations: &[Value]) -> anyhow::Result<()> {
        let ids = operations.iter().map(|operation| cell(&operation["device"]));
        let mut unknown: BTreeSet<_> = ids.filter(|id| !self.known.contains_key(id)).collect();
        let (mut page, mut left) = (1, 1);
        while left > 0 && unknown.len() > left {
            left = self.list(page).await?;
            page += 1;
            unknown.retain(|id| !self.known.contains_key(id));
        }
        for id in unknown {
            let device = self.client.page(&path(&id), &[]).await;
            self.keep(id, device)?;
        }
        Ok(())
    }

    /// That of one operation's device, for a view that goes on: a server that is away for a moment does not end it, and
    /// of a fleet that begins at once not each is asked for.
    pub async fn learn_if_well(&mut self, operation: &Value) -> anyhow::Result<()> {
        let id = cell(&operation["device"]);
        if self.known.contains_key(&id) {
            return Ok(());
        }
        let learned = match self.single {
            SINGLE => self.list_all().await,
            _ => self.of(&operation["device"]).await.map(drop),
        };
        self.single += 1;
        match learned {
            Err(error) if !error.downcast_ref().is_some_and(Failure::may_pass) => Err(error),
            _ => Ok(()),
        }
    }

    async fn list_all(&mut self) -> anyhow::Result<()> {
        for page in 1.. {
            if self.list(page).await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Learns a page of the list; how many there are behind it.
    async fn list(&mut self, page: usize) -> anyhow::Result<usize> {
        let query = [("page", page.to_string()), ("page_size", PAGE.to_string())];
        let listing = self.client.page("device/", &query).await?;
        for device in listing["results"].as_array().into_iter().flatten() {
            self.insert(cell(&device["id"]), cell(&device["name"]));
        }
        let count = listing["count"].as_u64().and_then(|count| usize::try_from(count).ok());
        Ok(count.unwrap_or(0).div_ceil(PAGE).saturating_sub(page))
    }

    fn insert(&mut self, id: String, name: String) {
        if self.known.insert(id, name.clone()).is_none() {
            *self.bearers.entry(name).or_default() += 1;
        }
    }

    /// A device's name; its id where it was not learned, or another one is called the same.
    pub fn get(&self, id: &Value) -> String {
        let id = cell(id);
        match self.known.get(&id) {
            Some(name) if self.bearers.get(name) == Some(&1) => name.clone(),
            Some(_) | None => id,
        }
    }

    /// A device's name, learned if need be. Where the server is asked too much, this does not wait.
    pub async fn of(&mut self, id: &Value) -> anyhow::Result<String> {
        if !self.known.contains_key(&cell(id)) {
            let device = self.client.get(&path(&cell(id)), &[]).await;
            self.keep(cell(id), device)?;
        }
        Ok(self.get(id))
    }

    /// One that this user does not see goes by its id.
    fn keep(&mut self, id: String, device: anyhow::Result<Value>) -> anyhow::Result<()> {
        let name = match device {
            Ok(device) => cell(&device["name"]),
            Err(error) if matches!(error.downcast_ref(), Some(Failure::NotFound)) => id.clone(),
            Err(error) => return Err(error),
        };
        self.insert(id, name);
        Ok(())
    }
}

fn path(id: &str) -> String {
    format!("device/{id}/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::scripted::{Scripted, good, throttled};

    /// Requests for the names of so many devices out of `fleet`.
    async fn requests(fleet: usize, some: usize) -> usize {
        let server = Scripted::new(move |path| match path.strip_prefix("device/?page=") {
            Some(rest) => {
                let page: usize = rest.split('&').next().unwrap().parse().unwrap();
                let ids = ((page - 1) * PAGE..fleet.min(page * PAGE)).rev();
                let one = |n: usize| json!({ "id": format!("{n}"), "name": format!("van {n}") });
                good(&json!({ "count": fleet, "results": ids.map(one).collect::<Vec<_>>() }))
            }
            None => {
                let n = path.trim_start_matches("device/").trim_end_matches('/');
                good(&json!({ "name": format!("van {n}") }))
            }
        });
        let server = server.await;
        let mut names = Names::new(&server.client);
        let last = fleet - some..fleet;
        let operations: Vec<_> = last.map(|n| json!({ "device": format!("{n}") })).collect();
        names.learn(&operations).await.unwrap();
        for operation in &operations {
            let name = format!("van {}", cell(&operation["device"]));
            assert_eq!(names.get(&operation["device"]), name);
        }
        let asked = server.asked().len();
        names.learn(&operations).await.unwrap();
        assert_eq!(server.asked().len(), asked, "each once");
        asked
    }

    #[tokio::test]
    async fn a_view_that_goes_on_asks_for_few_and_does_not_end_with_a_name() {
        let operation = |n: usize| json!({ "device": format!("{n}") });
        let server = Scripted::new(|path| match path.split('/').nth(1) {
            Some(list) if list.starts_with("?page=") => {
                let one = |n: usize| json!({ "id": format!("{n}"), "name": format!("van {n}") });
                good(&json!({ "count": 100, "results": (0..100).map(one).collect::<Vec<_>>() }))
            }
            Some("99") => throttled(),
            _ => good(&json!({ "name": "the same" })),
        });
        let server = server.await;
        let mut names = Names::new(&server.client);
        names.learn_if_well(&operation(99)).await.unwrap();
        assert_eq!(names.get(&json!("99")), "99", "the server was asked too much");
        for n in 0..90 {
            names.learn_if_well(&operation(n)).await.unwrap();
        }
        assert_eq!(server.asked().len(), SINGLE + 1);
        assert_eq!(names.get(&json!("3")), "3", "two have its name");
        assert_eq!(names.get(&json!("80")), "van 80");
    }

    #[tokio::test]
    async fn names_cost_as_few_requests_as_they_can() {
        assert_eq!(requests(1000, 1).await, 1, "that one");
        assert_eq!(requests(50, 50).await, 1, "the list");
        assert_eq!(requests(1000, 3).await, 4, "a page, and then these");
        assert_eq!(requests(1000, 900).await, 10, "the whole list");
    }
}
