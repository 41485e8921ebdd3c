//! Settles the account: what the store says beside what happened.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use journeyman::config::Plan;
use journeyman::detect::Detector;
use journeyman::journey::outcome::{Cause, Outcome};
use journeyman::store::{OutboxRow, OutboxStatus, Store};
use journeyman::time::between;

use super::profile::Accounts;
use super::world::World;

/// What came of it.
#[derive(Default)]
pub(super) struct Settled {
    /// The promises that were broken, each in a sentence.
    pub(super) broken: Vec<String>,
    /// What the notices in the outbox weigh, in bytes.
    pub(super) outbox: usize,
}

/// Settles it. Faults ended at `calm`.
pub(super) async fn settle(world: &World, plan: &Plan, store: &dyn Store, calm: Timestamp) -> Settled {
    let mut broken = Vec::new();
    let outbox = told(world, store, &mut broken).await;
    repeated(world, &mut broken);
    if world.profile.accounts >= Accounts::All {
        counted(world, plan, store, calm, &mut broken).await;
        judged(world, plan, &mut broken);
        paid(world, store, &mut broken).await;
    }
    Settled { broken, outbox }
}

/// Whatever was sent at a cost was written down before it was: no limit is passed because of a crash.
async fn paid(world: &World, store: &dyn Store, broken: &mut Vec<String>) {
    let written: u64 = store.spent().await.expect("what was spent").iter().map(|spent| spent.messages).sum();
    let sent = world.account().paid;
    if sent > written {
        broken.push(format!("spend: {sent} messages were paid for, and only {written} are written down"));
    }
}

/// I1, I3: whatever was decided has reached people, and of every beginning that they heard they have heard the end. Gives what the
/// notices weigh.
async fn told(world: &World, store: &dyn Store, broken: &mut Vec<String>) -> usize {
    let rows = store.outbox(None, None, 1_000_000).await.expect("the outbox");
    let weight = |row: &OutboxRow| serde_json::to_vec(&row.notification).map_or(0, |bytes| bytes.len());
    let outbox = rows.iter().map(weight).sum();
    for row in &rows {
        if !matches!(row.state.status, OutboxStatus::Sent | OutboxStatus::Superseded) {
            broken.push(format!("I1: notice {} is {} at the end: {:?}", row.id, row.state.status, row.state.error));
        }
        let is_taken = world.account().taken.iter().any(|taken| taken.id == row.id);
        if row.state.status == OutboxStatus::Sent && !is_taken {
            broken.push(format!("I1: notice {} is said to be sent, and nobody took it", row.id));
        }
    }
    let mut goes_on = BTreeSet::new();
    for incident in store.open_incidents().await.expect("the incidents") {
        let is_only = |those: &[Detector]| incident.detectors.iter().all(|detector| those.contains(detector));
        // A budget that was spent in the storm stays spent for as long as its window, and that a loss is over takes more good runs than
        // there are in the calm.
        let lasts = is_only(&[Detector::Exhausted, Detector::Budget, Detector::Partial]);
        if lasts {
            goes_on.insert(incident.id);
            continue;
        }
        broken.push(format!("I8: {} is still open: {:?} {:?}", incident.id, incident.title(), incident.detectors));
    }
    let account = world.account();
    let mut heard: BTreeMap<(&str, &str), Vec<(u32, &str)>> = BTreeMap::new();
    for taken in &account.taken {
        heard.entry((&taken.incident, &taken.notifier)).or_default().push((taken.sequence, &taken.reason));
    }
    for ((incident, notifier), notices) in heard {
        let mut first_time: Vec<u32> = Vec::new();
        for (sequence, _) in &notices {
            if !first_time.contains(sequence) {
                first_time.push(*sequence);
            }
        }
        if !first_time.is_sorted() {
            broken.push(format!("I3: {notifier} heard of {incident} in the order {notices:?}"));
        }
        let has_end = notices.iter().any(|(_, reason)| *reason == "resolved");
        let is_kept = |row: &OutboxRow| row.incident == incident && *row.notifier == *notifier;
        if account.is_forgetful && !rows.iter().any(is_kept) {
            continue;
        }
        // What the store could not keep is told all the same, and has no end of its own.
        if !has_end && !incident.starts_with("storage-") && !goes_on.contains(incident) {
            broken.push(format!("I3: {notifier} never heard that {incident} is over: {notices:?}"));
        }
    }
    outbox
}

/// I2: nothing is told twice but for a crash, or an answer that was lost, in the moment of telling.
fn repeated(world: &World, broken: &mut Vec<String>) {
    let account = world.account();
    let mut times: HashMap<(&str, &str), u32> = HashMap::new();
    for taken in &account.taken {
        *times.entry((&taken.id, &taken.notifier)).or_default() += 1;
    }
    for ((id, notifier), times) in times {
        let excused = account.excused.get(id).copied().unwrap_or(0);
        // While the disk says no, what was told cannot be taken down: a crash then makes it forgotten.
        if times > 1 + excused && account.refusals == 0 {
            broken.push(format!("I2: {notifier} was told {id} {times} times, {excused} excused"));
        }
    }
}

/// I4: every slot has one verdict.
async fn counted(world: &World, plan: &Plan, store: &dyn Store, calm: Timestamp, broken: &mut Vec<String>) {
    for journey in &plan.journeys {
        let saved = store.journey(journey.name.clone()).await.expect("the journey");
        let mut slots = Vec::new();
        for span in &saved.spans {
            slots.extend((0..i64::from(span.count)).map(|n| span.start + span.step * n));
        }
        let is_sorted = slots.windows(2).all(|pair| pair[0] < pair[1]);
        if !is_sorted {
            broken.push(format!("I4: {} has a slot twice", journey.name));
        }
        let (Some(first), Some(last)) = (slots.first(), slots.last()) else {
            broken.push(format!("I4: {} has no slot", journey.name));
            continue;
        };
        let [first, last] = [*first, *last].map(|at| Timestamp::from_millisecond(at).expect("a time"));
        let before = journeyman::time::earlier(first, std::time::Duration::from_millis(1));
        let due: BTreeSet<_> = journey.schedule.slots(before, last, 1_000_000).map(Timestamp::as_millisecond).collect();
        let found: BTreeSet<_> = slots.iter().copied().collect();
        let missing: Vec<_> = due.difference(&found).collect();
        if !missing.is_empty() && world.account().refusals == 0 {
            broken.push(format!("I4: {} has no verdict for {missing:?}", journey.name));
        }
        if last < calm {
            broken.push(format!("I8: {} has not run since {last}", journey.name));
        }
        let runs = store.runs(journey.name.clone(), None, 1_000_000).await.expect("the runs");
        let kept: BTreeSet<_> = runs.iter().map(|run| run.slot).collect();
        let account = world.account();
        for verdict in account.verdicts.iter().filter(|verdict| *verdict.journey == *journey.name) {
            if !kept.contains(&verdict.slot) {
                broken.push(format!("I1: the run of {} at {} was written and is gone", verdict.journey, verdict.slot));
            }
        }
    }
}

/// I5: a verdict says what happened to the message.
fn judged(world: &World, plan: &Plan, broken: &mut Vec<String>) {
    let account = world.account();
    let mut slots = BTreeSet::new();
    for verdict in &account.verdicts {
        if !slots.insert((&verdict.journey, verdict.slot)) {
            broken.push(format!("I4: {} has two runs at {}", verdict.journey, verdict.slot));
        }
        let Some(journey) = plan.journeys.iter().find(|journey| *journey.name == *verdict.journey) else { continue };
        let fate = account.fates.get(&verdict.token).cloned().unwrap_or_default();
        let took = fate.sent.zip(fate.arrived).map(|(sent, arrived)| between(sent, arrived));
        let was_there = fate.sent.zip(fate.there).map(|(sent, there)| between(sent, there));
        // What came while nobody was there has the benefit of the doubt.
        let nobody = |(from, until): &(Timestamp, Option<Timestamp>)| {
            fate.there.is_some_and(|there| *from <= there && until.is_none_or(|until| there <= until))
        };
        let in_time = was_there.is_some_and(|took| took <= journey.deadline) || account.absences.iter().any(nobody);
        let slack = std::time::Duration::from_millis(10);
        let is_right = match &verdict.outcome {
            Outcome::Good { .. } | Outcome::Slow { .. } => in_time,
            Outcome::Failed { cause: Cause::NotReceived | Cause::Uncertain, .. } => {
                took.is_none_or(|took| took + slack >= journey.deadline)
            }
            Outcome::Failed { cause: Cause::Rejected | Cause::Unreachable | Cause::Blocked, .. } => {
                fate.arrived.is_none()
            }
            Outcome::Failed { cause: Cause::Duplicate, .. } => fate.arrived.is_some(),
            Outcome::Failed { .. } => false,
            Outcome::Unknown { .. } | Outcome::Excluded { .. } => true,
        };
        if !is_right {
            broken.push(format!(
                "I5: {} at {}: {:?}, and the message was sent {:?}, there after {took:?}",
                verdict.journey, verdict.slot, verdict.outcome, fate.sent
            ));
        }
    }
}
