//! What a modem measures of itself and of its air: supply voltage, temperature, signal.
//!
//! Sources: Telit's AT guide for `#CBC` (in 10 mV) and `#TEMPSENS`; 3GPP TS 27.007, 8.69, for
//! `+CESQ`. A firmware that does not know a command measures nothing.

use super::{
    dialect::{ModemError, optional},
    port::{Port, SLOW},
};

/// What was measured, as far as the modem tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measurements {
    /// Supply voltage in millivolts.
    pub voltage_mv: Option<u16>,
    /// The hottest sensor, in degrees Celsius.
    pub temperature_c: Option<i16>,
    /// Reference signal received power in dBm, of 5G where there is some, else of LTE.
    pub rsrp_dbm: Option<i32>,
}

/// # Errors
/// The port is gone or silent.
pub async fn measure(port: &mut Port) -> Result<Measurements, ModemError> {
    Ok(Measurements {
        voltage_mv: ask(port, "AT#CBC").await?.and_then(|lines| voltage(&lines)),
        temperature_c: ask(port, "AT#TEMPSENS=2").await?.and_then(|lines| hottest(&lines)),
        rsrp_dbm: rsrp(port).await?,
    })
}

/// The signal alone.
///
/// # Errors
/// The port is gone or silent.
pub async fn rsrp(port: &mut Port) -> Result<Option<i32>, ModemError> {
    Ok(ask(port, "AT+CESQ").await?.and_then(|lines| signal(&lines)))
}

async fn ask(port: &mut Port, command: &str) -> Result<Option<Vec<String>>, ModemError> {
    optional(port.command(command, SLOW).await.map_err(ModemError::from))
}

fn values<'a>(name: &'a str, lines: &'a [String]) -> impl Iterator<Item = Vec<&'a str>> {
    lines.iter().filter_map(move |line| {
        let fields = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(fields.split(',').map(str::trim).collect())
    })
}

/// `#CBC: 0,330`: charge state, voltage.
fn voltage(lines: &[String]) -> Option<u16> {
    let number = |fields: Vec<&str>| fields.get(1)?.parse::<u16>().ok()?.checked_mul(10);
    values("#CBC", lines).find_map(number)
}

/// `#TEMPSENS: TSENS,26`, a line a sensor.
fn hottest(lines: &[String]) -> Option<i16> {
    let number = |fields: Vec<&str>| fields.get(1)?.parse::<i16>().ok();
    values("#TEMPSENS", lines).filter_map(number).max()
}

/// `+CESQ: rxlev,ber,rscp,ecno,rsrq,rsrp[,ss_rsrq,ss_rsrp,ss_sinr]`; 255 = not known.
fn signal(lines: &[String]) -> Option<i32> {
    let fields = values("+CESQ", lines).next()?;
    let index = |at: usize, most: i32| {
        let value: i32 = fields.get(at)?.parse().ok()?;
        (0..=most).contains(&value).then_some(value)
    };
    let new_radio = index(7, 126).map(|value| value - 157);
    new_radio.or_else(|| index(5, 97).map(|value| value - 141))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn voltage_counts_in_ten_millivolts() {
        assert_eq!(voltage(&lines("#CBC: 0,330")), Some(3300));
        assert_eq!(voltage(&lines("#CBC: 0")), None);
        assert_eq!(voltage(&lines("#CBC: 0,65535")), None);
    }

    #[test]
    fn the_hottest_sensor_counts() {
        let text = "#TEMPSENS: TSENS,26\n#TEMPSENS: PA_THERM1,-5\n#TEMPSENS: PA_THERM2,61";
        assert_eq!(hottest(&lines(text)), Some(61));
        assert_eq!(hottest(&lines("#TEMPSENS: TSENS,?")), None);
    }

    #[test]
    fn signal_is_that_of_the_newest_radio_that_has_one() {
        assert_eq!(signal(&lines("+CESQ: 99,99,255,255,20,60")), Some(-81));
        assert_eq!(signal(&lines("+CESQ: 99,99,255,255,20,60,255,255,255")), Some(-81));
        assert_eq!(signal(&lines("+CESQ: 99,99,255,255,255,255,65,71,40")), Some(-86));
        assert_eq!(signal(&lines("+CESQ: 99,99,255,255,255,255")), None);
        assert_eq!(signal(&lines("+CSQ: 20,99")), None);
    }
}
