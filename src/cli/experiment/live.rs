//! An experiment, drawn while it goes: a few lines, once a second.

use std::fmt::Write as _;
use std::time::Duration;

use crate::experiment::account::{Lately, Tally};
use crate::text::visible_line;
use crate::time::Human;

const BAR: usize = 40;
/// A line that is too long for the terminal must not become two: we count on how many there are. (DECAWM)
const NO_WRAP: &str = "\u{1b}[?7l";
const WRAP: &str = "\u{1b}[?7h";

/// How it stands.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Which part of it goes on.
    pub stage: &'a str,
    /// How long it has gone on.
    pub since: Duration,
    /// How long that part has.
    pub in_stage: Duration,
    /// The count.
    pub tally: &'a Tally,
    /// The last ten seconds.
    pub lately: &'a Lately,
}

/// One picture, over the one before, which had so many lines; and how many this one has.
pub fn draw(sight: &Sight<'_>, lines: usize) -> (String, usize) {
    let frame = frame(sight);
    let count = frame.lines().count();
    (format!("{}{NO_WRAP}{frame}{WRAP}", wipe(lines)), count)
}

/// To the beginning of what was drawn, and nothing below it any more.
pub fn wipe(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\u{1b}[{lines}A\u{1b}[J") }
}

/// In one line, where nobody draws.
pub fn line(sight: &Sight<'_>) -> String {
    let tally = sight.tally;
    let (since, stage) = (sight.since.as_secs_f64(), visible_line(sight.stage));
    let (sent, here, waiting) = (tally.sent(), tally.delivered(), tally.waiting);
    format!("{since:7.1}s  {stage}: {sent} sent, {here} here, {waiting} on their way, {} overdue", tally.overdue)
}

fn frame(sight: &Sight<'_>) -> String {
    let Sight { stage, since, in_stage, tally, lately } = sight;
    let mut text = String::new();
    let _ = writeln!(text, "{}  {} (all {})", visible_line(stage), Human(whole(*in_stage)), Human(whole(*since)));
    let (sent, here) = (tally.sent(), tally.delivered());
    let _ = writeln!(text, "  {} {here} of {sent} here, {} on their way", bar(here, sent), tally.waiting);
    let counts = [
        ("overdue", tally.overdue),
        ("late", tally.late),
        ("refused", tally.refused),
        ("uncertain", tally.uncertain),
        ("wrong", tally.wrong),
        ("twice", tally.duplicate),
        ("out of order", tally.reordered),
        ("late sends", tally.late_sends),
        ("not sent", tally.unsent),
    ];
    let counts: Vec<_> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    let _ = writeln!(text, "  {}", if counts.is_empty() { "nothing amiss".to_owned() } else { counts.join(", ") });
    match lately.latency {
        Some(of) => {
            let _ = writeln!(text, "  last 10 s: p50 {}, p99 {}, max {}", Human(of.p50), Human(of.p99), Human(of.max));
        }
        None => text += "  last 10 s: nothing arrived\n",
    }
    text
}

fn bar(part: u64, whole: u64) -> String {
    let cells = (part as f64 / whole.max(1) as f64 * BAR as f64) as usize;
    let cells = cells.min(BAR);
    format!("▕{}{}▏", "█".repeat(cells), " ".repeat(BAR - cells))
}

fn whole(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_takes_the_place_of_the_one_before_and_holds_nothing_that_commands_a_terminal() {
        let tally = Tally { due: 100, on_time: 50, waiting: 50, overdue: 3, ..Tally::default() };
        let second = Duration::from_secs(1);
        let lately = Lately::default();
        let stage = "cut\u{1b}[2J";
        let sight = Sight { stage, since: second * 70, in_stage: second * 5, tally: &tally, lately: &lately };
        let (first, lines) = draw(&sight, 0);
        assert_eq!(lines, 4, "{first:?}");
        assert!(first.contains("50 of 100 here, 50 on their way") && first.contains("3 overdue"), "{first}");
        assert!(!first.contains("\u{1b}[2J") && first.contains("cut⟨U+001B⟩[2J  5s (all 1m10s)"), "{first:?}");
        assert_eq!(first.matches('█').count(), BAR / 2);
        assert!(draw(&sight, lines).0.starts_with("\u{1b}[4A\u{1b}[J"));
        assert_eq!(line(&sight).trim_start(), "70.0s  cut⟨U+001B⟩[2J: 100 sent, 50 here, 50 on their way, 3 overdue");
    }
}
