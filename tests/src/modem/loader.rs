//! The loader of download mode: takes a firmware stream and tells when the flash changed.

use sha2::{Digest, Sha256};

use super::flash::{Flash, FlashCondition};
use super::frame::{Frame, Kind};
use crate::faults::ModemFault;
use crate::firmware::{Header, hex};

/// One stream on its way into the flash.
#[derive(Debug, Default)]
pub struct Loader {
    header: Option<Header>,
    received: u64,
    hash: Sha256,
    last_sequence: Option<u32>,
}

/// How the loader takes a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Acked,
    Refused(&'static str),
    /// The first byte was written: nothing else boots now.
    Begun,
    /// All of it was: the modem restarts.
    Completed,
}

impl Loader {
    pub fn percent(&self) -> u8 {
        let size = self.header.as_ref().map_or(0, |header| header.payload_size).max(1);
        u8::try_from(self.received.saturating_mul(100) / size).unwrap_or(100)
    }

    /// Applies a frame, to the flash as well.
    pub fn take(&mut self, frame: &Frame, flash: &mut Flash) -> Taken {
        match frame.kind {
            Kind::Header => self.begin(&frame.payload),
            Kind::Data => self.write(frame, flash),
            Kind::Finish => self.finish(flash),
            Kind::Hello | Kind::EnterBoot | Kind::Ack | Kind::Nack => Taken::Refused("wrong frame"),
        }
    }

    fn begin(&mut self, payload: &[u8]) -> Taken {
        match serde_json::from_slice(payload) {
            Ok(header) => {
                *self = Loader { header: Some(header), ..Loader::default() };
                Taken::Acked
            }
            Err(_) => Taken::Refused("bad header"),
        }
    }

    fn write(&mut self, frame: &Frame, flash: &mut Flash) -> Taken {
        if self.header.is_none() {
            return Taken::Refused("no header");
        }
        if self.last_sequence == Some(frame.sequence) {
            return Taken::Acked;
        }
        let first = self.received == 0;
        self.last_sequence = Some(frame.sequence);
        self.received += frame.payload.len() as u64;
        self.hash.update(&frame.payload);
        if !first {
            return Taken::Acked;
        }
        flash.condition = FlashCondition::HalfWritten;
        flash.begun += 1;
        Taken::Begun
    }

    fn finish(&mut self, flash: &mut Flash) -> Taken {
        let Some(header) = self.header.take() else { return Taken::Refused("no header") };
        let sha256 = hex(&std::mem::take(&mut self.hash).finalize());
        if self.received != header.payload_size || sha256 != header.payload_sha256 {
            return Taken::Refused("not what the header promised");
        }
        // Firmware of a sister model is accepted down here, and does not boot.
        let fits = header.product == flash.model;
        flash.condition = if fits { FlashCondition::Whole } else { FlashCondition::Crashing };
        flash.versions = header.versions;
        flash.payload_sha256 = Some(sha256);
        flash.completed += 1;
        Taken::Completed
    }
}

/// What else a flash does to a modem that has this fault; false if it is no fault of that kind.
pub fn spoil(flash: &mut Flash, fault: &ModemFault) -> bool {
    match fault {
        ModemFault::CrashAfterFlash => flash.condition = FlashCondition::Crashing,
        ModemFault::OtherVersionAfterFlash { package } => {
            flash.versions = crate::firmware::Versions::of_package(package);
        }
        ModemFault::OtherImeiAfterFlash { imei } => flash.imei.clone_from(imei),
        ModemFault::CompositionAfterFlash { composition } => flash.usb_composition = *composition,
        ModemFault::SettingsLostAfterFlash => {
            "0,0,0".clone_into(&mut flash.firmware_switch);
            flash.contexts.clear();
        }
        ModemFault::SimLostAfterFlash => flash.iccid = None,
        ModemFault::NetworkLostAfterFlash => flash.no_network = true,
        ModemFault::SimLockedAfterFlash => flash.sim_locked = true,
        ModemFault::OtherSimAfterFlash { iccid } => flash.iccid = Some(iccid.clone()),
        ModemFault::UrcStorm
        | ModemFault::SilentBoot { .. }
        | ModemFault::LateVersions { .. }
        | ModemFault::Restart { .. }
        | ModemFault::PowerCut { .. }
        | ModemFault::StopsAnswering { .. }
        | ModemFault::NeverRecovers => return false,
    }
    true
}
