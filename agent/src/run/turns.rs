//! Who comes first. One slot at a time has its turn, so no two tools ever run at once. Pure.

#![deny(clippy::wildcard_enum_match_arm)]

/// What a slot would do with its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    /// A modem that was touched waits to be looked after.
    Recover,
    /// A new upgrade, or one whose modem is untouched.
    Upgrade {
        /// The way to the coordinator leads over this modem, as far as is known.
        default_route: bool,
    },
}

/// The slot whose turn it is: a touched modem before all others, the modem that carries the default
/// route last, and otherwise the order of the settings.
#[must_use]
pub fn next(wishes: &[Wish]) -> Option<usize> {
    let ranked = wishes.iter().enumerate().filter_map(|(index, wish)| Some((rank(*wish)?, index)));
    ranked.min().map(|(_, index)| index)
}

fn rank(wish: Wish) -> Option<u8> {
    match wish {
        Wish::Nothing => None,
        Wish::Recover => Some(0),
        Wish::Upgrade { default_route: false } => Some(1),
        Wish::Upgrade { default_route: true } => Some(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touched_modem_first_and_the_default_route_last() {
        let (route, spare) =
            (Wish::Upgrade { default_route: true }, Wish::Upgrade { default_route: false });
        for (wishes, expected) in [
            (vec![], None),
            (vec![Wish::Nothing, Wish::Nothing], None),
            (vec![route, spare], Some(1)),
            (vec![spare, route], Some(0)),
            (vec![route, Wish::Nothing], Some(0)),
            (vec![spare, spare], Some(0)),
            (vec![spare, route, Wish::Recover], Some(2)),
            (vec![Wish::Recover, Wish::Recover], Some(0)),
        ] {
            assert_eq!(next(&wishes), expected, "{wishes:?}");
        }
    }
}
