//! Runs that somebody asks for while another daemon has the journey: the one that decides asks that daemon, through the store, and
//! hears what it says.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::clock::Clock;
use crate::commands::Refusal;
use crate::scheduler::Wish;
use crate::store::StoreError;
use crate::store::postgres::{Answer, Errands, PATIENCE, Share};

/// What is asked of us is looked up this often, while there are other daemons.
const LOOK: Duration = Duration::from_millis(250);
/// Whether we were answered, this often.
const HEAR: Duration = Duration::from_millis(100);
/// So many are asked for at once.
const AT_ONCE: usize = 8;

/// Passes on what this daemon does not run itself, and does what others ask of it.
pub(super) struct Errander {
    pub(super) errands: Errands,
    pub(super) share: Arc<Share>,
    /// Where runs of our own are asked for.
    pub(super) wishes: mpsc::Sender<Wish>,
    /// What our scheduler does not have.
    pub(super) elsewhere: mpsc::Receiver<Wish>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Clock,
}

impl Errander {
    /// Until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (never, elsewhere) = mpsc::channel(1);
        let passed = std::mem::replace(&mut self.elsewhere, elsewhere);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.pass_on(passed) => {}
            never = self.serve() => match never {},
        }
        drop(never);
    }

    /// Asks whoever has the journeys.
    async fn pass_on(&self, mut passed: mpsc::Receiver<Wish>) {
        let mut asking = FuturesUnordered::new();
        loop {
            tokio::select! {
                wish = passed.recv(), if asking.len() < AT_ONCE => match wish {
                    Some(wish) => asking.push(self.ask(wish)),
                    None => std::future::pending().await,
                },
                Some(()) = asking.next() => {}
            }
        }
    }

    async fn ask(&self, Wish { journey, by, answer, .. }: Wish) {
        let answered = match self.ask_for(&journey, &by).await {
            Ok(Some(answered)) => answered,
            Ok(None) => Err(Refusal::Unavailable(format!(
                "the daemon that runs `{journey}` has not answered within {} s; try again",
                PATIENCE.as_secs()
            ))),
            Err(error) => {
                Err(Refusal::Unavailable(format!("the daemon that runs `{journey}` cannot be asked: {error}")))
            }
        };
        if let Ok(run) = &answered {
            self.board.set_asked(run.clone());
        }
        // Whoever asked may be gone.
        let _ = answer.send(answered);
    }

    async fn ask_for(&self, journey: &crate::journey::Name, by: &str) -> Result<Option<Answer>, StoreError> {
        let id = self.errands.ask(journey, by).await?;
        let until = self.clock.now().mono + PATIENCE;
        while self.clock.now().mono < until {
            if let Some(answer) = self.errands.answered(id).await? {
                return Ok(Some(answer));
            }
            self.clock.sleep_until(self.clock.now().mono + HEAR).await;
        }
        self.errands.take_back(id).await?;
        Ok(None)
    }

    /// Does what others ask of us.
    async fn serve(&self) -> Infallible {
        let mut is_failing = false;
        loop {
            self.clock.sleep_until(self.clock.now().mono + LOOK).await;
            if !self.share.has_others() {
                continue;
            }
            match self.do_what_is_asked().await {
                Ok(()) => is_failing = false,
                Err(error) if !std::mem::replace(&mut is_failing, true) => {
                    tracing::warn!(%error, "what other daemons ask of this one cannot be read");
                }
                Err(_) => {}
            }
        }
    }

    async fn do_what_is_asked(&self) -> Result<(), StoreError> {
        for errand in self.errands.asked().await? {
            let (answer, answered) = oneshot::channel();
            let wish = Wish { journey: errand.journey, by: errand.by, may_pass: false, answer };
            let answer = match self.wishes.send(wish).await {
                Ok(()) => answered.await.unwrap_or_else(|_| Err(Refusal::stopping())),
                Err(_) => Err(Refusal::stopping()),
            };
            self.errands.answer(errand.id, &answer).await?;
        }
        Ok(())
    }
}
