//! Latencies over time, against budget and deadline.

use std::fmt::Write as _;
use std::time::Duration;

use crate::journey::outcome::Verdict;
use crate::store::RunRow;
use crate::time::{Human, between};

/// Height of the chart in pixels, of the room above its plot for labels, and of the axis below it.
const CHART: (f64, f64, f64) = (220.0, 18.0, 32.0);

/// Half of the delivered runs were as fast as the first, 95 of a hundred as fast as the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct Quantiles {
    pub(in crate::http) p50: Duration,
    pub(in crate::http) p95: Duration,
}

impl Quantiles {
    /// Of the delivered ones among `runs`; `None` if there is none. By nearest rank: each is a latency that was measured.
    pub(in crate::http) fn of(runs: &[RunRow]) -> Option<Quantiles> {
        let mut latencies: Vec<_> = runs.iter().filter(is_timed).map(|run| run.latency).collect();
        latencies.sort_unstable();
        let rank = |percent: usize| (latencies.len() * percent).div_ceil(100).saturating_sub(1);
        Some(Quantiles { p50: *latencies.get(rank(50))?, p95: *latencies.get(rank(95))? })
    }
}

/// Whether the run has a latency, and not only the time after which it was given up.
fn is_timed(run: &&RunRow) -> bool {
    matches!(run.verdict, Verdict::Good | Verdict::Slow)
}

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

/// The latencies of `runs` (newest first) over time, with their quantiles, budget and deadline. Runs without a latency are marked on
/// the axis.
pub(in crate::http) fn latency(runs: &[RunRow], budget: Option<Duration>, deadline: Duration) -> String {
    let (height, above, below) = CHART;
    let (Some(last), Some(first)) = (runs.first(), runs.last()) else { return String::new() };
    let reach = between(first.slot, last.slot).as_secs_f64().max(1.0);
    let latencies: Vec<_> = runs.iter().filter(is_timed).map(|run| run.latency.as_secs_f64()).collect();
    let scale = Scale::new(&latencies, budget);
    let axis = height - below;
    let mut out = format!(
        "<svg class=chart width=\"100%\" height={height} role=img><title>Latency of {} runs{}</title>{SYMBOLS}",
        runs.len(),
        if scale.is_log { ", logarithmic scale" } else { "" }
    );
    for tick in scale.ticks() {
        let (y, text) = (scale.y(tick), Human(Duration::from_secs_f64(tick)));
        let _ = write!(out, "<path class=grid d=\"M0 {y:.1}H9999\"/><text x=2 y={:.1}>{text}</text>", y - 3.0);
    }
    let _ = write!(out, "<path class=axis d=\"M0 {axis}H9999\"/>");
    if let Some(Quantiles { p50, p95 }) = Quantiles::of(runs) {
        for (class, quantile) in [("p50", p50), ("p95", p95)] {
            let _ = write!(out, "<path class={class} d=\"M0 {:.1}H9999\"/>", scale.y(quantile.as_secs_f64()));
        }
    }
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
        let verdict = run.verdict;
        // Without quotes: there are hundreds of them.
        let _ = write!(out, "<use href=#m-{symbol} x={x:.1}% y={y:.0}><title>{at} {verdict}{why}{took}</title></use>");
    }
    let format = match reach {
        _ if reach > 172_800.0 => "%m-%d",
        _ if reach > 600.0 => "%H:%M",
        _ => "%H:%M:%S",
    };
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
pub(in crate::http) fn symbol(name: &str) -> String {
    match name {
        "p50" | "p95" => format!(
            "<svg class=\"chart key\" width=22 height=14 aria-hidden=true><path class={name} d=\"M0 7H22\"/></svg>"
        ),
        _ => {
            format!(
                "<svg class=\"chart key\" width=14 height=14 aria-hidden=true><use href=\"#m-{name}\" x=7 y=7 /></svg>"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn run(second: i64, verdict: Verdict, why: &str, latency: Duration) -> RunRow {
        let slot = Timestamp::from_second(1_790_000_000 + second).unwrap();
        RunRow { token: None, slot, verdict, why: why.to_owned(), latency, late_by: None }
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
        let minute = Duration::from_secs(60);
        let runs = [
            run(120, Verdict::Failed, "not_received", minute),
            run(60, Verdict::Unknown, "missed", minute),
            run(0, Verdict::Good, "", minute),
        ];
        let chart = latency(&runs, Some(Duration::from_secs(1)), minute);
        assert!(chart.contains("#m-failed x=98.5% y=188>"), "{chart}");
        assert!(chart.contains("failed (not_received)</title>"), "no latency is claimed: {chart}");
        assert!(chart.contains("#m-good x=1.5%"), "{chart}");
        assert_eq!(latency(&[], None, Duration::ZERO), "");
    }

    #[test]
    fn quantiles_are_of_delivered_runs_and_were_measured() {
        let millis = |millis| Duration::from_millis(millis);
        let mut runs: Vec<_> = (1..=100).map(|at| run(at, Verdict::Good, "", millis(at as u64))).collect();
        assert_eq!(Quantiles::of(&runs), Some(Quantiles { p50: millis(50), p95: millis(95) }));
        runs.truncate(1);
        runs.push(run(200, Verdict::Failed, "not_received", millis(60_000)));
        assert_eq!(
            Quantiles::of(&runs),
            Some(Quantiles { p50: millis(1), p95: millis(1) }),
            "a deadline is no latency"
        );
        assert_eq!(Quantiles::of(&runs[1..]), None);
    }

    #[test]
    fn the_worst_chart_is_still_small() {
        let worst = |at: i64| run(at * 61, Verdict::Slow, "", Duration::from_micros(12_345_678));
        let failed = |at: i64| run(at * 61, Verdict::Failed, "not_received", Duration::from_secs(60));
        for runs in [(0..200).rev().map(worst).collect::<Vec<_>>(), (0..200).rev().map(failed).collect()] {
            let chart = latency(&runs, Some(Duration::from_secs(5)), Duration::from_secs(60));
            assert!(chart.len() < 20_000, "{}", chart.len());
        }
    }
}
