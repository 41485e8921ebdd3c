//! A `web_config` file in force. It is read again when it or a file that it names changes; a bad one leaves the rules as they are,
//! and says so.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::gate::Refusal;
use crate::gate::bucket::Bucket;
use crate::gate::rules::Rules;
use crate::gate::stamp::Stamped;
use crate::gate::users::Doorman;

/// The files are looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// The rules of a listener, as its file has them now.
pub struct Web {
    path: PathBuf,
    rules: RwLock<Arc<Rules>>,
    /// What is wrong with the file as it is now.
    wrong: watch::Sender<Option<String>>,
    doorman: Doorman,
    bucket: Mutex<Option<Bucket>>,
    clock: Clock,
}

impl Web {
    /// Reads the file.
    ///
    /// # Errors
    /// In words, without anything secret: what is wrong with it.
    pub fn open(path: &Path, clock: Clock) -> Result<Web, String> {
        let rules = RwLock::new(Arc::new(Rules::load(path)?));
        let (wrong, _) = watch::channel(None);
        Ok(Web { path: path.to_owned(), rules, wrong, doorman: Doorman::new()?, bucket: Mutex::default(), clock })
    }

    /// What is wrong with the file as it is now; `None` while it is in force.
    pub fn wrong(&self) -> watch::Receiver<Option<String>> {
        self.wrong.subscribe()
    }

    /// The rules in force.
    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a request may go on: not too many of them, and somebody who is known, or whom `knows` knows.
    pub(super) async fn admit(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        knows: impl FnOnce() -> bool,
    ) -> Result<(), Refusal> {
        let (rules, now) = (self.rules(), self.clock.now().mono);
        if let Some(rate) = rules.rate {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.get_or_insert_with(|| Bucket::full(rate, now)).take(rate, now).map_err(Refusal::TooMany)?;
        }
        if !rules.has_users() || knows() {
            return Ok(());
        }
        let mut given = headers.get_all(AUTHORIZATION).iter();
        // Of two, a proxy and we might each believe another.
        let given = given.next().filter(|_| given.next().is_none()).and_then(|value| value.to_str().ok());
        self.doorman.admit(&rules.users, given, peer, now).await
    }

    /// Reads the file again whenever it or a file that it names changes. `listener` is for the log.
    pub(super) async fn watch(&self, listener: &str) -> Infallible {
        let mut seen = self.rules().files.clone();
        loop {
            tokio::time::sleep(LOOK).await;
            let (before, path) = (seen.clone(), self.path.clone());
            let look = move || {
                let now: Vec<_> = before.iter().map(Stamped::again).collect();
                (now != before).then(|| (now, Rules::load(&path)))
            };
            let Ok(Some((now, read))) = tokio::task::spawn_blocking(look).await else { continue };
            let wrong = match read {
                Ok(rules) => {
                    seen = rules.files.clone();
                    *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
                    tracing::info!(listener, path = %self.path.display(), "the changed web_config is in force");
                    None
                }
                Err(why) => {
                    seen = now;
                    tracing::error!(
                        listener,
                        why,
                        "the changed web_config cannot be used; the last good one stays in force"
                    );
                    Some(why)
                }
            };
            self.wrong.send_replace(wrong);
        }
    }
}
