//! The end of the monitor's own journey: a notifier that tells nobody, and says that it was asked to.
//!
//! What gets here went the whole way, through the outbox and a delivery worker. Nothing else may feed the dead man's switch.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::journey::outcome::{Outcome, Verdict};
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered};

/// That the own journey's verdict has gone all the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// When it was decided.
    pub decided: Timestamp,
    /// What it was.
    pub outcome: Outcome,
}

impl Tail {
    /// Whether the journey itself went all the way, too.
    pub fn is_whole(&self) -> bool {
        matches!(self.outcome.verdict(), Verdict::Good | Verdict::Slow)
    }
}

/// Takes the own journey's verdicts, and tells nobody.
pub struct Null {
    tails: watch::Sender<Option<Tail>>,
    since: Timestamp,
}

impl Null {
    /// With where the verdicts are seen. Those decided before `since` are another process's, and prove nothing about this one.
    pub fn new(since: Timestamp) -> (Null, watch::Receiver<Option<Tail>>) {
        let (tails, seen) = watch::channel(None);
        (Null { tails, since }, seen)
    }
}

impl Notifier for Null {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        let notification = &delivery.notification;
        if let Some(report) = notification.report.as_ref().filter(|_| notification.at >= self.since) {
            self.tails.send_replace(Some(Tail { decided: notification.at, outcome: report.outcome.clone() }));
        }
        let receipt = Receipt { id: delivery.id.clone(), said: "seen".to_owned(), ..Receipt::default() };
        Box::pin(std::future::ready(Ok(receipt)))
    }

    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        Box::pin(async { Ok("it is in this very process".to_owned()) })
    }

    fn preview(&self, _: &Delivery) -> Result<Vec<Rendered>, String> {
        Ok(Vec::new())
    }

    fn kind(&self) -> &'static str {
        "null"
    }
}
