//! Reads the [`Baseline`] from a port, and puts a setting of it back.

use std::time::Duration;

use super::baseline::{Baseline, Difference, Registration};
use super::dialect::{ModemError, looks, optional};
use super::measure;
use super::port::{Port, PortError, SLOW};

/// FWSWITCH and USBCFG may write flash before they answer.
const RESTORE: Duration = Duration::from_secs(30);

/// Reads the baseline. Only a port that is gone or silent is an error.
pub async fn baseline(port: &mut Port) -> Result<Baseline, ModemError> {
    Ok(Baseline {
        sim_status: field(port, "AT#QSS?", |value| is_numbers(value, 2..=4)).await?,
        firmware_switch: field(port, "AT#FWSWITCH?", |value| is_numbers(value, 2..=3)).await?,
        usb_composition: field(port, "AT#USBCFG?", |value| is_numbers(value, 1..=1)).await?,
        contexts: lines(port, "AT+CGDCONT?").await?.map(|lines| contexts(&lines)),
        ..network(port).await?
    })
}

/// SIM, network and signal alone.
pub async fn network(port: &mut Port) -> Result<Baseline, ModemError> {
    let network = lines(port, "AT+COPS?").await?.unwrap_or_default();
    Ok(Baseline {
        sim: sim(port).await?,
        iccid: iccid(port).await?,
        lte: registration(port, "AT+CEREG?").await?,
        nr: registration(port, "AT+C5GREG?").await?,
        access_technology: technology(&network),
        operator: operator(&network),
        rsrp_dbm: measure::rsrp(port).await?,
        ..Baseline::default()
    })
}

/// Puts one setting back; the modem may be gone before its OK gets out.
pub async fn restore(port: &mut Port, difference: &Difference) -> Result<(), ModemError> {
    let Some(command) = difference.restoring_command() else { return Ok(()) };
    match port.command(&command, RESTORE).await {
        Ok(_) | Err(PortError::Gone) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn sim(port: &mut Port) -> Result<Option<String>, ModemError> {
    match port.command("AT+CPIN?", SLOW).await {
        Ok(lines) => Ok(prefixed("+CPIN", &lines).next()),
        Err(PortError::Refused { result, .. }) => Ok(Some(result.to_string())),
        Err(error) => Err(error.into()),
    }
}

async fn iccid(port: &mut Port) -> Result<Option<String>, ModemError> {
    for command in ["AT#CCID", "AT+ICCID"] {
        let value = field(port, command, looks::is_iccid).await?;
        if value.is_some() {
            return Ok(value);
        }
    }
    Ok(None)
}

/// `+CEREG: <n>,<stat>[,...]`: the unsolicited form begins with the status, so a line counts only if its
/// second field is one, and `"tac"` there is not.
async fn registration(port: &mut Port, command: &str) -> Result<Option<Registration>, ModemError> {
    let Some(lines) = lines(port, command).await? else { return Ok(None) };
    let name = command.trim_start_matches("AT").trim_end_matches('?');
    Ok(prefixed(name, &lines).filter_map(|value| status(value.split(',').nth(1)?)).next())
}

fn status(text: &str) -> Option<Registration> {
    Some(match text.trim().parse::<u8>().ok()? {
        0 => Registration::NotSearching,
        1 => Registration::Home,
        2 => Registration::Searching,
        3 => Registration::Denied,
        4 => Registration::Unknown,
        5 => Registration::Roaming,
        _ => Registration::Other,
    })
}

/// The first value that carries the command's own name and looks like one: `#QSS: 1` comes unasked, the
/// answer has more fields.
async fn field(
    port: &mut Port,
    command: &str,
    is_value: impl Fn(&str) -> bool,
) -> Result<Option<String>, ModemError> {
    let Some(lines) = lines(port, command).await? else { return Ok(None) };
    let name = command.trim_start_matches("AT").trim_end_matches('?');
    Ok(prefixed(name, &lines).find(|value| is_value(value)))
}

async fn lines(port: &mut Port, command: &str) -> Result<Option<Vec<String>>, ModemError> {
    optional(port.command(command, SLOW).await.map_err(ModemError::from))
}

fn prefixed(name: &str, lines: &[String]) -> impl Iterator<Item = String> {
    lines
        .iter()
        .filter_map(move |line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

/// `+CGDCONT: 1,"IP","internet","",0,0`: number, type and APN. What could not stand in a command as
/// it is stays out.
fn contexts(lines: &[String]) -> Vec<String> {
    let quoted = |field: &str| {
        let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.is_some_and(|text| {
            text.len() <= 100
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        })
    };
    let context = |value: String| {
        let mut fields = value.split(',').map(str::trim);
        let (number, kind, apn) = (fields.next()?, fields.next()?, fields.next()?);
        let plain = is_numbers(number, 1..=1) && quoted(kind) && quoted(apn);
        plain.then(|| format!("{number},{kind},{apn}"))
    };
    prefixed("+CGDCONT", lines).filter_map(context).collect()
}

/// `+COPS: 0,0,"Operator",7`: the last field.
fn technology(lines: &[String]) -> Option<u8> {
    prefixed("+COPS", lines).find_map(|value| value.rsplit_once(',')?.1.trim().parse().ok())
}

/// The third field, a name or a number.
fn operator(lines: &[String]) -> Option<String> {
    let name = prefixed("+COPS", lines).find_map(|value| {
        let (_, rest) = value.split_once('"')?;
        Some(rest.split_once('"')?.0.to_owned())
    })?;
    (!name.is_empty() && name.len() <= 64 && !name.contains(char::is_control)).then_some(name)
}

fn is_numbers(value: &str, count: std::ops::RangeInclusive<usize>) -> bool {
    let number = |field: &str| {
        !field.is_empty() && field.len() <= 3 && field.bytes().all(|byte| byte.is_ascii_digit())
    };
    count.contains(&value.split(',').count()) && value.split(',').all(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_go_back_as_they_were_and_only_if_they_are_plain() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let told = "+CGDCONT: 1,\"IPV4V6\",\"internet\",\"\",0,0\n+CGDCONT: 2,\"IP\",\"\"\n\
                    +CGDCONT: 3,\"IP\",\"a\";+CFUN=0\n+CGDCONT: x,\"IP\",\"b\"";
        let found = contexts(&lines(told));
        assert_eq!(found, ["1,\"IPV4V6\",\"internet\"", "2,\"IP\",\"\""]);
        let before = Baseline { contexts: Some(found.clone()), ..Baseline::default() };
        let now = Baseline { contexts: Some(found[1..].to_vec()), ..before.clone() };
        let lost = before.differences(&now);
        assert_eq!(lost, [Difference::Context { before: found[0].clone() }]);
        let command = lost[0].restoring_command().unwrap();
        assert_eq!(command, "AT+CGDCONT=1,\"IPV4V6\",\"internet\"");
        let untold = Baseline { contexts: None, ..before.clone() };
        assert_eq!(before.differences(&untold), [], "nothing is missed that is not told");
    }

    #[test]
    fn technology_is_the_last_field_and_the_operator_has_quotes() {
        let lines = |text: &str| vec![text.to_owned()];
        let told = lines("+COPS: 0,0,\"Vodafone, de\",7");
        assert_eq!(
            (technology(&told), operator(&told).as_deref()),
            (Some(7), Some("Vodafone, de"))
        );
        assert_eq!((technology(&lines("+COPS: 0")), operator(&lines("+COPS: 0"))), (None, None));
    }

    #[test]
    fn settings_that_go_back_into_a_command_are_numbers() {
        assert!(is_numbers("40,0,0", 2..=3) && is_numbers("1", 1..=1));
        for wrong in ["", ",", "1;AT", "40,0,0,0", "1,-1", "1 "] {
            assert!(!is_numbers(wrong, 1..=3), "{wrong}");
        }
    }
}
