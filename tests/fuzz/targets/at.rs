//! AT framing: whatever a port says, in whatever reads; the items depend on the bytes alone.

#![no_main]

use fuzz::modem::at::{Answer, Collector, Digester, Item, MAX_LINE, MAX_REPLY_BYTES};
use libfuzzer_sys::fuzz_target;

const COMMANDS: &[(&str, Answer)] = &[
    ("AT#SWPKGV", Answer::Text),
    ("AT+CGMR", Answer::Text),
    ("AT+CEREG?", Answer::Text),
    ("AT#REBOOT", Answer::Nothing),
];

fn items(bytes: &[u8], read: usize, (command, answer): (&str, Answer)) -> Vec<Item> {
    let mut digester = Digester::default();
    let mut items = Vec::new();
    digester.begin(command, answer);
    for part in bytes.chunks(read) {
        digester.feed(part, &mut |item| items.push(item));
    }
    items
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let command = COMMANDS[usize::from(choice) % COMMANDS.len()];
    let whole = items(bytes, bytes.len().max(1), command);
    assert_eq!(whole, items(bytes, 1, command), "reads must not matter");
    let mut collector = Collector::default();
    for item in whole {
        if let Item::Line(line) | Item::Urc(line) = &item {
            // Of each byte that is not UTF-8 three may come.
            assert!(line.len() <= 3 * MAX_LINE);
        }
        if let Some(Ok(reply)) = collector.take(item) {
            assert!(reply.lines.iter().map(String::len).sum::<usize>() <= MAX_REPLY_BYTES);
        }
    }
});
