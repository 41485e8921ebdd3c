//! Journeys that are run from several places: what the places see together is what people are told, and a place that sees nothing
//! but itself is an incident of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::watched::Watched;
use super::{Evaluator, Round, push_spans};
use crate::alert::{Look, Phase, Subject};
use crate::detect::{Detector, Finding, Severity};
use crate::incident::Desk;
use crate::incident::root::Resource;
use crate::journey::outcome::Verdict;
use crate::journey::report::Report;
use crate::journey::vantage::Places;
use crate::journey::{Journey, Name};
use crate::judge;
use crate::quorum::{self, Seen, View, Vote};
use crate::slo::SpanChange;
use crate::time::{between, earlier, later};

/// Slots of a journey that are settled at once at most: after a long time without anybody who decides, the next round goes on.
const SETTLED_AT_ONCE: usize = 10_000;

/// A place among the daemon's parts.
const PLACE: &str = "place ";
/// What places said last counts for so long after the store is away.
const UNHEARD: Duration = Duration::from_secs(15);

/// The journeys that are run from several places, and what the places say of them.
#[derive(Default)]
pub(super) struct Together {
    journeys: BTreeMap<Name, Arc<Journey>>,
    /// By the name of the part that a place runs.
    views: HashMap<Name, View>,
    /// What is said of places that have no vote.
    places: BTreeMap<String, String>,
    /// Places that see all fail.
    out: BTreeSet<String>,
}

impl Together {
    fn views<'j>(&'j self, places: &'j Places) -> Vec<(&'j str, View)> {
        let view = |part: &Name| self.views.get(part).copied().unwrap_or_default();
        places.parts.iter().map(|(location, part)| (&**location, view(part))).collect()
    }

    fn all_views(&self) -> impl Iterator<Item = Vec<(&str, View)>> {
        self.journeys.values().filter_map(|journey| Some(self.views(journey.places()?)))
    }

    /// Whether anything is well as seen from there, or nothing is run from there any more.
    fn sees(&self, place: &str) -> bool {
        let mut views = self.all_views().flatten().filter(|(at, _)| *at == place).map(|(_, view)| view.seen).peekable();
        views.peek().is_none() || views.any(|seen| seen == Seen::Well)
    }

    /// What is wrong with places, and which of them have no vote by that.
    fn look_at_places(&self) -> (BTreeSet<String>, BTreeMap<String, String>) {
        let out = quorum::odd_ones(self.all_views());
        let mut of: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (place, view) in self.all_views().flatten() {
            let (all, silent) = of.entry(place).or_default();
            *all += 1;
            *silent += usize::from(view.seen == Seen::Nothing);
        }
        let said = |(place, (all, silent)): (&str, (usize, usize))| {
            let journeys = if all == 1 { "its journey".to_owned() } else { format!("all {all} of its journeys") };
            let said = match () {
                () if out.contains(place) => {
                    format!("sees {journeys} fail that other places see well: what it sees has no vote")
                }
                () if all == silent => format!("has no verdict of {journeys}: does a daemon run there?"),
                () => return None,
            };
            Some((place.to_owned(), said))
        };
        let places = of.into_iter().filter_map(said).collect();
        (out, places)
    }
}

/// The place that it is about.
fn place_of(subject: &Subject) -> Option<&str> {
    match subject {
        Subject::Daemon(part) => part.strip_prefix(PLACE),
        _ => None,
    }
}

impl Evaluator {
    /// Which journeys are run from several places.
    pub(super) fn learn_places(&mut self) {
        let all = self.journeys.values();
        let several = all.filter(|watched| !watched.journey.is_run()).map(|watched| &watched.journey);
        self.together.journeys = several.map(|journey| (journey.name.clone(), journey.clone())).collect();
        let parts = self.journeys.values().filter(|watched| watched.journey.is_part());
        self.together.views = parts.map(|watched| (watched.journey.name.clone(), watched.view())).collect();
        (self.together.out, _) = self.together.look_at_places();
    }

    /// What follows for people from what the places of this round's journeys see.
    pub(super) fn weigh(&mut self, round: &mut Round, now: Timestamp) {
        if self.together.journeys.is_empty() {
            return;
        }
        let mut several = BTreeSet::new();
        let mut is_other = false;
        for name in &round.touched {
            let Some(watched) = self.journeys.get(name) else { continue };
            if watched.journey.is_part() {
                let view = watched.view();
                is_other |= self.together.views.insert(name.clone(), view) != Some(view);
                several.insert(watched.journey.told_as().clone());
            } else if !watched.journey.is_run() {
                several.insert(name.clone());
            }
        }
        if is_other {
            let (out, places) = self.together.look_at_places();
            if out != self.together.out {
                // Others have a vote now.
                several.extend(self.together.journeys.keys().cloned());
                self.together.out = out;
            }
            self.tell_of_places(places, round, now);
        }
        for name in several {
            self.weigh_one(&name, round, now);
        }
    }

    /// Tells what is wrong with places, and that it is over.
    fn tell_of_places(&mut self, places: BTreeMap<String, String>, round: &mut Round, now: Timestamp) {
        let before = std::mem::replace(&mut self.together.places, places);
        // What whoever decided before told of a place is over when that place sees something well.
        let told = self.conditions.iter().filter(|(_, alert)| alert.phase.is_firing());
        let inherited = told.filter_map(|(subject, _)| place_of(subject).map(str::to_owned));
        let seeing: BTreeSet<String> = inherited.filter(|place| self.together.sees(place)).collect();
        let known: BTreeSet<String> =
            before.keys().chain(self.together.places.keys()).chain(&seeing).cloned().collect();
        for place in known {
            let said = self.together.places.get(&place).cloned();
            if before.get(&place) != said.as_ref() || said.is_none() {
                let subject = Subject::Daemon(format!("{PLACE}{place}").into());
                let findings = said.map(|said| Finding::new(Detector::Blind, said)).into_iter().collect();
                self.condition(subject, findings, round, now);
            }
        }
    }

    /// What the places see of a journey now, and what its slots came to.
    fn weigh_one(&mut self, name: &Name, round: &mut Round, now: Timestamp) {
        let Some(journey) = self.together.journeys.get(name).cloned() else { return };
        let Some(places) = journey.places() else { return };
        let views = self.views_now(places, now);
        let is_firing = self.journeys.get(name).is_some_and(|watched| watched.alerts.health.phase.is_firing());
        // That a place turns out to be odd ends nothing: it is over when the places see that it is.
        let nobody = BTreeSet::new();
        let out = if is_firing { &nobody } else { &self.together.out };
        let vote = self.vote(&views, places.quorum, out);
        let findings = self.agreed(places, &views, vote, out);
        let parts: Vec<_> = places.parts.iter().filter_map(|(_, part)| self.journeys.get(part)).collect();
        let newest = |of: fn(&Watched) -> Option<&Arc<Report>>| {
            parts.iter().filter_map(|part| of(part)).max_by_key(|report| report.started).cloned()
        };
        let (last, last_bad, last_good) = (
            newest(|part| part.last.as_ref()),
            newest(|part| part.last_bad.as_ref()),
            newest(|part| part.last_good.as_ref()),
        );
        let phase = |is: fn(Phase) -> bool| parts.iter().any(|part| is(part.alerts.health.phase));
        let look = Look {
            is_suspicious: vote.bad > 0 || phase(|phase| phase == Phase::Suspect),
            since: parts.iter().filter_map(|part| part.alerts.health.since).min(),
            is_good: !findings.is_empty() && phase(|phase| phase == Phase::Recovering),
            findings,
            is_bad_run: false,
            is_undamped: !journey.alert.flapping,
        };
        let (verdicts, due) = self.settle_slots(&journey, places, now);
        let Some(watched) = self.journeys.get_mut(name) else { return };
        let mut changes = BTreeMap::new();
        for (slot, verdict) in verdicts {
            if let Some(SpanChange::Put(span)) = watched.see_together(slot, verdict) {
                changes.insert(span.start, SpanChange::Put(span));
            }
        }
        push_spans(&mut round.changes, name, changes.into_values());
        watched.due = due;
        watched.last_good = last_good.or(watched.last_good.take());
        let is_new = |one: &Option<Arc<Report>>, known: &Option<Arc<Report>>| match (one, known) {
            (Some(one), Some(known)) => !Arc::ptr_eq(one, known),
            (one, _) => one.is_some(),
        };
        let look = Look { is_bad_run: is_new(&last_bad, &watched.last_bad), ..look };
        if is_new(&last, &watched.last) {
            let is_success = last.as_ref().is_some_and(|report| report.outcome.latency().is_some());
            watched.metrics.heard(is_success, now);
            watched.last = last;
        }
        watched.last_bad = last_bad.or(watched.last_bad.take());
        watched.judge_together(look, &mut self.desk, round, now);
        round.touched.insert(name.clone());
    }

    /// What the places say. Of others nothing is heard while the store that they say it through is away: what they said last does
    /// not count for long.
    fn views_now<'j>(&self, places: &'j Places, now: Timestamp) -> Vec<(&'j str, View)> {
        let is_deaf = self.store_failed.is_some_and(|since| between(since, now) >= UNHEARD);
        let is_elsewhere = |part: &Name| self.journeys.get(part).is_some_and(|watched| watched.is_elsewhere);
        let view = |part: &Name| self.together.views.get(part).copied().filter(|_| !is_deaf || !is_elsewhere(part));
        places.parts.iter().map(|(location, part)| (&**location, view(part).unwrap_or_default())).collect()
    }

    /// Asks the places. If none of those that see anything may vote, all of them do: nobody is left untold.
    fn vote(&self, views: &[(&str, View)], quorum: usize, out: &BTreeSet<String>) -> Vote {
        let seen = || views.iter().map(|(place, view)| (*place, view.seen));
        let vote = quorum::vote(seen(), quorum, out);
        if vote.able > 0 { vote } else { quorum::vote(seen(), quorum, &BTreeSet::new()) }
    }

    /// What so many places agree on, with what each of them says.
    fn agreed(&self, places: &Places, views: &[(&str, View)], vote: Vote, out: &BTreeSet<String>) -> Vec<Finding> {
        let health = |part: &Name| self.journeys.get(part).map(|watched| &watched.alerts.health);
        let mut detector: Option<(Severity, Detector)> = None;
        let mut said = Vec::new();
        let mut is_silent = false;
        for ((place, view), (_, part)) in views.iter().zip(&places.parts) {
            let finding = health(part).and_then(|health| health.findings.first());
            is_silent |= finding.is_some_and(|finding| finding.detector == Detector::Stale);
            let words = match (view.seen, finding) {
                (Seen::Bad(_), Some(finding)) => {
                    let worst = (finding.severity, finding.detector);
                    let is_worse =
                        detector.is_none_or(|known| known.0 < worst.0 || known.0 == worst.0 && worst.1 < known.1);
                    if is_worse {
                        detector = Some(worst);
                    }
                    finding.said.as_str()
                }
                (Seen::Unseen | Seen::Nothing, _) => "no verdict",
                (Seen::Unsure, _) => "not enough bad runs yet",
                _ => "well",
            };
            let vote = if out.contains(*place) { " (no vote)" } else { "" };
            said.push(format!("{place}{vote}: {words}"));
        }
        let Vote { able, bad, needed, severity } = vote;
        match (severity, detector) {
            (Some(severity), Some((_, detector))) => {
                let of = if needed < places.quorum { " that can say" } else { "" };
                let said =
                    format!("seen from {bad} of {able} places{of} (quorum {}): {}", places.quorum, said.join("; "));
                vec![Finding { severity, ..Finding::new(detector, said) }]
            }
            // Nobody sees anything at all.
            _ if able == 0 && is_silent => {
                vec![Finding::new(Detector::Stale, format!("no place has a verdict: {}", said.join("; ")))]
            }
            _ => Vec::new(),
        }
    }

    /// What the slots since the last come to that can be told by now, and when the next one can at last.
    fn settle_slots(
        &self,
        journey: &Journey,
        places: &Places,
        now: Timestamp,
    ) -> (Vec<(Timestamp, Verdict)>, Option<Timestamp>) {
        let Some(watched) = self.journeys.get(&journey.name) else { return Default::default() };
        let after = watched.history.last_slot().unwrap_or(watched.began);
        let before = |at: Timestamp| earlier(at, Duration::from_millis(1));
        let mut settled = Vec::new();
        for slot in journey.schedule.slots(after, now, SETTLED_AT_ONCE) {
            // Each place has one slot from this one to the next.
            let Some(next) = journey.schedule.next(slot) else { break };
            let verdict = |(location, part): &(Name, Name)| {
                let found = self.journeys.get(part)?.history.verdict_in(before(slot), before(next))?;
                // What it saw is about itself.
                Some(if self.together.out.contains(&**location) { Verdict::Unknown } else { found })
            };
            let verdicts: Vec<_> = places.parts.iter().map(verdict).collect();
            let due = later(later(next, journey.deadline), watched.rules.stale_after);
            match quorum::round(&verdicts, places.quorum, now >= due) {
                Some(verdict) => settled.push((slot, verdict)),
                None => return (settled, Some(due)),
            }
        }
        (settled, None)
    }

    /// The journey that is run for one that is run from several places: here, or from the first of them.
    pub(super) fn run_for(&self, name: Name) -> Name {
        let places = self.journeys.get(&name).and_then(|watched| watched.journey.places());
        let Some(places) = places else { return name };
        let is_here = |(location, _): &&(Name, Name)| self.parts.location.as_deref() == Some(location);
        places.parts.iter().find(is_here).or(places.parts.first()).map_or(name, |(_, part)| part.clone())
    }
}

impl Watched {
    /// What a place says of a journey.
    fn view(&self) -> View {
        let health = &self.alerts.health;
        let is_stale = health.findings.iter().any(|finding| finding.detector == Detector::Stale);
        let seen = match (health.phase, health.severity()) {
            _ if is_stale => Seen::Nothing,
            _ if self.history.last_slot().is_none() => Seen::Unseen,
            (Phase::Firing | Phase::Recovering, Some(severity)) => Seen::Bad(severity),
            (Phase::Suspect, _) => Seen::Unsure,
            _ => Seen::Well,
        };
        View { seen, streak: self.streak }
    }

    /// The alerts of what several places see together.
    fn judge_together(&mut self, look: Look, desk: &mut Desk, round: &mut Round, now: Timestamp) {
        let before = self.alerts.clone();
        let name = &self.journey.name;
        let is_bad = !look.findings.is_empty() || look.is_suspicious;
        let blamed = self.last_bad.as_ref().filter(|_| is_bad);
        let blamed = blamed.and_then(|report| report.failed_step()?.channel.clone()).map(Resource::Channel);
        let subject = Subject::Journey(name.clone());
        judge::settle(&mut self.alerts.health, &subject, look, is_bad, blamed, desk, now);
        self.judge_budget(before, desk, round, now);
    }
}

#[cfg(test)]
#[cfg(feature = "postgres")]
mod tests;
