//! Characters to words, words to statements.

use std::iter::Peekable;
use std::str::Chars;

use super::{Problem, SyntaxError};

/// The words of one statement, unquoted; never empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// Where its first word begins.
    pub line: u32,
    pub words: Vec<String>,
}

pub fn statements(text: &str) -> Result<Vec<Statement>, SyntaxError> {
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut statements = Vec::new();
    let mut open: Option<Statement> = None;
    while let Some(&next) = reader.rest.peek() {
        match next {
            '\n' | ';' => {
                reader.next();
                statements.extend(open.take());
            }
            '#' => reader.skip_comment(),
            _ if is_space(next) => {
                reader.next();
            }
            _ => {
                let line = reader.line;
                if let Some(word) = reader.word()? {
                    let statement = open.get_or_insert(Statement { line, words: Vec::new() });
                    statement.words.push(word);
                }
            }
        }
    }
    statements.extend(open);
    Ok(statements)
}

/// As C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\x0b' | '\x0c')
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: u32,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    fn skip_comment(&mut self) {
        while self.rest.next_if(|&c| c != '\n').is_some() {}
    }

    /// `None` where a backslash only joined two lines.
    fn word(&mut self) -> Result<Option<String>, SyntaxError> {
        let mut word = String::new();
        let mut any = false;
        while let Some(&next) = self.rest.peek() {
            match next {
                '\'' | '"' => {
                    self.quoted(&mut word)?;
                    any = true;
                }
                '#' | ';' => break,
                '\\' => any |= self.escaped(&mut word),
                _ if is_space(next) => break,
                _ => {
                    self.next();
                    word.push(next);
                    any = true;
                }
            }
        }
        Ok(any.then_some(word))
    }

    fn quoted(&mut self, word: &mut String) -> Result<(), SyntaxError> {
        let line = self.line;
        let quote = self.next();
        loop {
            match self.rest.peek() {
                None => return Err(SyntaxError { line, problem: Problem::Unterminated }),
                Some('\\') if quote == Some('"') => {
                    self.escaped(word);
                }
                Some(_) => {
                    let next = self.next();
                    if next == quote {
                        return Ok(());
                    }
                    word.extend(next);
                }
            }
        }
    }

    /// Says whether it stood for a character.
    fn escaped(&mut self, word: &mut String) -> bool {
        self.next();
        match self.next() {
            None | Some('\n') => false,
            Some('\r') if self.rest.peek() == Some(&'\n') => {
                self.next();
                false
            }
            Some(other) => {
                word.push(other);
                true
            }
        }
    }
}
