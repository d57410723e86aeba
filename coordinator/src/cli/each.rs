//! The same to each of several things: one that is refused does not keep the others from it.

use std::process::ExitCode;

use super::failure::exit_code;
use super::output;

/// Does it to each; whatever fails is told at once, and how many at the end. The exit status is that of the
/// first failure.
pub async fn each(
    things: impl IntoIterator<Item = String>,
    mut work: impl AsyncFnMut(&str) -> anyhow::Result<()>,
) -> ExitCode {
    let (mut done, mut failed, mut first) = (0, 0, None);
    for thing in things {
        match work(&thing).await {
            Ok(()) => done += 1,
            Err(error) => {
                failed += 1;
                eprintln!("error: {thing}: {}", output::plain(&format!("{error:#}")));
                first.get_or_insert_with(|| exit_code(&error));
            }
        }
    }
    if failed > 0 && done + failed > 1 {
        eprintln!("{failed} of {} were not done; the others were", done + failed);
    }
    first.unwrap_or(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
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
        assert_eq!(code.await, ExitCode::from(4));
        assert_eq!(seen, things);
        assert_eq!(each([], async |_| Ok(())).await, ExitCode::SUCCESS);
    }
}
