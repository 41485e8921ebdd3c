//! What people are told in a drill: what they would be told of the outage, marked, and with a token by which it is known again.

use jiff::Timestamp;

use crate::drill::Order;
use crate::incident::{Incident, NotifyReason};
use crate::journey::Journey;
use crate::journey::report::Report;
use crate::journey::token::Token;
use crate::notice::{Mark, Notification};

/// What there is to tell.
pub struct Telling<'a> {
    /// Why now.
    pub reason: NotifyReason,
    /// The incident as the desk has it.
    pub incident: Incident,
    /// The drill.
    pub order: &'a Order,
    /// The journey that it is a drill of.
    pub journey: &'a Journey,
    /// How it was decided.
    pub decision: String,
    /// The last run of the shadow.
    pub report: &'a Report,
    /// The good one before.
    pub last_good: Option<&'a Report>,
    /// By which the message is known again.
    pub token: Token,
    /// Where we look from.
    pub location: Option<String>,
    /// The page of drills.
    pub link: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// The notice.
pub fn notice(telling: Telling<'_>) -> Notification {
    let Telling { reason, mut incident, order, journey, decision, report, last_good, token, location, link, at } =
        telling;
    // Nobody is to take it for one of those that are kept.
    incident.id = format!("drill-{}", incident.id);
    let asked = match order.by.as_str() {
        "schedule" => "by schedule".to_owned(),
        by => format!("for {by}"),
    };
    let decision = format!("{decision} · nothing is wrong: `{}` was put in {asked}", order.fault);
    Notification {
        reason,
        subject: journey.name.to_string(),
        incident,
        at,
        members: Vec::new(),
        news: Vec::new(),
        is_whole: false,
        handed_over: None,
        owner: journey.owner.clone(),
        runbook: journey.runbook.clone(),
        labels: journey.labels.clone(),
        location,
        budget: journey.budget,
        deadline: Some(journey.deadline),
        decision,
        report: Some(disguised(report, journey, token)),
        last_good: last_good.map(|good| disguised(good, journey, token)),
        objective: None,
        link,
        ack_link: None,
        run_link: None,
        mark: Some(Mark::Drill),
    }
}

/// That it is over, for people who were told this and nothing after it.
pub fn ending(open: &Notification, why: &str, token: Token, at: Timestamp) -> Notification {
    let mut ending = open.clone();
    (ending.reason, ending.at) = (NotifyReason::Resolved, at);
    ending.incident.sequence += 1;
    ending.incident.firing = 0;
    ending.decision = format!("the drill is over: {why}");
    if let Some(report) = &mut ending.report {
        report.token = token;
    }
    ending
}

/// The run as one of the journey's own. Where its token stood is that by which the message is known again: a reader that found the run's
/// would give it to the run.
fn disguised(report: &Report, journey: &Journey, token: Token) -> Report {
    let mut shown = report.clone();
    let pairs = [(report.token.to_string(), token.to_string()), (report.token.trace_id(), token.trace_id())];
    shown.redact(|text| {
        let is_there = pairs.iter().any(|(run, _)| text.contains(run.as_str()));
        is_there.then(|| pairs.iter().fold(text.to_owned(), |text, (run, mark)| text.replace(run.as_str(), mark)))
    });
    shown.token = token;
    shown.journey = journey.name.clone();
    shown
}
