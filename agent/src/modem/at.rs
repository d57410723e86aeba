//! AT framing: bytes in, [`Item`]s out. No clock, no port.
//!
//! ```text
//!   bytes ─► line splitter ─► echo? ─► text of an SMS? ─► final result? ─► unsolicited? ─► line
//! ```
//! What comes out depends on the bytes alone and never on how reads cut them. Results count only as a whole
//! line (`HTTP/1.1 200 OK` is data). Numeric results (`ATV0`) are looked for only where the command has no
//! answer of its own, since `0` is also a value. Source: Telit AT guides 2.2.2-2.2.5, 3GPP TS 27.007 chapter 4.

#![deny(clippy::wildcard_enum_match_arm)]

use super::urc;

/// Longest line kept, in bytes; a longer one is dropped and reported once.
pub const MAX_LINE: usize = 2048;
/// Longest reply kept, in lines and bytes.
pub const MAX_REPLY_LINES: usize = 128;
pub const MAX_REPLY_BYTES: usize = 16 * 1024;
/// Longest command line, without its CR (Telit: 400 characters).
pub const MAX_COMMAND: usize = 400;

/// One thing that the modem said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Information text that belongs to the pending command.
    Line(String),
    Final(Final),
    Urc(String),
    /// `> `: the modem waits for text.
    Prompt,
    /// A line longer than [`MAX_LINE`], dropped.
    Overlong,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Final {
    Ok,
    Connect,
    Error,
    /// `+CME ERROR:`, by number or text, as AT+CMEE has it.
    Cme(Code),
    /// `+CMS ERROR:`.
    Cms(Code),
    NotSupported,
    NoCarrier,
    NoDialtone,
    Busy,
    NoAnswer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    Number(u16),
    Text(String),
}

impl std::fmt::Display for Final {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Final::Ok => f.write_str("OK"),
            Final::Connect => f.write_str("CONNECT"),
            Final::Error => f.write_str("ERROR"),
            Final::Cme(code) => write!(f, "+CME ERROR: {code}"),
            Final::Cms(code) => write!(f, "+CMS ERROR: {code}"),
            Final::NotSupported => f.write_str("COMMAND NOT SUPPORT"),
            Final::NoCarrier => f.write_str("NO CARRIER"),
            Final::NoDialtone => f.write_str("NO DIALTONE"),
            Final::Busy => f.write_str("BUSY"),
            Final::NoAnswer => f.write_str("NO ANSWER"),
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Code::Number(number) => write!(f, "{number}"),
            Code::Text(text) => f.write_str(text),
        }
    }
}

/// What the pending command may be answered with, besides its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing (`ATE0`, `AT`): a lone digit is a numeric result.
    Nothing,
    /// Information text: a lone digit is a value.
    Text,
}

#[derive(Debug)]
struct Pending {
    /// As sent, with `AT`.
    command: String,
    answer: Answer,
    echo_possible: bool,
}

/// The splitter and classifier of one port's bytes.
#[derive(Debug, Default)]
pub struct Digester {
    line: Vec<u8>,
    overlong: bool,
    after_cr: bool,
    /// The next line is the text of this unsolicited code.
    text_of: Option<String>,
    pending: Option<Pending>,
}

impl Digester {
    /// Names the command whose reply comes next; before the first one every line is unsolicited.
    pub fn begin(&mut self, command: &str, answer: Answer) {
        self.pending = Some(Pending { command: command.to_owned(), answer, echo_possible: true });
    }

    /// Forgets everything half read: after a pause that no reply survives.
    pub fn reset(&mut self) {
        *self = Digester::default();
    }

    /// Takes `bytes` as they came and hands every finished item to `take`, in order.
    pub fn feed(&mut self, mut bytes: &[u8], take: &mut impl FnMut(Item)) {
        while let Some(&first) = bytes.first() {
            let plain = bytes
                .iter()
                .position(|byte| matches!(byte, b'\r' | b'\n' | 0 | b' '))
                .unwrap_or(bytes.len());
            if plain > 0 {
                self.after_cr = false;
                self.extend(&bytes[..plain]);
                bytes = &bytes[plain..];
                continue;
            }
            self.special(first, take);
            bytes = &bytes[1..];
        }
    }

    fn special(&mut self, byte: u8, take: &mut impl FnMut(Item)) {
        let second_half = byte == b'\n' && self.after_cr;
        self.after_cr = byte == b'\r';
        match byte {
            b'\n' if second_half => {}
            b'\r' | b'\n' => self.end_line(take),
            0 => {}
            _ if self.line == b">" && !self.overlong && self.text_of.is_none() => {
                self.line.clear();
                take(Item::Prompt);
            }
            _ => self.extend(&[byte]),
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.overlong {
            return;
        }
        if self.line.len() + bytes.len() > MAX_LINE {
            self.overlong = true;
            self.line = Vec::new();
            return;
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_line(&mut self, take: &mut impl FnMut(Item)) {
        if std::mem::take(&mut self.overlong) {
            self.text_of = None;
            return take(Item::Overlong);
        }
        let text = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.line.clear();
        if let Some(code) = self.text_of.take() {
            return take(Item::Urc(format!("{code} {text}")));
        }
        if text.is_empty() || self.is_echo(&text) {
            return;
        }
        if let Some(item) = self.classify(text) {
            take(item);
        }
    }

    /// An echo may have rubbish of the boot before it, and comes at most once, before everything else.
    fn is_echo(&mut self, text: &str) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        let echo = pending.echo_possible && text.ends_with(&pending.command);
        if echo {
            pending.echo_possible = false;
        }
        echo
    }

    fn classify(&mut self, text: String) -> Option<Item> {
        let Some(pending) = &mut self.pending else { return Some(Item::Urc(text)) };
        if let Some(result) = final_result(&text, pending) {
            self.pending = None;
            return Some(Item::Final(result));
        }
        let command = pending.command.get(2..).unwrap_or("");
        match urc::classify(&text, command) {
            None if is_call_result(&text).is_some() => Some(Item::Urc(text)),
            None => {
                pending.echo_possible = false;
                Some(Item::Line(text))
            }
            Some(urc::Kind::Single) => Some(Item::Urc(text)),
            Some(urc::Kind::WithText) => {
                self.text_of = Some(text);
                None
            }
        }
    }
}

fn final_result(text: &str, pending: &Pending) -> Option<Final> {
    let verbose = match text {
        "OK" => Some(Final::Ok),
        "ERROR" => Some(Final::Error),
        "COMMAND NOT SUPPORT" => Some(Final::NotSupported),
        _ => None,
    };
    verbose
        .or_else(|| error_code(text))
        .or_else(|| is_call_result(text).filter(|_| is_call(&pending.command)))
        .or_else(|| numeric(text).filter(|_| pending.answer == Answer::Nothing))
}

fn error_code(text: &str) -> Option<Final> {
    let code = |rest: &str| {
        let rest = rest.trim();
        rest.parse().map_or_else(|_| Code::Text(rest.to_owned()), Code::Number)
    };
    if let Some(rest) = text.strip_prefix("+CME ERROR:") {
        return Some(Final::Cme(code(rest)));
    }
    if let Some(rest) = text.strip_prefix("+CMS ERROR:") {
        return Some(Final::Cms(code(rest)));
    }
    text.starts_with("MODEM ERROR:").then_some(Final::Error)
}

/// Ends of a call: results of a dial command, otherwise news about somebody else's call.
fn is_call_result(text: &str) -> Option<Final> {
    match text {
        "NO CARRIER" => Some(Final::NoCarrier),
        "NO DIALTONE" => Some(Final::NoDialtone),
        "BUSY" => Some(Final::Busy),
        "NO ANSWER" => Some(Final::NoAnswer),
        connect if connect == "CONNECT" || connect.starts_with("CONNECT ") => Some(Final::Connect),
        _ => None,
    }
}

fn is_call(command: &str) -> bool {
    let body = command.get(2..).unwrap_or("").to_ascii_uppercase();
    ["D", "A", "O", "+CGDATA", "#OTAUPW"].iter().any(|name| body.starts_with(name))
}

fn numeric(text: &str) -> Option<Final> {
    match text {
        "0" => Some(Final::Ok),
        "1" => Some(Final::Connect),
        "3" => Some(Final::NoCarrier),
        "4" => Some(Final::Error),
        "6" => Some(Final::NoDialtone),
        "7" => Some(Final::Busy),
        "8" => Some(Final::NoAnswer),
        _ => None,
    }
}

/// A reply that outgrew [`MAX_REPLY_LINES`] or [`MAX_REPLY_BYTES`], or had an overlong line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reply is longer than any reply should be")]
pub struct TooLong;

/// A whole reply: information lines and the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub lines: Vec<String>,
    pub result: Final,
}

/// Puts one reply together from items.
#[derive(Debug, Default)]
pub struct Collector {
    lines: Vec<String>,
    bytes: usize,
    too_long: bool,
}

impl Collector {
    /// The reply, once its result came. Unsolicited codes and prompts are passed over.
    pub fn take(&mut self, item: Item) -> Option<Result<Reply, TooLong>> {
        match item {
            Item::Line(line) => self.push(line),
            Item::Overlong => self.too_long = true,
            Item::Urc(_) | Item::Prompt => {}
            Item::Final(_) if self.too_long => return Some(Err(TooLong)),
            Item::Final(result) => {
                return Some(Ok(Reply { lines: std::mem::take(&mut self.lines), result }));
            }
        }
        None
    }

    fn push(&mut self, line: String) {
        self.bytes += line.len();
        if self.lines.len() >= MAX_REPLY_LINES || self.bytes > MAX_REPLY_BYTES {
            self.too_long = true;
            self.lines = Vec::new();
            return;
        }
        self.lines.push(line);
    }
}

/// Frames `transcript` as the replies to `command`, repeated, in reads of `read` bytes; the number of items.
/// What the benchmark of the framing runs.
pub fn frame_transcript(transcript: &[u8], command: &str, read: usize) -> usize {
    let mut digester = Digester::default();
    let mut items = 0;
    for bytes in transcript.chunks(read.max(1)) {
        if digester.pending.is_none() {
            digester.begin(command, Answer::Text);
        }
        digester.feed(bytes, &mut |_| items += 1);
    }
    items
}

#[cfg(test)]
mod tests;
