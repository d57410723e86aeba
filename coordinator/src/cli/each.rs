//! The same to each of several things: one that is refused does not keep the others from it.

use std::process::ExitCode;

use super::failure::{exit_code, is_unwritten};
use super::output::{self, note};

/// Does it to each; whatever fails is told at once, and how many at the end. The exit status is that of the
/// first failure. Who does not hear what was done does not keep it from being done.
pub async fn each(
    things: impl IntoIterator<Item = String>,
    mut work: impl AsyncFnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let (mut done, mut failed, mut first, mut unwritten) = (0, 0, None, None);
    for thing in things {
        match work(&thing).await {
            Ok(()) => done += 1,
            Err(error) if is_unwritten(&error) => {
                done += 1;
                unwritten = Some(error);
            }
            Err(error) => {
                failed += 1;
                note!("error: {thing}: {}", output::plain(&format!("{error:#}")));
                first.get_or_insert_with(|| exit_code(&error));
            }
        }
    }
    if failed > 0 && done + failed > 1 {
        note!("{failed} of {} were not done; the others were", done + failed);
    }
    match (first, unwritten) {
        (None, Some(error)) => Err(error),
        (first, _) => Ok(first.unwrap_or(ExitCode::SUCCESS)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::cli::failure::Failure;

    #[tokio::test]
    async fn a_refusal_does_not_stop_the_rest() {
        let mut seen = Vec::new();
        let things = ["a", "b", "c"].map(str::to_owned);
        let code = each(things.clone(), async |thing| {
            seen.push(thing.to_owned());
            if thing == "b" { Err(Failure::NoToken.into()) } else { Ok(()) }
        });
        assert_eq!(code.await.unwrap(), ExitCode::from(4));
        assert_eq!(seen, things);
        let mut done = 0;
        let unwritten = each(things, async |_| {
            done += 1;
            Err(Failure::Output(io::ErrorKind::BrokenPipe.into()).into())
        });
        assert_eq!(exit_code(&unwritten.await.unwrap_err()), ExitCode::from(141));
        assert_eq!(done, 3);
        assert_eq!(each([], async |_| Ok(())).await.unwrap(), ExitCode::SUCCESS);
    }
}
