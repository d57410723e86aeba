//! The modem itself: power, modes, ports. One thread owns it all.
//!
//! ```text
//!            power_on ─► (enumeration) ─► by the flash: Normal │ Download │ CrashDump │ Dead
//!   Normal   AT#REBOOT ─► (gone) ─► Normal            ENTER_BOOT ─► (gone) ─► Download, on another bus
//!   Download first DATA: HalfWritten, boots here only from now on
//!            FINISH ─► (gone) ─► Normal with the new versions
//!   any      power_cut ─► Off; what the flash file says is what comes back
//! ```

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::at::{self, Effect};
use super::control::{Mode, Order, Request, State};
use super::flash::{Flash, FlashCondition};
use super::frame::{self, Frame, Greeting, Kind};
use super::loader::{self, Loader, Taken};
use super::pty::Heard;
use super::settings::Settings;
use super::shape::{self, Port, Role};
use super::tree::Tree;
use super::urc;
use crate::faults::ModemFault;
use crate::random::Random;

/// Longest sleep: a port that was closed is looked at this often, and so are orders.
const NAP: Duration = Duration::from_millis(10);
/// A frame that stays half this long was cut off with its sender.
const HALF_A_FRAME: Duration = Duration::from_millis(500);
/// From the last answer until the ports vanish; shorter if the other end is closed.
const FAREWELL: Duration = Duration::from_millis(400);
const REBOOT_FAREWELL_MS: u64 = 60;

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
            Request::PowerCut => self.power_cut()?,
            Request::PowerOn => self.power_on(),
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

    fn power_cut(&mut self) -> io::Result<()> {
        let interrupted = self.flash.condition == FlashCondition::HalfWritten;
        if interrupted && self.take_fault(|fault| *fault == ModemFault::NeverRecovers).is_some() {
            self.flash.condition = FlashCondition::Dead;
            self.save()?;
        }
        self.faults.retain(|fault| *fault != ModemFault::UrcStorm);
        self.vanish();
        self.boot = None;
        Ok(())
    }

    fn power_on(&mut self) {
        if self.mode == Mode::Off && self.boot.is_none() {
            self.boot = Some((Instant::now() + self.settings.enumeration, false));
        }
    }

    fn vanish(&mut self) {
        self.tree.detach();
        self.ports.clear();
        self.loader = Loader::default();
        self.mute = false;
        self.leaves = None;
        self.mode = Mode::Off;
    }

    fn change_mode(&mut self, now: Instant) -> io::Result<()> {
        let abandoned = self.leaves.is_some() && self.ports.iter().all(|port| !port.open);
        if let Some((_, download)) = self.leaves.filter(|(at, _)| *at <= now || abandoned) {
            self.vanish();
            self.boot = Some((now + self.settings.enumeration, download));
        }
        if let Some((_, download)) = self.boot.filter(|(at, _)| *at <= now) {
            self.boot = None;
            self.enumerate(download, now)?;
        }
        Ok(())
    }

    fn enumerate(&mut self, download: bool, now: Instant) -> io::Result<()> {
        self.mode = match self.flash.condition {
            FlashCondition::Dead => Mode::Dead,
            FlashCondition::Crashing => Mode::CrashDump,
            FlashCondition::HalfWritten => Mode::Download,
            FlashCondition::Whole if download => Mode::Download,
            FlashCondition::Whole => Mode::Normal,
        };
        let (shape, ports) = match self.mode {
            Mode::Normal => shape::normal(&self.settings, &self.flash)?,
            Mode::Download => shape::download(&self.settings)?,
            Mode::CrashDump => shape::crash_dump(&self.settings)?,
            Mode::Off | Mode::Dead => return Ok(()),
        };
        let normal = self.mode == Mode::Normal;
        let first_tty = if self.settings.renumber && normal { self.enumerations % 3 } else { 0 };
        self.enumerations += 1;
        self.tree.attach(&shape, first_tty)?;
        self.ports = ports;
        let extra = self.take_fault(|fault| matches!(fault, ModemFault::SilentBoot { .. }));
        let extra = match extra {
            Some(ModemFault::SilentBoot { ms }) => Duration::from_millis(ms),
            _ => Duration::ZERO,
        };
        self.silent_until = now + self.settings.boot_silence + extra;
        Ok(())
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

    fn listen(&mut self, index: usize) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        // A port may vanish while it is served.
        while let Some(port) = self.ports.get_mut(index) {
            match port.pty.hear(&mut buffer)? {
                Heard::Bytes(count) => {
                    port.open = true;
                    port.heard = Instant::now();
                    self.serve(index, &buffer[..count])?;
                }
                Heard::Nothing => {
                    port.open = true;
                    if port.heard.elapsed() > HALF_A_FRAME {
                        port.frames.reset();
                    }
                    break;
                }
                Heard::Closed => {
                    port.open = false;
                    port.voice.hush();
                    port.frames.reset();
                    port.command.clear();
                    break;
                }
            }
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(port) = self.ports.get_mut(index) else { return Ok(()) };
        match port.role {
            Role::Mute => Ok(()),
            Role::At => self.serve_at(index, bytes),
            Role::Diag | Role::Loader => {
                port.frames.push(bytes);
                while let Some(frame) =
                    self.ports.get_mut(index).and_then(|port| port.frames.take())
                {
                    self.serve_frame(index, &frame)?;
                }
                Ok(())
            }
        }
    }

    fn serve_at(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            let silent = Instant::now() < self.silent_until || self.leaves.is_some();
            let Some(port) = self.ports.get_mut(index).filter(|_| !silent) else { return Ok(()) };
            if port.session.echo {
                port.voice.say(vec![*byte]);
            }
            match byte {
                b'\r' => self.execute(index)?,
                b'\n' => {}
                _ if port.command.len() < 400 => port.command.push(*byte),
                _ => {}
            }
        }
        Ok(())
    }

    fn execute(&mut self, index: usize) -> io::Result<()> {
        let noisy = self.storms() || self.random.chance(5);
        let Some(port) = self.ports.get_mut(index) else { return Ok(()) };
        let line = String::from_utf8_lossy(&std::mem::take(&mut port.command)).into_owned();
        if line.is_empty() {
            return Ok(());
        }
        self.commands += 1;
        let noise = noisy.then_some(&mut self.random);
        let (bytes, effect) = at::answer(&line, &mut port.session, &mut self.flash, noise);
        port.voice.stutter(&bytes, &mut self.random);
        let commands = self.commands;
        let restarts = self.take_fault(
            |fault| matches!(fault, ModemFault::Restart { after_commands } if *after_commands <= commands),
        );
        match effect.or(restarts.map(|_| Effect::Restart)) {
            None => return Ok(()),
            Some(Effect::SettingsThenRestart) => self.save()?,
            Some(Effect::Restart) => {}
        }
        // So short that the OK sometimes does not get out.
        let farewell = Duration::from_millis(self.random.below(REBOOT_FAREWELL_MS));
        self.leaves = Some((Instant::now() + farewell, false));
        Ok(())
    }

    fn serve_frame(&mut self, index: usize, frame: &Frame) -> io::Result<()> {
        let loader = self.mode == Mode::Download;
        match frame.kind {
            Kind::Hello => {
                self.mute = false;
                let greeting = Greeting {
                    model: (!loader).then_some(self.flash.model.number()),
                    version: (!loader).then(|| self.flash.versions.package.clone()),
                    loader,
                };
                self.reply(index, Kind::Ack, frame, &serde_json::to_vec(&greeting)?);
            }
            Kind::EnterBoot if !loader => {
                self.reply(index, Kind::Ack, frame, b"");
                self.leaves = Some((Instant::now() + FAREWELL, true));
            }
            _ if loader => self.load(index, frame)?,
            _ => self.reply(index, Kind::Nack, frame, b"not in boot mode"),
        }
        Ok(())
    }

    fn load(&mut self, index: usize, frame: &Frame) -> io::Result<()> {
        if self.mute || self.leaves.is_some() {
            return Ok(());
        }
        match self.loader.take(frame, &mut self.flash) {
            Taken::Acked => {}
            Taken::Begun => self.save()?,
            Taken::Refused(reason) => {
                self.reply(index, Kind::Nack, frame, reason.as_bytes());
                return Ok(());
            }
            Taken::Completed => {
                let flash = &mut self.flash;
                self.faults.retain(|fault| !loader::spoil(flash, fault));
                self.save()?;
                self.leaves = Some((Instant::now() + FAREWELL, false));
            }
        }
        if frame.kind == Kind::Data && self.fails_here()? {
            return Ok(());
        }
        self.reply(index, Kind::Ack, frame, b"");
        Ok(())
    }

    /// Faults that wait for a share of the firmware; true if no answer is due.
    fn fails_here(&mut self) -> io::Result<bool> {
        let percent = self.loader.percent();
        let due = self.take_fault(|fault| match fault {
            ModemFault::PowerCut { at_percent, .. } | ModemFault::StopsAnswering { at_percent } => {
                *at_percent <= percent
            }
            _ => false,
        });
        match due {
            Some(ModemFault::PowerCut { off_ms, .. }) => {
                self.power_cut()?;
                self.boot = off_ms.map(|ms| (Instant::now() + Duration::from_millis(ms), false));
            }
            Some(_) => self.mute = true,
            None => return Ok(false),
        }
        Ok(true)
    }

    fn reply(&mut self, index: usize, kind: Kind, to: &Frame, payload: &[u8]) {
        if let Some(port) = self.ports.get_mut(index) {
            port.voice.say(frame::encode(kind, to.sequence, payload));
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
