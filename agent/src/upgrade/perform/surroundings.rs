//! The gates around the modem: the router's maintenance window, memory and traffic, and what the
//! modem measures of itself. Every one of them postpones. Reasons name the limit and not the value of
//! the moment, so that waiting for days is reported once.

use super::{chain, lost_context};
use crate::{
    environment::Environment,
    files,
    gates::{
        local_time::Zone,
        memory,
        traffic::{self, Counters},
        window::{self, Verdict},
    },
    modem::{
        NotReady, Port, Seen,
        dialect::ModemError,
        manager,
        measure::{self, Measurements},
    },
    netifd,
    route::Network,
    settings::uci,
    upgrade::state::{Outcome, State},
};
use shared::profile::Gates;
use std::{path::Path, time::Duration};

/// How long traffic is watched.
const WATCH: Duration = Duration::from_secs(5);
/// A window that opens within so many seconds is not looked for in the usual pauses, which could miss a short
/// one: the next look is when it opens. Others have their turn until then, and the wait can be cancelled.
const AT_THE_DOOR_S: u64 = 20 * 60;

/// The zone of the system's file `zone`, or of its settings: where zone files are installed, OpenWrt removes the
/// file that names the rule.
fn system_zone(zone: &Path, system: &Path) -> Result<Zone, String> {
    let read = |path: &Path| match files::read_text(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|error| format!("{}: {error}", path.display())),
    };
    let parse = |path: &Path, text: &str| {
        Zone::parse(text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(text) = read(zone)? {
        return parse(zone, &text);
    }
    let Some(text) = read(system)? else { return parse(system, "") };
    let settings = uci::parse(&text).map_err(|error| format!("{}: {error}", system.display()))?;
    let says = |option| settings.of_kind("system").find_map(|section| section.text(option));
    match (says("timezone"), says("zonename")) {
        (Some(text), _) => parse(system, text),
        // Without either, OpenWrt's default.
        (None, None | Some("UTC")) => parse(system, ""),
        (None, Some(name)) => {
            Err(format!("{}: {name} stands there without its timezone", system.display()))
        }
    }
}

fn closed(reason: impl Into<String>) -> Outcome {
    Outcome::Again { reason: reason.into() }
}

impl Environment {
    /// Whether the maintenance window has room for the longest that this tool may take.
    pub(super) fn check_window(&mut self, state: &State) -> Result<(), Outcome> {
        let spans = &self.settings.gates.window;
        if spans.is_empty() {
            return Ok(());
        }
        let Some(profile) = &self.job.profile else { return Err(lost_context(state)) };
        let (_, longest) = profile.dark_window_s();
        let zone = self.zone().map_err(closed)?;
        let Some(now_ms) = self.clock_ms() else {
            return Err(closed("the maintenance window waits for the clock to be set"));
        };
        let now_s = now_ms / 1000;
        match window::judge(spans, &zone, now_s, longest) {
            Verdict::Open => Ok(()),
            Verdict::Closed { opens_s: None } => {
                let minutes = longest.div_ceil(60);
                let reason = format!(
                    "no maintenance window of this router has room for the {minutes} minutes \
                     that an upgrade may take; make gates.window longer"
                );
                Err(closed(reason))
            }
            Verdict::Closed { opens_s: Some(opens_s) } => {
                let wait_s = opens_s.saturating_sub(now_s);
                let opens = zone.at(opens_s).map(|at| at.to_string()).unwrap_or_default();
                self.opens_in_s = Some(wait_s).filter(|wait_s| *wait_s <= AT_THE_DOOR_S);
                Err(closed(format!("outside the maintenance window, which opens {opens}")))
            }
        }
    }

    /// The router's time zone, of its settings or of the system.
    pub(super) fn zone(&self) -> Result<Zone, String> {
        if let Some(zone) = &self.settings.gates.timezone {
            return Ok(zone.clone());
        }
        let paths = &self.settings.paths;
        let system = netifd::configuration(&paths.init_dir).with_file_name("system");
        system_zone(&paths.timezone, &system)
            .map_err(|error| format!("{error}; set gates.timezone"))
    }

    /// Memory for agent, guardian and tool, beside an image that may lie in memory too.
    pub(super) fn check_free_memory(&self) -> Result<(), Outcome> {
        let least = self.settings.gates.min_free_memory_bytes;
        if least == 0 {
            return Ok(());
        }
        let path = self.settings.paths.proc.join("meminfo");
        let text = files::read_text(&path).unwrap_or_default();
        let Some(available) = memory::available(&text) else {
            let reason = format!("{} does not tell the free memory", path.display());
            return Err(closed(reason));
        };
        if available < least {
            log::info!("{available} bytes of memory are available");
            return Err(closed(format!("less than {least} bytes of memory are available")));
        }
        Ok(())
    }

    /// Traffic, signal, voltage and temperature, where somebody asked for them.
    pub(super) async fn check_surroundings(&mut self, state: &State) -> Result<(), Outcome> {
        self.check_traffic().await?;
        let Some(profile) = &self.job.profile else { return Err(lost_context(state)) };
        let asked = profile.gates.clone();
        // Over another uplink the modem's signal brings back nothing.
        let sole = self.job.sole_uplink.unwrap_or(true);
        let least = self.settings.gates.min_rsrp_dbm.filter(|_| sole);
        if least.is_none() && asked == Gates::default() {
            return Ok(());
        }
        let (measured, by_modem) = self.measure(state).await?;
        log::info!("the modem measures {measured:?}");
        self.job.unmeasured = !by_modem;
        let asked = if by_modem { asked } else { Gates::default() };
        check_modem(&asked, least, &measured).map_err(closed)
    }

    /// Voltage and temperature right before the tool: ModemManager, while it had the modem, told neither.
    /// The inner error is why they keep it closed.
    pub(super) async fn measure_what_was_not_told(
        &self,
        asked: &Gates,
        port: &mut Port,
    ) -> Result<Result<(), String>, ModemError> {
        if !self.job.unmeasured || *asked == Gates::default() {
            return Ok(Ok(()));
        }
        let measured = measure::measure(port).await?;
        log::info!("the modem measures {measured:?}");
        Ok(check_modem(asked, None, &measured))
    }

    async fn check_traffic(&self) -> Result<(), Outcome> {
        let (Some(most), Some(modem)) =
            (self.settings.gates.max_traffic_kbit_s, self.job.bus_id.as_deref())
        else {
            return Ok(());
        };
        let network = Network::of(&self.settings.paths);
        let interfaces = network.interfaces_of(modem);
        let before: Counters = network.counters(&interfaces);
        tokio::time::sleep(WATCH).await;
        let flows = traffic::kbit_s(before, network.counters(&interfaces), WATCH);
        if flows > most {
            log::info!("{flows} kbit/s flow through {}", interfaces.join(", "));
            return Err(closed(format!("more than {most} kbit/s flow through the modem")));
        }
        Ok(())
    }

    /// What is measured, and whether the modem itself was asked.
    async fn measure(&mut self, state: &State) -> Result<(Measurements, bool), Outcome> {
        self.lock_modem().map_err(closed)?;
        let imei = state.record.before.as_ref().map(|b| b.imei.clone());
        let patience = self.settings.modem.boot_silence;
        let measured = match self.answering(imei.as_deref(), patience).await {
            Ok(mut ready) => {
                let measured = measure::measure(&mut ready.port).await;
                measured.map(|measured| (measured, true)).map_err(|e| chain(&e))
            }
            Err(NotReady { seen: Seen::InUse { by } }) => {
                let mmcli = &self.settings.paths.mmcli;
                match manager::find(mmcli, self.slot.sought(imei.as_deref())).await {
                    Ok(managed) => {
                        let rsrp_dbm = manager::rsrp(mmcli, &managed).await;
                        Ok((Measurements { rsrp_dbm, ..Measurements::default() }, false))
                    }
                    Err(error) => Err(format!("in use by {by}; {}", chain(&error))),
                }
            }
            Err(error) => Err(chain(&error)),
        };
        // Between looking and flashing others may use the modem.
        self.job.lock = None;
        measured.map_err(closed)
    }
}

/// What is asked for and not told is a closed gate.
fn check_modem(asked: &Gates, min_rsrp: Option<i32>, now: &Measurements) -> Result<(), String> {
    if let Some(least) = min_rsrp {
        match now.rsrp_dbm {
            None => return Err("the modem's signal is not told (+CESQ)".into()),
            Some(dbm) if dbm < least => {
                return Err(format!(
                    "the signal is below {least} dBm and the modem is the only uplink"
                ));
            }
            Some(_) => {}
        }
    }
    if let Some(least) = asked.min_voltage_mv {
        match now.voltage_mv {
            None => return Err("the modem does not tell its supply voltage (#CBC)".into()),
            Some(mv) if mv < least => {
                return Err(format!("the modem's supply is below {least} mV"));
            }
            Some(_) => {}
        }
    }
    if let Some(most) = asked.max_temperature_c {
        match now.temperature_c {
            None => return Err("the modem does not tell its temperature (#TEMPSENS)".into()),
            Some(celsius) if celsius > most => {
                return Err(format!("the modem is hotter than {most} °C"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_zone_is_the_routers_wherever_it_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let (zone, system) = (directory.path().join("TZ"), directory.path().join("system"));
        let night = 1_795_392_000;
        let shown = || system_zone(&zone, &system).map(|zone| zone.at(night).unwrap().to_string());
        assert_eq!(shown().unwrap(), "mon 2026-11-23 00:00", "nobody has set any");
        std::fs::write(&system, "config system\n\toption hostname 'x'\n").unwrap();
        assert_eq!(shown().unwrap(), "mon 2026-11-23 00:00");
        // With the package of zone files there is no file any more that names the rule.
        let text = "config system\n\toption zonename 'Asia/Tokyo'\n";
        std::fs::write(&system, text).unwrap();
        assert!(shown().unwrap_err().contains("Asia/Tokyo"), "{:?}", shown());
        std::fs::write(&system, format!("{text}\toption timezone 'JST-9'\n")).unwrap();
        assert_eq!(shown().unwrap(), "mon 2026-11-23 09:00");
        std::fs::write(&zone, "PST8PDT,M3.2.0,M11.1.0\n").unwrap();
        assert_eq!(shown().unwrap(), "sun 2026-11-22 16:00", "what is in force");
        std::fs::write(&zone, "Asia/Tokyo").unwrap();
        assert!(shown().is_err());
    }

    #[test]
    fn what_is_asked_for_must_be_told_and_be_right() {
        let asked = Gates { min_voltage_mv: Some(3200), max_temperature_c: Some(70) };
        let good =
            Measurements { voltage_mv: Some(3200), temperature_c: Some(70), rsrp_dbm: Some(-110) };
        let nothing = Gates::default();
        assert_eq!(check_modem(&asked, Some(-110), &good), Ok(()));
        assert_eq!(check_modem(&nothing, None, &Measurements::default()), Ok(()));
        for (bad, word) in [
            (Measurements { voltage_mv: Some(3190), ..good }, "3200 mV"),
            (Measurements { voltage_mv: None, ..good }, "#CBC"),
            (Measurements { temperature_c: Some(71), ..good }, "70 °C"),
            (Measurements { temperature_c: None, ..good }, "#TEMPSENS"),
            (Measurements { rsrp_dbm: Some(-111), ..good }, "-110 dBm"),
            (Measurements { rsrp_dbm: None, ..good }, "+CESQ"),
        ] {
            let reason = check_modem(&asked, Some(-110), &bad).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }
}
