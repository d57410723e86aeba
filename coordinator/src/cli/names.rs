//! What devices are called, whom operations know by their ids: each is asked for once.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::client::Client;
use super::failure::Failure;
use super::output::cell;

/// Devices in a page of their list.
const PAGE: usize = 100;

pub struct Names<'a> {
    client: &'a Client,
    known: HashMap<String, String>,
}

impl<'a> Names<'a> {
    pub fn new(client: &'a Client) -> Self {
        Self { client, known: HashMap::new() }
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

    /// Learns a page of the list; how many there are behind it.
    async fn list(&mut self, page: usize) -> anyhow::Result<usize> {
        let query = [("page", page.to_string()), ("page_size", PAGE.to_string())];
        let listing = self.client.page("device/", &query).await?;
        for device in listing["results"].as_array().into_iter().flatten() {
            self.known.insert(cell(&device["id"]), cell(&device["name"]));
        }
        let count = listing["count"].as_u64().and_then(|count| usize::try_from(count).ok());
        Ok(count.unwrap_or(0).div_ceil(PAGE).saturating_sub(page))
    }

    /// A device's name; its id where it was not learned.
    pub fn get(&self, id: &Value) -> String {
        let id = cell(id);
        self.known.get(&id).cloned().unwrap_or(id)
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
        self.known.insert(id, name);
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
    use crate::cli::scripted::{Scripted, good};

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
    async fn names_cost_as_few_requests_as_they_can() {
        assert_eq!(requests(1000, 1).await, 1, "that one");
        assert_eq!(requests(50, 50).await, 1, "the list");
        assert_eq!(requests(1000, 3).await, 4, "a page, and then these");
        assert_eq!(requests(1000, 900).await, 10, "the whole list");
    }
}
