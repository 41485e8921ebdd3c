//! A notifier for tests: records every delivery and answers as told.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::notice::Notification;
use crate::notifier::{Delivery, Notifier, NotifyError, Receipt, Rendered};

/// Records every delivery; answers with the next scripted answer, or success when there is none left.
#[derive(Default)]
pub struct Memory {
    deliveries: Mutex<Vec<Delivery>>,
    answers: Mutex<VecDeque<Result<Receipt, NotifyError>>>,
    retells: Option<Duration>,
    retold: Mutex<Vec<Vec<Notification>>>,
}

impl Memory {
    /// One that must be told again.
    pub fn forgetful(every: Duration) -> Memory {
        Memory { retells: Some(every), ..Memory::default() }
    }

    /// What it was told again, each time.
    pub fn retold(&self) -> Vec<Vec<Notification>> {
        self.retold.lock().expect("no panic while held").clone()
    }

    /// Answers the next attempts with these, in order.
    pub fn script(&self, answers: impl IntoIterator<Item = Result<Receipt, NotifyError>>) {
        self.answers.lock().expect("no panic while held").extend(answers);
    }

    /// Every attempt so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().expect("no panic while held").clone()
    }
}

impl Notifier for Memory {
    fn notify<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, NotifyError>> {
        self.deliveries.lock().expect("no panic while held").push(delivery.clone());
        let scripted = self.answers.lock().expect("no panic while held").pop_front();
        let answer = scripted.unwrap_or_else(|| {
            let id = format!("memory-{}", delivery.id);
            Ok(Receipt { id, place: "memory".to_owned(), said: "ok".to_owned(), is_root: false })
        });
        Box::pin(std::future::ready(answer))
    }

    fn prove<'a>(&'a self) -> BoxFuture<'a, Result<String, NotifyError>> {
        Box::pin(async { Ok("it is in this very process".to_owned()) })
    }

    fn preview(&self, _: &Delivery) -> Result<Vec<Rendered>, String> {
        Ok(Vec::new())
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn retells(&self) -> Option<Duration> {
        self.retells
    }

    fn retell<'a>(&'a self, standing: &'a [Notification]) -> BoxFuture<'a, Result<(), NotifyError>> {
        self.retold.lock().expect("no panic while held").push(standing.to_vec());
        Box::pin(std::future::ready(Ok(())))
    }
}
