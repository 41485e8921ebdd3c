//! What people are told: everything that a message needs, decided and rendered from data alone.

pub mod sample;
pub mod untold;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::detect::Severity;
use crate::incident::{Incident, LISTED, Member, NotifyReason, Root};
use crate::journey::outcome::labelled;
use crate::journey::report::{Report, waterfall};
use crate::journey::{Name, compare};
use crate::time::{Human, between};

/// The address of a page of ours, if people can reach us.
pub fn address(public_url: Option<&Url>, page: &[&str]) -> Option<String> {
    let mut url = public_url?.clone();
    url.path_segments_mut().ok()?.pop_if_empty().extend(page);
    Some(url.to_string())
}

/// One thing to tell about one incident. Stored in the outbox as it is, so that a retry says what was true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Why now.
    pub reason: NotifyReason,
    /// The incident, as it stood.
    pub incident: Incident,
    /// When it was decided.
    pub at: Timestamp,
    /// What it is about: a journey's name, a shared cause, or a part of the daemon.
    pub subject: String,
    /// The incident's members, those that still fire first; more than these are only counted.
    #[serde(default)]
    pub members: Vec<Member>,
    /// What happened since people were told last.
    #[serde(default)]
    pub news: Vec<String>,
    /// That it is over is told to people who were never told that it began.
    #[serde(default)]
    pub is_whole: bool,
    /// Who owns it.
    pub owner: Option<String>,
    /// Where it says what to do.
    pub runbook: Option<String>,
    /// The journey's labels.
    pub labels: BTreeMap<String, String>,
    /// Where we look from.
    pub location: Option<String>,
    /// The budget.
    pub budget: Option<Duration>,
    /// The deadline.
    pub deadline: Option<Duration>,
    /// How it was decided: `3 failed runs in a row (down_after = 3)`.
    pub decision: String,
    /// The run that decided it.
    pub report: Option<Report>,
    /// The last good run before.
    pub last_good: Option<Report>,
    /// Objective status in a sentence.
    pub objective: Option<String>,
    /// The journey's page, if a public URL is configured.
    pub link: Option<String>,
    /// Where one click acknowledges the incident, for a day; whoever has the notice may.
    #[serde(default)]
    pub ack_link: Option<String>,
    /// Where one click runs its journey again, as long and for the same.
    #[serde(default)]
    pub run_link: Option<String>,
    /// That nobody has to act on it, and why it is told all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Whoever told it tells no more of it, and who does: whether it is over, this notice does not know. It is the last of its
    /// incident all the same, with [`NotifyReason::Resolved`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<String>,
}

labelled! {
    /// What is told and is no outage.
    Mark {
        /// A journey, or a person, proves that people can be told.
        Test = "test",
        /// An outage that is rehearsed.
        Drill = "drill",
    }
}

impl Mark {
    /// What it says before everything else.
    pub fn word(self) -> &'static str {
        match self {
            Mark::Test => "TEST",
            Mark::Drill => "DRILL",
        }
    }
}

impl Notification {
    /// `DOWN`, `SLOW`, `STALE`, … while it fires; `WELL AGAIN` when it is over; `HANDED OVER` when another tells of it.
    pub fn state_word(&self) -> &'static str {
        match (self.reason, self.incident.flapping, self.incident.detector()) {
            (NotifyReason::Resolved, ..) if self.handed_over.is_some() => "HANDED OVER",
            (NotifyReason::Resolved, ..) if self.is_whole => "WAS DOWN",
            (NotifyReason::Resolved, ..) => "WELL AGAIN",
            (_, Some(_), _) => "FLAPPING",
            (.., Some(detector)) => detector.word(),
            (.., None) => "ALERT",
        }
    }

    /// How bad it is now; what was worst, once it is over.
    pub fn severity(&self) -> Severity {
        if self.reason == NotifyReason::Resolved { self.incident.worst } else { self.incident.severity }
    }

    /// A text that says first what the notice is, if it is no outage, also where people's own templates do not.
    pub fn marked(&self, text: String) -> String {
        match self.mark {
            Some(mark) if !text.starts_with(mark.word()) => format!("{} {text}", mark.word()),
            _ => text,
        }
    }

    /// What it is and what it is about: `DOWN sms`, `DRILL DOWN sms`.
    pub fn title(&self) -> String {
        self.marked(format!("{} {}", self.state_word(), self.subject))
    }

    /// The whole notice in one line, for a push message or a subject.
    pub fn headline(&self) -> String {
        self.marked(self.unmarked_headline())
    }

    fn unmarked_headline(&self) -> String {
        let lasted = Human(between(self.incident.since, self.at));
        match (self.reason, &self.report) {
            (NotifyReason::Resolved, _) if let Some(said) = &self.handed_over => {
                format!("{} {} · {said}", self.state_word(), self.subject)
            }
            (NotifyReason::Resolved, _) if self.is_whole => {
                format!(
                    "{} {} · for {lasted}, {} bad runs; it is well again",
                    self.state_word(),
                    self.subject,
                    self.incident.bad_runs
                )
            }
            (NotifyReason::Resolved, _) => {
                format!("{} {} · after {lasted}, {} bad runs", self.state_word(), self.subject, self.incident.bad_runs)
            }
            (NotifyReason::Repeat, Some(report)) => {
                format!("STILL {} {} · for {lasted} · {}", self.state_word(), self.subject, report.verdict_line())
            }
            (NotifyReason::Repeat, None) => {
                format!("STILL {} {} · for {lasted} · {}", self.state_word(), self.subject, self.decision)
            }
            (NotifyReason::Updated, _) if !self.news.is_empty() => {
                format!("{} {} · {}", self.state_word(), self.subject, self.news.join("; "))
            }
            (_, _) if self.incident.members > 1 => {
                format!(
                    "{} {} · {} members, {} firing · {}",
                    self.state_word(),
                    self.subject,
                    self.incident.members,
                    self.incident.firing,
                    self.decision
                )
            }
            (_, Some(report)) => format!("{} {} · {}", self.state_word(), self.subject, report.verdict_line()),
            (_, None) => format!("{} {} · {}", self.state_word(), self.subject, self.decision),
        }
    }

    /// Latency against budget in words, where a run measured one.
    pub fn latency_line(&self) -> Option<String> {
        let report = self.report.as_ref()?;
        let against = match (self.budget, self.deadline) {
            (Some(budget), Some(deadline)) => format!(" (budget {}, deadline {})", Human(budget), Human(deadline)),
            (None, Some(deadline)) => format!(" (deadline {})", Human(deadline)),
            _ => String::new(),
        };
        match report.outcome.latency() {
            Some(latency) => Some(format!("{}{against}", Human(latency))),
            None => Some(format!("none{against}")),
        }
    }

    /// Named facts in the order in which they are shown, for every medium.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        let lasted = Human(between(self.incident.since, self.at));
        facts.push(("Since", format!("{} ({lasted})", self.incident.since.strftime("%Y-%m-%d %H:%M:%S UTC"))));
        if let Some(step) = self.report.as_ref().and_then(Report::failed_step) {
            let cause = self.report.as_ref().map_or("", |report| report.outcome.label());
            facts.push(("Failed step", format!("{} ({cause})", step.name)));
        }
        facts.extend(compare::facts(self.last_good.as_ref(), self.report.as_ref()));
        facts.extend(self.latency_line().map(|line| ("Latency", line)));
        facts.extend(self.objective.clone().map(|line| ("Objective", line)));
        facts.push(("Decided by", self.decision.clone()));
        facts.extend(self.likely_cause().map(|cause| ("Likely cause", cause)));
        if let Some(ack) = &self.incident.acked {
            facts.push(("Acknowledged", format!("by {} at {}", ack.by, ack.at.strftime("%H:%M UTC"))));
        }
        if let Some(cycles) = self.incident.flapping {
            facts.push(("Flapping", format!("{cycles} times within two hours; it is over after 30 calm minutes")));
        }
        if !self.news.is_empty() {
            facts.push(("News", self.news.join("; ")));
        }
        facts.extend(self.owner.clone().map(|owner| ("Owner", owner)));
        facts.extend(self.location.clone().map(|location| ("Seen from", location)));
        if !self.labels.is_empty() {
            let labels: Vec<_> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            facts.push(("Labels", labels.join(" ")));
        }
        if let Some(report) = &self.report {
            facts.push(("Run", report.token.to_string()));
            facts.push(("Trace", report.token.trace_id()));
        }
        facts.push(("Incident", self.incident.id.clone()));
        facts
    }

    /// The run beside the last good one, as text.
    pub fn waterfall(&self, bar: usize) -> Option<String> {
        self.report.as_ref().map(|report| waterfall(report, self.last_good.as_ref(), bar))
    }

    /// The members, a line each; nothing for an incident of one.
    pub fn member_lines(&self) -> String {
        if self.incident.members < 2 {
            return String::new();
        }
        let mut out = format!("\n{}:\n", self.members_title());
        for member in self.members.iter().take(LISTED) {
            let mark = if member.ended.is_some() { '✓' } else { '✗' };
            out.push_str(&format!("{mark} {}: {}\n", member.subject, member.said));
        }
        let more = self.unlisted(LISTED);
        if more > 0 {
            out.push_str(&format!("… and {more} more\n"));
        }
        out
    }

    /// How many members there are.
    pub fn members_title(&self) -> String {
        format!("{} members, {} of them firing", self.incident.members, self.incident.firing)
    }

    /// Members that are only counted if at most `shown` are listed.
    pub fn unlisted(&self, shown: usize) -> usize {
        (self.incident.members as usize).saturating_sub(self.members.len().min(shown))
    }

    /// The facts that are no section of their own: numbers and names.
    pub fn numbers(&self) -> Vec<(&'static str, String)> {
        let told_elsewhere = ["Likely cause", "News", "Decided by"];
        self.facts().into_iter().filter(|(name, _)| !told_elsewhere.contains(name)).collect()
    }

    /// What the members share.
    pub fn likely_cause(&self) -> Option<String> {
        match &self.incident.root {
            Root::Shared { resource, said } => Some(format!("{resource}: {said}")),
            Root::Alone(_) | Root::Storm => None,
        }
    }

    /// Where it goes on from here, in the order in which it is shown.
    pub fn links(&self) -> Vec<(&'static str, &str)> {
        let links = [
            ("Runbook", &self.runbook),
            ("Page", &self.link),
            ("Acknowledge", &self.ack_link),
            ("Run again", &self.run_link),
        ];
        links.into_iter().filter_map(|(name, link)| Some((name, link.as_deref()?))).collect()
    }

    /// The whole notice as plain text: the verdict, numbers, the run, members, cause, what changed, links, the decision.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n\n", self.headline());
        for (name, value) in self.numbers() {
            out.push_str(&format!("{name:>12}: {value}\n"));
        }
        if let Some(waterfall) = self.waterfall(24) {
            out.push_str(&format!("\n{waterfall}"));
        }
        out.push_str(&self.member_lines());
        if let Some(cause) = self.likely_cause() {
            out.push_str(&format!("\nLikely cause: {cause}\n"));
        }
        if !self.news.is_empty() {
            out.push_str("\nWhat changed:\n");
            out.extend(self.news.iter().map(|line| format!("- {line}\n")));
        }
        for (at, (name, link)) in self.links().into_iter().enumerate() {
            let gap = if at == 0 { "\n" } else { "" };
            out.push_str(&format!("{gap}{name}: {link}\n"));
        }
        out.push_str(&format!("\nDecided by: {}\n", self.decision));
        out
    }
}

/// Identifies one notice to one notifier. A function of state, so a retry after a crash has the same.
pub fn delivery_id(incident: &str, sequence: u32, notifier: &Name) -> String {
    format!("{incident}.{sequence}.{notifier}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_is_not_well_again() {
        let said = "the store is back, and one decides and tells again: if it still fails, that one tells";
        for is_whole in [false, true] {
            let over = Notification { is_whole, ..sample::sample(NotifyReason::Resolved) };
            assert!(!over.headline().contains("HANDED OVER"), "{}", over.headline());
            let handed = Notification { handed_over: Some(said.to_owned()), ..over };
            assert_eq!(handed.headline(), format!("HANDED OVER {} · {said}", handed.subject));
            assert_eq!(handed.title(), format!("HANDED OVER {}", handed.subject));
        }
    }
}
