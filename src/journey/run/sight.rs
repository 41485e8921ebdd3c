//! How far a run is, for whoever looks on.

use crate::journey::Name;
use crate::journey::report::StepReport;
use crate::journey::run::Run;
use crate::time::Mono;

/// How far a run is. What servers said is not in it: that is for the report, which is redacted.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Its journey.
    pub journey: Name,
    /// Its steps, those that are not done yet as skipped.
    pub steps: Vec<StepReport>,
    /// The step in hand, and since when.
    pub working: Option<(usize, Mono)>,
    /// Its sends that have begun.
    pub sends: Vec<SendSight>,
}

/// A send that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendSight {
    /// Which step it is.
    pub step: usize,
    /// When it began: just before its first byte left, once that is known.
    pub started: Mono,
    /// It had no clear answer.
    pub uncertain: bool,
}

impl Run {
    /// How far it is.
    pub fn sight(&self) -> Sight {
        let steps = self.journey.steps.iter().zip(&self.steps).map(|(step, progress)| StepReport {
            channel: step.verb.channel().cloned(),
            at: progress.at,
            took: progress.took,
            ..StepReport::new(step.name.clone(), step.verb.as_str(), progress.status)
        });
        let sends = self.steps.iter().enumerate().filter_map(|(step, progress)| {
            let sent = progress.sent.as_deref()?;
            Some(SendSight { step, started: sent.started, uncertain: sent.uncertain })
        });
        Sight {
            journey: self.journey.name.clone(),
            steps: steps.collect(),
            working: self.working(),
            sends: sends.collect(),
        }
    }
}
