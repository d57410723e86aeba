//! The report as text.

use super::{Answers, Probed, Report};
use crate::modem::manager::Managed;

pub(super) fn print(report: &Report, json: bool) {
    if json {
        match serde_json::to_string_pretty(report) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("{error}"),
        }
    } else {
        print!("{}", table(report));
    }
}

pub(super) fn table(report: &Report) -> String {
    let mut text = String::new();
    for probed in &report.modems {
        text += &modem(probed);
        text += "\n";
    }
    for device in &report.abnormal {
        text += &format!("usb        {} {}\n", device.bus_id, device.usb);
        text += &format!("condition  {}\n\n", device.condition);
    }
    if text.is_empty() {
        text += "no modem found\n";
    }
    for suspect in &report.cron {
        text += &format!("warning    cron job that may use the modem ({}): ", suspect.word);
        text += &format!("{}\n", suspect.job);
    }
    if !report.cron.is_empty() {
        text +=
            "           no lock keeps a cron job off: see that it does not run during a flash\n";
    }
    text
}

fn modem(probed: &Probed) -> String {
    let modem = &probed.modem;
    let mut text = format!("{:<10} {} {}\n", bus(&modem.bus_id), modem.bus_id, modem.usb);
    text += &format!("ports      at {}", modem.at.join(" "));
    text += &format!(", diag {}", modem.diag.as_deref().unwrap_or("none"));
    text += &format!(", net {}\n", modem.net.join(" "));
    for (port, user) in &probed.used {
        text += &format!("in use     {port} by {user}\n");
    }
    match (&probed.answers, &probed.managed) {
        (Some(answers), _) => text += &answered(answers),
        (None, Some(managed)) => text += &told(managed),
        (None, None) => {
            text += &format!("silent     {}\n", probed.silent.as_deref().unwrap_or(""));
        }
    }
    text
}

fn bus(bus_id: &str) -> &'static str {
    if bus_id.contains(':') { "pcie" } else { "usb" }
}

fn answered(answers: &Answers) -> String {
    let identity = &answers.identity;
    let mut text = format!("modem      {} {}\n", identity.manufacturer, identity.model);
    text += &format!("imei       {}\n", identity.imei);
    for (command, lines) in &answers.versions {
        text += &format!("{command:<10} {}\n", lines.join(" | "));
    }
    text
}

/// ModemManager's word, which knows fewer versions.
fn told(managed: &Managed) -> String {
    let mut text = format!("modem      {} {}\n", managed.manufacturer, managed.model);
    text += &format!("imei       {}\n", managed.imei);
    text += &format!("revision   {} (as ModemManager knows it)\n", managed.revision);
    let signal = managed.signal_percent.map_or(String::new(), |percent| format!(", {percent} %"));
    let technologies = managed.technologies.join(" ");
    text += &format!("network    {} {} {technologies}", managed.registration, managed.operator);
    text += &format!("{signal}{}\n", if managed.sim { "" } else { ", no SIM" });
    text
}
