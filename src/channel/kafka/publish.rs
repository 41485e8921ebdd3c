//! Sending: one `Produce` request to the leader of each partition that a message goes to, and the leaders' word on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout_at;

use super::cluster::{Access, Cluster, count};
use super::connection::Connection;
use super::message::Envelope;
use super::wire::{ApiKey, ErrorCode, PRODUCE, Produce, ProduceResponse};
use super::{Acks, KafkaSettings};
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::channel::seen::{note, note_again, note_answer};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::seen::{What, find};
use crate::time::{Human, Mono, Now};

/// What is known of leaders is asked for again after this long. A message is tried once: it should not fail because we
/// remembered a leader that has gone.
const KNOWN_FOR: Duration = Duration::from_secs(5);
/// Connections to one broker kept open between messages. A broker answers the requests on a connection one after another,
/// so messages under way at the same time have one each.
const IDLE_LANES: usize = 8;

/// Produces over connections of its own, made when first needed and made anew when they have ended.
pub(super) struct Publisher {
    topic: String,
    acks: Acks,
    access: Access,
    clock: Clock,
    known: Mutex<HashMap<String, (Mono, Arc<Cluster>)>>,
    lanes: Mutex<HashMap<i32, Vec<Connection>>>,
}

/// A leader, and what of the message is for it.
struct Route {
    leader: i32,
    lane: Connection,
    partitions: Vec<i32>,
}

/// What is there before the first byte leaves.
struct Ready {
    routes: Vec<Route>,
    /// All partitions, in order: a partition's place is its part of the message.
    partitions: Vec<i32>,
    /// A connection had to be made.
    is_new: bool,
}

/// One leader's word: for each of its partitions the offset, or why not.
struct Answer {
    verdicts: Vec<(i32, Result<Option<i64>, Refusal>)>,
    throttled: Option<Duration>,
    /// The lane may be used again.
    lane: Option<(i32, Connection)>,
}

impl Publisher {
    /// A publisher that is not connected yet.
    pub(super) fn new(settings: &KafkaSettings, access: Access, clock: Clock) -> Publisher {
        let (known, lanes) = Default::default();
        Publisher { topic: settings.topic.clone(), acks: settings.acks, access, clock, known, lanes }
    }

    /// Produces and waits for the acknowledgements, all within the message's timeout. Nothing is sent twice.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let envelope = Envelope::new(outgoing, &self.topic)
            .map_err(|detail| unsent(asked, asked, Refusal::new(Cause::Refused, detail)))?;
        let preparing = timeout_at(limit.instant(), self.prepare(&envelope, limit, outgoing.connected_since)).await;
        let silence = || Refusal::silence("asking where the topic lives", "the cluster", limit.length());
        let Ready { routes, partitions, is_new } =
            preparing.unwrap_or_else(|_| Err(silence())).map_err(|refusal| unsent(asked, self.clock.now(), refusal))?;

        let started = self.clock.now();
        let place = |partition: &i32| partitions.iter().position(|other| other == partition).unwrap_or_default();
        let producing = routes.into_iter().map(|route| {
            let batches = route.partitions.iter().map(|partition| {
                envelope.batch(place(partition), partitions.len(), started).map(|batch| (*partition, batch))
            });
            let batches: Result<Vec<_>, String> = batches.collect();
            self.produce(route, &envelope.topic, batches, limit)
        });
        let answers = join_all(producing).await;
        let finished = self.clock.now();

        let mut verdicts = Vec::new();
        let mut throttled = None;
        for answer in answers {
            verdicts.extend(answer.verdicts);
            throttled = throttled.max(answer.throttled);
            if let Some((leader, lane)) = answer.lane {
                self.give_back(leader, lane);
            }
        }
        let connect = is_new.then(|| Phase { name: "connect".to_owned(), took: started.mono.since(asked.mono) });
        let ack = Phase { name: "ack".to_owned(), took: finished.mono.since(started.mono) };
        let phases: Vec<_> = connect.into_iter().chain([ack]).collect();
        if let Some(quiet) = throttled {
            note(What::Throttled, &format!("for {}: our quota is used up", Human(quiet)));
        }
        match verdict(&verdicts, self.acks, throttled) {
            Ok(ack) => Ok(Reply { started, finished, ack, message: None, phases }),
            Err(refusal) => {
                // Whoever is to blame, what we knew of the topic may be wrong.
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&envelope.topic);
                Err(refusal.into_fault(started, finished, phases))
            }
        }
    }

    /// A connection to each leader: one known to have ended is replaced, before anything is sent on it, and so is one from
    /// before `since`.
    async fn prepare(&self, envelope: &Envelope, limit: Limit, since: Option<Mono>) -> Result<Ready, Refusal> {
        self.retire(since);
        let mut is_new = false;
        let cluster = self.cluster(&envelope.topic, limit, &mut is_new).await?;
        let existing: Vec<_> = cluster.topic(&envelope.topic)?.leaders.keys().copied().collect();
        let partitions = envelope.partitions(&existing);
        let mut routes = Vec::new();
        for (leader, partitions) in cluster.by_leader(&envelope.topic, partitions.iter().copied())? {
            let lane = match self.idle_lane(leader) {
                Some(lane) => lane,
                None => {
                    is_new = true;
                    self.access.node(&cluster, leader, limit).await?
                }
            };
            if self.clock.instant(lane.quiet_until()) >= limit.instant() {
                let left = Human(lane.quiet_until().since(self.clock.now().mono));
                let detail = format!("{} throttles us for another {left}: our quota is used up", lane.peer);
                self.give_back(leader, lane);
                return Err(Refusal::new(Cause::Throttled, detail));
            }
            routes.push(Route { leader, lane, partitions });
        }
        note_brokers(&routes);
        Ok(Ready { routes, partitions, is_new })
    }

    /// Where the topic lives, as it was seen a moment ago or is seen now.
    async fn cluster(&self, topic: &str, limit: Limit, is_new: &mut bool) -> Result<Arc<Cluster>, Refusal> {
        let now = self.clock.now().mono;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        if let Some((seen, cluster)) = known
            && now.since(seen) < KNOWN_FOR
        {
            return Ok(cluster);
        }
        let any = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect::<Vec<_>>();
        let idle = any.into_iter().find_map(|node| Some((node, self.idle_lane(node)?)));
        let (node, mut lane) = match idle {
            Some((node, lane)) => (Some(node), lane),
            None => {
                *is_new = true;
                (None, self.access.bootstrap(limit).await?)
            }
        };
        let cluster = self.access.look(&mut lane, &[topic]).await;
        if let (Some(node), Ok(_)) = (node, &cluster) {
            self.give_back(node, lane);
        }
        let cluster = Arc::new(cluster?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A template may name a new topic each time.
        known.retain(|_, (seen, _)| now.since(*seen) < KNOWN_FOR);
        known.insert(topic.to_owned(), (now, cluster.clone()));
        Ok(cluster)
    }

    async fn produce(
        &self,
        route: Route,
        topic: &str,
        batches: Result<Vec<(i32, bytes::Bytes)>, String>,
        limit: Limit,
    ) -> Answer {
        let Route { leader, mut lane, partitions } = route;
        let all = |refusal: Refusal| partitions.iter().map(|partition| (*partition, Err(refusal.clone()))).collect();
        let batches = match batches {
            Ok(batches) => batches,
            Err(detail) => {
                let verdicts = all(Refusal::new(Cause::Refused, detail));
                return Answer { verdicts, throttled: None, lane: Some((leader, lane)) };
            }
        };
        let (acks, _) = self.acks.as_wire();
        let timeout_ms = i32::try_from(limit.left().as_millis()).unwrap_or(i32::MAX);
        let request = Produce { acks, timeout_ms, topic, batches };
        let began = self.clock.now().mono;
        let exchange = async {
            match self.acks {
                Acks::None => lane.tell(ApiKey::Produce, PRODUCE, &request).await.map(|()| None),
                _ => lane.call(ApiKey::Produce, PRODUCE, &request).await.map(Some),
            }
        };
        let answer: Result<Option<ProduceResponse>, Refusal> = match timeout_at(limit.instant(), exchange).await {
            Ok(answer) => answer,
            Err(_) => {
                let waited = Human(self.clock.now().mono.since(began));
                let detail = format!("no acknowledgement from {} within {waited}", lane.peer);
                Err(Refusal { cause: Cause::Uncertain, detail, is_verdict: false })
            }
        };
        match answer {
            // A connection that swallowed a message, or ended with it, goes: the next message gets a new one.
            Err(refusal) => Answer { verdicts: all(refusal), throttled: None, lane: None },
            Ok(None) => {
                let verdicts = partitions.iter().map(|partition| (*partition, Ok(None))).collect();
                Answer { verdicts, throttled: None, lane: Some((leader, lane)) }
            }
            Ok(Some(answer)) => {
                let throttled = lane.quieten(answer.throttle_time_ms);
                let verdicts = verdicts(&answer, topic, &partitions, &lane.peer);
                Answer { verdicts, throttled, lane: Some((leader, lane)) }
            }
        }
    }

    /// Ends what idles since before `since`, and forgets what was seen of the cluster before. What is in use then is given back
    /// later, and is retired by who asks next.
    fn retire(&self, since: Option<Mono>) {
        let Some(since) = since else { return };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (seen, _)| *seen >= since);
        for idle in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            idle.retain(|lane| lane.since >= since);
        }
    }

    fn idle_lane(&self, node: i32) -> Option<Connection> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = lanes.get_mut(&node)?;
        while let Some(mut lane) = idle.pop() {
            if lane.is_open() {
                return Some(lane);
            }
        }
        None
    }

    fn give_back(&self, node: i32, lane: Connection) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = lanes.entry(node).or_default();
        if idle.len() < IDLE_LANES {
            idle.push(lane);
        }
    }
}

/// What a leader said of each partition.
fn verdicts(
    answer: &ProduceResponse,
    topic: &str,
    partitions: &[i32],
    peer: &str,
) -> Vec<(i32, Result<Option<i64>, Refusal>)> {
    let said: BTreeMap<_, _> = answer
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses)
        .map(|said| (said.index, (said.error_code, said.base_offset)))
        .collect();
    let verdict = |partition: &i32| match said.get(partition) {
        Some((ErrorCode::None, offset)) => Ok(Some(*offset)),
        Some((code, _)) => Err(Refusal::coded(*code, &format!("partition {partition} of topic `{topic}`"), None)),
        None => {
            let detail = format!("{peer} said nothing of partition {partition} of topic `{topic}`");
            Err(Refusal { cause: Cause::Uncertain, detail, is_verdict: false })
        }
    };
    partitions.iter().map(|partition| (*partition, verdict(partition))).collect()
}

/// The word on the whole message. One partition that certainly has not taken its part decides over those that have.
fn verdict(
    verdicts: &[(i32, Result<Option<i64>, Refusal>)],
    acks: Acks,
    throttled: Option<Duration>,
) -> Result<String, Refusal> {
    let refused: Vec<_> = verdicts.iter().filter_map(|(_, verdict)| verdict.as_ref().err()).collect();
    if let Some(first) = refused.iter().find(|refusal| refusal.is_verdict).or(refused.first()) {
        let mut refusal = (*first).clone();
        if verdicts.len() > 1 {
            refusal.detail = format!("{} of {} partitions: {}", refused.len(), verdicts.len(), refusal.detail);
        }
        return Err(refusal);
    }
    let (_, word) = acks.as_wire();
    let mut ack = match verdicts {
        [(partition, Ok(Some(offset)))] => format!("acks={word}: partition {partition}, offset {offset}"),
        _ if acks == Acks::None => "socket".to_owned(),
        _ => format!("acks={word}: {}", count(verdicts.len(), "partition")),
    };
    if let Some(throttled) = throttled {
        ack.push_str(&format!("; throttled for {}", Human(throttled)));
    }
    Ok(ack)
}

/// Notes who leads what, and where they all are: one message may go to several brokers.
fn note_brokers(routes: &[Route]) {
    routes.iter().for_each(|route| note_again(&route.lane.seen));
    let mut leads: Vec<_> = routes
        .iter()
        .flat_map(|route| route.partitions.iter().map(|partition| (*partition, route.leader)))
        .map(|(partition, leader)| (partition, format!("broker {leader} leads partition {partition}")))
        .collect();
    leads.sort_unstable();
    note(What::Node, &leads.iter().map(|(_, words)| words.as_str()).collect::<Vec<_>>().join(", "));
    note_answer(What::Peer, routes.iter().filter_map(|route| find(&route.lane.seen, What::Peer)));
}

/// A fault of a message that never left.
fn unsent(asked: Now, now: Now, refusal: Refusal) -> Fault {
    let took = now.mono.since(asked.mono);
    let phases = if took.is_zero() { Vec::new() } else { vec![Phase { name: "connect".to_owned(), took }] };
    refusal.before_sending().into_fault(asked, now, phases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_says_who_has_it_and_whether_we_were_slowed_down() {
        let one = [(2, Ok(Some(41)))];
        assert_eq!(verdict(&one, Acks::All, None).unwrap(), "acks=all: partition 2, offset 41");
        let throttled = verdict(&one, Acks::Leader, Some(Duration::from_secs(2))).unwrap();
        assert_eq!(throttled, "acks=leader: partition 2, offset 41; throttled for 2s");
        let three = [(0, Ok(Some(1))), (1, Ok(Some(1))), (2, Ok(Some(1)))];
        assert_eq!(verdict(&three, Acks::All, None).unwrap(), "acks=all: 3 partitions");
        assert_eq!(verdict(&[(0, Ok(None))], Acks::None, None).unwrap(), "socket");
    }

    #[test]
    fn a_certain_no_decides_over_an_uncertain_one() {
        let refused = |code| Err(Refusal::coded(code, "there", None));
        let (uncertain, certain) = (refused(ErrorCode::RequestTimedOut), refused(ErrorCode::NotEnoughReplicas));
        let told = verdict(&[(0, Ok(Some(1))), (1, uncertain.clone()), (2, certain)], Acks::All, None).unwrap_err();
        assert_eq!((told.cause, told.is_verdict), (Cause::Rejected, true));
        assert!(told.detail.starts_with("2 of 3 partitions: there: NOT_ENOUGH_REPLICAS"), "{told:?}");
        let told = verdict(&[(0, Ok(Some(1))), (1, uncertain)], Acks::All, None).unwrap_err();
        assert_eq!((told.cause, told.is_verdict), (Cause::Uncertain, false));
    }

    #[test]
    fn a_partition_that_the_broker_does_not_mention_is_uncertain() {
        let told = verdicts(&ProduceResponse::default(), "orders", &[3], "k:9092");
        let refusal = told[0].1.clone().unwrap_err();
        assert!(!refusal.is_verdict && refusal.detail.contains("partition 3"), "{refusal:?}");
    }
}
