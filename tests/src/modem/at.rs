//! What the modem answers: the bytes of an FN990A, as public transcripts have them.

use super::flash::Flash;
use super::urc;
use crate::random::Random;

/// The volatile settings of one AT port.
#[derive(Debug, Clone)]
pub struct Session {
    pub echo: bool,
    pub verbose: bool,
    /// `AT+CMEE`.
    pub errors: u8,
}

impl Default for Session {
    /// As after a boot.
    fn default() -> Session {
        Session { echo: true, verbose: true, errors: 0 }
    }
}

/// What a command does beyond its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Restart,
    /// The flash has to be saved; the modem restarts by itself.
    SettingsThenRestart,
    /// The flash has to be saved.
    Settings,
}

enum Result {
    Ok,
    Error,
    /// A CME error: number and text.
    Cme(u16, &'static str),
}

/// The bytes of the answer to `line`, unsolicited codes between them if `noisy`, and what follows.
pub fn answer(
    line: &str,
    session: &mut Session,
    flash: &mut Flash,
    mut noise: Option<&mut Random>,
) -> (Vec<u8>, Option<Effect>) {
    let (lines, result, effect) = execute(line, session, flash);
    let mut bytes = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if index == 0 && session.verbose {
            bytes.extend(b"\r\n");
        }
        bytes.extend(line.as_bytes());
        bytes.extend(b"\r\n");
        if let Some(random) = noise.as_deref_mut()
            && random.chance(50)
        {
            bytes.extend(urc::draw(random));
        }
    }
    bytes.extend(ending(&result, session));
    (bytes, effect)
}

fn ending(result: &Result, session: &Session) -> Vec<u8> {
    match (result, session.verbose) {
        (Result::Ok, true) => b"\r\nOK\r\n".to_vec(),
        (Result::Ok, false) => b"0\r".to_vec(),
        (Result::Cme(number, _), _) if session.errors == 1 => {
            format!("\r\n+CME ERROR: {number}\r\n").into_bytes()
        }
        (Result::Cme(_, text), _) if session.errors == 2 => {
            format!("\r\n+CME ERROR: {text}\r\n").into_bytes()
        }
        (Result::Error | Result::Cme(..), true) => b"\r\nERROR\r\n".to_vec(),
        (Result::Error | Result::Cme(..), false) => b"4\r".to_vec(),
    }
}

fn execute(
    line: &str,
    session: &mut Session,
    flash: &mut Flash,
) -> (Vec<String>, Result, Option<Effect>) {
    let upper = line.trim().to_ascii_uppercase();
    let Some(body) = upper.strip_prefix("AT") else {
        return (Vec::new(), Result::Error, None);
    };
    if let Some(value) = query(body, flash) {
        return match value {
            Ok(lines) => (lines, Result::Ok, None),
            Err(result) => (Vec::new(), result, None),
        };
    }
    // APNs keep their case.
    if body.starts_with("+CGDCONT=") {
        let taken = set_context(&line.trim()["AT+CGDCONT=".len()..], flash);
        let result = if taken { Result::Ok } else { Result::Error };
        return (Vec::new(), result, taken.then_some(Effect::Settings));
    }
    match command(body, session, flash) {
        Some(effect) => (Vec::new(), Result::Ok, effect),
        None => (Vec::new(), Result::Error, None),
    }
}

fn query(body: &str, flash: &Flash) -> Option<std::result::Result<Vec<String>, Result>> {
    const NO_SIM: Result = Result::Cme(10, "SIM not inserted");
    let one = |text: &str| Some(Ok(vec![text.to_owned()]));
    let sim = |text: String| Some(if flash.iccid.is_some() { Ok(vec![text]) } else { Err(NO_SIM) });
    let versions = &flash.versions;
    match body {
        "+CGMI" | "+GMI" => one("Telit"),
        "+CGMM" | "+GMM" => one(flash.model.name()),
        "+CGSN" | "+GSN" => one(&flash.imei),
        "#CGSN" => one(&format!("#CGSN: {}", flash.imei)),
        "#HWREV" => one(&flash.hardware_revision),
        "+CGMR" | "+GMR" => one(&versions.modem),
        "#CGMR" => one(&format!("#CGMR: {}", versions.modem)),
        "#SWPKGV" => Some(Ok(versions.lines().map(str::to_owned).to_vec())),
        "#GETFW" => Some(Ok(vec![
            format!("HOST FIRMWARE  : {}", versions.application),
            "SLOT   STATUS     CARRIER  VERSION         TMCFG".to_owned(),
            format!("1      Activated  Generic  {}      2071", versions.modem),
        ])),
        "#FWSWITCH?" => one(&format!("#FWSWITCH: {}", flash.firmware_switch)),
        "#USBCFG?" => one(&format!("#USBCFG: {}", flash.usb_composition)),
        "+CPIN?" if flash.sim_locked => sim("+CPIN: SIM PIN".to_owned()),
        "+CPIN?" => sim("+CPIN: READY".to_owned()),
        "+ICCID" => sim(format!("+ICCID: {}", flash.iccid.as_deref().unwrap_or(""))),
        "#CCID" => sim(format!("#CCID: {}", flash.iccid.as_deref().unwrap_or(""))),
        "#QSS?" => one(if flash.iccid.is_some() { "#QSS: 0,1,1" } else { "#QSS: 0,0,1" }),
        "+CREG?" => one(&format!("+CREG: 0,{}", registration(flash))),
        "+CEREG?" => one(&format!("+CEREG: 0,{}", registration(flash))),
        "+C5GREG?" => one(&format!("+C5GREG: 0,{}", registration(flash))),
        "+COPS?" => one("+COPS: 0,0,\"Lab Mobile\",7"),
        "+CGDCONT?" => Some(Ok(flash
            .contexts
            .iter()
            .map(|context| format!("+CGDCONT: {context},\"\",0,0"))
            .collect())),
        _ => flash.surroundings.answer(body).map(Ok),
    }
}

/// Home, or nothing: without a network, or a SIM that may be used.
fn registration(flash: &Flash) -> u8 {
    u8::from(flash.iccid.is_some() && !flash.sim_locked && !flash.no_network)
}

fn command(body: &str, session: &mut Session, flash: &mut Flash) -> Option<Option<Effect>> {
    match body {
        "" | "&F" | "Z" => {}
        "E" | "E0" => session.echo = false,
        "E1" => session.echo = true,
        "V0" => session.verbose = false,
        "V" | "V1" => session.verbose = true,
        "+CMEE=0" => session.errors = 0,
        "+CMEE=1" => session.errors = 1,
        "+CMEE=2" => session.errors = 2,
        "#REBOOT" | "#ENHRST=1,0" => return Some(Some(Effect::Restart)),
        _ => return set(body, flash).then_some(Some(Effect::SettingsThenRestart)),
    }
    Some(None)
}

/// `1,"IP","internet"`: another context of that number.
fn set_context(value: &str, flash: &mut Flash) -> bool {
    let mut fields = value.split(',');
    let number = fields.next().filter(|number| number.parse::<u8>().is_ok());
    let quoted =
        fields.all(|field| field.len() > 1 && field.starts_with('"') && field.ends_with('"'));
    let Some(number) = number.filter(|_| quoted) else { return false };
    flash.contexts.retain(|context| !context.starts_with(&format!("{number},")));
    flash.contexts.push(value.to_owned());
    true
}

fn set(body: &str, flash: &mut Flash) -> bool {
    if let Some(value) = body.strip_prefix("#USBCFG=") {
        let composition = value.parse().ok().filter(|composition| *composition <= 3);
        flash.usb_composition = composition.unwrap_or(flash.usb_composition);
        return composition.is_some();
    }
    if let Some(value) = body.strip_prefix("#FWSWITCH=") {
        let numbers = value.split(',').all(|field| field.parse::<u8>().is_ok());
        if numbers {
            flash.firmware_switch = value.to_owned();
        }
        return numbers;
    }
    false
}
