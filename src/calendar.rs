//! The calendar: coarse, recurring work by `tokio-cron-scheduler`. Its jobs only send a tick; whoever receives it does the work.
//!
//! That scheduler looks twice a second and may be a second late, so it plans and keeps house, and never starts a run: the start
//! of runs is `scheduler`'s, which goes on even if no tick comes. Jobs are UTC cron jobs, added one after another, and few.

use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// Recurring work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Fold metric samples, read the process's own figures.
    Upkeep,
    /// Let the ledger forget.
    Expire,
    /// Let the store forget.
    Retain,
}

/// Looks ahead for calendar journeys, which enter the scheduler's heap a minute before they are due.
const PLAN: &str = "*/10 * * * * *";
const CHORES: [(&str, Chore); 3] =
    [("*/5 * * * * *", Chore::Upkeep), ("30 * * * * *", Chore::Expire), ("0 7 * * * *", Chore::Retain)];

/// The running calendar.
pub struct Calendar(JobScheduler);

impl Calendar {
    /// Starts ticking.
    ///
    /// # Errors
    /// What the scheduler says.
    pub async fn start(plan: mpsc::Sender<()>, chores: mpsc::Sender<Chore>) -> Result<Calendar, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let planner = Job::new_async(PLAN, move |_, _| {
            // A full channel means that a tick waits already; one is as good as two.
            let _ = plan.try_send(());
            Box::pin(std::future::ready(()))
        })?;
        scheduler.add(planner).await?;
        for (when, chore) in CHORES {
            let chores = chores.clone();
            let job = Job::new_async(when, move |_, _| {
                let _ = chores.try_send(chore);
                Box::pin(std::future::ready(()))
            })?;
            scheduler.add(job).await?;
        }
        scheduler.start().await?;
        Ok(Calendar(scheduler))
    }

    /// Stops ticking.
    pub async fn stop(mut self) {
        if let Err(error) = self.0.shutdown().await {
            tracing::warn!(%error, "the calendar did not stop cleanly");
        }
    }
}
