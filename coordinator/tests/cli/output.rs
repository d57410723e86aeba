//! What is printed where nobody reads it, or where there is no room for it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use crate::{BIN, Server, ends, good};

/// Whoever read it has gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn printed(mut command: Command, output: Stdio) -> Output {
    command.stdout(output).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn an_output_that_is_closed_ends_it_quietly_and_a_full_one_is_an_error() {
    let server = Server::start();
    let offline = |arguments: &[&str]| {
        let mut command = Command::new(BIN);
        command.args(arguments);
        command
    };
    let commands: [&[&str]; 4] =
        [&["devices"], &["devices", "--json"], &["users", "me"], &["tokens", "new", "screen"]];
    for command in commands {
        let quiet = printed(server.command(command), closed());
        assert_eq!((quiet.status.code(), quiet.status.signal()), (Some(141), None), "{command:?}");
        assert_eq!(String::from_utf8_lossy(&quiet.stderr), "", "{command:?}");
        let told = ends(1, printed(server.command(command), full()));
        assert!(told.starts_with("error: cannot write: No space left on device"), "{told}");
    }
    for command in [["completions", "bash"], ["help", "devices"], ["firmware", "--help"]] {
        assert_eq!(ends(141, printed(offline(&command), closed())), "");
        let told = ends(1, printed(offline(&command), full()));
        assert!(told.contains("cannot write: No space"), "{told}");
    }
}

#[test]
fn errors_that_nobody_hears_keep_their_status() {
    let server = Server::start();
    for nobody in [closed, full] {
        let mut refused = server.command(&["devices", "show", "router-9"]);
        let status = refused.stdout(Stdio::null()).stderr(nobody()).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }
}

#[test]
fn what_was_begun_for_several_is_done_though_nobody_reads() {
    let server = Server::start();
    for (name, seed) in [("router-1", 1), ("router-2", 2)] {
        server.enrol(name, seed, &server.enrolment);
    }
    let both = ["devices", "tag", "--add", "van", "router-1", "router-2"];
    assert_eq!(ends(141, printed(server.command(&both), closed())), "");
    let tagged = good(server.run(&["devices", "--tag", "van"]));
    assert!(tagged.contains("router-1") && tagged.contains("router-2"), "{tagged}");
}
