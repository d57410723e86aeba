//! What the commands print: tables for people, JSON for programs.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{self, IsTerminal, Write};

use clap::Args;
use console::{Term, measure_text_width, truncate_str};
use serde_json::Value;
use uuid::Uuid;

use super::failure::Failure;

/// Prints a line. Whoever read the output may have gone, and a disk may be full: `println!` would panic.
macro_rules! say {
    () => { $crate::cli::output::print(format_args!("\n")) };
    ($($part:tt)*) => { $crate::cli::output::print(format_args!("{}\n", format_args!($($part)*))) };
}
/// Prints a line at standard error, for whoever listens there.
macro_rules! note {
    ($($part:tt)*) => { $crate::cli::output::tell(format_args!("{}\n", format_args!($($part)*))) };
}
pub(super) use {note, say};

#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print JSON, as the API has it
    #[arg(long, global = true)]
    pub json: bool,
}

impl Output {
    /// One thing: its JSON, or what is to be said of it.
    pub fn say(self, value: &Value, text: impl AsRef<str>) -> anyhow::Result<()> {
        if self.json { json(value) } else { say!("{}", text.as_ref()) }
    }

    /// A list: a JSON array, or a table of one row or more for each.
    pub fn list<const N: usize, R>(
        self,
        heading: [&str; N],
        values: Vec<Value>,
        rows: R,
    ) -> anyhow::Result<()>
    where
        R: FnMut(&Value) -> Vec<[String; N]>,
    {
        if self.json {
            json(&Value::Array(values))
        } else {
            table(heading, &values.iter().flat_map(rows).collect::<Vec<_>>())
        }
    }
}

/// Prints a value as JSON, on one line.
pub fn json(value: &Value) -> anyhow::Result<()> {
    say!("{value}")
}

/// Prints text as it is. At once: what follows may take long.
///
/// # Errors
/// [`Failure::Output`].
pub fn print(text: Arguments<'_>) -> anyhow::Result<()> {
    write(text.to_string().as_bytes())
}

/// As [`print()`], of bytes.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    Ok(output.write_all(bytes).and_then(|()| output.flush()).map_err(Failure::Output)?)
}

/// For [`note`].
pub fn tell(text: Arguments<'_>) {
    // If nobody can be told, there is nobody to tell that to.
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// Prints rows under a heading, in columns as wide as they need to be; on a terminal no wider than
/// it is, and with colours for how things stand.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    print(format_args!("{}", columns(heading, rows, width(), is_colourful())))
}

/// Prints names with their values, one a line; those without a value are left out.
pub fn fields<const N: usize>(fields: [(&str, String); N]) -> anyhow::Result<()> {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        say!("{:width$} {value}", format!("{name}:"))?;
    }
    Ok(())
}

/// The columns of the terminal that is written to; what the shell exports wins.
fn width() -> Option<usize> {
    let terminal = Term::stdout();
    if !terminal.is_term() {
        return None;
    }
    let exported = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    exported.or_else(|| Some(usize::from(terminal.size_checked()?.1)))
}

fn is_colourful() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

fn columns<const N: usize>(
    heading: [&str; N],
    rows: &[[String; N]],
    width: Option<usize>,
    colours: bool,
) -> String {
    let heading = heading.map(str::to_owned);
    let mut widths = [0; N];
    for line in std::iter::once(&heading).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(measure_text_width(cell));
        }
    }
    if let Some(most) = width {
        let is_id = |cell: &String| Uuid::try_parse(cell).is_ok();
        let ids = std::array::from_fn(|column| rows.iter().any(|row| is_id(&row[column])));
        narrow(&mut widths, ids, most);
    }
    let mut text = String::new();
    for (number, line) in std::iter::once(&heading).chain(rows).enumerate() {
        let last = line.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
        for (column, (cell, width)) in line.iter().zip(widths).take(last + 1).enumerate() {
            let shown = shortened(cell, width);
            let gap = width.saturating_sub(measure_text_width(&shown)) + 2;
            let padding = if column == last { 0 } else { gap };
            match colour(cell).filter(|_| colours && number > 0) {
                Some(colour) => text.push_str(&format!("\x1b[{colour}m{shown}\x1b[0m")),
                None => text.push_str(&shown),
            }
            text.push_str(&" ".repeat(padding));
        }
        text.push('\n');
    }
    text
}

const NARROWEST: usize = 8;

/// Takes from the widest columns until all fit; not from `ids`, which are copied.
fn narrow<const N: usize>(widths: &mut [usize; N], ids: [bool; N], most: usize) {
    loop {
        let gaps = 2 * N.saturating_sub(1);
        let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(most);
        let flexible = widths.iter_mut().zip(ids).filter(|(width, id)| !id && **width > NARROWEST);
        match flexible.map(|(width, _)| width).max() {
            Some(widest) if over > 0 => *widest -= 1,
            _ => return,
        }
    }
}

fn shortened(cell: &str, width: usize) -> Cow<'_, str> {
    truncate_str(cell, width, "…")
}

/// The SGR number for a word that says how something stands.
fn colour(word: &str) -> Option<u8> {
    match word {
        "success" | "accepted" | "online" => Some(32),
        "failed" | "revoked" | "overdue" => Some(31),
        "aborted" | "cancelled" | "paused" | "suspect" | "dark" | "pending" | "duplicate" => {
            Some(33)
        }
        "in-progress" => Some(36),
        _ => None,
    }
}

/// A field as a cell: nothing for null, texts without their quotes. What devices say of themselves
/// must not steer a terminal.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(","),
        other => plain(&other.to_string()),
    }
}

/// A time without its fractions.
pub fn time(value: &Value) -> String {
    let text = cell(value);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(cells: [&str; 2]) -> [String; 2] {
        cells.map(str::to_owned)
    }

    #[test]
    fn columns_line_up() {
        let rows = [row(["a", "long"]), row(["bcd", ""])];
        assert_eq!(columns(["ID", "X"], &rows, None, false), "ID   X\na    long\nbcd\n");
    }

    #[test]
    fn a_terminal_is_not_overrun_and_ids_stay_whole() {
        let id = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
        let rows = [row([id, "a very long name indeed"])];
        let narrow = columns(["ID", "NAME"], &rows, Some(50), false);
        assert!(narrow.ends_with(&format!("{id}  a very long…\n")), "{narrow}");
        assert!(columns(["ID", "NAME"], &rows, Some(10), false).contains(id));
        let long = [row([id, &"x".repeat(60)])];
        let narrow = columns(["ID", "NAME"], &long, Some(60), false);
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
    }

    #[test]
    fn what_takes_two_columns_counts_as_two() {
        let rows = [row(["路由器", "x"]), row(["router", "y"])];
        assert_eq!(columns(["NAME", "X"], &rows, None, false), "NAME    X\n路由器  x\nrouter  y\n");
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let rows = [row(["success", "x"]), row(["a-longer-word", "y"])];
        let plain = columns(["STATUS", "X"], &rows, None, false);
        let colourful = columns(["STATUS", "X"], &rows, None, true);
        assert!(colourful.contains("\x1b[32msuccess\x1b[0m        x"), "{colourful:?}");
        assert_eq!(colourful.replace("\x1b[32m", "").replace("\x1b[0m", ""), plain);
    }

    #[test]
    fn cells_do_not_steer_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\n")), "a [2Jb ");
        assert_eq!(cell(&Value::Null), "");
        assert_eq!(cell(&json!(7)), "7");
        assert_eq!(cell(&json!(["a", "\u{7}b"])), "a, b");
        assert_eq!(time(&json!("2026-11-22T05:24:18.123Z")), "2026-11-22T05:24:18Z");
    }
}
