//! What a message says of an incident, line by line, every text of it safe and short enough.

use super::{CAUSE, CONTEXT, FIELD_NAME, FIELD_VALUE, MEMBER, MEMBERS, NEWS, Page, Part, STANDING};
use crate::incident::{LISTED, NotifyReason, Root};
use crate::journey::outcome::Outcome;
use crate::journey::report::Report;
use crate::notifier::slack::escape::length;
use crate::time::{Human, between};

impl Page<'_> {
    /// What is the matter, without the name, which stands above it.
    pub(super) fn verdict(self, part: Part) -> String {
        let notification = &self.delivery.notification;
        let incident = &notification.incident;
        let lasted = Human(between(incident.since, notification.at));
        let verdict = match &notification.report {
            Some(report) if incident.members < 2 => report.verdict_line(),
            _ => notification.decision.clone(),
        };
        if let Some(said) = &notification.handed_over {
            return said.clone();
        }
        match notification.reason {
            NotifyReason::Resolved => format!("well again after {lasted}, {} bad runs", incident.bad_runs),
            NotifyReason::Updated if part == Part::Reply && !notification.news.is_empty() => {
                notification.news.join("; ")
            }
            NotifyReason::Repeat | NotifyReason::Updated => format!("still, for {lasted}: {verdict}"),
            NotifyReason::First | NotifyReason::Worse => verdict,
        }
    }

    /// Facts for fields, the weightiest first: Slack shows ten.
    pub(super) fn fields(self) -> Vec<(String, String)> {
        let notification = &self.delivery.notification;
        let incident = &notification.incident;
        let lasted = Human(between(incident.since, notification.at));
        let since = incident.since.strftime("%Y-%m-%d %H:%M:%S UTC");
        let mut facts: Vec<(&str, String)> = Vec::new();
        if notification.reason == NotifyReason::Resolved {
            facts.push(("Lasted", lasted.to_string()));
            facts.push(("Runs lost", incident.bad_runs.to_string()));
            facts.push(("Since", since.to_string()));
        } else {
            facts.push(("Since", format!("{since} ({lasted})")));
        }
        if incident.members > 1 {
            facts.push(("Members", format!("{} of {} fire", incident.firing, incident.members)));
        }
        if let Some(step) = notification.report.as_ref().and_then(Report::failed_step) {
            let at = step.channel.as_ref().map_or(String::new(), |channel| format!(" ({} {channel})", step.verb));
            facts.push(("Failed step", format!("{}{at}", step.name)));
        }
        if let Some(Outcome::Failed { cause, .. }) = notification.report.as_ref().map(|report| &report.outcome) {
            facts.push(("Cause", cause.to_string()));
        }
        facts.extend(notification.latency_line().map(|line| ("Latency", line)));
        facts.extend(notification.objective.clone().map(|line| ("Objective", line)));
        if let Some(good) = notification.last_good.as_ref().filter(|_| notification.reason != NotifyReason::Resolved) {
            let ago = Human(between(good.started, notification.at));
            let at = good.started.strftime("%H:%M:%S UTC");
            facts.push(("Last good run", format!("{at}, {ago} before, in {}", Human(good.latency))));
        }
        facts.push(("Decided by", notification.decision.clone()));
        facts.extend(notification.owner.clone().map(|owner| ("Owner", owner)));
        if !notification.labels.is_empty() {
            let labels: Vec<_> = notification.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            facts.push(("Labels", labels.join(" ")));
        }
        let fit = |(name, value): (&str, String)| (self.line(name, FIELD_NAME), self.line(&value, FIELD_VALUE));
        facts.into_iter().map(fit).collect()
    }

    /// How the incident stands with people: the likely cause, the news, who looks after it, what keeps it quiet.
    pub(super) fn standing(self) -> Vec<String> {
        let notification = &self.delivery.notification;
        let incident = &notification.incident;
        let mut lines = Vec::new();
        if let Root::Shared { resource, said } = &incident.root {
            lines.push(format!("*Likely cause*: {}", self.line(&format!("{resource}: {said}"), CAUSE)));
        }
        if !notification.news.is_empty() {
            lines.push(format!("*News*: {}", self.line(&notification.news.join("; "), NEWS)));
        }
        if notification.reason == NotifyReason::Resolved {
            return lines;
        }
        if let Some(ack) = &incident.acked {
            let until = ack.until.map_or(String::new(), |until| format!(" until {}", until.strftime("%H:%M UTC")));
            let by = format!("{} at {}{until}", ack.by, ack.at.strftime("%H:%M UTC"));
            lines.push(format!("*Acknowledged by* {}", self.line(&by, STANDING)));
        }
        if let Some(quiet) = &incident.quiet {
            lines.push(format!("*Quiet*: {}", self.line(quiet, STANDING)));
        }
        if let Some(cycles) = incident.flapping {
            let said = format!("{cycles} times within two hours; it is over after 30 calm minutes");
            lines.push(format!("*Flapping*: {}", self.line(&said, STANDING)));
        }
        lines
    }

    /// The members, a line each; nothing for an incident of one.
    pub(super) fn members(self) -> String {
        let notification = &self.delivery.notification;
        let total = notification.incident.members as usize;
        if total < 2 {
            return String::new();
        }
        let mut out = String::new();
        let mut shown = 0;
        for member in notification.members.iter().take(LISTED) {
            let mark = if member.ended.is_some() { '✓' } else { '✗' };
            let line = format!("{mark} {}\n", self.line(&format!("{}: {}", member.subject, member.said), MEMBER));
            if length(&out) + length(&line) > MEMBERS {
                break;
            }
            out.push_str(&line);
            shown += 1;
        }
        if total > shown {
            out.push_str(&format!("… and {} more", total - shown));
        }
        out.trim_end().to_owned()
    }

    /// What identifies the notice, for whoever looks into logs and traces.
    pub(super) fn ids(self) -> Vec<String> {
        let notification = &self.delivery.notification;
        let mut ids = Vec::new();
        if let Some(report) = &notification.report {
            ids.push(("run", report.token.to_string()));
            ids.push(("trace", report.token.trace_id()));
        }
        ids.extend(notification.location.clone().map(|location| ("seen from", location)));
        ids.push(("delivery", self.delivery.id.clone()));
        ids.into_iter().map(|(name, id)| format!("{name} {}", self.line(&id, CONTEXT))).collect()
    }
}
