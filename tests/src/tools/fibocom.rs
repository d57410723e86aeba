//! `fibocom-flash`: Fibocom's tool for Qualcomm modems. It takes only a directory or a .7z.

use super::{begins_with, hang, mode, pause, print, value};
use std::process::ExitCode;

pub fn main() -> ExitCode {
    let (Some(package), Some(device)) = (value("-f"), value("-d")) else {
        print("usage: -f <dir|7z> -d <tty|sysfs> -l <dir> [-z 0|1] [-e]\n");
        return ExitCode::SUCCESS;
    };
    let packed = package.ends_with(".7z") && begins_with(&package, b"7z");
    if !packed || !value("-l").is_some_and(|log| std::path::Path::new(&log).is_dir()) {
        print("Upgrade module failed\n");
        return ExitCode::SUCCESS;
    }
    print(&format!("find at port of {device}\nAT+GTDIAGEN=1\nwait for dl port...\n"));
    for percent in 0..=100 {
        print(&format!("upgrade progress {percent}% {percent}/100\r"));
        pause();
        match mode().as_str() {
            "hang" if percent == 60 => hang(),
            "fail" if percent == 37 => {
                print("\nUpgrade module failed\n");
                return ExitCode::SUCCESS;
            }
            _ => {}
        }
    }
    print("\nUpgrade module successfully\n");
    // A status that means nothing.
    ExitCode::from(17)
}
