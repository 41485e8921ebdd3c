//! Runs that somebody asked for, beside the schedule: in their journey's own turn, one at a time, and not as often as anyone likes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Hands, Observation, Turn};
use crate::commands::Refusal;
use crate::control::AskedRun;
use crate::journey::run::checkpoint::Purpose;
use crate::journey::spend::Spent;
use crate::journey::{Journey, Name};
use crate::runner::Order;
use crate::time::{Human, Mono};

/// From one run of a journey that was asked for to the next. Whoever presses again and again sends no more than that.
const APART: Duration = Duration::from_secs(10);

/// That a journey is to be run now.
#[derive(Debug)]
pub struct Wish {
    /// Which.
    pub journey: Name,
    /// Who asks.
    pub by: String,
    /// If another daemon runs the journey, that one may be asked.
    pub may_pass: bool,
    /// The run, or why there is none; whoever asked may be gone.
    pub answer: oneshot::Sender<Result<AskedRun, Refusal>>,
}

/// A run that is promised, until it begins.
pub(super) struct Promised {
    pub(super) run: AskedRun,
    pub(super) spent: Vec<Spent>,
}

/// How a journey stands for who asks for a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing<'a> {
    /// A run that was asked for waits, or goes on.
    pub(super) going: Option<&'a AskedRun>,
    /// When one was last asked for.
    pub(super) last: Option<Mono>,
    /// What it sends may be paid today.
    pub(super) may_spend: bool,
}

/// Whether a run may be promised; `Some` is the one that was promised already.
pub(super) fn rule(journey: &Name, standing: Standing<'_>, now: Mono) -> Result<Option<AskedRun>, Refusal> {
    match standing {
        // A double click, or a second person: one run answers both.
        Standing { going: Some(run), .. } => Ok(Some(run.clone())),
        Standing { last: Some(last), .. } if now.since(last) < APART => {
            let [ago, wait] =
                [now.since(last), APART - now.since(last)].map(|time| Duration::from_secs(time.as_secs()));
            let wait = wait + Duration::from_secs(1);
            let why = format!("`{journey}` was run on request {} ago; ask again in {}", Human(ago), Human(wait));
            Err(Refusal::NotNow(why))
        }
        Standing { may_spend: false, .. } => {
            let why = format!(
                "what `{journey}` sends is limited (`spend`), and its share of the day is used for now; its schedule goes on"
            );
            Err(Refusal::NotNow(why))
        }
        Standing { .. } => Ok(None),
    }
}

/// Ends a journey's turn: tells the slots that came in it, and runs what was promised meanwhile.
pub(super) async fn end_turn(hands: &Hands, journey: &Arc<Journey>, turn: &Mutex<Turn>) {
    loop {
        let (skipped, promised) = Turn::end(turn);
        for (slot, outcome) in skipped {
            let skipped = Observation::Skipped { journey: journey.name.clone(), slot, outcome };
            let _ = hands.observations.send(skipped).await;
        }
        let Some(promised) = promised else { return };
        // Boxed: of the thousands of turns that wait at once, next to none has one.
        Box::pin(keep(promised, hands, journey, turn)).await;
    }
}

/// Runs what was promised.
async fn keep(promised: Promised, hands: &Hands, journey: &Arc<Journey>, turn: &Mutex<Turn>) {
    let Promised { run, spent } = promised;
    let permits = tokio::select! {
        biased;
        () = hands.closing.cancelled() => None,
        permits = hands.permits.wait(journey.critical) => permits,
    };
    let Some(permits) = permits else {
        tracing::info!(journey = %journey.name, run = %run.token, by = run.by, "stopping: a run that was asked for did not begin");
        return;
    };
    hands.metrics.in_flight.increment(1.0);
    let purpose = Purpose::Asked { by: run.by.clone() };
    let order = hands.runner.order(journey.clone(), run.at);
    let report = hands.make(Order { token: run.token, purpose, spent, ..order }).await;
    drop(permits);
    hands.metrics.in_flight.decrement(1.0);
    let Some(report) = report else { return };
    Turn::kept(turn);
    let _ = hands.observations.send(Observation::Asked { report: Box::new(report), run }).await;
}

impl Turn {
    /// Promises a run; whether it is nobody's turn, so that it may begin.
    pub(super) fn promise(turn: &Mutex<Turn>, promised: Promised) -> bool {
        let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.asked = Some(promised.run.clone());
        turn.promised = Some(promised);
        !std::mem::replace(&mut turn.is_running, true)
    }

    /// The run that was asked for and has not ended.
    pub(super) fn asked(turn: &Mutex<Turn>) -> Option<AskedRun> {
        turn.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }

    fn kept(turn: &Mutex<Turn>) {
        turn.lock().unwrap_or_else(PoisonError::into_inner).asked = None;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::journey::token::Token;

    fn run(bits: u128) -> AskedRun {
        AskedRun {
            journey: "sms".into(),
            token: Token::from_bits(bits),
            by: "ada".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_decision_row_by_row() {
        let (going, second) = (run(7), Duration::from_secs(1));
        let name = Name::from("sms");
        let well = Standing { going: None, last: None, may_spend: true };
        let at = |seconds: u32| Mono(second * seconds);
        let refused = |standing, now| match rule(&name, standing, now) {
            Err(Refusal::NotNow(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(rule(&name, well, at(100)), Ok(None));
        let before = Standing { last: Some(at(90)), ..well };
        assert_eq!(rule(&name, before, at(100)), Ok(None), "far enough apart");
        assert!(refused(before, at(99)).contains("9s ago; ask again in 2s"), "{}", refused(before, at(99)));
        let joins = Standing { going: Some(&going), last: Some(at(99)), may_spend: false };
        assert_eq!(rule(&name, joins, at(100)), Ok(Some(going.clone())), "it has been paid already");
        assert!(refused(Standing { may_spend: false, ..well }, at(100)).contains("`spend`"));
    }

    #[test]
    fn a_promised_run_takes_the_turn_after_the_one_that_has_it_and_is_one() {
        let turn = Mutex::new(Turn::default());
        let promised = |bits| Promised { run: run(bits), spent: Vec::new() };
        assert!(Turn::take(&turn, Timestamp::UNIX_EPOCH));
        assert!(!Turn::promise(&turn, promised(1)), "another run has the turn");
        assert_eq!(Turn::asked(&turn), Some(run(1)));
        let (_, next) = Turn::end(&turn);
        assert_eq!(next.map(|next| next.run), Some(run(1)));
        assert!(!Turn::take(&turn, Timestamp::UNIX_EPOCH), "the turn is the promised run's");
        assert_eq!(Turn::asked(&turn), Some(run(1)), "until it has ended");
        Turn::kept(&turn);
        assert!(Turn::asked(&turn).is_none() && Turn::end(&turn).1.is_none());
        assert!(Turn::promise(&turn, promised(2)), "nobody's turn");
        assert!(!Turn::take(&turn, Timestamp::UNIX_EPOCH));
    }
}
