//! A run beside the last good one: what has changed in between, and what was checked and found healthy.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journey::Name;
use crate::journey::expect::cut_at;
use crate::journey::outcome::Verdict;
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::journey::seen::{Seen, What, find, valid_until};
use crate::time::{Human, between};

/// Of more changes than this, the rest is counted: a notice is read by people.
const TOLD: usize = 8;
/// A value is told up to about this many bytes in a notice.
const VALUE: usize = 160;
/// How near the end of a certificate is worth a word.
const NEAR: &[Duration] = &[Duration::from_secs(86_400), Duration::from_secs(7 * 86_400)];

/// One thing that is not as it was at the last good run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Whose step met it; `None` for what is of the run as a whole.
    pub step: Option<Name>,
    /// What it is.
    pub what: What,
    /// As it was.
    pub was: String,
    /// As it is.
    pub is: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what.words())?;
        if let Some(step) = &self.step {
            write!(f, " of {step}")?;
        }
        write!(f, ": {} → {}", cut_at(&self.was, VALUE), cut_at(&self.is, VALUE))
    }
}

/// What differs between two runs, of what both of them saw, in the order of the steps. A difference that several steps saw
/// through one channel is told once.
///
/// Left out is what differs without a change: of a greeting the date, the time and words that are made up anew for each
/// connection, and of a name's addresses another selection from the same pool.
pub fn changes(last_good: &Report, this: &Report) -> Vec<Change> {
    let mut changes = Vec::new();
    let whole = [
        (What::Version, &last_good.version, &this.version),
        (What::Configuration, &last_good.configuration, &this.configuration),
    ];
    for (what, was, is) in whole {
        if !was.is_empty() && !is.is_empty() && was != is {
            changes.push(Change { step: None, what, was: was.clone(), is: is.clone() });
        }
    }
    let mut told = BTreeSet::new();
    for step in &this.steps {
        let before = last_good.steps.iter().find(|other| other.name == step.name && other.channel == step.channel);
        for seen in &step.seen {
            let Some(was) = before.and_then(|before| find(&before.seen, seen.what)) else { continue };
            let pair = if differs(seen.what, was, &seen.is) {
                Some((was.to_owned(), seen.is.to_string()))
            } else if seen.what == What::Certificate {
                outlooks(was, last_good.started, this.started)
            } else {
                None
            };
            if let Some((was, is)) = pair
                && told.insert((step.channel.clone(), seen.what, was.clone(), is.clone()))
            {
                changes.push(Change { step: Some(step.name.clone()), what: seen.what, was, is });
            }
        }
    }
    changes
}

/// Whether it is another one, and not the same in other words.
fn differs(what: What, was: &str, is: &str) -> bool {
    if was == is {
        return false;
    }
    match what {
        What::Banner => !steady(was).eq(steady(is)),
        What::Addresses | What::NameServerAnswer => {
            let set = |text: &str| text.split(", ").map(str::to_owned).collect::<BTreeSet<_>>();
            let (was, is) = (set(was), set(is));
            was.is_subset(&is) || is.is_subset(&was) || was.is_disjoint(&is)
        }
        // It is how long it does so that differs, each time.
        What::Throttled => false,
        _ => true,
    }
}

/// The words of a greeting that stay the same as long as the server does.
fn steady(text: &str) -> impl Iterator<Item = &str> {
    // A time of day comes with a date (RFC 5322 section 3.3), whose other words are like many others.
    let has_time = text.split_whitespace().any(is_time);
    text.split_whitespace().filter(move |word| !(is_made_up(word) || has_time && is_of_date(word)))
}

fn is_time(word: &str) -> bool {
    let parts: Vec<_> = word.split(':').collect();
    parts.len() >= 2 && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
        || word.parse::<Timestamp>().is_ok()
}

fn is_of_date(word: &str) -> bool {
    const NAMES: &[&str] = &[
        "mon", "tue", "wed", "thu", "fri", "sat", "sun", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep",
        "oct", "nov", "dec",
    ];
    let word = word.trim_matches(['(', ')', ',', ';']);
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_zone = word.strip_prefix(['+', '-']).is_some_and(|zone| zone.len() == 4 && is_number(zone));
    let is_name = NAMES.iter().any(|name| name.eq_ignore_ascii_case(word));
    is_time(word) || is_zone || is_name || is_number(word) || matches!(word, "GMT" | "UTC")
}

/// Whether a word looks drawn by chance: long, and back and forth between letters and digits.
fn is_made_up(word: &str) -> bool {
    /// `eu-west-1a.mx2` goes back and forth three times.
    const TURNS: usize = 5;
    let kinds: Vec<bool> = word.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.is_ascii_digit()).collect();
    kinds.windows(2).filter(|pair| pair[0] != pair[1]).count() >= TURNS
}

/// How a certificate that has stayed the same stood at both runs, if that is not the same any more.
fn outlooks(told: &str, before: Timestamp, now: Timestamp) -> Option<(String, String)> {
    let until = valid_until(told)?;
    let stage = |at: Timestamp| {
        if at >= until { 0 } else { 1 + NEAR.iter().filter(|near| between(at, until) > **near).count() }
    };
    if stage(now) >= stage(before) {
        return None;
    }
    let words = |at: Timestamp| match stage(at) {
        0 => format!("expired {} ago ({until})", Human(between(until, at))),
        _ => format!("valid for {}", Human(between(at, until))),
    };
    Some((words(before), words(now)))
}

/// What was checked and found healthy, step by step, up to the first that failed and as far as that came; then what was never
/// reached.
pub fn healthy(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let failed = report.steps.iter().position(|step| step.status == StepStatus::Failed);
    let (before, rest) = report.steps.split_at(failed.unwrap_or(report.steps.len()));
    for step in before.iter().filter(|step| matches!(step.status, StepStatus::Passed | StepStatus::Slow)) {
        let mut found = parts(&step.phases.iter().map(|phase| phase.name.as_str()).collect::<Vec<_>>(), &step.seen);
        found.extend(end(step));
        lines.push(format!("{}: {}", step.name, found.join(", ")));
    }
    if let Some((failed, after)) = rest.split_first() {
        // The last part is the one in which it failed, unless it got as far as an answer.
        let done = failed.phases.len() - usize::from(failed.ack.is_none() && !failed.phases.is_empty());
        let names: Vec<_> = failed.phases[..done].iter().map(|phase| phase.name.as_str()).collect();
        let mut found = parts(&names, &failed.seen);
        if failed.verb == "receive"
            && let Some(peer) = find(&failed.seen, What::Peer)
        {
            found = vec![format!("its reader was connected to {peer}")];
        }
        if !found.is_empty() {
            lines.push(format!("{}: {}", failed.name, found.join(", ")));
        }
        let missed: Vec<_> = after
            .iter()
            .filter(|step| step.status == StepStatus::Skipped && step.detail.is_none())
            .map(|step| &*step.name)
            .collect();
        if !missed.is_empty() {
            lines.push(format!("never reached: {}", missed.join(", ")));
        }
    }
    lines
}

/// What the parts of a step prove, and what was met on the way.
fn parts(phases: &[&str], seen: &[Seen]) -> Vec<String> {
    let had = |names: &[&str]| phases.iter().any(|phase| names.contains(phase));
    let met = |what: What| find(seen, what).is_some();
    let proofs = [
        (had(&["dns"]) || met(What::Addresses), "name resolved"),
        (had(&["connect"]) || met(What::Peer), "TCP connected"),
        (had(&["tls", "starttls"]) || met(What::Tls), "TLS ok"),
        (had(&["greeting", "upgrade"]) || met(What::Banner), "greeted"),
        (had(&["login", "bind"]), "authenticated"),
    ];
    proofs.into_iter().filter(|(is_so, _)| *is_so).map(|(_, words)| words.to_owned()).collect()
}

/// How a step that passed ended.
fn end(step: &StepReport) -> Option<String> {
    let ack = step.ack.as_deref().map(|ack| cut_at(ack, VALUE));
    match (&*step.verb, ack) {
        ("receive", _) => Some(format!("arrived after {}", Human(step.took))),
        ("send", Some(ack)) => Some(format!("accepted as {ack}")),
        ("request", Some(ack)) => Some(format!("answered {ack}")),
        (_, Some(ack)) => Some(ack),
        (_, None) => Some("done".to_owned()),
    }
}

/// Both, as facts of a notice about a run that is not as it should be.
pub fn facts(last_good: Option<&Report>, report: Option<&Report>) -> Vec<(&'static str, String)> {
    let bad = report.filter(|report| !matches!(report.outcome.verdict(), Verdict::Good | Verdict::Excluded));
    let Some(report) = bad else { return Vec::new() };
    let mut facts = Vec::new();
    let changed = last_good.map(|good| changes(good, report)).unwrap_or_default();
    if !changed.is_empty() {
        let mut words: Vec<_> = changed.iter().take(TOLD).map(Change::to_string).collect();
        if changed.len() > TOLD {
            words.push(format!("and {} more", changed.len() - TOLD));
        }
        facts.push(("Changed", words.join("; ")));
    }
    let checked = healthy(report);
    if !checked.is_empty() {
        facts.push(("Checked", checked.join("; ")));
    }
    facts
}

#[cfg(test)]
mod tests;
