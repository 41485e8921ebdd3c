use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::alert::Phase;
use crate::journey::Objective;
use crate::journey::objective::Window;
use crate::journey::outcome::{Cause, ExcludedWhy, Outcome, UnknownWhy, Verdict};
use crate::journey::own::{self, Call};
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::journey::token::Token;
use crate::metrics::FAMILIES;
use crate::slo::{self, History, SloStatus};

/// Two steps, `out` and `in`, no budget and no objective.
fn plain(name: &str) -> Journey {
    let call = Call { channel: "loop", is_answered: false };
    Journey { name: name.into(), ..own::journey(Duration::from_secs(60), call, Vec::new()) }
}

fn watched(name: &str) -> Journey {
    let window = Window::Rolling(Duration::from_secs(3_600));
    let objective = Objective { delivered: 0.9, in_budget: Some(0.5), window, late_is_good: false };
    Journey { budget: Some(Duration::from_millis(200)), objective: Some(objective), ..plain(name) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn good(millis: u64) -> Outcome {
    Outcome::Good { latency: Duration::from_millis(millis) }
}

fn failed(cause: Cause) -> Outcome {
    Outcome::Failed { step: "in".into(), cause }
}

/// A run of `journey`: `out` passed within 5 ms, `in` took as long as the run if that was right.
fn observe(metrics: &JourneyMetrics, journey: &Journey, outcome: Outcome, at: Timestamp) {
    let latency = outcome.latency();
    let ended = |latency: Option<Duration>| if latency.is_some() { StepStatus::Passed } else { StepStatus::Failed };
    let steps = [
        StepReport { took: Duration::from_millis(5), ..StepReport::new("out", "send", StepStatus::Passed) },
        StepReport { took: latency.unwrap_or_default(), ..StepReport::new("in", "receive", ended(latency)) },
    ];
    let report = Report {
        journey: journey.name.clone(),
        token: Token::from_bits(1),
        slot: at,
        started: at,
        outcome,
        latency: latency.unwrap_or_default(),
        lateness: Duration::ZERO,
        steps: steps.into(),
        beneath: None,
        note: None,
        configuration: String::new(),
        version: String::new(),
    };
    metrics.observe(&report, journey.budget, at);
}

/// One good, one slow and one failed run of sixty.
fn status(journey: &Journey) -> SloStatus {
    let mut history = History::new(journey.window(), [], at(0));
    for (minute, verdict) in (0..).zip([Verdict::Good, Verdict::Slow, Verdict::Failed]) {
        let _ = history.observe(at(minute * 60), verdict);
    }
    let _ = history.advance(at(180));
    slo::status(&history, journey.objective.as_ref().unwrap(), 60, at(180))
}

/// The lines of the exposition that are about journeys.
fn lines(metrics: &Metrics) -> Vec<String> {
    metrics.render().lines().filter(|line| line.contains("journey=\"")).map(str::to_owned).collect()
}

fn has(metrics: &Metrics, line: &str) -> bool {
    lines(metrics).iter().any(|known| known == line)
}

#[test]
fn a_journey_is_written_out_as_it_is() {
    let journey = watched("sms");
    let metrics = Metrics::new(&[Arc::new(journey.clone())], Some("eu"));
    let handle = metrics.journey(&journey);
    observe(&handle, &journey, good(50), at(0));
    observe(&handle, &journey, Outcome::Slow { latency: Duration::from_millis(700) }, at(60));
    observe(&handle, &journey, failed(Cause::NotReceived), at(120));
    observe(&handle, &journey, failed(Cause::Auth), at(180));
    observe(&handle, &journey, failed(Cause::NotReceived), at(240));
    handle.without_run(&Outcome::Unknown { why: UnknownWhy::Missed }, 7);
    handle.without_run(&Outcome::Excluded { why: ExcludedWhy::Paused }, 2);
    handle.set_stale_after(Duration::from_millis(150_500));
    handle.set_state(Phase::Firing, Some(&status(&journey)));
    let text = metrics.render();
    let (_, journeys) = text.split_once("# HELP journeyman_runs_total").unwrap();
    let expected = include_str!("exposition.txt");
    assert_eq!(format!("# HELP journeyman_runs_total{journeys}"), expected, "{text}");
}

#[test]
fn what_nobody_has_said_yet_is_not_there() {
    let metrics = Metrics::new(&[], None);
    let (plain, watched) = (plain("plain"), watched("watched"));
    let handles = [&plain, &watched].map(|journey| metrics.journey(journey));
    let families = |name: &str| {
        let label = format!("journey=\"{name}\"");
        let of = |line: String| line.contains(&label).then(|| line.split('{').next().unwrap().to_owned());
        let mut families: Vec<_> = lines(&metrics).into_iter().filter_map(of).collect();
        families.dedup();
        families.retain(|family| !family.contains("_duration_"));
        families
    };
    let born = ["journeyman_runs_total", "journeyman_last_run_timestamp_seconds"];
    let born = [&born[..], &["journeyman_last_success_timestamp_seconds", "journeyman_alert_state"]].concat();
    assert_eq!(families("plain"), born);
    let more = [&born[..1], &["journeyman_run_budget_seconds"], &born[1..], &["journeyman_slo_objective_ratio"]];
    assert_eq!(families("watched"), more.concat());
    assert!(!metrics.render().contains("journeyman_run_causes_total"), "not even its name");

    let outcomes: Vec<_> =
        lines(&metrics).into_iter().filter(|line| line.contains("runs_total{journey=\"plain\"")).collect();
    let expected = ["good", "slow", "failed", "unknown", "excluded"]
        .map(|outcome| format!("journeyman_runs_total{{journey=\"plain\",outcome=\"{outcome}\"}} 0"));
    assert_eq!(outcomes, expected, "each outcome's first run must show in a rate");
    let empty = "journeyman_run_duration_seconds_bucket{journey=\"plain\",le=\"0.005\"} 0";
    assert!(has(&metrics, empty), "and so must the first latency");

    // A delivered run without a budget is no share of one.
    observe(&handles[0], &plain, good(50), at(0));
    assert!(!lines(&metrics).iter().any(|line| line.contains("budget_ratio")));
    observe(&handles[1], &watched, good(50), at(0));
    assert!(has(&metrics, "journeyman_run_latency_budget_ratio{journey=\"watched\"} 0.25"));
    // Of what a journey depends on, nothing may be known any more.
    let composition = |product| slo::Composition { product, ..slo::compose(None, vec![hop()]).unwrap() };
    handles[0].set_composition(Some(&composition(Some(0.5))));
    assert!(has(&metrics, "journeyman_slo_composed_ratio{journey=\"plain\"} 0.5"));
    handles[0].set_composition(Some(&composition(None)));
    assert!(!metrics.render().contains("composed_ratio"));
}

fn hop() -> slo::Hop {
    let dependency = crate::journey::Dependency { delivered: 0.5, description: None };
    slo::Hop::promised("grid".into(), &dependency)
}

#[test]
fn a_journey_that_is_gone_is_not_shown_and_goes_on_when_it_comes_back() {
    let metrics = Metrics::new(&[], None);
    let (sms, other) = (plain("sms"), plain("sms-2"));
    let handles = [&sms, &other].map(|journey| metrics.journey(journey));
    for handle in &handles {
        handle.without_run(&failed(Cause::Blocked), 3);
    }
    observe(&handles[0], &sms, good(50), at(0));
    let shows = |name: &str| lines(&metrics).iter().any(|line| line.contains(&format!("journey=\"{name}\"")));
    metrics.hide_journey(&"nobody".into());
    metrics.hide_journey(&sms.name);
    assert!(!shows("sms") && shows("sms-2") && !shows("nobody"));
    assert_eq!(metrics.render().matches("# TYPE journeyman_runs_total").count(), 1);
    metrics.hide_journey(&other.name);
    assert!(!metrics.render().contains("journeyman_runs_total"), "no samples, no family");
    // A run that was under way when its journey went ends later.
    handles[0].without_run(&failed(Cause::Blocked), 1);
    assert!(!shows("sms"));

    let again = metrics.journey(&sms);
    again.without_run(&failed(Cause::Blocked), 1);
    assert!(shows("sms") && !shows("sms-2"));
    for line in [
        "journeyman_runs_total{journey=\"sms\",outcome=\"failed\"} 5",
        "journeyman_run_causes_total{journey=\"sms\",outcome=\"failed\",cause=\"blocked\"} 5",
        "journeyman_run_duration_seconds_count{journey=\"sms\"} 1",
        "journeyman_step_duration_seconds_count{journey=\"sms\",step=\"in\"} 1",
        "journeyman_last_success_timestamp_seconds{journey=\"sms\"} 1790000000",
    ] {
        assert!(has(&metrics, line), "{line}: {:#?}", lines(&metrics));
    }
}

#[test]
fn a_journey_that_is_defined_anew_has_what_its_definition_has() {
    let metrics = Metrics::new(&[], None);
    let before = watched("sms");
    let handle = metrics.journey(&before);
    observe(&handle, &before, good(50), at(0));
    handle.set_state(Phase::Suspect, Some(&status(&before)));

    // `out` is gone, `in` comes first, `ask` is new; there is no budget and no objective any more.
    let mut steps = before.steps.clone();
    steps.reverse();
    steps[1].name = "ask".into();
    let after = Journey { steps, ..plain("sms") };
    let handle = metrics.journey(&after);
    // A run of the old definition: its first step is nobody's.
    observe(&handle, &after, good(50), at(60));
    let count = |step: &str, count: u64| {
        has(&metrics, &format!("journeyman_step_duration_seconds_count{{journey=\"sms\",step=\"{step}\"}} {count}"))
    };
    assert!(count("in", 2) && count("ask", 0), "{:#?}", lines(&metrics));
    assert!(has(&metrics, "journeyman_runs_total{journey=\"sms\",outcome=\"good\"} 2"));
    for gone in ["step=\"out\"", "_slo_", "budget"] {
        assert!(!lines(&metrics).iter().any(|line| line.contains(gone)), "{gone}: {:#?}", lines(&metrics));
    }
    // Nobody who has an old handle brings an objective back.
    handle.set_state(Phase::Ok, Some(&status(&before)));
    assert!(!lines(&metrics).iter().any(|line| line.contains("_slo_")));
}

#[test]
fn each_family_stands_together_and_names_are_in_order() {
    let metrics = Arc::new(Metrics::new(&[], None));
    let _channel = metrics.channel(&"loop".into(), true);
    for name in ["b", "a", "c"] {
        let journey = watched(name);
        let handle = metrics.journey(&journey);
        observe(&handle, &journey, failed(Cause::Tls), at(0));
        handle.set_state(Phase::Ok, Some(&status(&journey)));
    }
    let text = metrics.render();
    let mut seen = Vec::new();
    let mut current: Option<&'static str> = None;
    let mut last = "";
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().unwrap();
            current = FAMILIES.iter().map(|family| family.name).find(|known| *known == name);
            assert!(!seen.contains(&current), "{name} stands twice");
            seen.push(current);
            last = "";
        } else if !line.starts_with('#') {
            let family = current.unwrap();
            assert!(line.starts_with(family), "{line} is not of {family}");
            let Some((_, name)) = line.split_once("{journey=\"") else { continue };
            let name = name.split('"').next().unwrap();
            assert!(last <= name, "{name} after {last} in {family}");
            last = name;
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}
