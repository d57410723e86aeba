//! Commands that list what there is, unless they are told to do something else with it.

use clap::{Args, Subcommand};

use super::output::Output;

/// `V`: what else can be done. `F`: what of all is listed.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Lists<V: Subcommand, F: Args> {
    #[command(subcommand)]
    verb: Option<Verb<V, F>>,
    #[command(flatten)]
    filters: F,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb<V: Subcommand, F: Args> {
    /// List them
    List(F),
    #[command(flatten)]
    Other(V),
}

/// What is to be done.
pub enum Asked<V, F> {
    List(F),
    Other(V),
}

impl<V: Subcommand, F: Args> Lists<V, F> {
    pub fn asked(self) -> (Asked<V, F>, Output) {
        let asked = match self.verb {
            None => Asked::List(self.filters),
            Some(Verb::List(filters)) => Asked::List(filters),
            Some(Verb::Other(verb)) => Asked::Other(verb),
        };
        (asked, self.output)
    }
}
