//! The modem itself: power, modes, ports. One thread owns it all.
//!
//! ```text
//!            power_on ─► (enumeration) ─► by the flash: Normal │ Download │ CrashDump │ Dead
//!   Normal   AT#REBOOT ─► (gone) ─► Normal            ENTER_BOOT ─► (gone) ─► Download, on another bus
//!   Download first DATA: HalfWritten, boots here only from now on
//!            FINISH ─► (gone) ─► Normal with the new versions
//!   any      power_cut ─► Off; what the flash file says is what comes back
//! ```

mod ports;
mod power;

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::control::{Mode, Order, Request, State};
use super::flash::Flash;
use super::loader::Loader;
use super::settings::Settings;
use super::shape::{Port, Role};
use super::tree::Tree;
use super::urc;
use crate::faults::ModemFault;
use crate::random::Random;

/// Longest sleep: a port that was closed is looked at this often, and so are orders.
const NAP: Duration = Duration::from_millis(10);
pub struct Machine {
    settings: Settings,
    flash: Flash,
    tree: Tree,
    random: Random,
    faults: Vec<ModemFault>,
    mode: Mode,
    ports: Vec<Port>,
    loader: Loader,
    /// The loader does not answer until it is greeted again.
    mute: bool,
    /// The next boot, and whether download mode was asked for.
    boot: Option<(Instant, bool)>,
    /// The ports vanish then, for a boot.
    leaves: Option<(Instant, bool)>,
    silent_until: Instant,
    versions_from: Instant,
    next_urc: Instant,
    commands: u32,
    enumerations: u32,
}

impl Machine {
    /// A modem with power.
    pub fn new(settings: Settings) -> io::Result<Machine> {
        let file = settings.flash_file();
        let flash = if file.exists() { Flash::load(&file)? } else { settings.factory.clone() };
        flash.save(&file)?;
        let now = Instant::now();
        Ok(Machine {
            tree: Tree::new(&settings.router)?,
            random: Random::new(settings.seed),
            faults: settings.faults.clone(),
            mode: Mode::Off,
            ports: Vec::new(),
            loader: Loader::default(),
            mute: false,
            boot: Some((now + settings.enumeration, false)),
            leaves: None,
            silent_until: now,
            versions_from: now,
            next_urc: now,
            commands: 0,
            enumerations: 0,
            settings,
            flash,
        })
    }

    /// Runs until nobody gives orders any more.
    pub fn run(mut self, orders: &Receiver<Order>) -> io::Result<()> {
        loop {
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(order)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            let now = Instant::now();
            self.change_mode(now)?;
            self.chatter(now);
            let mut wake = now + NAP;
            for index in 0..self.ports.len() {
                self.listen(index)?;
            }
            for port in self.ports.iter_mut().filter(|port| port.open) {
                let due = port.voice.speak(now, &port.pty)?;
                wake = wake.min(due.unwrap_or(wake));
            }
            self.nap(wake.saturating_duration_since(Instant::now()))?;
        }
    }

    fn obey(&mut self, order: Order) -> io::Result<()> {
        match order.request {
            Request::State => {}
            Request::SetFault(fault) => self.add_fault(fault),
            Request::Surround(surroundings) => self.flash.surroundings = surroundings,
            Request::PowerCut => self.power_cut()?,
            Request::PowerOn => self.power_on(),
            Request::Factory => {
                self.power_cut()?;
                self.faults.clear();
                self.flash = self.settings.factory.clone();
                self.save()?;
            }
        }
        // Whoever asked may have gone.
        let _ = order.answer.send(self.state());
        Ok(())
    }

    fn state(&self) -> State {
        State {
            mode: self.mode,
            ttys: self.tree.ttys.clone(),
            percent: self.loader.percent(),
            commands: self.commands,
            enumerations: self.enumerations,
            flash: self.flash.clone(),
        }
    }

    fn add_fault(&mut self, fault: ModemFault) {
        if let ModemFault::Restart { after_commands } = fault {
            self.faults
                .push(ModemFault::Restart { after_commands: self.commands + after_commands });
        } else {
            self.faults.push(fault);
        }
    }

    fn storms(&self) -> bool {
        self.faults.contains(&ModemFault::UrcStorm)
    }

    /// Unsolicited codes at any time.
    fn chatter(&mut self, now: Instant) {
        if self.mode != Mode::Normal || now < self.next_urc.max(self.silent_until) || !self.storms()
        {
            return;
        }
        self.next_urc = now + Duration::from_millis(5 + self.random.below(40));
        for port in self.ports.iter_mut().filter(|port| port.role == Role::At && port.open) {
            // A modem does not cut its own command echo with one.
            if port.command.is_empty() {
                port.voice.stutter(urc::draw(&mut self.random), &mut self.random);
            }
        }
    }

    fn take_fault(&mut self, is_due: impl Fn(&ModemFault) -> bool) -> Option<ModemFault> {
        let index = self.faults.iter().position(is_due)?;
        Some(self.faults.remove(index))
    }

    fn save(&self) -> io::Result<()> {
        self.flash.save(&self.settings.flash_file())
    }

    /// Sleeps until a port that somebody has open says something, or for `limit`.
    fn nap(&self, limit: Duration) -> io::Result<()> {
        let mut open: Vec<PollFd<'_>> = self
            .ports
            .iter()
            .filter(|port| port.open)
            .map(|port| PollFd::new(port.pty.as_fd(), PollFlags::POLLIN))
            .collect();
        let limit = u16::try_from(limit.as_millis()).unwrap_or(1).max(1);
        match nix::poll::poll(&mut open, PollTimeout::from(limit)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
