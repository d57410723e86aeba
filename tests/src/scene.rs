//! A coordinator, an operator's key and routers in a directory of their own: where end-to-end tests
//! begin.

use crate::{
    coordinator::{Api, Coordinator},
    firmware::Model,
    release::{FROM, Key, Release, Wanted},
    router::{Plan, Router},
    watch,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything of it ends with this value. Its directory stays for whoever has to look, if that is
/// a test that fails.
pub struct Scene {
    pub coordinator: Coordinator,
    pub api: Api,
    pub key: Key,
    pub dir: PathBuf,
    exe: PathBuf,
}

impl Scene {
    /// Starts a coordinator in `dir`, which is made anew and must survive a power cut.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(exe: &Path, dir: &Path) -> anyhow::Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let coordinator = Coordinator::start(exe, &dir.join("coordinator"))?;
        let api = coordinator.api()?;
        let key = Key::make(&coordinator, &dir.join("operator"))?;
        Ok(Self { coordinator, api, key, dir, exe: exe.to_owned() })
    }

    /// A signed release, not uploaded yet.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn release(&self, wanted: &Wanted) -> anyhow::Result<Release> {
        Release::make(&self.coordinator, &self.dir, &self.key, wanted)
    }

    /// The id of a signed and uploaded image.
    ///
    /// # Errors
    /// It is not taken.
    pub fn image(&self, wanted: &Wanted) -> anyhow::Result<String> {
        self.release(wanted)?.upload(&self.coordinator)
    }

    /// A router with an FN990A28, switched on, its agent not started.
    ///
    /// # Errors
    /// It cannot be built.
    pub async fn router(&self, number: u8, sole_uplink: bool) -> anyhow::Result<Router> {
        let plan = Plan {
            number,
            model: Model::Fn990a28,
            package: FROM.into(),
            key: self.key.public.clone(),
            sole_uplink,
            seed: u64::from(number),
            uplink: self.coordinator.uplink(),
        };
        Router::build(&self.exe, &self.dir, &plan).await
    }

    /// Starts the router's agent and waits until the coordinator knows the device.
    ///
    /// # Errors
    /// It does not enrol.
    pub async fn enrol(&self, router: &mut Router) -> anyhow::Result<String> {
        router.start_agent()?;
        watch::enrolled(&self.api, router).await
    }

    /// [`watch::operation`] here.
    ///
    /// # Errors
    /// It does not come so far.
    pub async fn operation(
        &self,
        id: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        watch::operation(&self.api, id, condition).await
    }

    /// [`watch::ended`] here.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ended(&self, id: &str) -> anyhow::Result<Value> {
        watch::ended(&self.api, id).await
    }

    /// The coordinator's database, read and written beside it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn database(&self) -> rusqlite::Result<rusqlite::Connection> {
        let database = rusqlite::Connection::open(self.coordinator.data.join("coordinator.db"))?;
        database.busy_timeout(Duration::from_secs(10))?;
        Ok(database)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.coordinator.kill();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
