//! A store that answers nothing but faults.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use journeyman::alert::{AlertState, Subject};
use journeyman::boots::Boot;
use journeyman::breaker::{Guarded, Order};
use journeyman::control::Silence;
use journeyman::detect::drift::Ran;
use journeyman::incident::Incident;
use journeyman::journey::Name;
use journeyman::journey::message::Arrival;
use journeyman::journey::report::Report;
use journeyman::journey::run::checkpoint::Checkpoint;
use journeyman::journey::spend::Spent;
use journeyman::journey::token::Token;
use journeyman::ledger::Entry;
use journeyman::notifier::Receipt;
use journeyman::store::{
    Change, Day, Due, IncidentRow, OutboxRow, OutboxStatus, OutboxSummary, Retention, RunRow, SavedJourney, Store,
    StoreError,
};

/// A store that is not there.
pub(crate) struct Gone;

fn gone<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(std::future::ready(Err(StoreError::Unreadable("the disk has left".to_owned()))))
}

impl Store for Gone {
    fn apply(&self, _: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        gone()
    }
    fn key(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        gone()
    }
    fn journey(&self, _: Name) -> BoxFuture<'_, Result<SavedJourney, StoreError>> {
        gone()
    }
    fn conditions(&self) -> BoxFuture<'_, Result<Vec<(Subject, AlertState)>, StoreError>> {
        gone()
    }
    fn open_incidents(&self) -> BoxFuture<'_, Result<Vec<Incident>, StoreError>> {
        gone()
    }
    fn silences(&self) -> BoxFuture<'_, Result<Vec<Silence>, StoreError>> {
        gone()
    }
    fn ledger(&self) -> BoxFuture<'_, Result<Vec<(Token, Entry)>, StoreError>> {
        gone()
    }
    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Checkpoint>, StoreError>> {
        gone()
    }
    fn arrivals(&self) -> BoxFuture<'_, Result<Vec<Arrival>, StoreError>> {
        gone()
    }
    fn drills(&self, _: Option<Name>, _: usize) -> BoxFuture<'_, Result<Vec<journeyman::drill::Record>, StoreError>> {
        gone()
    }
    fn drill(&self, _: String) -> BoxFuture<'_, Result<Option<journeyman::drill::Record>, StoreError>> {
        gone()
    }
    fn boots(&self) -> BoxFuture<'_, Result<Vec<Boot>, StoreError>> {
        gone()
    }
    fn spent(&self) -> BoxFuture<'_, Result<Vec<Spent>, StoreError>> {
        gone()
    }
    fn next_due(&self, _: Name, _: Timestamp) -> BoxFuture<'_, Result<Due, StoreError>> {
        gone()
    }
    fn root_receipt(&self, _: String, _: Name) -> BoxFuture<'_, Result<Option<Receipt>, StoreError>> {
        gone()
    }
    fn undelivered(&self, _: Name, _: Option<String>) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        gone()
    }
    fn hold(&self, _: Name) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        gone()
    }
    fn orders(&self) -> BoxFuture<'_, Result<Vec<(Guarded, Order)>, StoreError>> {
        gone()
    }
    fn outbox(
        &self,
        _: Option<OutboxStatus>,
        _: Option<String>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        gone()
    }
    fn outbox_summary(&self) -> BoxFuture<'_, Result<Vec<OutboxSummary>, StoreError>> {
        gone()
    }
    fn runs(&self, _: Name, _: Option<Timestamp>, _: usize) -> BoxFuture<'_, Result<Vec<RunRow>, StoreError>> {
        gone()
    }
    fn latencies(
        &self,
        _: Name,
        _: Vec<(Timestamp, Timestamp)>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<Vec<Ran>>, StoreError>> {
        gone()
    }
    fn days(&self, _: Name, _: Timestamp, _: Timestamp) -> BoxFuture<'_, Result<Vec<Day>, StoreError>> {
        gone()
    }
    fn report(&self, _: Token) -> BoxFuture<'_, Result<Option<Report>, StoreError>> {
        gone()
    }
    fn incidents(
        &self,
        _: Option<Name>,
        _: Option<String>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<IncidentRow>, StoreError>> {
        gone()
    }
    fn incident(&self, _: String) -> BoxFuture<'_, Result<Option<IncidentRow>, StoreError>> {
        gone()
    }
    fn notices(&self, _: String, _: usize) -> BoxFuture<'_, Result<Vec<OutboxRow>, StoreError>> {
        gone()
    }
    fn forget(&self, _: Retention) -> BoxFuture<'_, Result<u64, StoreError>> {
        gone()
    }
    fn revive(&self, _: Name, _: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        gone()
    }
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        gone()
    }
}
