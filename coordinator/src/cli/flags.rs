//! The API's words in the command line's own: what the server tells is advice for who typed flags.

/// Words that are no English, wherever they stand.
const WORDS: [(&str, &str); 11] = [
    ("upgrade_all", "--all"),
    ("include_unsigned", "--include-unsigned"),
    ("allow_volatile_staging", "--allow-volatile-staging"),
    ("from_versions", "--from-version"),
    ("max_concurrent", "--max-concurrent"),
    ("failure_threshold", "--stop-after and --stop-percent"),
    ("offline_after_s", "--offline-after"),
    ("soak_s", "--soak"),
    ("success_percent", "--success-percent"),
    ("start_at", "--start-at"),
    ("expires_at", "--expires-at"),
];

/// Fields of a selection, which are English words as well.
const FIELDS: [(&str, &str); 11] = [
    ("tags", "--tag"),
    ("add_tags", "--add"),
    ("remove_tags", "--remove"),
    ("devices", "--device"),
    ("models", "--model"),
    ("boards", "--board"),
    ("from_version", "--from-version"),
    ("tag", "--tag"),
    ("board", "--board"),
    ("group", "--group"),
    ("location", "--location"),
];

/// A sentence of the server's, with flags for the API's names.
pub fn in_flags(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_word(c)).unwrap_or(from.len()));
        said.push_str(before);
        said.push_str(flag(&WORDS, word));
        rest = after;
    }
    said + rest
}

/// The flag that sets a field.
pub fn of_field(field: &str) -> &str {
    flag(&FIELDS, field)
}

fn flag<'a>(table: &[(&str, &'static str)], word: &'a str) -> &'a str {
    table.iter().find(|(name, _)| *name == word).map_or(word, |(_, flag)| flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_flags_and_nothing_else_changes() {
        let said = "The modem has no firmware assigned: ask with upgrade_all, or name the device.";
        assert!(in_flags(said).ends_with("ask with --all, or name the device."));
        assert_eq!(in_flags("`soak_s`: x, upgrade_all_of"), "`--soak`: x, upgrade_all_of");
        assert_eq!(in_flags("Zürich's devices."), "Zürich's devices.");
        assert_eq!(in_flags(""), "");
        assert_eq!((of_field("devices"), of_field("name")), ("--device", "name"));
    }
}
