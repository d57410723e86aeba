//! What is worse after a flash than before, and no failure: a network chooses technology, cell and partner by
//! itself, so that the firmware is to blame for some of it at most. Said in the result, for whoever looks after
//! many.

use super::{Baseline, Registration};

/// A fall of the signal by so many dB is more than the weather.
const FALL_DB: i32 = 15;

impl Baseline {
    /// What is worse `now`; what was not told before or is not now is no difference.
    #[must_use]
    pub fn remark(&self, now: &Baseline) -> Option<String> {
        let found =
            [self.slower(now), self.roams(now), self.weaker(now), self.without_contexts(now)];
        let found: Vec<_> = found.into_iter().flatten().collect();
        (!found.is_empty()).then(|| found.join("; "))
    }

    fn slower(&self, now: &Baseline) -> Option<String> {
        let told = |baseline: &Baseline| baseline.told().technology;
        let (before, after) = (told(self)?, told(now)?);
        (rank(&after) < rank(&before)).then(|| format!("{after} instead of {before}"))
    }

    fn roams(&self, now: &Baseline) -> Option<String> {
        let home =
            |baseline: &Baseline| [baseline.lte, baseline.nr].contains(&Some(Registration::Home));
        let roams = home(self) && !home(now) && now.is_registered();
        roams.then(|| "roaming instead of at home".to_owned())
    }

    fn weaker(&self, now: &Baseline) -> Option<String> {
        let (before, after) = (self.rsrp_dbm?, now.rsrp_dbm?);
        let text = || format!("the signal fell from {before} to {after} dBm");
        (before.saturating_sub(after) >= FALL_DB).then(text)
    }

    /// Where the profile restores them, none is missing by now.
    fn without_contexts(&self, now: &Baseline) -> Option<String> {
        let after = now.contexts.as_ref()?;
        let gone =
            self.contexts.iter().flatten().filter(|context| !after.contains(context)).count();
        (gone > 0).then(|| format!("{gone} of its packet data contexts are not as before"))
    }
}

/// As [`Baseline::told`] names them.
fn rank(technology: &str) -> u8 {
    match technology {
        "gsm" => 0,
        "umts" => 1,
        "lte" => 2,
        "5g-nsa" => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worse_is_said_and_nothing_else() {
        let before = Baseline {
            nr: Some(Registration::Home),
            access_technology: Some(11),
            rsrp_dbm: Some(-80),
            contexts: Some(vec!["1,\"IP\",\"internet\"".into()]),
            ..Baseline::default()
        };
        assert_eq!(before.remark(&before), None);
        let worse = Baseline {
            nr: None,
            lte: Some(Registration::Roaming),
            access_technology: Some(7),
            rsrp_dbm: Some(-120),
            contexts: Some(vec![]),
            ..Baseline::default()
        };
        let said = before.remark(&worse).unwrap();
        for part in
            ["lte instead of 5g", "roaming instead", "from -80 to -120 dBm", "1 of its packet"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(worse.remark(&before), None, "better is no remark");
        assert_eq!(before.remark(&Baseline::default()), None, "nor what nobody tells");
        assert_eq!(Baseline::default().remark(&worse), None);
        let a_little = Baseline { rsrp_dbm: Some(-90), ..before.clone() };
        assert_eq!(before.remark(&a_little), None);
    }
}
