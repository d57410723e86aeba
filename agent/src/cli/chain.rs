//! An error with its causes on one line: each says its own part only, so a person needs all of them.

use std::error::Error;
use std::fmt;

pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the file {0} cannot be read")]
    struct Outer(&'static str, #[source] std::io::Error);

    #[test]
    fn every_cause_is_told() {
        let error = Outer("x", std::io::Error::other("the disk is gone"));
        assert_eq!(Chain(&error).to_string(), "the file x cannot be read: the disk is gone");
        assert_eq!(Chain(&std::io::Error::other("alone")).to_string(), "alone");
    }
}
