//! Objectives for people: `journeyman slo`, and the same as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::slo::{BURN_NAMES, Budget, Composition, JourneySlo, Reading, Sli, SloView, Standing};
use crate::time::{Human, between};

/// For programs: what the API says of one journey.
pub(super) fn json(all: &[JourneySlo], now: Timestamp) -> String {
    let one = |one: &JourneySlo| {
        json!({
            "journey": one.journey.name,
            "slo": SloView::exact(&one.status),
            "depends_on": one.journey.depends_on,
            "composition": one.composition,
        })
    };
    let document = json!({ "at": now, "journeys": all.iter().map(one).collect::<Vec<_>>() });
    format!("{document:#}\n")
}

/// For people: a block for each journey.
pub(super) fn text(all: &[JourneySlo], now: Timestamp) -> String {
    let blocks: Vec<_> = all.iter().map(|one| block(one, now)).collect();
    blocks.join("\n")
}

fn block(one: &JourneySlo, now: Timestamp) -> String {
    let (status, counts) = (&one.status, one.status.counts);
    let mut out = String::new();
    let (from, until) = status.bounds;
    line(&mut out, format_args!("{}, over {}", one.journey.name, status.window_name));
    row(&mut out, "window", format_args!("{} to {}", moment(from), moment(until)));
    row(
        &mut out,
        "runs",
        format_args!(
            "{} good, {} slow, {} failed, {} late, {} unknown, {} excluded",
            counts.good, counts.slow, counts.failed, counts.late, counts.unknown, counts.excluded
        ),
    );
    let few = if status.is_sufficient() { "" } else { ": too little to judge, 90 % are needed" };
    row(&mut out, "coverage", format_args!("{} of the slots have a verdict{few}", percent(status.coverage)));
    for (sli, budget) in status.budgets() {
        let without = status.without_corrections.as_deref();
        let without = without.and_then(|score| match sli {
            Sli::Delivered => Some(&score.delivered),
            Sli::InBudget => score.in_budget.as_ref(),
        });
        objective(&mut out, sli, budget, without, now);
    }
    if let Some(composition) = &one.composition {
        depends(&mut out, composition);
    }
    out
}

fn objective(out: &mut String, sli: Sli, budget: &Budget, without: Option<&Budget>, now: Timestamp) {
    let achieved = budget.achieved.map_or("no runs yet".to_owned(), percent);
    let standing = match budget.standing {
        Standing::Met => "met",
        Standing::Missed => "missed",
        Standing::NotEnoughRuns => "not enough runs to say",
        Standing::Insufficient => "not enough coverage to say",
    };
    let name = match sli {
        Sli::Delivered => "delivered",
        Sli::InBudget => "in budget",
    };
    line(out, format_args!("  {name}: {achieved} of {}, {standing}", percent(budget.objective)));
    if let (Some(wilson), Some(exact), Some(bounds)) = (budget.interval, budget.exact_interval(), budget.bounds) {
        row(out, "95 % interval", format_args!("{}, exact {}", range(wilson), range(exact)));
        row(out, "bounds", format_args!("{} as the unknown slots were bad or good", range(bounds)));
    }
    if let Some(without) = without {
        let achieved = without.achieved.map_or("no runs".to_owned(), percent);
        let left = format!("{:.1} of {:.1} bad runs left", without.left(), without.total);
        row(out, "uncorrected", format_args!("{achieved} with maintenance as it was, {left}"));
    }
    let left = if budget.left() < 0.0 { "overspent: " } else { "" };
    row(
        out,
        "budget left",
        format_args!(
            "{left}{:.1} of {:.1} bad runs ({:.0} %), {} of {}",
            budget.left(),
            budget.total,
            budget.left_share() * 100.0,
            Human(budget.left_time()),
            Human(budget.total_time)
        ),
    );
    let names = std::iter::once("window").chain(BURN_NAMES);
    let burns: Vec<_> = names.zip(budget.burn).map(|(name, burn)| format!("{name} {}", rate(burn))).collect();
    row(out, "burn", format_args!("{}", burns.join(", ")));
    let refund = budget.next_refund.map_or("nothing is spent".to_owned(), |at| ahead(at, now));
    row(out, "next refund", format_args!("{refund}"));
    let exhausted = match budget.exhausted_at {
        _ if budget.left() <= 0.0 && budget.spent > 0 => "it is".to_owned(),
        Some(at) => format!("{} at the rate of the last three days", ahead(at, now)),
        None => "not in sight at the rate of the last three days".to_owned(),
    };
    row(out, "used up", format_args!("{exhausted}"));
}

fn depends(out: &mut String, composition: &Composition) {
    let hops: Vec<_> = composition
        .hops
        .iter()
        .map(|hop| {
            let share = hop.share.map_or("no runs yet".to_owned(), percent);
            format!("{} {share} ({})", hop.name, if hop.is_measured { "measured" } else { "promised" })
        })
        .collect();
    line(out, format_args!("  depends on: {}", hops.join(", ")));
    let (Some(product), Some(within)) = (composition.product, composition.range) else { return };
    let reading = match composition.reading {
        Reading::Agrees => "what is measured agrees with it",
        Reading::Gap => "less arrives: something between them fails, too",
        Reading::Coincide => "more arrives: their failures coincide, or they do better than promised",
        Reading::Unknown => "the journey has no verdict yet",
    };
    row(out, "their product", format_args!("{}, {reading}", percent(product)));
    row(out, "possible", format_args!("{} whatever their failures have to do with each other", range(within)));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

fn row(out: &mut String, name: &str, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "    {name:<14}{text}");
}

/// With as many decimals as it takes to tell the nines apart.
fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn range((low, high): (f64, f64)) -> String {
    format!("{:.3} to {:.3} %", low * 100.0, high * 100.0)
}

fn rate(burn: f64) -> String {
    if burn < f64::MAX { format!("{burn:.1}×") } else { "∞".to_owned() }
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn ahead(at: Timestamp, now: Timestamp) -> String {
    match between(now, at) {
        Duration::ZERO => moment(at),
        wait => format!("{} (in {})", moment(at), Human(wait)),
    }
}
