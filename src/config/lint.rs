//! What is lawful and probably not meant, said with numbers.

use std::time::Duration;

use jiff::Timestamp;

use crate::channel::Settings;
use crate::config::channels;
use crate::config::document::{Context, Node};
use crate::config::journeys::{Catalog, Loaded};
use crate::config::notifiers::{chain, is_loopback};
use crate::config::problem::{Place, Problem};
#[cfg(feature = "amqp")]
use crate::journey::expect::Query;
use crate::journey::objective::Window;
use crate::journey::schedule::Schedule;
use crate::journey::template::Template;
use crate::journey::{Draft, Journey, JsonTemplate, Name, Objective, Payload, Step, Verb};
use crate::time::Human;

/// Calendars are counted from here, so that a configuration has the same problems every day: the first Monday of 2026.
pub(super) const REFERENCE: Timestamp = Timestamp::constant(1_767_571_200, 0);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// With fewer bad runs in the budget, one run more or less decides whether the objective is met.
const FEW_BAD_RUNS: f64 = 10.0;

/// A duration for people.
pub(super) fn told(duration: Duration) -> String {
    let millis = duration.as_millis();
    // `Human` rounds as measurements want it; what was written is shown as it was written.
    if millis < 60_000 && millis.is_multiple_of(1_000) {
        format!("{}s", millis / 1_000)
    } else {
        Human(duration).to_string()
    }
}

/// A window for people.
fn told_window(objective: &Objective) -> String {
    match &objective.window {
        Window::Rolling(length) => told(*length),
        Window::Calendar(period) => format!("a {}", period.unit),
    }
}

/// The least time between two slots.
pub(super) fn least_interval(schedule: &Schedule) -> Duration {
    match schedule {
        Schedule::Every { every, .. } => *every,
        Schedule::Cron(_) => {
            let slots: Vec<_> = schedule.slots(REFERENCE, Timestamp::MAX, 20).collect();
            let gaps = slots.windows(2).map(|pair| crate::time::between(pair[0], pair[1]));
            gaps.min().unwrap_or(WEEK)
        }
    }
}

/// How many runs a window has. A busy calendar is counted for a week and the rest is reckoned.
fn runs(schedule: &Schedule, window: Duration) -> f64 {
    let week = schedule.count(REFERENCE, WEEK.min(window));
    if matches!(schedule, Schedule::Cron(_)) && window > WEEK && week > 1_000 {
        return week as f64 * window.as_secs_f64() / WEEK.as_secs_f64();
    }
    schedule.count(REFERENCE, window) as f64
}

/// Everything about one journey that has no error in it.
pub(super) fn journey(context: &Context, catalog: &Catalog<'_>, loaded: &Loaded) {
    limits(context, loaded);
    objective(context, loaded);
    steps(context, loaded);
    token(context, catalog, loaded);
    route(context, catalog, loaded);
    #[cfg(feature = "amqp")]
    age(context, catalog, loaded);
}

/// The value's place, or the nearest thing to it.
fn place<'a>(node: &'a Node, path: &[&str]) -> &'a Place {
    let mut at = node;
    for key in path {
        match at.get(key) {
            Some(next) => at = next,
            None => break,
        }
    }
    &at.place
}

fn limits(context: &Context, loaded: &Loaded) {
    let Journey { budget, deadline, schedule, name, .. } = &loaded.journey;
    if let Some(budget) = budget.filter(|budget| budget > deadline) {
        let problem = format!("the budget ({}) is longer than the deadline ({})", told(budget), told(*deadline));
        let problem = Problem::error(place(&loaded.node, &["budget"]), problem);
        context
            .add(problem.hint("over the budget is slow, over the deadline is failed: the budget is the shorter one"));
    }
    let interval = least_interval(schedule);
    if *deadline > interval {
        let which = if loaded.node.get("deadline").is_some() { "deadline" } else { "default deadline" };
        let key = if loaded.node.get("every").is_some() { "every" } else { "cron" };
        let problem = format!(
            "the {which} ({}) is longer than the interval ({}): while a run of `{name}` is going, others are skipped",
            told(*deadline),
            told(interval)
        );
        let at = if loaded.node.get("deadline").is_some() { "deadline" } else { key };
        context.add(Problem::warning(place(&loaded.node, &[at]), problem));
    }
}

fn objective(context: &Context, loaded: &Loaded) {
    let journey = &loaded.journey;
    let Some(objective) = &journey.objective else { return };
    if objective.in_budget.is_some() && journey.budget.is_none() {
        let problem = Problem::error(place(&loaded.node, &["objective", "in_budget"]), "there is no budget to be in");
        context.add(problem.hint("add `budget = \"…\"` to the journey"));
    }
    let runs = runs(&journey.schedule, objective.window.least_length());
    let shares = [("delivered", Some(objective.delivered)), ("in_budget", objective.in_budget)];
    for (key, share) in shares.into_iter().filter_map(|(key, share)| Some((key, share?))) {
        let bad = runs * (1.0 - share);
        let percent = format!("{}%", round(share * 100.0, 6));
        let counted = format!("{} runs in {}", round(runs, 0), told_window(objective));
        let at = place(&loaded.node, &["objective", key]);
        let hint = "lower the objective, run more often, or take a longer window";
        // The product of a share and a count is rarely the whole number that it stands for.
        if bad < 1.0 - 1e-9 {
            let problem =
                format!("{percent} of {counted} leaves {} bad runs: the first one breaks the objective", round(bad, 2));
            context.add(Problem::error(at, problem).hint(hint));
        } else if bad < FEW_BAD_RUNS - 1e-9 {
            let problem = format!(
                "{percent} of {counted} leaves {} bad runs: too few to tell a trend from chance",
                round(bad, 1)
            );
            context.add(Problem::warning(at, problem).hint(hint));
        }
    }
}

/// As [`objective`], for a journey whose runs come so many times rarer than its schedule says: what only that makes too few.
pub(super) fn objective_of_rarer_runs(context: &Context, loaded: &Loaded, slowdown: f64) {
    let journey = &loaded.journey;
    let Some(objective) = &journey.objective else { return };
    let runs = runs(&journey.schedule, objective.window.least_length());
    let shares = [("delivered", Some(objective.delivered)), ("in_budget", objective.in_budget)];
    for (key, share) in shares.into_iter().filter_map(|(key, share)| Some((key, share?))) {
        let (usual, real) = (runs * (1.0 - share), runs / slowdown * (1.0 - share));
        if usual >= FEW_BAD_RUNS - 1e-9 && real < FEW_BAD_RUNS - 1e-9 {
            let problem = format!(
                "with what its channel may spend, {}% of {} runs in {} leaves {} bad runs: too few to tell a trend from chance",
                round(share * 100.0, 6),
                round(runs / slowdown, 0),
                told_window(objective),
                round(real, 1)
            );
            let hint = "lower the objective, spend more, or take a longer window";
            context.add(Problem::warning(place(&loaded.node, &["objective", key]), problem).hint(hint));
        }
    }
}

/// With at most so many decimals, and no zeros at the end.
pub(super) fn round(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn steps(context: &Context, loaded: &Loaded) {
    let deadline = loaded.journey.deadline;
    let mut paused = Duration::ZERO;
    // Clean-up has its own time.
    for (step, node) in loaded.journey.steps.iter().zip(&loaded.steps).filter(|(step, _)| !step.always) {
        let limits = [
            (step.timeout, &["timeout"] as &[&str], "timeout"),
            (step.budget, &["budget"], "budget"),
            (step.poll.map(|poll| poll.within), &["poll", "within"], "poll"),
        ];
        for (limit, path, what) in limits {
            if let Some(limit) = limit.filter(|limit| *limit > deadline) {
                let problem = format!(
                    "the {what} of `{}` ({}) is longer than the journey's deadline ({}), which ends it first",
                    step.name,
                    told(limit),
                    told(deadline)
                );
                context.add(Problem::warning(place(node, path), problem));
            }
        }
        if let Verb::Pause(length) = step.verb {
            paused += length;
            if paused >= deadline {
                let problem = format!(
                    "the pauses up to here take {}, and the deadline is {}: no run can succeed",
                    told(paused),
                    told(deadline)
                );
                context.add(Problem::warning(place(node, &["pause"]), problem));
            }
        }
    }
}

/// A message is recognised by its token, so a send whose answer is waited for must carry one.
fn token(context: &Context, catalog: &Catalog<'_>, loaded: &Loaded) {
    let steps = &loaded.journey.steps;
    for (index, step) in steps.iter().enumerate() {
        let Verb::Send(draft) = &step.verb else { continue };
        let is_awaited = steps.iter().any(|step| match &step.verb {
            Verb::Receive(receive) => receive.since == index && receive.key.is_none(),
            _ => false,
        });
        // Other kinds carry the token beside the message, and give it back with it.
        let is_http = catalog
            .channels
            .get(&draft.channel)
            .and_then(|channel| channel.kind)
            .is_some_and(|kind| kind.name == "http");
        if is_awaited && is_http && !carries_token(draft) {
            let problem = format!(
                "nothing that `{}` sends carries the token, so what arrives cannot be told from other messages",
                step.name
            );
            let problem = Problem::warning(place(&loaded.steps[index], &["send"]), problem);
            context.add(problem.hint("put `{{ token }}` where the far end gives it back, or match by `key`"));
        }
    }
}

/// AMQP itself does not tell how old a message is, and a value that is missing fails every predicate.
#[cfg(feature = "amqp")]
fn age(context: &Context, catalog: &Catalog<'_>, loaded: &Loaded) {
    for (step, node) in loaded.journey.steps.iter().zip(&loaded.steps) {
        let Verb::Check(draft) = &step.verb else { continue };
        let plan = catalog.channels.get(&draft.channel).and_then(|channel| channel.plan.as_ref());
        let is_blind = plan
            .is_some_and(|plan| matches!(&plan.settings, Settings::Amqp(settings) if settings.management.is_none()));
        if is_blind && step.expect.iter().any(|expectation| matches!(expectation.query, Query::Fact("oldest_age"))) {
            let problem = "only the management API knows `oldest_age`, and the channel does not say where that is";
            let hint = format!("`management = \"http://host:15672\"` in [channels.{}]", draft.channel);
            context.add(Problem::warning(place(node, &["expect"]), problem).hint(hint));
        }
    }
}

fn carries_token(draft: &Draft) -> bool {
    let carries = |template: &Template| {
        ["token", "trace_id", "run"]
            .iter()
            .any(|name| template.source().contains("{{") && template.source().contains(name))
    };
    let any = |pairs: &[(String, Template)]| pairs.iter().any(|(_, template)| carries(template));
    let payload = match &draft.payload {
        Payload::Empty => false,
        Payload::Json(document) => in_document(document, &carries),
        Payload::Form(pairs) => any(pairs),
        Payload::Text(text) => carries(text),
    };
    payload || any(&draft.headers) || any(&draft.query) || draft.path.iter().chain(&draft.url).any(carries)
}

fn in_document(document: &JsonTemplate, carries: &impl Fn(&Template) -> bool) -> bool {
    match document {
        JsonTemplate::Text(template) => carries(template),
        JsonTemplate::Fixed(_) => false,
        JsonTemplate::List(items) => items.iter().any(|item| in_document(item, carries)),
        JsonTemplate::Object(members) => members.iter().any(|(_, member)| in_document(member, carries)),
    }
}

/// An alert that goes out through the system that is down tells nobody.
fn route(context: &Context, catalog: &Catalog<'_>, loaded: &Loaded) {
    let watched: Vec<_> = loaded.journey.steps.iter().filter_map(|step| host_of(catalog, step)).collect();
    let shares = |host: &(String, u16)| {
        watched.iter().any(|(name, port)| *name == host.0 && (!is_loopback(name) || *port == host.1))
    };
    let told: Vec<_> = loaded.journey.notify.iter().flat_map(|name| chain(catalog.notifiers, name)).collect();
    if alarm(context, catalog, loaded, &told) {
        return;
    }
    let hosts: Vec<_> =
        told.iter().filter_map(|name| Some((*name, catalog.notifiers.get(*name)?.host.as_ref()?))).collect();
    if hosts.len() == told.len()
        && let Some((name, (host, _))) = hosts.first()
        && hosts.iter().all(|(_, host)| shares(host))
    {
        let problem = format!(
            "`{name}` tells people through {host}, which `{}` watches: when it is down, nobody hears of it",
            loaded.journey.name
        );
        let problem = Problem::warning(place(&loaded.node, &["notify"]), problem);
        context.add(problem.hint("add a notifier that goes another way, or give it a `fallback` that does"));
    }
}

/// A journey that proves that a notifier tells people cannot be told by it when it does not. Whether it was that journey.
fn alarm(context: &Context, catalog: &Catalog<'_>, loaded: &Loaded, told: &[&Name]) -> bool {
    let rings = |step: &Step| catalog.channels.get(step.verb.channel()?)?.rings();
    let rung: Vec<_> = loaded.journey.steps.iter().filter_map(rings).collect();
    let Some(first) = rung.first() else { return false };
    // That nobody is told at all is said elsewhere.
    let is_alone = !told.is_empty() && told.iter().all(|name| rung.contains(name));
    if is_alone && !catalog.required.contains(&*loaded.journey.name) {
        let name = &loaded.journey.name;
        let problem = format!("`{name}` proves that `{first}` tells people, and tells by it alone that it does not");
        let hint = format!("tell of it by another notifier as well, or say `requires = [\"{name}\"]` in [dead_man]");
        context.add(Problem::warning(place(&loaded.node, &["notify"]), problem).hint(hint));
        return true;
    }
    false
}

/// The host and port that a step talks to.
fn host_of(catalog: &Catalog<'_>, step: &Step) -> Option<(String, u16)> {
    if let Verb::Request(draft) = &step.verb
        && let Some(url) = &draft.url
    {
        return channels::host(&url::Url::parse(url.source()).ok()?);
    }
    let channel = catalog.channels.get(step.verb.channel()?)?;
    match channel.plan.as_ref().map(|plan| &plan.settings) {
        // Where others call us: there is no host that we depend on.
        Some(Settings::Webhook(_)) => None,
        _ => channel.host.clone(),
    }
}
