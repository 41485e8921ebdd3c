//! A session that is kept for short questions about who has what.

use std::sync::Arc;
use std::time::Duration;

use super::link::{Endpoint, Fault, Session, pause};
use crate::store::StoreError;

/// A statement of these takes at most this long: a lease itself does not last much longer.
const LONGEST: Duration = Duration::from_secs(2);
/// All that one question takes.
const LIMIT: Duration = Duration::from_secs(4);
/// Two that want the same at once are in each other's way.
pub(super) const ATTEMPTS: u32 = 5;

/// One session, made when it is needed; who asks waits for whoever asks already.
pub(super) struct Line {
    endpoint: Endpoint,
    name: &'static str,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

impl Line {
    /// Nothing is asked yet. `name` is what `pg_stat_activity` shows.
    pub(super) fn new(endpoint: Endpoint, name: &'static str) -> Line {
        Line { endpoint, name, session: tokio::sync::Mutex::default() }
    }

    /// Where the server is.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks in the session that is kept, or a new one if that has gone. What is in another's way is asked again.
    ///
    /// # Errors
    /// The server does not answer in time, or said no: what came of the question is unknown.
    pub(super) async fn ask<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        question: impl Fn(Arc<Session>) -> F,
    ) -> Result<T, StoreError> {
        let asked = async {
            let mut kept = self.session.lock().await;
            let mut attempt = 0;
            loop {
                let old = kept.take().filter(|session| !session.is_closed());
                let is_old = old.is_some();
                let session = match old {
                    Some(session) => session,
                    None => Arc::new(self.endpoint.connect(self.name, LONGEST).await?),
                };
                attempt += 1;
                match question(session.clone()).await {
                    Ok(answer) => {
                        *kept = Some(session);
                        return Ok(answer);
                    }
                    Err(Fault::Lost(_)) if is_old => {}
                    Err(Fault::Again(_)) if attempt < ATTEMPTS => {
                        tokio::time::sleep(pause(attempt, fastrand::f64())).await;
                    }
                    Err(fault) => return Err(fault),
                }
            }
        };
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(answer) => answer.map_err(Fault::unwritable),
            Err(_) => {
                let place = self.endpoint.place();
                Err(StoreError::Unwritable(format!("{place} gave no answer within {} s", LIMIT.as_secs())))
            }
        }
    }

    /// Ends the session in order.
    pub(super) async fn close(&self) {
        if let Some(session) = self.session.lock().await.take().and_then(Arc::into_inner) {
            session.close().await;
        }
    }
}
