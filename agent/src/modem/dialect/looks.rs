//! What a value looks like: answers carry no prefix, so their shape is all there is to know them by. Pure.

/// The only line that is like a value.
pub(super) fn one(lines: &[String], is_value: fn(&str) -> bool) -> Option<String> {
    let mut values = lines.iter().filter(|line| is_value(line));
    let value = values.next()?;
    values.next().is_none().then(|| value.clone())
}

/// The lines of one version command.
pub(super) fn version_lines(name: &str, lines: &[String]) -> Option<Vec<String>> {
    let bare: Vec<&str> = lines.iter().map(|line| without_prefix(name, line)).collect();
    let only = |is_value: fn(&str) -> bool| {
        let values: Vec<String> =
            bare.iter().filter(|line| is_value(line)).map(|line| (*line).to_owned()).collect();
        (!values.is_empty()).then_some(values)
    };
    match name {
        "#SWPKGV" => only(is_package_line).filter(|lines| is_package(lines)),
        "+CGMR" | "+GMR" | "#CGMR" => only(is_version).filter(|lines| lines.len() == 1),
        _ => only(|line| !line.is_empty()),
    }
}

/// Telit's `#` forms and other vendors repeat the name: `#CGMR: 08.01.005`.
fn without_prefix<'a>(name: &str, line: &'a str) -> &'a str {
    let named = line.strip_prefix(name.trim_end_matches('?'));
    named.and_then(|rest| rest.strip_prefix(':')).map_or(line, str::trim_start)
}

/// Package, modem, production parameters, application, in this order.
fn is_package(lines: &[String]) -> bool {
    let starts =
        |index: usize, letter| lines.get(index).is_some_and(|line| line.starts_with(letter));
    lines.len() == 4
        && lines.first().is_some_and(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        && starts(1, 'M')
        && starts(2, 'P')
        && starts(3, 'A')
}

/// The command whose first line a revision is that another program read: `#SWPKGV` or `+CGMR`, by its looks.
pub(in crate::modem) fn version_command(revision: &str) -> Option<&'static str> {
    if !is_package_line(revision) {
        return None;
    }
    match revision.chars().next() {
        Some('M') => Some("+CGMR"),
        Some(first) if first.is_ascii_digit() => Some("#SWPKGV"),
        _ => None,
    }
}

fn is_package_line(line: &str) -> bool {
    let head = line.split('-').next().unwrap_or("");
    is_version(line) && (is_digits(head, &[2, 2, 3]) || is_component(head))
}

/// `M0R.010002`: kind, two characters of the family, six digits.
fn is_component(text: &str) -> bool {
    let Some((family, digits)) = text.split_once('.') else { return false };
    family.len() == 3
        && family.starts_with(['M', 'P', 'A'])
        && family.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && digits.len() == 6
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `45.00.012`, groups of digits of these lengths.
fn is_digits(text: &str, lengths: &[usize]) -> bool {
    let groups: Vec<&str> = text.split('.').collect();
    groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(group, length)| {
            group.len() == *length && group.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// One word that starts with a letter or digit and has a dot and a digit: any vendor's version.
fn is_version(line: &str) -> bool {
    line.len() <= 64
        && line.starts_with(|c: char| c.is_ascii_alphanumeric())
        && line.contains(|c: char| c.is_ascii_digit())
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

pub(super) fn is_name(line: &str) -> bool {
    line.len() <= 40
        && line.starts_with(|c: char| c.is_ascii_uppercase())
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" .-".contains(&byte))
        && line.contains(|c: char| c.is_ascii_lowercase())
}

pub(super) fn is_model(line: &str) -> bool {
    line.len() <= 40
        && line.starts_with(|c: char| c.is_ascii_alphabetic())
        && line.bytes().any(|byte| byte.is_ascii_digit())
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// 18 to 22 digits, perhaps with a filling F.
pub(in crate::modem) fn is_iccid(value: &str) -> bool {
    (18..=22).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(in crate::modem) fn is_imei(line: &str) -> bool {
    line.len() == 15 && line.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn is_dotted_number(line: &str) -> bool {
    let parts: Vec<&str> = line.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    line.len() <= 16 && parts.len() > 1 && parts.iter().all(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_package_version_is_its_four_lines_and_nothing_between_them() {
        let clean = "45.00.010-B022-P0R.001600\nM0R.010000-B022\nP0R.001600\nA0R.000000-B022";
        let noisy = format!("#UNKNOWN: 1,2\n{}\nCALL READY", clean.replacen('\n', "\n^BOOT\n", 2));
        assert_eq!(version_lines("#SWPKGV", &lines(clean)), Some(lines(clean)));
        assert_eq!(version_lines("#SWPKGV", &lines(&noisy)), Some(lines(clean)));
    }

    #[test]
    fn a_package_version_with_a_line_too_few_or_too_many_is_none() {
        let short = "45.00.012\nM0R.010002\nP0R.001600";
        let long = "45.00.012\nM0R.010002\nM0R.010003\nP0R.001600\nA0R.000000";
        let twisted = "45.00.012\nP0R.001600\nM0R.010002\nA0R.000000";
        for wrong in ["", short, long, twisted] {
            assert_eq!(version_lines("#SWPKGV", &lines(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn the_same_command_of_another_vendor_repeats_its_name() {
        assert_eq!(
            version_lines("+CGMR", &lines("+CGMR: LE13B04SIM8202")),
            Some(lines("LE13B04SIM8202"))
        );
        assert_eq!(version_lines("#CGMR", &lines("#CGMR: 08.01.005")), Some(lines("08.01.005")));
        assert_eq!(version_lines("+CGMR", &lines("M0R.010002\nM0R.010003")), None);
        assert_eq!(
            version_lines("!PRIID?", &lines("PRI 1: x\n\nPRI 2: y")),
            Some(lines("PRI 1: x\nPRI 2: y"))
        );
    }

    #[test]
    fn versions_of_every_kind_in_the_facts() {
        for package in ["45.00.012", "25.21.664-P0F.664501", "45.00.010-B022-P0R.001600"] {
            assert!(is_package_line(package), "{package}");
        }
        for component in ["M0R.115005", "P0R.000566", "A0F.660014", "M0R.010000-B022"] {
            assert!(is_package_line(component), "{component}");
        }
        for not in
            ["OK", "+CREG: 1", "45.00", "M0R.1", "B0R.010002", "hello", "1.00", "M0R.010002 x"]
        {
            assert!(!is_package_line(not), "{not}");
        }
    }

    #[test]
    fn identity_is_recognised_by_its_looks() {
        assert_eq!(one(&lines("#X: 1\n351234567890123"), is_imei), Some("351234567890123".into()));
        assert_eq!(one(&lines("351234567890123\n351234567890124"), is_imei), None);
        assert!(is_name("Telit") && is_name("Telit Cinterion") && !is_name("#QSS: 1"));
        assert!(is_model("FN990A28") && is_model("FN990A40") && !is_model("Telit"));
        assert!(is_dotted_number("1.00") && !is_dotted_number("1") && !is_dotted_number("1..0"));
    }
}
