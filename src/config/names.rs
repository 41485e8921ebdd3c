//! What is said where somebody names what is not there.

use std::path::Path;

use crate::config::values::nearest;

/// So many names fit into a line that people read.
const SHOWN: usize = 12;

/// No journey is named so; see [`not_there`].
pub fn no_journey<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    not_there("journey", name, known)
}

/// Nothing of this kind is named so: the one that was probably meant, or those that contain it, or else which there are.
pub fn not_there<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    let part = name.to_lowercase();
    let containing: Vec<_> =
        known.iter().copied().filter(|known| !part.is_empty() && known.to_lowercase().contains(&part)).collect();
    let meant = nearest(name, known.iter().copied()).filter(|_| containing.is_empty());
    let help = match (meant, containing.as_slice()) {
        (Some(meant), _) => format!("did you mean `{meant}`?"),
        (None, [meant]) => format!("did you mean `{meant}`?"),
        (None, []) if known.is_empty() => "there is none at all".to_owned(),
        (None, []) => format!("there are: {}", some_of(&known)),
        (None, several) => format!("did you mean one of these? {}", some_of(several)),
    };
    format!("no {what} is named `{name}`; {help}")
}

/// The names in a line: the first of them, if there are too many to be read.
pub fn some_of(names: &[&str]) -> String {
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{}, … and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

/// What to do where the daemon's file is not there: its usual place is `config/`, and many keep it where they stand.
pub(super) fn elsewhere(missing: &Path) -> String {
    let here = missing.file_name().map(Path::new).filter(|name| *name != missing && name.is_file());
    match here {
        Some(here) => format!("there is one here: say `--config {}`", here.display()),
        None => "`--config FILE` names another; `journeyman init` makes a first one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_leads_to_one_that_is() {
        let known = ["order", "sms-round-trip", "sms-receipts", "Mail"];
        let table = [
            ("oder", "did you mean `order`?"),
            ("sms-rond-trip", "did you mean `sms-round-trip`?"),
            ("mail", "did you mean `Mail`?"),
            ("receipts", "did you mean `sms-receipts`?"),
            ("sms", "did you mean one of these? sms-round-trip, sms-receipts"),
            ("zzz", "there are: order, sms-round-trip, sms-receipts, Mail"),
            ("", "there are: order, sms-round-trip, sms-receipts, Mail"),
        ];
        for (name, help) in table {
            assert_eq!(no_journey(name, known), format!("no journey is named `{name}`; {help}"));
        }
        assert_eq!(no_journey("a", []), "no journey is named `a`; there is none at all");
    }

    #[test]
    fn a_thousand_names_are_not_read_by_anybody() {
        let names: Vec<_> = (0..1_000).map(|number| format!("n{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(no_journey("other", names.iter().copied()).ends_with("n10, n11, … and 988 more"));
        assert_eq!(some_of(&names[..SHOWN]).matches(", ").count(), SHOWN - 1);
        assert!(!some_of(&names[..SHOWN]).contains('…'));
    }
}
