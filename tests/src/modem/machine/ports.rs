//! What comes in at the ports, and what it does.

use std::io;
use std::time::{Duration, Instant};

use super::Machine;
use crate::faults::ModemFault;
use crate::modem::at::{self, Effect};
use crate::modem::control::Mode;
use crate::modem::frame::{self, Frame, Greeting, Kind};
use crate::modem::loader::{self, Taken};
use crate::modem::pty::Heard;
use crate::modem::shape::Role;

/// A frame that stays half this long was cut off with its sender.
const HALF_A_FRAME: Duration = Duration::from_millis(500);
/// From the last answer until the ports vanish; shorter if the other end is closed.
const FAREWELL: Duration = Duration::from_millis(400);
const REBOOT_FAREWELL_MS: u64 = 60;

impl Machine {
    pub(super) fn listen(&mut self, index: usize) -> io::Result<()> {
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

    pub(super) fn serve(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
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

    pub(super) fn serve_at(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
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

    pub(super) fn execute(&mut self, index: usize) -> io::Result<()> {
        let noisy = self.storms() || self.random.chance(5);
        let Some(port) = self.ports.get_mut(index) else { return Ok(()) };
        let mut line = String::from_utf8_lossy(&std::mem::take(&mut port.command)).into_owned();
        if line.is_empty() {
            return Ok(());
        }
        if Instant::now() < self.versions_from && line.contains("#SWPKGV") {
            // No such command, as far as it has come.
            "AT#LATE".clone_into(&mut line);
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
            Some(Effect::Settings) => return self.save(),
            Some(Effect::SettingsThenRestart) => self.save()?,
            Some(Effect::Restart) => {}
        }
        // So short that the OK sometimes does not get out.
        let farewell = Duration::from_millis(self.random.below(REBOOT_FAREWELL_MS));
        self.leaves = Some((Instant::now() + farewell, false));
        Ok(())
    }

    pub(super) fn serve_frame(&mut self, index: usize, frame: &Frame) -> io::Result<()> {
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

    pub(super) fn load(&mut self, index: usize, frame: &Frame) -> io::Result<()> {
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
    pub(super) fn fails_here(&mut self) -> io::Result<bool> {
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

    pub(super) fn reply(&mut self, index: usize, kind: Kind, to: &Frame, payload: &[u8]) {
        if let Some(port) = self.ports.get_mut(index) {
            port.voice.say(frame::encode(kind, to.sequence, payload));
        }
    }
}
