//! `QFirehose`: Quectel's QFirehose with a zip.
//!
//! Its lies: "fail" and "errno" in the log of a success; 100 % long before the end; the line number
//! as exit status, which is 0 for line 512; 0 after printing its usage; an md5 check of 0 files.

use super::{Stamped, begins_with, hang, mode, pause, print, value};
use std::process::ExitCode;

pub fn main() -> ExitCode {
    let log = Stamped::start();
    log.line("QFirehose Version: Quectel_LTE&5G_QFirehose_Linux&Android_V1.4.9");
    let Some(package) = value("-f").filter(|_| !std::env::args().any(|a| a == "-h")) else {
        log.line("Usage: QFirehose [options...]");
        return ExitCode::SUCCESS;
    };
    if !package.ends_with(".zip") || !begins_with(&package, b"PK") {
        log.line(&format!("fail to access {package}/update/firehose, errno: 20 (Not a directory)"));
        return ExitCode::from(132);
    }
    match value("-p").or(value("-s")) {
        Some(port) => log.line(&format!("qusb_noblock_open port_name = {port}")),
        None => {
            log.line("There are multiple quectel modules in system, Please use <-s /sys/bus/usb/devices/xx> specify which module you want to upgrade!");
            return ExitCode::from(88);
        }
    }
    let files = if mode() == "no-md5" { 0 } else { 26 };
    log.line(&format!("Totals checking {files} files md5 value, 0 file fail!"));
    log.line("switch to 'Emergency download mode'");
    log.line("successful, wait module reboot");
    log.line("fail to fopen /sys/bus/usb/devices/6-1/uevent, errno: 2 (No such file or directory)");
    log.line("[0] /sys/bus/usb/devices/5-1 5c6/9008/0");
    for _ in 0..3 {
        print(".");
        pause();
    }
    print("\n");
    upload(&log)
}

fn upload(log: &Stamped) -> ExitCode {
    for percent in 0..=100_u64 {
        // Both forms are in use, one before version 1.2 and one after it.
        if mode() == "old" {
            log.line(&format!("Upgrade progress:   {percent}"));
        } else {
            log.line(&format!("upgrade progress {percent}% {}/19200000", percent * 192_000));
        }
        pause();
        match mode().as_str() {
            "hang" if percent == 60 => hang(),
            "fail" | "fail-zero" if percent == 37 => {
                log.line("qusb_noblock_write write=0, errno: 110 (Connection timed out)");
                log.line("firehose_protocol.c fh_send_cmd 402 fail");
                log.line("Upgrade module failed.");
                // The status is a line number: of 512 nothing is left.
                return ExitCode::from(if mode() == "fail" { 146 } else { 0 });
            }
            "gone" if percent == 37 => return ExitCode::SUCCESS,
            _ => {}
        }
    }
    log.line("<power value=\"reset\" />");
    log.line("inf[0] ep_in -1/1024, errno = 71 (Protocol error)");
    log.line("qusb_noblock_read read=-1, errno: 71 (Protocol error)");
    log.line("firehose_protocol.c fh_recv_cmd 327 fail");
    log.line("THE TOTAL DOWNLOAD TIME IS 53.750 s");
    log.line("Upgrade module successfully.");
    ExitCode::SUCCESS
}
