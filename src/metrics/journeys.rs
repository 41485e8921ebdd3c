//! All journeys, and the families that are about them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::journey::{Journey, Name};
use crate::metrics::histogram::{Edges, Histogram};
use crate::metrics::journey::{JourneyMetrics, Numbers, OUTCOMES, Sli, Standing, lock};
use crate::metrics::render::Text;
use crate::metrics::{
    ALERT_STATE, LAST_RUN, LAST_SUCCESS, Metrics, RUN_BUDGET, RUN_BUDGET_RATIO, RUN_CAUSES, RUN_DURATION, RUNS,
    SLO_ACHIEVED, SLO_BUDGET_LEFT, SLO_BURN, SLO_COMPOSED, SLO_COVERAGE, SLO_EXHAUSTION, SLO_INTERVAL,
    SLO_LEFT_SECONDS, SLO_OBJECTIVE, SLO_REFUND, SLO_UNCORRECTED, STALE_AFTER, STEP_DURATION, render,
};
use crate::slo::BURN_NAMES;

/// Every journey that there is or was, by name: one that comes back goes on where it was.
pub(super) struct Journeys {
    of: Mutex<BTreeMap<Name, Arc<Mutex<Numbers>>>>,
    edges: Arc<Edges>,
    /// The label that every series has, with a comma, or nothing.
    location: String,
}

impl Journeys {
    pub(super) fn new(edges: &[f64], location: Option<&str>) -> Journeys {
        Journeys { of: Mutex::default(), edges: Arc::new(Edges::new(edges)), location: labelled(location) }
    }

    fn of<T>(&self, act: impl FnOnce(&mut BTreeMap<Name, Arc<Mutex<Numbers>>>) -> T) -> T {
        act(&mut self.of.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds their families. A journey is held up for the time that copying one family of it takes.
    pub(super) fn render(&self, text: &mut Text<'_>) {
        let there = self.of(|of| of.iter().map(|(name, numbers)| (name.clone(), numbers.clone())).collect::<Vec<_>>());
        let rows = there.into_iter().filter(|(_, numbers)| !lock(numbers).is_gone).map(|(name, numbers)| {
            let seen_from = lock(&numbers).seen_from.as_deref().map(|place| labelled(Some(place)));
            let mut labels = seen_from.unwrap_or_else(|| self.location.clone());
            render::label(&mut labels, "journey", &name);
            Row { labels, numbers }
        });
        let mut page = Page { text, rows: rows.collect(), edges: &self.edges };
        page.runs();
        page.objectives();
    }
}

/// The label that says from where it is seen, with a comma; nothing, if that is nowhere.
fn labelled(location: Option<&str>) -> String {
    let mut label = String::new();
    if let Some(location) = location.filter(|location| !location.is_empty()) {
        render::label(&mut label, "location", location);
        label.push(',');
    }
    label
}

impl Metrics {
    /// A journey's handle; it is shown from here on. What was counted of one of that name goes on.
    pub fn journey(&self, journey: &Journey) -> JourneyMetrics {
        let numbers = self.journeys.of(|of| of.entry(journey.name.clone()).or_default().clone());
        lock(&numbers).define(journey);
        JourneyMetrics { edges: self.journeys.edges.clone(), numbers }
    }

    /// Shows a journey no longer, until [`Metrics::journey`] is asked for it.
    pub fn hide_journey(&self, name: &Name) {
        if let Some(numbers) = self.journeys.of(|of| of.get(name).cloned()) {
            lock(&numbers).is_gone = true;
        }
    }
}

/// A journey, with the labels of all its series.
struct Row {
    labels: String,
    numbers: Arc<Mutex<Numbers>>,
}

/// What the journeys' families are written on.
struct Page<'p, 't> {
    text: &'p mut Text<'t>,
    rows: Vec<Row>,
    edges: &'p Edges,
}

/// A name and a value.
type Label = (&'static str, &'static str);

/// Samples of one journey in one family.
#[derive(Default)]
struct Samples(Vec<Sample>);

/// Beside the labels of its journey, a sample has at most two of its own.
struct Sample {
    labels: [Label; 2],
    count: usize,
    value: f64,
}

impl Samples {
    fn add<const N: usize>(&mut self, own: [Label; N], value: f64) {
        let mut labels = [("", ""); 2];
        labels[..N].copy_from_slice(&own);
        self.0.push(Sample { labels, count: N, value });
    }
}

impl Page<'_, '_> {
    fn runs(&mut self) {
        self.family(RUNS, |numbers, samples| {
            for (outcome, count) in OUTCOMES.iter().zip(numbers.runs) {
                samples.add([("outcome", outcome.as_str())], count as f64);
            }
        });
        self.family(RUN_CAUSES, |numbers, samples| {
            for (outcome, cause, count) in &numbers.causes {
                samples.add([("outcome", outcome.as_str()), ("cause", cause)], *count as f64);
            }
        });
        self.durations();
        self.steps();
        self.gauge(RUN_BUDGET, |numbers| numbers.budget);
        self.gauge(RUN_BUDGET_RATIO, |numbers| numbers.budget_ratio);
        self.gauge(LAST_RUN, |numbers| Some(numbers.last_run));
        self.gauge(LAST_SUCCESS, |numbers| Some(numbers.last_success));
        self.gauge(STALE_AFTER, |numbers| numbers.stale_after);
        self.gauge(ALERT_STATE, |numbers| Some(numbers.alert_state.into()));
    }

    fn objectives(&mut self) {
        self.slis(SLO_OBJECTIVE, |sli, samples| samples.add([("sli", sli.name)], sli.objective));
        self.standing(SLO_ACHIEVED, |standing| standing.achieved);
        self.standing(SLO_BUDGET_LEFT, |standing| standing.left);
        self.slis(SLO_BURN, |sli, samples| {
            let windows = std::iter::once("objective").chain(BURN_NAMES);
            for (window, burn) in windows.zip(sli.standing.iter().flat_map(|standing| standing.burn)) {
                samples.add([("sli", sli.name), ("window", window)], burn);
            }
        });
        self.slis(SLO_INTERVAL, |sli, samples| {
            if let Some(Standing { interval: (low, high), .. }) = sli.standing {
                samples.add([("sli", sli.name), ("end", "low")], low);
                samples.add([("sli", sli.name), ("end", "high")], high);
            }
        });
        self.standing(SLO_UNCORRECTED, |standing| standing.uncorrected);
        self.standing(SLO_LEFT_SECONDS, |standing| standing.left_seconds);
        self.standing(SLO_REFUND, |standing| standing.refund);
        self.standing(SLO_EXHAUSTION, |standing| standing.exhaustion);
        self.gauge(SLO_COMPOSED, |numbers| numbers.composed);
        self.gauge(SLO_COVERAGE, |numbers| numbers.coverage);
    }

    fn gauge(&mut self, name: &'static str, of: impl Fn(&Numbers) -> Option<f64>) {
        self.family(name, |numbers, samples| {
            if let Some(value) = of(numbers) {
                samples.add([], value);
            }
        });
    }

    fn slis(&mut self, name: &'static str, of: impl Fn(&Sli, &mut Samples)) {
        self.family(name, |numbers, samples| numbers.slis.iter().for_each(|sli| of(sli, samples)));
    }

    fn standing(&mut self, name: &'static str, of: impl Fn(&Standing) -> f64) {
        self.slis(name, |sli, samples| {
            if let Some(standing) = &sli.standing {
                samples.add([("sli", sli.name)], of(standing));
            }
        });
    }

    fn family(&mut self, name: &'static str, of: impl Fn(&Numbers, &mut Samples)) {
        let mut samples = Samples::default();
        self.text.family(name, |text| {
            for row in &self.rows {
                samples.0.clear();
                of(&lock(&row.numbers), &mut samples);
                for Sample { labels, count, value } in &samples.0 {
                    text.sample(name, &row.labels, &labels[..*count], *value);
                }
            }
        });
    }

    fn durations(&mut self) {
        let mut copy = Histogram::default();
        self.text.family(RUN_DURATION, |text| {
            for row in &self.rows {
                lock(&row.numbers).duration.copy_to(&mut copy);
                text.histogram(RUN_DURATION, &row.labels, self.edges, &copy);
            }
        });
    }

    fn steps(&mut self) {
        let (mut copy, mut labels) = (Vec::new(), String::new());
        self.text.family(STEP_DURATION, |text| {
            for row in &self.rows {
                copy.clone_from(&lock(&row.numbers).steps);
                for (step, took) in &copy {
                    labels.clone_from(&row.labels);
                    labels.push(',');
                    render::label(&mut labels, "step", step);
                    text.summary(STEP_DURATION, &labels, took.sum, took.count);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
