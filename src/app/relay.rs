//! What a daemon sees that does not decide, said to the one that does: through the store that they share, in its order, and once.
//! While that is out of reach it is kept, and after a while the daemon tells people by itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::app::alone::{Alone, Kit, Leaving};
use crate::app::cut::{Cut, Turn};
use crate::board::{BEAT, Board, Pulse};
use crate::clock::Clock;
use crate::evaluator::{Evaluator, unsaid};
use crate::journey::report::Report;
use crate::metrics::ShareMetrics;
use crate::scheduler::Observation;
use crate::store::postgres::{Relayed, Share};
use crate::store::spool::{Disk, Queue, Unsaid};
use crate::store::{Change, Store, StoreError};
use crate::time::Mono;

/// Observations that are said together at most.
const TOGETHER: usize = 1_024;
/// A store that said no is asked again this often.
const RETRY: Duration = Duration::from_secs(1);
/// What is unsaid in the end is tried for so long.
const LAST: Duration = Duration::from_secs(2);
/// A store that has not been asked for anything for so long is asked whether it is there.
const IDLE: Duration = Duration::from_secs(5);
/// Whoever decides asks for what the others saw this often.
const LISTEN: Duration = Duration::from_millis(100);
/// What it asks for at once.
const HEARD: i64 = 1_024;
/// What is not on its way to the one that decides, on the board.
const COMPONENT: &str = "relay";

/// Where it is asked that all that was seen is said; answered when it is.
pub(super) type Flush = oneshot::Sender<()>;

/// Says what this daemon sees.
pub(super) struct Relay {
    pub(super) store: Arc<dyn Store>,
    pub(super) observed: mpsc::Receiver<Observation>,
    pub(super) flushes: mpsc::Receiver<Flush>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: ShareMetrics,
    pub(super) clock: Clock,
    /// Seen, and not said yet; first what a process before this one left.
    pub(super) unsaid: Queue,
    /// Where that is, too, while the store says no.
    pub(super) disk: Option<Disk>,
    /// Why this daemon has begun without the store, if it has.
    pub(super) without: Option<String>,
    /// What tells people while we are cut off.
    pub(super) kit: Kit,
    /// Who decides, in words.
    pub(super) leader: watch::Receiver<String>,
    /// That this daemon is cut off, and why, for people.
    pub(super) cut_off: watch::Sender<Option<String>>,
}

/// What is going on.
#[derive(Default)]
struct Course {
    cut: Cut,
    /// The store is asked again then.
    next: Mono,
    /// What is unsaid is on disk, too.
    is_on_disk: bool,
    /// How much had to go.
    lost: usize,
    alone: Option<Alone>,
    /// It says its last words.
    leaving: Option<Leaving>,
    /// Who waits until all before this number is said.
    asked: Vec<(i64, Flush)>,
}

/// What came of an attempt.
struct Said {
    /// When it began.
    asked: Mono,
    /// What need not be said again.
    done: Vec<i64>,
    /// Why no more was.
    error: Option<StoreError>,
}

impl Relay {
    /// Until nobody sees anything any more; or until `stop`, and gives what is still to be seen to whoever takes over. Last words are
    /// told after that, and until `end`.
    pub(super) async fn run(
        mut self,
        pulse: Arc<Pulse>,
        (stop, end): (CancellationToken, CancellationToken),
        over: oneshot::Sender<mpsc::Receiver<Observation>>,
    ) {
        let mut course = Course { is_on_disk: !self.unsaid.is_empty(), ..Course::default() };
        match self.without.clone() {
            // What the process before told goes on: it is the same outage.
            Some(why) if self.kit.has_left_overs().await => {
                course.cut = Cut::off(self.clock.now().mono);
                self.turn_off(&mut course, &why, true).await;
            }
            Some(_) => {}
            None => course.leaving = self.kit.leave_for_another().await,
        }
        let mut seen = Vec::with_capacity(TOGETHER);
        let mut attempt: Option<BoxFuture<'static, Said>> = None;
        loop {
            let now = self.clock.now().mono;
            pulse.beat(now);
            // Who sees nothing asks now and then.
            let is_due = !self.unsaid.is_empty() || course.cut.is_in_doubt() || now.since(course.next) >= IDLE;
            if attempt.is_none() && is_due && now >= course.next {
                attempt = Some(Box::pin(self.attempt(now)));
            }
            let until = if attempt.is_none() && is_due { course.next } else { now + BEAT.min(IDLE) };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(said) = OptionFuture::from(attempt.as_mut()) => {
                    attempt = None;
                    self.follow(said, &mut course).await;
                }
                received = self.observed.recv_many(&mut seen, TOGETHER) => if received == 0 { break },
                Some(asked) = self.flushes.recv() => {
                    // All that was seen before it was asked is here.
                    while let Ok(observation) = self.observed.try_recv() {
                        seen.push(observation);
                    }
                    self.note(&mut seen, &mut course).await;
                    let last = self.unsaid.iter().last().map_or(-1, |(number, _)| number);
                    course.asked.push((last, asked));
                }
                () = self.clock.sleep_until(until) => {}
            }
            self.note(&mut seen, &mut course).await;
            self.answer(&mut course);
        }
        // What is said twice because nobody waited for the answer is counted once.
        let all_said = async {
            let mut attempt = attempt;
            while attempt.is_some() || !self.unsaid.is_empty() {
                let said = match attempt.take() {
                    Some(attempt) => attempt.await,
                    None => self.attempt(self.clock.now().mono).await,
                };
                let is_over = said.error.is_some();
                self.follow(said, &mut course).await;
                if is_over {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(LAST, all_said).await;
        self.keep(&mut course, true).await;
        if !self.unsaid.is_empty() {
            let (unsaid, is_kept) = (self.unsaid.len(), course.is_on_disk);
            tracing::warn!(unsaid, is_kept, "what this daemon saw could not be said");
        }
        self.board.remove_component(COMPONENT);
        self.cut_off.send_replace(None);
        let words =
            "the daemon that told this decides for all now, or ends; whoever decides tells it if it still fails";
        self.hand_over(&mut course, words).await;
        let _ = over.send(self.observed);
        if let Some(leaving) = course.leaving {
            leaving.end(&end).await;
        }
    }

    fn attempt(&self, asked: Mono) -> impl Future<Output = Said> + Send + 'static {
        let together = self.unsaid.iter().take(TOGETHER).map(|(number, unsaid)| (number, unsaid.clone())).collect();
        say(self.store.clone(), together, asked)
    }

    /// Takes what was seen.
    async fn note(&mut self, seen: &mut Vec<Observation>, course: &mut Course) {
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for observation in seen.drain(..) {
            match unsaid(&observation) {
                Some(unsaid) => {
                    let (number, excess) = self.unsaid.push(unsaid.clone());
                    kept.push((number, unsaid));
                    gone.extend(excess);
                }
                None => tracing::debug!(?observation, "kept to ourselves"),
            }
            if let Some(alone) = &course.alone {
                alone.feed(observation).await;
            }
        }
        if !gone.is_empty() {
            if course.lost == 0 {
                tracing::error!("the store has been away for too long: what was seen is lost, good runs first");
            }
            course.lost += gone.len();
        }
        if course.is_on_disk {
            self.write(kept, gone).await;
        }
        self.metrics.set_spooled(self.unsaid.len());
    }

    /// What follows from an attempt.
    async fn follow(&mut self, Said { asked, done, error }: Said, course: &mut Course) {
        done.iter().for_each(|number| self.unsaid.remove(*number));
        if course.is_on_disk {
            self.write(Vec::new(), done).await;
        }
        let now = self.clock.now();
        let turn = course.cut.note(error.is_none(), asked, now.mono);
        course.next = match error {
            // More waits.
            None if !course.cut.is_in_doubt() => now.mono,
            None if !self.unsaid.is_empty() => now.mono,
            _ => now.mono + RETRY,
        };
        self.keep(course, false).await;
        self.show(error.as_ref(), course);
        if error.is_some() {
            course.asked.clear();
        }
        match turn {
            None => {}
            Some(Turn::Off { is_told }) => {
                let why = error.map(|error| error.to_string()).unwrap_or_default();
                self.turn_off(course, &why, is_told).await;
            }
            Some(Turn::Back) => {
                tracing::info!(lost = course.lost, "the store is back: what was seen meanwhile is said");
                course.lost = 0;
                self.without = None;
                self.metrics.set_cut_off(false);
                self.cut_off.send_replace(None);
                if let Some(alone) = &course.alone {
                    alone.tell_cut(None).await;
                }
                let leader = self.leader.borrow().clone();
                let said = format!("the store is back, and {leader} again: if it still fails, that one tells");
                self.hand_over(course, &said).await;
            }
        }
    }

    /// Decides and tells by itself from now on.
    async fn turn_off(&self, course: &mut Course, why: &str, is_told: bool) {
        tracing::error!(why, "cut off from the store: this daemon decides and tells by itself");
        course.alone = match course.alone.take() {
            None => self.begin(why).await,
            alone => alone,
        };
        if let Some(alone) = &course.alone {
            if is_told {
                let how = if self.without.is_some() { "has begun without" } else { "is cut off from" };
                let said = format!("{} {how} the store, and tells what it sees by itself: {why}", self.kit.name);
                alone.tell_cut(Some(said)).await;
            }
            for (_, unsaid) in self.unsaid.iter() {
                if let Ok(observation) = serde_json::from_str(&unsaid.document) {
                    alone.feed(observation).await;
                }
            }
        }
        self.metrics.set_cut_off(true);
        let since = self.clock.now().wall.strftime("%Y-%m-%d %H:%M:%S UTC");
        let said = format!("cut off from the store since {since}, and telling people by itself: {why}");
        self.cut_off.send_replace(Some(said));
    }

    async fn begin(&self, why: &str) -> Option<Alone> {
        let begun = self.kit.begin(why).await;
        begun.inspect_err(|error| tracing::error!(%error, "cut off, and people cannot be told by this daemon")).ok()
    }

    async fn hand_over(&self, course: &mut Course, said: &str) {
        let Some(alone) = course.alone.take() else { return };
        if let Some(before) = course.leaving.take() {
            before.end_now().await;
        }
        course.leaving = Some(alone.hand_over(said.to_owned()).await);
    }

    /// Has what is unsaid on disk while the store is in doubt, or is no more to be asked.
    async fn keep(&mut self, course: &mut Course, is_last: bool) {
        let is_needed = course.cut.is_in_doubt() || is_last && !self.unsaid.is_empty();
        if is_needed && !course.is_on_disk {
            course.is_on_disk = true;
            let all = self.unsaid.iter().map(|(number, unsaid)| (number, unsaid.clone())).collect();
            self.write(all, Vec::new()).await;
        } else if !is_needed && self.unsaid.is_empty() {
            course.is_on_disk = false;
        }
    }

    async fn write(&self, kept: Vec<(i64, Unsaid)>, gone: Vec<i64>) {
        if let Some(disk) = &self.disk
            && let Err(error) = disk.change(kept, gone).await
        {
            tracing::error!(%error, "what was seen could not be kept on disk: it is in memory alone");
        }
    }

    /// Who asked that all is said up to a number which is.
    fn answer(&self, course: &mut Course) {
        let first = self.unsaid.iter().next().map_or(i64::MAX, |(number, _)| number);
        for (last, asked) in std::mem::take(&mut course.asked) {
            if last < first {
                let _ = asked.send(());
            } else {
                course.asked.push((last, asked));
            }
        }
    }

    fn show(&self, error: Option<&StoreError>, course: &Course) {
        let unsaid = self.unsaid.len();
        self.metrics.set_spooled(unsaid);
        let now = self.clock.now().wall;
        match error {
            None => self.board.set_component(COMPONENT, true, false, "what is seen is said", now),
            Some(error) => {
                let lost = if course.lost > 0 { format!("{} are lost, ", course.lost) } else { String::new() };
                let said = format!("{lost}{unsaid} observations wait: {error}");
                self.board.set_component(COMPONENT, false, false, said, now);
            }
        }
    }
}

/// Says these, in order. With nothing to say, the store is asked whether it answers.
async fn say(store: Arc<dyn Store>, together: Vec<(i64, Unsaid)>, asked: Mono) -> Said {
    let numbers = together.iter().map(|(number, _)| *number).collect();
    let all = together.iter().map(|(_, unsaid)| relayed(unsaid.clone(), false)).collect();
    match store.apply(all).await {
        Ok(()) => Said { asked, done: numbers, error: None },
        // Some of it is of journeys that another daemon runs by now: the rest is said by itself.
        Err(StoreError::Moved(_)) => say_one_by_one(&*store, together, asked).await,
        Err(error) => Said { asked, done: Vec::new(), error: Some(error) },
    }
}

async fn say_one_by_one(store: &dyn Store, together: Vec<(i64, Unsaid)>, asked: Mono) -> Said {
    let (mut done, mut late) = (Vec::with_capacity(together.len()), 0);
    for (number, unsaid) in together {
        let said = match store.apply(vec![relayed(unsaid.clone(), false)]).await {
            Err(StoreError::Moved(_)) => {
                late += 1;
                match belated(unsaid) {
                    Some(unsaid) => store.apply(vec![relayed(unsaid, true)]).await,
                    None => Ok(()),
                }
            }
            said => said,
        };
        if let Err(error) = said {
            return Said { asked, done, error: Some(error) };
        }
        done.push(number);
    }
    tracing::info!(observations = late, "seen too late: other daemons run these journeys");
    Said { asked, done, error: None }
}

fn relayed(Unsaid { journey, ended, document, .. }: Unsaid, is_belated: bool) -> Change {
    Change::Relay { journey, ended, document, is_belated }
}

/// What whoever decides has to hear although another daemon runs the journey by now: what became of slots.
fn belated(Unsaid { document, .. }: Unsaid) -> Option<Unsaid> {
    match serde_json::from_str(&document).ok()? {
        Observation::Finished(report) | Observation::Belated(report) => unsaid(&Observation::Belated(report)),
        _ => None,
    }
}

/// What a process left that others can still make something of: how its runs ended, to be said as what is late. Where
/// it stood with others is nobody's concern any more, and is forgotten.
pub(super) async fn left_over(mut queue: Queue, disk: Option<&Disk>) -> Queue {
    let said = queue.iter().map(|(number, unsaid)| (number, belated(unsaid.clone())));
    let mut gone = Vec::new();
    for (number, late) in said.collect::<Vec<_>>() {
        match late {
            Some(late) => queue.replace(number, late),
            None => {
                queue.remove(number);
                gone.push(number);
            }
        }
    }
    if let Some(disk) = disk
        && let Err(error) = disk.change(Vec::new(), gone).await
    {
        tracing::warn!(%error, "what is no news any more could not be removed from the spool");
    }
    queue
}

/// What a daemon that has lost the lease decided on and could not write: said if that goes, and kept for the next process if not.
pub(super) async fn leave(store: &Arc<dyn Store>, disk: Option<&Disk>, mut queue: Queue, runs: Vec<Report>) {
    let mut kept = Vec::new();
    for report in runs {
        if let Some(unsaid) = unsaid(&Observation::Finished(Box::new(report))) {
            kept.push((queue.push(unsaid.clone()).0, unsaid));
        }
    }
    if let Some(disk) = disk
        && let Err(error) = disk.change(kept, Vec::new()).await
    {
        tracing::error!(%error, "what was seen could not be kept on disk");
    }
    while !queue.is_empty() {
        let together = queue.iter().take(TOGETHER).map(|(number, unsaid)| (number, unsaid.clone())).collect();
        let Said { done, error, .. } = say(store.clone(), together, Mono::default()).await;
        done.iter().for_each(|number| queue.remove(*number));
        if let Some(disk) = disk {
            // What is said twice is counted once.
            let _ = disk.change(Vec::new(), done).await;
        }
        if let Some(error) = error {
            let is_kept = disk.is_some();
            return tracing::warn!(%error, observations = queue.len(), is_kept, "what this daemon saw could not be said");
        }
    }
}

/// What another daemon saw.
fn heard(Relayed { writer, number, document }: Relayed) -> Observation {
    let unread = |error: &serde_json::Error| {
        tracing::warn!(writer, number, %error, "what another daemon saw cannot be read: is it of another version?");
    };
    let what = serde_json::from_str(&document).inspect_err(unread).ok().map(Box::new);
    Observation::Elsewhere { writer, number, what }
}

/// Takes up all that was said before anybody listened.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn catch_up(share: &Share, evaluator: &mut Evaluator) -> Result<(), StoreError> {
    loop {
        let said = share.relayed(HEARD).await?;
        let is_last = i64::try_from(said.len()).unwrap_or(HEARD) < HEARD;
        evaluator.catch_up(said.into_iter().map(heard)).await;
        if is_last {
            return Ok(());
        }
    }
}

/// Hands on what the other daemons saw, until `stop`.
pub(super) async fn listen(
    share: Arc<Share>,
    observations: mpsc::Sender<Observation>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut is_failing = false;
    loop {
        let said = tokio::select! {
            () = stop.cancelled() => return,
            said = share.relayed(HEARD) => said,
        };
        let wait = match said {
            Ok(said) => {
                is_failing = false;
                let is_all = i64::try_from(said.len()).unwrap_or(HEARD) < HEARD;
                for relayed in said {
                    if observations.send(heard(relayed)).await.is_err() {
                        return stop.cancelled().await;
                    }
                }
                match is_all {
                    false => Duration::ZERO,
                    // Nobody says anything, but for what one said that is gone.
                    true if !share.has_others() => RETRY,
                    true => LISTEN,
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "what other daemons see cannot be read");
                }
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock.sleep_until(clock.now().mono + wait) => {}
        }
    }
}
