//! The charts of an experiment's page: SVG without script, a second a step.

use std::fmt::Write as _;
use std::time::Duration;

use crate::experiment::report::{Part, Report, Second};
use crate::time::Human;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 18.0;
/// As wide as a letter of a phase's name is at most, nearly always.
const LETTER: f64 = 7.0;

/// Messages a second: sent, arrived, late, lost.
pub(super) fn messages(report: &Report) -> String {
    let line = |class, name, of: fn(&Second) -> u32| Line {
        class,
        name,
        values: report.seconds.iter().map(|second| Some(f64::from(of(second)))).collect(),
    };
    let mut lines = vec![
        line("sent", "sent", |second| second.sent),
        line("arrived", "arrived", |second| second.arrived),
        line("late", "of these late", |second| second.late),
        line("lost", "lost, by when they were sent", |second| second.lost),
        line("refused", "refused, by when they were sent", |second| second.refused),
    ];
    let is_seen = |line: &Line<'_>| line.values.iter().any(|value| *value > Some(0.0));
    lines.retain(|line| matches!(line.class, "sent" | "arrived") || is_seen(line));
    chart("Messages a second", report, &lines, |value| format!("{value:.0}"))
}

/// Latencies of what was sent in each second.
pub(super) fn latency(report: &Report) -> String {
    let of = |pick: fn(&crate::experiment::account::Quantiles) -> Duration| {
        report.seconds.iter().map(move |second| second.latency.as_ref().map(|latency| pick(latency).as_secs_f64()))
    };
    let lines = [
        Line { class: "p50", name: "p50", values: of(|latency| latency.p50).collect() },
        Line { class: "p99", name: "p99", values: of(|latency| latency.p99).collect() },
        Line { class: "max", name: "max", values: of(|latency| latency.max).collect() },
    ];
    chart("Latency of what was sent in each second", report, &lines, |value| {
        Human(Duration::try_from_secs_f64(value).unwrap_or_default()).to_string()
    })
}

/// Up to the last second in which something happened, and two more: a long drain for what is lost is an empty chart.
fn shown_seconds(report: &Report) -> usize {
    let is_busy = |second: &Second| second.sent > 0 || second.arrived > 0;
    let last = report.seconds.iter().rposition(is_busy).unwrap_or(0);
    (last + 3).min(report.seconds.len()).max(1)
}

struct Line<'a> {
    class: &'a str,
    name: &'a str,
    /// A value a second; `None` where there is none.
    values: Vec<Option<f64>>,
}

fn chart(title: &str, report: &Report, lines: &[Line<'_>], shown: impl Fn(f64) -> String) -> String {
    let most = lines.iter().flat_map(|line| &line.values).flatten().copied().fold(0.0, f64::max);
    let top = round_up(most);
    let count = shown_seconds(report) as f64;
    let x = |second: f64| LEFT + second / count * (WIDTH - LEFT - 4.0);
    let y = |value: f64| TOP + (1.0 - value / top) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    );
    for (at, part) in report.phases.iter().enumerate() {
        svg += &band(at, part, count, &x);
    }
    for share in [0.0, 0.5, 1.0] {
        let (value, height) = (top * share, y(top * share));
        let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {height:.1}H{WIDTH}\"/>");
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" class=\"end\">{}</text>",
            LEFT - 5.0,
            height + 4.0,
            shown(value)
        );
    }
    let step = (count / 8.0).ceil().max(1.0);
    let mut second = 0.0;
    while second < count {
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{:.0}\">{second:.0}s</text>", x(second), HEIGHT - 6.0);
        second += step;
    }
    for line in lines {
        let _ = write!(
            svg,
            "<path class=\"line {}\" d=\"{}\"><title>{}</title></path>",
            line.class,
            path(line, count as usize, &x, &y),
            line.name
        );
    }
    svg += "</svg><p class=\"legend\">";
    for line in lines {
        let _ = write!(svg, "<span class=\"{}\">{}</span> ", line.class, line.name);
    }
    svg + "</p></figure>"
}

/// A phase, as a band behind the lines; every second one is shaded.
fn band(at: usize, part: &Part, count: f64, x: &impl Fn(f64) -> f64) -> String {
    let (from, to) = (x(part.from.as_secs_f64().min(count)), x(part.to.as_secs_f64().min(count)));
    let (wide, tall) = ((to - from).max(0.0), HEIGHT - TOP - BOTTOM);
    let class = if at.is_multiple_of(2) { "band" } else { "band odd" };
    // A name that does not fit is in the table, and under the pointer.
    let fits = part.name.chars().count() as f64 * LETTER < wide;
    let (name, label) = (super::html::escape(&part.name), if fits { &*part.name } else { "" });
    let label = super::html::escape(label);
    format!(
        "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" height=\"{tall:.0}\"><title>{name}</title></rect>\
         <text class=\"phase\" x=\"{:.1}\" y=\"{:.0}\">{label}</text>",
        from + 3.0,
        TOP - 5.0
    )
}

/// A step a second; where there is nothing, the line is broken.
fn path(line: &Line<'_>, count: usize, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut is_down = false;
    for (second, value) in line.values.iter().take(count).enumerate() {
        let Some(value) = value else {
            is_down = false;
            continue;
        };
        let (from, to, height) = (x(second as f64), x(second as f64 + 1.0), y(*value));
        let _ = match is_down {
            true => write!(path, "V{height:.1}H{to:.1}"),
            false => write!(path, "M{from:.1} {height:.1}H{to:.1}"),
        };
        is_down = true;
    }
    path
}

/// The next number of one figure, or of one and a half.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let scale = 10f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * scale)
        .find(|top| *top >= value)
        .unwrap_or(value)
}
