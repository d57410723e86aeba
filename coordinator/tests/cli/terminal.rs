//! Tables on a terminal, which knows how wide it is though its shell exports nothing.

use std::fs::File;
use std::io::Read;

use nix::pty::{OpenptyResult, Winsize, openpty};

use crate::Server;

/// What is printed on a terminal of so many columns, line by line.
fn printed(server: &Server, columns: u16, exported: Option<&str>) -> Vec<String> {
    let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
    let mut command = server.command(&["devices"]);
    command.env_remove("COLUMNS").env("NO_COLOR", "1").stdout(slave);
    command.envs(exported.map(|columns| ("COLUMNS", columns)));
    let mut process = command.spawn().unwrap();
    // It holds the other end, which has to be closed once the process has ended.
    drop(command);
    let mut text = Vec::new();
    // The end of a terminal is an error.
    let _ = File::from(master).read_to_end(&mut text);
    assert!(process.wait().unwrap().success());
    String::from_utf8(text).unwrap().lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn a_table_is_as_wide_as_the_terminal_at_most() {
    let server = Server::start();
    let name = "a-router-whose-name-is-much-longer-than-any-terminal-likes-it";
    server.enrol(name, 1, &server.enrolment);
    let longest = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max().unwrap();
    let wide = printed(&server, 300, None);
    assert!(wide[1].contains(name), "{wide:?}");
    let narrow = printed(&server, 110, None);
    assert!(longest(&narrow) <= 110 && narrow[1].contains('…'), "{narrow:?}");
    assert!(narrow.len() == wide.len(), "a row a line");
    let exported = printed(&server, 300, Some("110"));
    assert_eq!(exported, narrow, "what the shell exports wins");
}
