//! Power, boots and modes: when the modem shows what on USB.

use std::io;
use std::time::{Duration, Instant};

use super::Machine;
use crate::faults::ModemFault;
use crate::modem::control::Mode;
use crate::modem::flash::FlashCondition;
use crate::modem::loader::Loader;
use crate::modem::shape;

impl Machine {
    pub(super) fn power_cut(&mut self) -> io::Result<()> {
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

    pub(super) fn power_on(&mut self) {
        if self.mode == Mode::Off && self.boot.is_none() {
            self.boot = Some((Instant::now() + self.settings.enumeration, false));
        }
    }

    pub(super) fn vanish(&mut self) {
        self.tree.detach();
        self.ports.clear();
        self.loader = Loader::default();
        self.mute = false;
        self.leaves = None;
        self.mode = Mode::Off;
    }

    pub(super) fn change_mode(&mut self, now: Instant) -> io::Result<()> {
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

    pub(super) fn enumerate(&mut self, download: bool, now: Instant) -> io::Result<()> {
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
        let late = self.take_fault(|fault| matches!(fault, ModemFault::LateVersions { .. }));
        if let Some(ModemFault::LateVersions { ms }) = late {
            self.versions_from = self.silent_until + Duration::from_millis(ms);
        }
        Ok(())
    }
}
