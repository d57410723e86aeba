//! What the commands print: tables for people, JSON for programs.

use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// Prints a value as JSON, on one line.
pub fn json(value: &Value) {
    println!("{value}");
}

/// Prints rows under a heading, in columns as wide as they need to be.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) {
    print!("{}", columns(heading, rows));
}

fn columns<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let lines = || std::iter::once(&heading).chain(rows);
    let mut widths = [0; N];
    for line in lines() {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines() {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A field as a cell: nothing for null, texts without their quotes. What devices say of themselves
/// must not steer a terminal.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a".to_owned(), "long".to_owned()], ["bcd".to_owned(), String::new()]];
        assert_eq!(columns(["ID", "X"], &rows), "ID   X\na    long\nbcd\n");
    }

    #[test]
    fn cells_do_not_steer_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\n")), "a [2Jb ");
        assert_eq!(cell(&Value::Null), "");
        assert_eq!(cell(&json!(7)), "7");
    }
}
