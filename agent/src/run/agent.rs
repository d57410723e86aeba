//! The loop: one task owns all slots and gives one after the other its turn.
//!
//! ```text
//! look at every slot ─► a touched modem ─► inventory, if due ─► a job ─► else wait
//!         ▲                                                               │
//!         └── a turn is over, what is desired changed, a pause is over ◄──┘
//! ```
//! A turn lasts until the upgrade ends or has to pause for long: then the slot is parked, its journal
//! untouched, and the others go on.

use super::{
    census::Census,
    nameless,
    recent::Operations,
    slot::Slot,
    turns::{self, Wish},
};
use crate::{
    environment::{self, Ports},
    files,
    settings::{Settings, SlotSettings},
    upgrade::results::{Ended, Results},
};
use shared::{
    desired::{Desired, Job},
    hex::Sha256,
};
use std::sync::Arc;
use tokio::{sync::Notify, time::Instant};

pub struct Agent {
    settings: Arc<Settings>,
    ports: Ports,
    slots: Vec<Slot>,
    census: Census,
    /// Jobs for slots that this router does not have, as far as they were refused by this process.
    refused: Operations,
    /// The coordinator's memory that those answers went to.
    epoch: String,
    /// Something may be staged that nobody needs any more.
    untidy: bool,
    /// Somebody has seen something new on this router.
    woken: Arc<Notify>,
}

impl Agent {
    pub fn new(settings: Arc<Settings>, ports: Ports, woken: Arc<Notify>) -> Self {
        let slot = |place: &_| Slot::new(settings.clone(), ports.clone(), Clone::clone(place));
        let last_result = last_result(&settings);
        ports.status.update(|status| status.last_result = last_result);
        Self {
            slots: settings.slots.iter().map(slot).collect(),
            census: Census::new(),
            refused: Operations::default(),
            epoch: String::new(),
            // A crash may have left something.
            untidy: true,
            settings,
            ports,
            woken,
        }
    }

    /// Works for ever.
    pub async fn work(&mut self) {
        let mut desired = self.ports.uplink.desired();
        loop {
            let wanted = desired.borrow_and_update().clone();
            if let Some(desired) = &wanted {
                self.answer_to(desired.epoch());
            }
            let jobs = wanted.as_ref().map_or(&[][..], |desired: &Arc<Desired>| &desired.jobs);
            if self.take_turn(jobs, wanted.is_some()).await {
                continue;
            }
            self.tidy_up().await;
            let wake = self.slots.iter().filter_map(Slot::due).min();
            tokio::select! {
                _ = desired.changed() => {}
                () = self.woken.notified() => self.census.is_outdated_soon(),
                () = tokio::time::sleep_until(self.census.due()) => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// A coordinator that was restored may not have what it was told, and is told it again.
    fn answer_to(&mut self, epoch: &str) {
        if self.epoch != epoch {
            epoch.clone_into(&mut self.epoch);
            self.refused = Operations::default();
            self.slots.iter_mut().for_each(Slot::repeat_answers);
        }
    }

    /// Does the first thing that is due; false if nothing is. `answered`: the coordinator said what
    /// it wants, so that what is not among `jobs` is not wanted.
    async fn take_turn(&mut self, jobs: &[Job], answered: bool) -> bool {
        self.slots.iter_mut().for_each(Slot::look);
        self.show_held();
        self.slots.iter_mut().for_each(|slot| slot.explain(jobs));
        jobs.iter().for_each(|job| self.refuse_elsewhere(job));
        let mut wishes = self.wishes(jobs, answered);
        let is_new = |wish: &Wish| matches!(wish, Wish::Upgrade { .. });
        if !wishes.contains(&Wish::Recover) {
            let several = wishes.iter().filter(|wish| is_new(wish)).count() > 1;
            if self.census.due() <= Instant::now() || (several && !self.census.is_fresh()) {
                self.take_census().await;
                wishes = self.wishes(jobs, answered);
            }
        }
        let Some(slot) = turns::next(&wishes).and_then(|index| self.slots.get_mut(index)) else {
            return false;
        };
        if slot.serve(jobs).await {
            self.untidy = true;
            self.census.is_outdated();
        }
        true
    }

    fn wishes(&mut self, jobs: &[Job], answered: bool) -> Vec<Wish> {
        let census = &self.census;
        let wish = |slot: &mut Slot| {
            let default_route = census.carries_the_route(&slot.place.slot);
            slot.wish(jobs, answered, default_route)
        };
        self.slots.iter_mut().map(wish).collect()
    }

    async fn take_census(&mut self) {
        let Ports { uplink, boot_id, status, clock } = &self.ports;
        let modems = self.census.take(&self.settings, boot_id, uplink).await;
        let clock_trouble = clock.trouble();
        clock_trouble.iter().for_each(|trouble| log::error!("{trouble}"));
        status.update(|status| {
            status.modems = modems.to_vec();
            status.clock_trouble = clock_trouble;
        });
    }

    fn show_held(&self) {
        let held = self.slots.iter().filter_map(Slot::held).collect();
        self.ports.status.update(|status| status.held = held);
    }

    /// What nobody needs any more, while nothing else is to be done.
    async fn tidy_up(&mut self) {
        for slot in &self.slots {
            slot.give_back_leftovers().await;
        }
        let Some(needed) = self.needed().filter(|_| self.untidy) else { return };
        let staging = environment::staging(&self.settings);
        match files::off_runtime(move || staging.clean(&needed)).await {
            Ok(()) => self.untidy = false,
            Err(error) => log::warn!("staging is not cleaned: {error}"),
        }
    }

    /// Manifests of the images that may still be needed: they may be all that a modem in download
    /// mode can be recovered from. `None` while that is not known of every slot.
    fn needed(&self) -> Option<Vec<Sha256>> {
        let needed: Option<Vec<_>> = self.slots.iter().map(Slot::needed).collect();
        let own = |name: &str| self.slots.iter().any(|slot| slot.place.slot.as_str() == name);
        let others = nameless::needed(&self.settings.paths.state_dir, own)?;
        Some(needed?.into_iter().flatten().chain(others).collect())
    }

    /// A job for a slot that this router does not have.
    fn refuse_elsewhere(&mut self, job: &Job) {
        let known = self.slots.iter().any(|slot| slot.place.slot == job.slot);
        if known || !self.refused.insert(job.operation) {
            return;
        }
        let (body, of) = nameless::answer(&self.settings.paths.state_dir, job);
        match of {
            Some((stream, attempt)) => self.ports.answer_as(job, stream, attempt, body),
            None => self.ports.answer(job, body),
        }
    }
}

/// What ended last, of all slots, as far as anybody knew the time.
fn last_result(settings: &Settings) -> Option<Ended> {
    let of = |slot: &SlotSettings| {
        let directory = settings.paths.state_dir.join(slot.slot.as_str());
        Results::open(&directory).last().cloned()
    };
    settings.slots.iter().filter_map(of).max_by_key(|ended| ended.at)
}
