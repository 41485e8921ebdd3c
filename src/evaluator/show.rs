//! What was decided, shown: metrics, the board, and when a journey is looked at next.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Evaluator, Round};
use crate::board::OpenIncident;
use crate::detect::Severity;
use crate::journey::Name;
use crate::slo::{self, Composition, Hop};
use crate::time::Now;

impl Evaluator {
    /// The journey's measured share beside what its dependencies would make of it.
    fn composition(&self, name: &Name) -> Option<Arc<Composition>> {
        let watched = self.journeys.get(name)?;
        let hops = watched.journey.depends_on.iter().filter_map(|name| {
            let measured = self.journeys.get(name).map(|other| Hop::measured(&other.journey, &other.history));
            let promised = self.parts.policy.dependencies.get(name);
            measured.or_else(|| promised.map(|dependency| Hop::promised(name.clone(), dependency)))
        });
        slo::compose(slo::delivered(&watched.journey, &watched.history), hops.collect()).map(Arc::new)
    }

    /// What a journey's dependencies make of it has changed, and nothing else: it need not have run for that.
    fn show_composition(&mut self, name: &Name) {
        let composition = self.composition(name);
        let Some(watched) = self.journeys.get_mut(name) else { return };
        if watched.composition != composition {
            watched.metrics.set_composition(composition.as_deref());
            watched.composition.clone_from(&composition);
            self.parts.board.update_journey(name, |status| status.composition = composition);
        }
    }

    pub(super) fn show(&mut self, round: &Round, now: Now) {
        for name in &round.touched {
            let composition = self.composition(name);
            let Some(watched) = self.journeys.get_mut(name) else { continue };
            watched.metrics.set_composition(composition.as_deref());
            watched.composition = composition;
            watched.metrics.set_state(watched.alerts.health.phase, watched.slo.as_deref());
            self.parts.board.set_journey(watched.status(now.wall));
            let next = watched.deadline();
            if let Some(before) = self.deadline_of.remove(name) {
                self.deadlines.remove(&(before, name.clone()));
            }
            if let Some(next) = next {
                self.deadlines.insert((next, name.clone()));
                self.deadline_of.insert(name.clone(), next);
            }
        }
        let dependants = round.touched.iter().filter_map(|name| self.dependants.get(name)).flatten();
        let dependants: BTreeSet<_> = dependants.filter(|name| !round.touched.contains(*name)).cloned().collect();
        dependants.iter().for_each(|name| self.show_composition(name));
        // What they came to is on disk.
        round.asked.iter().for_each(|token| self.parts.board.end_asked(*token));
        if round.silences_changed || !round.recorded.is_empty() {
            self.parts.board.update_docket(|docket| {
                for id in &round.recorded {
                    let open = self.desk.incident(id);
                    match open.map(|(incident, members)| OpenIncident { incident: incident.clone(), members }) {
                        Some(open) => drop(docket.open.insert(id.clone(), Arc::new(open))),
                        None => drop(docket.open.remove(id)),
                    }
                }
                if round.silences_changed {
                    docket.silences = self.desk.silences(now.wall).cloned().collect();
                }
            });
        }
        if !round.recorded.is_empty() {
            let (mut critical, mut warning) = (0, 0);
            for incident in self.desk.open() {
                match incident.worst {
                    Severity::Critical => critical += 1,
                    Severity::Warning => warning += 1,
                }
            }
            self.parts.daemon.firing_critical.set(f64::from(critical));
            self.parts.daemon.firing_warning.set(f64::from(warning));
        }
    }
}
