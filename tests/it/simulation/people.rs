//! People, and how they can be reached: a chat that can be looked through, and mail that cannot.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use journeyman::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered};

use super::profile::Accounts;
use super::world::{Point, Taken, World};

/// One way to reach people.
pub(super) struct Door {
    pub(super) name: &'static str,
    /// Whether it can be looked up what was taken.
    pub(super) remembers: bool,
    pub(super) world: Arc<World>,
}

impl Door {
    fn take(&self, delivery: &Delivery) {
        let notification = &delivery.notification;
        let taken = Taken {
            at: self.world.now(),
            id: delivery.id.clone(),
            notifier: self.name.to_owned(),
            incident: notification.incident.id.clone(),
            sequence: notification.incident.sequence,
            reason: notification.reason.to_string(),
            title: format!("{} {:?}", notification.incident.title(), notification.incident.detectors),
        };
        self.world.note((&taken.id, "taken"));
        if self.world.profile.accounts >= Accounts::Heard {
            self.world.account().taken.push(taken);
        }
    }

    async fn knock(&self, delivery: &Delivery) -> Result<Receipt, NotifyError> {
        let world = &self.world;
        world.reach(Point::BeforeTelling).await;
        let receipt = Receipt { id: delivery.id.clone(), place: self.name.to_owned(), ..Receipt::default() };
        if self.remembers && delivery.is_ambiguous {
            let account = world.account();
            if account.taken.iter().any(|taken| taken.id == delivery.id && taken.notifier == self.name) {
                return Ok(receipt);
            }
        }
        tokio::time::sleep(world.between(Duration::from_millis(20), Duration::from_millis(700))).await;
        world.alive().await;
        if world.profile.is_away(self.name, world.now()) && !world.is_calm() {
            return Err(NotifyError::Backoff("503".to_owned()));
        }
        if world.happens(0.03) {
            return Err(NotifyError::After { wait: Duration::from_secs(30), detail: "429".to_owned() });
        }
        if world.happens(0.002) {
            return Err(NotifyError::Never("token revoked".to_owned()));
        }
        world.account().in_hand.insert(self.name.to_owned(), delivery.id.clone());
        if world.happens(0.03) {
            // The answer is lost; the notice may be, too.
            if world.happens(0.5) {
                self.take(delivery);
            }
            let mut account = world.account();
            if world.profile.accounts >= Accounts::All {
                *account.excused.entry(delivery.id.clone()).or_default() += 1;
            }
            return Err(NotifyError::Ambiguous("reset after the last byte".to_owned()));
        }
        self.take(delivery);
        world.reach(Point::MidTelling).await;
        tokio::time::sleep(world.between(Duration::from_millis(5), Duration::from_millis(100))).await;
        world.reach(Point::AfterTelling).await;
        Ok(receipt)
    }
}

impl Notifier for Door {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        Box::pin(self.knock(delivery))
    }

    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        let is_away = self.world.profile.is_away(self.name, self.world.now()) && !self.world.is_calm();
        let away = || NotifyError::Backoff("503".to_owned());
        Box::pin(std::future::ready(if is_away { Err(away()) } else { Ok("simulated".to_owned()) }))
    }

    fn preview(&self, _delivery: &Delivery) -> Result<Vec<Rendered>, String> {
        Ok(Vec::new())
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }
}
