//! Scalars as people write them: durations, shares, rates, sizes; and the word that was probably meant.

/// How to write a duration.
pub(super) const DURATION_HINT: &str =
    "write whole numbers with units, as in \"250ms\", \"5s\", \"1m30s\", \"6h\" or \"30d\"";

/// `"99.5%"` as a share in `0..=1`.
pub(super) fn share(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?.trim_end();
    let is_plain =
        number.bytes().all(|b| b.is_ascii_digit() || b == b'.') && number.starts_with(|c: char| c.is_ascii_digit());
    // Moves the decimal point in the text: 99.9 / 100 is not the double nearest to 0.999.
    let share: f64 = is_plain.then(|| format!("{number}e-2").parse().ok())??;
    (0.0..=1.0).contains(&share).then_some(share)
}

/// How to write a share.
pub(super) const SHARE_HINT: &str = "write a percentage, as in \"99.5%\"";

/// `"5/s" "50/min" "100/h"` as events a second.
pub(super) fn rate(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let number = number.trim();
    let is_plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.') && number.len() <= 15;
    let number: f64 = is_plain.then(|| number.parse().ok())??;
    Some(number / seconds)
}

/// How to write a rate.
pub(super) const RATE_HINT: &str =
    "write a number for a unit of time, as in \"5/s\", \"50/min\", \"100/h\" or \"1000/d\"";

/// `"64KiB" "1MiB"` in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].trim() {
        "B" => 1,
        "kB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// How to write a size.
pub(super) const SIZE_HINT: &str = "write bytes, or a number with a unit, as in 65536, \"64KiB\" or \"1MiB\"";

/// What people call things elsewhere.
const ELSEWHERE: &[(&str, &str)] = &[
    ("interval", "every"),
    ("period", "every"),
    ("schedule", "cron"),
    ("slo", "objective"),
    ("sla", "objective"),
    ("body", "text"),
    ("payload", "json"),
    ("data", "json"),
    ("assert", "expect"),
    ("asserts", "expect"),
    ("extract", "capture"),
    ("save", "capture"),
    ("publish", "send"),
    ("consume", "receive"),
    ("await", "receive"),
    ("http", "request"),
    ("sleep", "pause"),
    ("wait", "pause"),
    ("eq", "equals"),
    ("regexp", "regex"),
    ("jsonpath", "json"),
    ("receivers", "notify"),
    ("silent", "muted"),
    ("disabled", "enabled"),
    ("steps", "step"),
    ("journeys", "journey"),
    ("uri", "url"),
];

/// The one of `known` that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase().replace('-', "_");
    let elsewhere = ELSEWHERE.iter().find(|(other, _)| *other == folded).map(|(_, ours)| *ours);
    let length = word.chars().count();
    let allowed = (length / 3).clamp(1, 3);
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        // As many letters must be put in or left out: most words are too long or too short to be looked at.
        if candidate.chars().count().abs_diff(length) <= allowed {
            let distance = distance(&folded, &candidate.to_lowercase().replace('-', "_"));
            if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, candidate));
            }
        }
        if best.is_none() && elsewhere == Some(candidate) {
            best = Some((allowed, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `did you mean …?`, or what there is to choose from.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<_> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(meant) => Some(format!("did you mean `{meant}`?")),
        None if known.is_empty() => None,
        None => {
            let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            Some(format!("known here: {}", names.join(", ")))
        }
    }
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours. No more than the first letters count.
fn distance(a: &str, b: &str) -> usize {
    const LETTERS: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(LETTERS).collect(), b.chars().take(LETTERS).collect());
    // Of the table, three rows: the one that is being made, and the two before it.
    let mut rows = [[0; LETTERS + 1]; 3];
    (0..).zip(&mut rows[0]).for_each(|(j, cell)| *cell = j);
    for i in 1..=a.len() {
        let (row, last, before) = (i % 3, (i - 1) % 3, (i + 1) % 3);
        rows[row][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[last][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[row][j] = replaced.min(rows[last][j] + 1).min(rows[row][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[row][j] = rows[row][j].min(rows[before][j - 2] + 1);
            }
        }
    }
    rows[a.len() % 3][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_rates_and_sizes_are_read() {
        assert_eq!(share("99.9%"), Some(0.999));
        assert_eq!(share("99.5%"), Some(0.995));
        assert_eq!(share("100%"), Some(1.0));
        for text in ["99.9", "%", "101%", "-1%", ".5%", "1e1%", "nan%"] {
            assert_eq!(share(text), None, "{text}");
        }
        assert_eq!(rate("5/s"), Some(5.0));
        assert_eq!(rate("60/min"), Some(1.0));
        assert_eq!(rate("7200 / h"), Some(2.0));
        for text in ["5", "5/", "/s", "x/s", "5/ms", "-5/s", "inf/s"] {
            assert_eq!(rate(text), None, "{text}");
        }
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("1 MiB"), Some(1 << 20));
        for text in ["", "64", "KiB", "1GiB", "99999999999999999999B"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn the_word_that_was_meant_is_found() {
        let known = ["every", "budget", "deadline", "expect", "text"];
        let table = [
            ("evry", Some("every")),
            ("evrey", Some("every")),
            ("Budget", Some("budget")),
            ("dead-line", Some("deadline")),
            ("expected", Some("expect")),
            ("body", Some("text")),
            ("interval", Some("every")),
            ("colour", None),
        ];
        for (word, meant) in table {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(suggestion("zzz", ["a", "b"]).as_deref(), Some("known here: `a`, `b`"));
    }
}
