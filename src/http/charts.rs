//! Charts as inline SVG. Nothing here is text from outside, and nothing is told by colour alone: marks differ in shape or height.
//!
//! What must stay readable at any width has no `viewBox`: places along the time axis are percentages, so text keeps its size.

mod badge;
mod budget;
mod days;
mod latency;
mod timeline;
mod waterfall;

use std::fmt::Write as _;

use jiff::Timestamp;

pub(super) use badge::{Tone, badge};
pub(super) use budget::{budget_bar, left_bar, left_curve};
pub(super) use days::{days, share};
pub(super) use latency::{Quantiles, latency, symbol};
pub(super) use timeline::{Stretch, timeline};
pub(super) use waterfall::{parts_bar, waterfall_bar, waterfall_end};

use crate::slo::Counts;

/// Periods that a strip's title names; the journey's own page names all.
const NAMED: usize = 3;

/// What a cell of the strip shows: the worst that happened in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Failed,
    Slow,
    Unknown,
    Good,
    Excluded,
    Empty,
}

/// Each mark's class and the height of its middle; the stylesheet gives the class its width, dashes and colour.
const MARKS: [(Mark, &str, &str); 6] = [
    (Mark::Good, "g", "16"),
    (Mark::Slow, "s", "13"),
    (Mark::Failed, "f", "10"),
    (Mark::Unknown, "u", "14"),
    (Mark::Excluded, "x", "18"),
    (Mark::Empty, "n", "19"),
];

impl Mark {
    fn of(counts: &Counts) -> Mark {
        match counts {
            Counts { failed: 1.., .. } | Counts { late: 1.., .. } => Mark::Failed,
            Counts { slow: 1.., .. } => Mark::Slow,
            Counts { unknown: 1.., .. } => Mark::Unknown,
            Counts { good: 1.., .. } => Mark::Good,
            Counts { excluded: 1.., .. } => Mark::Excluded,
            _ => Mark::Empty,
        }
    }
}

/// Counts in words: `28 good, 2 failed`.
fn words(counts: &Counts) -> String {
    let named = [
        (counts.good, "good"),
        (counts.slow, "slow"),
        (counts.failed, "failed"),
        (counts.late, "late"),
        (counts.unknown, "unknown"),
        (counts.excluded, "excluded"),
    ];
    let told: Vec<_> =
        named.into_iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    if told.is_empty() { "no runs".to_owned() } else { told.join(", ") }
}

/// Neighbouring cells of one mark: their range, mark and sum.
fn stretches(cells: &[Counts]) -> Vec<(usize, usize, Mark, Counts)> {
    let mut out: Vec<(usize, usize, Mark, Counts)> = Vec::new();
    for (at, counts) in cells.iter().enumerate() {
        match out.last_mut().filter(|(.., mark, _)| *mark == Mark::of(counts)) {
            Some((_, end, _, sum)) => {
                *end = at + 1;
                *sum += *counts;
            }
            None => out.push((at, at + 1, Mark::of(counts), *counts)),
        }
    }
    out
}

/// The last 24 hours. `from` is the beginning of the first cell. With `every_title` each stretch has a title of its own; without,
/// one names the worst, and a thousand strips stay small: one path a mark, whatever the number of stretches.
pub(super) fn strip(cells: &[Counts], from: impl Fn(usize) -> Timestamp, every_title: bool) -> String {
    let stretches = stretches(cells);
    let clock = |cell: usize| from(cell).strftime("%H:%M").to_string();
    let told = |(start, end, _, counts): &(usize, usize, Mark, Counts)| {
        format!("{}–{} {}", clock(*start), clock(*end), words(counts))
    };
    let mut sum = Counts::default();
    cells.iter().for_each(|cell| sum += *cell);
    let is_bad = |(.., mark, _): &&(usize, usize, Mark, Counts)| matches!(mark, Mark::Failed | Mark::Slow);
    let bad: Vec<_> = stretches.iter().rev().filter(is_bad).take(NAMED).map(told).collect();
    let mut title = format!("24 h: {}", words(&sum));
    if !bad.is_empty() {
        let _ = write!(title, ". Latest: {}", bad.join("; "));
    }
    let mut out = format!(
        "<svg class=strip viewBox=\"0 0 {} 20\" preserveAspectRatio=none role=img><title>{title}</title>",
        cells.len().max(1)
    );
    for (mark, class, middle) in MARKS {
        let of_mark = stretches.iter().filter(|(.., other, _)| *other == mark);
        if every_title {
            for stretch in of_mark {
                let (start, length) = (stretch.0, stretch.1 - stretch.0);
                let title = told(stretch);
                let _ =
                    write!(out, "<path class={class} d=\"M{start} {middle}h{length}\"><title>{title}</title></path>");
            }
        } else {
            let (mut d, mut pen) = (String::new(), 0);
            for (start, end, ..) in of_mark {
                let _ = match d.is_empty() {
                    true => write!(d, "M{start} {middle}h{}", end - start),
                    false => write!(d, "m{} 0h{}", start - pen, end - start),
                };
                pen = *end;
            }
            if !d.is_empty() {
                let _ = write!(out, "<path class={class} d=\"{d}\"/>");
            }
        }
    }
    out + "</svg>"
}

/// One mark of the strip, for a legend.
pub(super) fn sample(verdict: &str) -> String {
    let mut counts = Counts::default();
    match verdict {
        "good" => counts.good = 1,
        "slow" => counts.slow = 1,
        "failed" => counts.failed = 1,
        "unknown" => counts.unknown = 1,
        "excluded" => counts.excluded = 1,
        _ => {}
    }
    let (_, class, middle) = MARKS.into_iter().find(|(mark, ..)| *mark == Mark::of(&counts)).unwrap_or(MARKS[5]);
    format!(
        "<svg class=sample viewBox=\"0 0 3 20\" preserveAspectRatio=none aria-hidden=true><path class={class} d=\"M0 {middle}h3\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn counts(good: u64, failed: u64) -> Counts {
        Counts { good, failed, ..Counts::default() }
    }

    #[test]
    fn a_strip_names_what_was_bad_and_a_quiet_day_is_one_path() {
        let quiet = strip(&[counts(30, 0); 48], |cell| at(cell as i64 * 1_800), false);
        assert_eq!(quiet.matches("<path").count(), 1);
        assert!(quiet.contains("24 h: 1440 good<") && quiet.contains("M0 16h48\""), "{quiet}");
        let mut cells = [counts(30, 0); 48];
        cells[3] = counts(28, 2);
        let told = strip(&cells, |cell| at(cell as i64 * 1_800), false);
        assert!(told.contains("2 failed. Latest: ") && told.contains("28 good, 2 failed</title>"), "{told}");
        assert!(told.contains("class=f d=\"M3 10h1\""), "{told}");
    }

    #[test]
    fn the_worst_strip_is_still_small() {
        let cells: Vec<_> = (0..48)
            .map(|cell| [counts(1, 0), counts(0, 1), Counts { slow: 1, ..Counts::default() }][cell % 3])
            .collect();
        let strip = strip(&cells, |cell| at(cell as i64 * 1_800), false);
        assert!(strip.len() < 700, "{}", strip.len());
        assert!(strip.contains("class=f d=\"M1 10h1m2 0h1m2 0h1"), "{strip}");
    }

    #[test]
    fn every_mark_of_the_strip_differs_in_height_or_pattern() {
        let shapes: Vec<_> = MARKS.iter().map(|(_, _, middle)| middle).collect();
        let distinct: std::collections::BTreeSet<_> = shapes.iter().collect();
        assert_eq!(distinct.len(), shapes.len());
    }
}
