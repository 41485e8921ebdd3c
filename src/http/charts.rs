//! Charts as inline SVG. Nothing here is text from outside, and nothing is told by colour alone: marks differ in shape or height.
//!
//! What must stay readable at any width has no `viewBox`: places along the time axis are percentages, so text keeps its size.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use crate::journey::outcome::Verdict;
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::slo::Counts;
use crate::store::RunRow;
use crate::time::{Human, between};

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

/// A latency on its budget: the budget's mark stands at two thirds, the bar ends at one and a half budgets.
pub(super) fn budget_bar(latency: Duration, budget: Duration) -> String {
    let share = latency.as_secs_f64() / budget.as_secs_f64().max(1e-6);
    let class = if share > 1.0 { "bar over" } else { "bar" };
    let end = (share * 40.0).clamp(1.0, 60.0).round();
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 60 6\" aria-hidden=true><path d=\"M0 3H{end}\"/><path class=t d=\"M40 0V6\"/></svg>"
    )
}

/// What is left of an error budget, or how far it is overspent: an empty bar with an outline.
pub(super) fn left_bar(left_share: f64) -> String {
    let end = (left_share * 100.0).clamp(0.0, 100.0).round();
    format!(
        "<svg class=left viewBox=\"0 0 100 6\" preserveAspectRatio=none aria-hidden=true><path class=b d=\"M0 3H100\"/><path d=\"M0 3H{end}\"/></svg>"
    )
}

/// Height of the latency chart in pixels, of the room above its plot for labels, and of the axis below it.
const CHART: (f64, f64, f64) = (220.0, 18.0, 32.0);

/// From a latency to a height of the chart.
struct Scale {
    top: f64,
    bottom: f64,
    is_log: bool,
}

impl Scale {
    /// Linear from zero, or logarithmic where linear would press the usual run onto the axis.
    fn new(latencies: &[f64], budget: Option<Duration>) -> Scale {
        let most = latencies.iter().copied().fold(0.0, f64::max);
        let least = latencies.iter().copied().fold(f64::INFINITY, f64::min).min(most).max(1e-5);
        let top = (most * 1.15).max(budget.map_or(0.0, |budget| budget.as_secs_f64() * 1.25)).max(1e-4);
        if top / least > 30.0 {
            Scale { top: top * 1.5, bottom: least / 2.0, is_log: true }
        } else {
            Scale { top, bottom: 0.0, is_log: false }
        }
    }

    fn y(&self, latency: f64) -> f64 {
        let (height, above, below) = CHART;
        let share = if self.is_log {
            (latency.max(self.bottom) / self.bottom).ln() / (self.top / self.bottom).ln()
        } else {
            latency / self.top
        };
        height - below - share.clamp(0.0, 1.0) * (height - above - below)
    }

    /// Round latencies to draw lines at: 1, 2 and 5 times powers of ten, few enough to be told apart.
    fn ticks(&self) -> Vec<f64> {
        let steps = (-5..5).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        if self.is_log {
            let inside: Vec<_> = steps.filter(|step| (self.bottom..self.top).contains(step)).collect();
            let decades = |step: &f64| (step.log10() - step.log10().round()).abs() < 1e-9;
            let whole: Vec<_> = inside.iter().copied().filter(decades).collect();
            return if whole.len() >= 2 { whole } else { inside };
        }
        let step = steps.into_iter().find(|step| self.top / step <= 5.0).unwrap_or(self.top);
        (1..=5).map(|n| f64::from(n) * step).filter(|tick| *tick < self.top).collect()
    }
}

/// The latencies of `runs` (newest first) over time, with budget and deadline. Runs without a latency are marked on the axis.
pub(super) fn latency(runs: &[RunRow], budget: Option<Duration>, deadline: Duration) -> String {
    let (height, above, below) = CHART;
    let (Some(last), Some(first)) = (runs.first(), runs.last()) else { return String::new() };
    let reach = between(first.slot, last.slot).as_secs_f64().max(1.0);
    let is_timed = |run: &&RunRow| matches!(run.verdict, Verdict::Good | Verdict::Slow);
    let latencies: Vec<_> = runs.iter().filter(is_timed).map(|run| run.latency.as_secs_f64()).collect();
    let scale = Scale::new(&latencies, budget);
    let axis = height - below;
    let mut out = format!(
        "<svg class=chart width=\"100%\" height=\"{height}\" role=img><title>Latency of {} runs{}</title>{SYMBOLS}",
        runs.len(),
        if scale.is_log { ", logarithmic scale" } else { "" }
    );
    for tick in scale.ticks() {
        let (y, text) = (scale.y(tick), Human(Duration::from_secs_f64(tick)));
        let _ = write!(out, "<path class=grid d=\"M0 {y:.1}H9999\"/><text x=\"2\" y=\"{:.1}\">{text}</text>", y - 3.0);
    }
    let _ = write!(out, "<path class=axis d=\"M0 {axis}H9999\"/>");
    for (class, name, limit) in [("budget", "budget", budget), ("deadline", "deadline", Some(deadline))]
        .into_iter()
        .filter_map(|(c, n, l)| Some((c, n, l?)))
    {
        let (seconds, text) = (limit.as_secs_f64(), Human(limit));
        let is_inside = seconds <= scale.top;
        let y = if is_inside { scale.y(seconds) } else { above };
        if is_inside {
            let _ = write!(out, "<path class={class} d=\"M0 {y:.1}H9999\"/>");
        }
        let arrow = if is_inside { "" } else { " ↑" };
        let y = if is_inside { y - 4.0 } else { y - 6.0 };
        let _ =
            write!(out, "<text class=\"{class} end\" x=\"100%\" dx=\"-2\" y=\"{y:.1}\">{name} {text}{arrow}</text>");
    }
    for run in runs.iter().rev() {
        let x = 1.5 + between(first.slot, run.slot).as_secs_f64() / reach * 97.0;
        let (symbol, y) = match run.verdict {
            Verdict::Good => ("good", scale.y(run.latency.as_secs_f64())),
            Verdict::Slow => ("slow", scale.y(run.latency.as_secs_f64())),
            Verdict::Failed | Verdict::Late => ("failed", axis),
            Verdict::Unknown => ("unknown", axis),
            Verdict::Excluded => ("excluded", axis),
        };
        let why = if run.why.is_empty() { String::new() } else { format!(" ({})", run.why) };
        let took = if is_timed(&run) { format!(" in {}", Human(run.latency)) } else { String::new() };
        let at = run.slot.strftime("%m-%d %H:%M:%S");
        let _ = write!(
            out,
            "<use href=\"#m-{symbol}\" x=\"{x:.2}%\" y=\"{y:.1}\"><title>{at} {}{why}{took}</title></use>",
            run.verdict
        );
    }
    let format = if reach > 172_800.0 { "%m-%d" } else { "%H:%M" };
    for (class, x, slot) in [("start", "0", first.slot), ("end", "100%", last.slot)] {
        let _ = write!(out, "<text class={class} x=\"{x}\" y=\"{}\">{}</text>", height - 6.0, slot.strftime(format));
    }
    if runs.len() > 2 && reach > 1.0 {
        let middle = crate::time::later(first.slot, Duration::from_secs_f64(reach / 2.0));
        let _ = write!(out, "<text class=middle x=\"50%\" y=\"{}\">{}</text>", height - 6.0, middle.strftime(format));
    }
    out + "</svg>"
}

/// The chart's marks, each of its own shape.
const SYMBOLS: &str = "<defs><circle id=m-good r=2.5 /><path id=m-slow d=\"M0-4.5 4.2 3H-4.2z\"/>\
    <path id=m-failed d=\"M-4-4 4 4M4-4-4 4\"/><rect id=m-unknown x=-3 y=-3 width=6 height=6 />\
    <path id=m-excluded d=\"M0 0V6\"/></defs>";

/// One of the chart's marks, for a legend.
pub(super) fn symbol(name: &str) -> String {
    format!("<svg class=\"chart key\" width=14 height=14 aria-hidden=true><use href=\"#m-{name}\" x=7 y=7 /></svg>")
}

/// When the last step of either run ended: the end of the waterfall's axis.
pub(super) fn waterfall_end(report: &Report, reference: Option<&Report>) -> Duration {
    let end = |report: &Report| report.steps.iter().map(|step| step.at + step.took).max().unwrap_or_default();
    end(report).max(reference.map(end).unwrap_or_default()).max(Duration::from_micros(1))
}

/// A step's line of the waterfall: its bar, its phases in it, and below it the same step of the last good run.
pub(super) fn waterfall_bar(step: &StepReport, before: Option<&StepReport>, end: Duration) -> String {
    let percent = |time: Duration| (time.as_secs_f64() / end.as_secs_f64() * 100.0).clamp(0.0, 100.0);
    let rect = |class: &str, at: Duration, took: Duration, (y, height): (u8, u8)| {
        // Never invisible, and never beyond the end.
        let width = percent(took).max(0.4);
        let x = percent(at).min(100.0 - width);
        format!("<rect class=\"{class}\" x=\"{x:.2}%\" y={y} width=\"{width:.2}%\" height={height} />")
    };
    let mut out = "<svg class=wf width=\"100%\" height=22 aria-hidden=true>".to_owned();
    if step.status != StepStatus::Skipped {
        out += &rect(step.status.as_str(), step.at, step.took, (3, 9));
        let mut at = step.at;
        for (place, phase) in step.phases.iter().enumerate() {
            if place % 2 == 1 {
                out += &rect("phase", at, phase.took, (3, 9));
            }
            at += phase.took;
        }
    }
    if let Some(before) = before.filter(|before| before.status != StepStatus::Skipped) {
        out += &rect("before", before.at, before.took, (14, 5));
    }
    out + "</svg>"
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

    #[test]
    fn a_wide_range_is_logarithmic_and_heights_stay_inside() {
        let narrow = Scale::new(&[0.2, 0.4], Some(Duration::from_secs(1)));
        let wide = Scale::new(&[0.01, 5.0], Some(Duration::from_secs(1)));
        assert!(!narrow.is_log && wide.is_log);
        for scale in [narrow, wide] {
            for latency in [0.0, 0.01, 0.4, 5.0, 1e9] {
                assert!((CHART.1..=CHART.0 - CHART.2).contains(&scale.y(latency)), "{latency}");
            }
            assert!((1..=6).contains(&scale.ticks().len()), "{:?}", scale.ticks());
        }
    }

    #[test]
    fn runs_without_a_latency_stand_on_the_axis() {
        let run = |second, verdict, why: &str| RunRow {
            token: None,
            slot: at(second),
            verdict,
            why: why.to_owned(),
            latency: Duration::from_secs(60),
            late_by: None,
        };
        let runs =
            [run(120, Verdict::Failed, "not_received"), run(60, Verdict::Unknown, "missed"), run(0, Verdict::Good, "")];
        let chart = latency(&runs, Some(Duration::from_secs(1)), Duration::from_secs(60));
        assert!(chart.contains("#m-failed\" x=\"98.50%\" y=\"188.0\""), "{chart}");
        assert!(chart.contains("failed (not_received)</title>"), "no latency is claimed: {chart}");
        assert!(chart.contains("#m-good\" x=\"1.50%\""), "{chart}");
        assert_eq!(latency(&[], None, Duration::ZERO), "");
    }

    #[test]
    fn a_bar_is_never_invisible_nor_beyond_the_end() {
        let step = StepReport { at: Duration::from_secs(10), ..StepReport::new("s", "send", StepStatus::Failed) };
        let bar = waterfall_bar(&step, None, Duration::from_secs(10));
        assert!(bar.contains("class=\"failed\" x=\"99.60%\" y=3 width=\"0.40%\""), "{bar}");
    }
}
