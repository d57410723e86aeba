//! SIM, network and signal by ModemManager's word: `mmcli -i N` asks for a SIM, `--signal-get` for the signal,
//! which is known once somebody has it watched.

use super::{Managed, answer, looks, value};
use crate::modem::baseline::{Baseline, Registration};
use std::{path::Path, time::Duration};

/// Looks at a signal that is watched for us, a second apart.
const LOOKS: u32 = 6;

/// SIM, network and signal of `modem`, as far as ModemManager knows them: none of the settings that only AT
/// tells.
pub async fn baseline(mmcli: &Path, modem: &Managed) -> Baseline {
    let iccid = match modem.sim_number {
        Some(number) => {
            let told = answer(mmcli, &["-i", &number.to_string(), "-K"]).await;
            told.ok().and_then(|text| value(&text, "sim.properties.iccid"))
        }
        None => None,
    };
    let registration = registration(&modem.registration);
    let uses = |name: &str| modem.technologies.iter().any(|technology| technology == name);
    Baseline {
        iccid: iccid.filter(|iccid| looks::is_iccid(iccid)),
        // One state for both; what is not in use is not told.
        lte: registration.filter(|_| uses("lte") || !uses("5gnr")),
        nr: registration.filter(|_| uses("5gnr")),
        access_technology: match (uses("lte"), uses("5gnr")) {
            (true, true) => Some(13),
            (false, true) => Some(11),
            (true, false) => Some(7),
            (false, false) => None,
        },
        operator: Some(modem.operator.clone()).filter(|name| !name.is_empty()),
        rsrp_dbm: signal(mmcli, modem.number).await,
        ..Baseline::default()
    }
}

/// The signal in dBm (RSRP); watched for a moment where nobody does.
pub async fn rsrp(mmcli: &Path, modem: &Managed) -> Option<i32> {
    if let Some(dbm) = signal(mmcli, modem.number).await {
        return Some(dbm);
    }
    let number = modem.number.to_string();
    answer(mmcli, &["-m", &number, "--signal-setup=1"]).await.ok()?;
    let mut found = None;
    for _ in 0..LOOKS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        found = signal(mmcli, modem.number).await;
        if found.is_some() {
            break;
        }
    }
    let _ = answer(mmcli, &["-m", &number, "--signal-setup=0"]).await;
    found
}

async fn signal(mmcli: &Path, number: u32) -> Option<i32> {
    let text = answer(mmcli, &["-m", &number.to_string(), "--signal-get", "-K"]).await.ok()?;
    let dbm = |key| value(&text, key)?.split('.').next()?.parse().ok();
    dbm("modem.signal.5g.rsrp").or_else(|| dbm("modem.signal.lte.rsrp"))
}

fn registration(state: &str) -> Option<Registration> {
    Some(match state {
        "idle" => Registration::NotSearching,
        "home" => Registration::Home,
        "searching" => Registration::Searching,
        "denied" => Registration::Denied,
        "unknown" => Registration::Unknown,
        "roaming" => Registration::Roaming,
        "" => return None,
        _ => Registration::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{modem, tests::FN990},
        *,
    };
    use crate::testing::script;

    #[tokio::test]
    async fn what_it_knows_of_sim_network_and_signal_is_a_baseline() {
        let directory = tempfile::tempdir().unwrap();
        let mmcli = directory.path().join("mmcli");
        let watched = directory.path().join("watched");
        let body = format!(
            "case \"$*\" in
             '-i 0 -K') echo 'sim.properties.iccid : 8949021000000000018' ;;
             '-m 3 --signal-setup=1') : > {0} ;;
             '-m 3 --signal-setup=0') rm {0} ;;
             '-m 3 --signal-get -K') echo 'modem.signal.5g.rsrp : --'
                [ -e {0} ] && echo 'modem.signal.lte.rsrp : -95.50' || echo 'modem.signal.lte.rsrp : --' ;;
             *) exit 1 ;;
             esac",
            watched.display()
        );
        script(&mmcli, &body);
        let modem = Managed { technologies: vec!["lte".into()], ..modem(3, FN990) };
        let known = baseline(&mmcli, &modem).await;
        assert_eq!(known.iccid.as_deref(), Some("8949021000000000018"));
        assert_eq!((known.lte, known.nr), (Some(Registration::Home), None));
        assert_eq!(
            (known.operator.as_deref(), known.access_technology),
            (Some("Telekom.de"), Some(7))
        );
        assert_eq!(
            (known.rsrp_dbm, known.usb_composition),
            (None, None),
            "nobody watches the signal"
        );
        assert_eq!(rsrp(&mmcli, &modem).await, Some(-95));
        assert!(!watched.exists(), "watched no longer than asked for");
        let none = Managed { sim_number: None, ..Managed::default() };
        assert_eq!(baseline(&mmcli, &none).await, Baseline::default());
    }
}
