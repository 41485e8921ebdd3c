//! A notice of a run that nobody was told of, from what is kept of it: to see how it would have looked.

use crate::alert::Subject;
use crate::detect::Detector;
use crate::incident::{Incident, NotifyReason, Root};
use crate::journey::Journey;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::notice::Notification;
use crate::time::later;

/// What is known of the run.
#[derive(Clone, Debug)]
pub struct Telling<'a> {
    /// Why people would be told.
    pub reason: NotifyReason,
    /// The run.
    pub report: Report,
    /// The last good one before.
    pub last_good: Option<Report>,
    /// Its journey, if there still is one of its name.
    pub journey: Option<&'a Journey>,
    /// Where we look from.
    pub location: Option<String>,
    /// The journey's page.
    pub link: Option<String>,
}

/// The notice. It says that it was never told: what decides, and the objective, were not those of that time.
pub fn untold(telling: Telling<'_>) -> Notification {
    let Telling { reason, report, last_good, journey, location, link } = telling;
    let verdict = report.outcome.verdict();
    let detector = if verdict == Verdict::Slow { Detector::Slow } else { Detector::Down };
    let is_over = reason == NotifyReason::Resolved;
    let incident = Incident {
        detectors: [detector].into(),
        severity: detector.severity(),
        worst: detector.severity(),
        sequence: if reason == NotifyReason::First { 1 } else { 2 },
        bad_runs: u32::from(report.is_bad()),
        members: 1,
        firing: u32::from(!is_over),
        ..Incident::new("0".repeat(12), report.slot, Root::Alone(Subject::Journey(report.journey.clone())))
    };
    Notification {
        reason,
        at: later(report.started, report.latency),
        subject: incident.title(),
        incident,
        members: Vec::new(),
        news: Vec::new(),
        is_whole: false,
        handed_over: None,
        owner: journey.and_then(|journey| journey.owner.clone()),
        runbook: journey.and_then(|journey| journey.runbook.clone()),
        labels: journey.map(|journey| journey.labels.clone()).unwrap_or_default(),
        location,
        budget: journey.and_then(|journey| journey.budget),
        deadline: journey.map(|journey| journey.deadline),
        decision: "a preview of this run; nobody was told of it".to_owned(),
        report: Some(report),
        last_good,
        objective: None,
        link,
        ack_link: None,
        run_link: None,
        mark: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::sample::sample;

    fn telling(reason: NotifyReason) -> Telling<'static> {
        let told = sample(NotifyReason::First);
        let (report, last_good) = (told.report.unwrap(), told.last_good);
        Telling { reason, report, last_good, journey: None, location: None, link: None }
    }

    #[test]
    fn it_tells_of_the_run_and_says_that_nobody_was_told() {
        let notice = untold(telling(NotifyReason::First));
        assert!(notice.headline().starts_with("DOWN checkout-mail · failed (not_received)"), "{}", notice.headline());
        assert!(notice.text().contains("nobody was told of it") && notice.waterfall(8).is_some());
        assert_eq!((notice.incident.bad_runs, notice.incident.sequence), (1, 1));
        let over = untold(telling(NotifyReason::Resolved));
        assert!(over.headline().starts_with("WELL AGAIN checkout-mail"), "{}", over.headline());
    }
}
