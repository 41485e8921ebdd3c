//! Receiving: every partition of a topic, from an offset that its leader has confirmed; each arrival stamped the moment the
//! answer that has it is there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time::timeout_at;

use super::cluster::{Access, Cluster, Topic, count};
use super::connection::Connection;
use super::message::{self, Read};
use super::wire::{
    ApiKey, ErrorCode, FETCH, FetchPartitionRequest, FetchRequest, FetchResponse, FetchTopicRequest, LIST_OFFSETS,
    ListOffsetsRequest, ListOffsetsRequestPartition, ListOffsetsRequestTopic, ListOffsetsResponse,
};
use super::{KafkaSettings, SaslSettings};
use crate::channel::Listener;
use crate::channel::dial::Limit;
use crate::channel::receiving::{keep_receiving, never_receives};
use crate::channel::refusal::Refusal;
use crate::channel::seen::{note, take_back};
use crate::journey::message::Arrival;
use crate::journey::seen::What;
use crate::time::{Human, Now};

/// From the first packet to the last position.
const SETUP: Duration = Duration::from_secs(10);
/// Beyond the wait that a fetch allows, a broker may take this long to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often it is looked whether the topic has new partitions.
const LOOK: Duration = Duration::from_secs(5);
/// An answer brings about this much; also bounds what waits here to be handed over: two answers of each leader.
const FETCH_BYTES: i32 = 1024 * 1024;
/// `ListOffsets` has no time for these two (KIP-79).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// How far each partition has been handed over. Outlives a connection: what came meanwhile is read afterwards.
#[derive(Debug, Default)]
struct Positions {
    topic: Option<[u8; 16]>,
    next: BTreeMap<i32, i64>,
}

/// Reads until told to stop; reconnects by itself.
pub(super) async fn listen(settings: &KafkaSettings, access: &Access, listener: Listener) {
    if settings.receive_topic.is_empty() {
        return never_receives(&listener, "the channel has no topic to receive on; give it `topic`").await;
    }
    let positions = Mutex::new(Positions::default());
    let reading = Reading { settings, access, positions: &positions };
    let open = || Subscription::open(reading, &listener);
    keep_receiving(&listener, open, |subscription| subscription.read(&listener)).await;
}

/// What every subscription of a channel shares.
#[derive(Clone, Copy)]
struct Reading<'a> {
    settings: &'a KafkaSettings,
    access: &'a Access,
    positions: &'a Mutex<Positions>,
}

/// Every partition with a position, and a connection to each leader.
struct Subscription<'a> {
    reading: Reading<'a>,
    topic: Topic,
    /// For looking at the topic now and then.
    control: Connection,
    fetchers: Vec<Fetcher<'a>>,
}

/// The partitions that one broker leads.
struct Fetcher<'a> {
    reading: Reading<'a>,
    connection: Connection,
    /// Where the next fetch begins.
    next: BTreeMap<i32, i64>,
    /// The last answer asked us to slow down.
    is_throttled: bool,
}

/// Why the reading of a subscription ended.
enum Ended {
    /// We were told to, or nobody takes arrivals any more.
    Stopped,
    /// The topic has partitions that nobody reads yet.
    Grown,
}

impl<'a> Subscription<'a> {
    /// Connects, finds the leaders, and gets a position on every partition.
    async fn open(reading: Reading<'a>, listener: &Listener) -> Result<Self, String> {
        let limit = Limit::new(listener.clock, SETUP);
        match timeout_at(limit.instant(), Subscription::assign(reading, listener, limit)).await {
            Ok(assigned) => assigned.map_err(|refusal| refusal.detail),
            Err(_) => Err(Refusal::silence("finding its positions", "the cluster", limit.length()).detail),
        }
    }

    async fn assign(reading: Reading<'a>, listener: &Listener, limit: Limit) -> Result<Self, Refusal> {
        let Reading { settings, access, positions } = reading;
        let name = settings.receive_topic.as_str();
        let mut control = access.bootstrap(limit).await?;
        let cluster: Cluster = access.look(&mut control, &[name]).await?;
        let topic = cluster.topic(name)?.clone();
        let mut fetchers = Vec::new();
        for (leader, partitions) in cluster.by_leader(name, topic.leaders.keys().copied())? {
            let mut connection = access.node(&cluster, leader, limit).await?;
            let bounds = bounds(&mut connection, name, &partitions).await?;
            let since = match listener.since {
                Some(since) => since_then(&mut connection, name, &partitions, since).await?,
                None => BTreeMap::new(),
            };
            let positions = positions.lock().unwrap_or_else(PoisonError::into_inner);
            let mut next = BTreeMap::new();
            for (partition, (first, end)) in bounds {
                // Runs of the process before wait since then: the end is for them what it was at that time.
                let end =
                    since.get(&partition).filter(|_| positions.topic.is_none()).map_or(end, |then| end.min(*then));
                let from = position(&positions, &topic, partition, first, end);
                if let Some(left) = positions.next.get(&partition).filter(|left| **left != from) {
                    tracing::warn!(channel = %listener.channel, topic = name, partition, left, from, "the log is not what it was; reading on from elsewhere");
                }
                next.insert(partition, from);
            }
            drop(positions);
            fetchers.push(Fetcher { reading, connection, next, is_throttled: false });
        }
        for fetcher in &mut fetchers {
            // To be let look at a topic is not to be let read it.
            fetcher.fetch(Duration::ZERO, listener).await?;
        }
        let mut positions = positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.topic = Some(topic.id);
        positions.next = fetchers.iter().flat_map(|fetcher| fetcher.next.clone()).collect();
        tracing::debug!(channel = %listener.channel, positions = ?positions.next, "every partition has a position");
        drop(positions);
        Ok(Subscription { reading, topic, control, fetchers })
    }

    /// Reads until told to stop (`Ok`), or until a broker or the connection ends it (`Err`, in words).
    async fn read(mut self, listener: &Listener) -> Result<(), String> {
        loop {
            match self.read_on(listener).await? {
                Ended::Stopped => return Ok(()),
                Ended::Grown => {
                    let known = count(self.topic.leaders.len(), "partition");
                    self = tokio::select! {
                        biased;
                        () = listener.stop.cancelled() => return Ok(()),
                        opened = Subscription::open(self.reading, listener) => opened?,
                    };
                    tracing::info!(channel = %listener.channel, was = known, now = self.topic.leaders.len(), "the topic has new partitions");
                }
            }
        }
    }

    async fn read_on(&mut self, listener: &Listener) -> Result<Ended, String> {
        let Subscription { reading, topic, control, fetchers } = self;
        let mut reads: FuturesUnordered<_> = fetchers.iter_mut().map(|fetcher| fetcher.read(listener)).collect();
        tokio::select! {
            biased;
            () = listener.stop.cancelled() => Ok(Ended::Stopped),
            Some(ended) = reads.next() => ended.map(|()| Ended::Stopped).map_err(|refusal| refusal.detail),
            looked = watch(*reading, topic, control, listener) => looked.map(|()| Ended::Grown),
        }
    }
}

/// Looks at the topic now and then; ends when it has partitions that are not among those known, or is another one.
async fn watch(
    reading: Reading<'_>,
    known: &Topic,
    control: &mut Connection,
    listener: &Listener,
) -> Result<(), String> {
    let name = reading.settings.receive_topic.as_str();
    loop {
        tokio::time::sleep(LOOK).await;
        let limit = Limit::new(listener.clock, ANSWER);
        let looking = async {
            control.refresh_session(reading.access.sasl.as_ref()).await?;
            reading.access.look(control, &[name]).await
        };
        let seen = timeout_at(limit.instant(), looking).await;
        let silence = |_| Refusal::silence("looking at the topic", "the cluster", limit.length()).detail;
        let seen = seen.map_err(silence)?.map_err(|refusal| refusal.detail)?;
        let topic = seen.topic(name).map_err(|refusal| refusal.detail)?;
        if topic.id != known.id || topic.leaders.keys().any(|partition| !known.leaders.contains_key(partition)) {
            return Ok(());
        }
    }
}

impl Fetcher<'_> {
    /// Fetches without end. While one answer is handed over the next is fetched, so that a slow taker makes no stamp late.
    async fn read(&mut self, listener: &Listener) -> Result<(), Refusal> {
        let (wait, positions) = (self.reading.settings.fetch_wait, self.reading.positions);
        let mut arrived = Vec::new();
        loop {
            let handing = hand_over(std::mem::take(&mut arrived), positions, listener);
            let (fetched, is_wanted) = tokio::join!(self.fetch(wait, listener), handing);
            if !is_wanted {
                return Ok(());
            }
            let (now, read) = fetched?;
            for (partition, batches) in read {
                for (offset, why) in batches.unreadable {
                    let topic = self.reading.settings.receive_topic.as_str();
                    tracing::warn!(channel = %listener.channel, topic, partition, offset, why, "cannot read a batch; reading on after it");
                }
                self.next.insert(partition, batches.next);
                arrived.extend(batches.records.into_iter().map(|record| (partition, now, record)));
            }
        }
    }

    /// One fetch: what is there, or nothing after `wait`. The stamp is that of the answer's last byte.
    async fn fetch(
        &mut self,
        wait: Duration,
        listener: &Listener,
    ) -> Result<(Now, Vec<(i32, message::Batches)>), Refusal> {
        let topic = self.reading.settings.receive_topic.as_str();
        let request = request(topic, &self.next, wait);
        let Fetcher { connection, next, reading, is_throttled } = self;
        let quiet = connection.quiet_until().since(listener.clock.now().mono);
        let limit = Limit::new(listener.clock, quiet + wait + ANSWER);
        let sasl: Option<&SaslSettings> = reading.access.sasl.as_ref();
        let fetching = async {
            connection.refresh_session(sasl).await?;
            connection.call(ApiKey::Fetch, FETCH, &request).await
        };
        let answer: FetchResponse = match timeout_at(limit.instant(), fetching).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Refusal::silence("fetching", &connection.peer, limit.length())),
        };
        let now = connection.answered();
        if let Some(quiet) = connection.quieten(answer.throttle_time_ms) {
            let quiet = Human(quiet);
            tracing::warn!(channel = %listener.channel, broker = connection.peer, %quiet, "the broker throttles our reading");
            note(What::Throttled, &format!("{} throttles our reading for {quiet}", connection.peer));
            *is_throttled = true;
        } else if std::mem::take(is_throttled) {
            take_back(What::Throttled);
        }
        if answer.error_code != ErrorCode::None {
            return Err(Refusal::coded(answer.error_code, &connection.peer, None));
        }
        let mut read = Vec::new();
        for said in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let Some(from) = next.get(&said.partition) else { continue };
            if said.error_code != ErrorCode::None {
                let place = format!("partition {} of topic `{topic}`", said.partition);
                return Err(Refusal::coded(said.error_code, &place, None));
            }
            let Some(records) = said.records.filter(|records| !records.is_empty()) else { continue };
            read.push((said.partition, message::read(topic, said.partition, *from, records, now)?));
        }
        Ok((now, read))
    }
}

/// Hands over what arrived, and notes how far; `false` if nobody takes arrivals any more.
async fn hand_over(arrived: Vec<(i32, Now, Read)>, positions: &Mutex<Positions>, listener: &Listener) -> bool {
    for (partition, at, Read { offset, message }) in arrived {
        if listener.arrivals.send(Arrival { channel: listener.channel.clone(), at, message }).await.is_err() {
            return false;
        }
        positions.lock().unwrap_or_else(PoisonError::into_inner).next.insert(partition, offset.saturating_add(1));
    }
    true
}

/// Where to read on. On a topic that was not read before: from its end. On one that was: from where it was left, and from the
/// beginning of partitions that are new, because all that is in them came since.
fn position(positions: &Positions, topic: &Topic, partition: i32, first: i64, end: i64) -> i64 {
    match (positions.topic, positions.next.get(&partition)) {
        (None, _) => end,
        // Deleted and made anew.
        (Some(id), _) if id != topic.id => first,
        (Some(_), None) => first,
        // What is between is gone: the topic keeps it no longer.
        (Some(_), Some(left)) if *left < first => first,
        // The log was cut off: what is behind its end is gone, and where it was cut nobody knows.
        (Some(_), Some(left)) => (*left).min(end),
    }
}

/// A fetch of these partitions from these offsets on, outside any session (KIP-227).
pub(super) fn request(topic: &str, next: &BTreeMap<i32, i64>, wait: Duration) -> FetchRequest {
    let partition = |(partition, offset): (&i32, &i64)| {
        let mut asked = FetchPartitionRequest::default();
        (asked.partition, asked.fetch_offset, asked.partition_max_bytes) = (*partition, *offset, FETCH_BYTES);
        asked
    };
    let mut asked = FetchTopicRequest::default();
    (asked.topic, asked.partitions) = (topic.to_owned(), next.iter().map(partition).collect());
    let mut request = FetchRequest::default();
    request.max_wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    (request.min_bytes, request.max_bytes, request.topics) = (1, FETCH_BYTES, vec![asked]);
    request
}

/// The first offset (`EARLIEST`) or the next one (`LATEST`) of partitions that this broker leads.
async fn offsets(
    connection: &mut Connection,
    topic: &str,
    partitions: &[i32],
    which: i64,
) -> Result<BTreeMap<i32, i64>, Refusal> {
    let asked = partitions.iter().map(|partition| ListOffsetsRequestPartition {
        partition_index: *partition,
        current_leader_epoch: -1,
        timestamp: which,
    });
    let asked = vec![ListOffsetsRequestTopic { name: topic.to_owned(), partitions: asked.collect() }];
    let timeout_ms = Some(i32::try_from(SETUP.as_millis()).unwrap_or(i32::MAX));
    let request = ListOffsetsRequest { replica_id: -1, isolation_level: 0, topics: asked, timeout_ms };
    let answer: ListOffsetsResponse = connection.call(ApiKey::ListOffsets, LIST_OFFSETS, &request).await?;
    let said: BTreeMap<_, _> = answer
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|said| (said.partition_index, (said.error_code, said.offset)))
        .collect();
    let offset = |partition: &i32| {
        let place = format!("partition {partition} of topic `{topic}`");
        match said.get(partition) {
            // A time that no record has reached has no offset.
            Some((ErrorCode::None, offset)) if *offset >= 0 || which >= 0 => Ok((*partition, *offset)),
            Some((ErrorCode::None, _)) | None => {
                Err(Refusal::coded(ErrorCode::OffsetNotAvailable, &place, Some("the broker gives no offset")))
            }
            Some((code, _)) => Err(Refusal::coded(*code, &place, None)),
        }
    };
    partitions.iter().map(offset).collect()
}

/// The first offset of a record that is no older than this, of those partitions that have one.
async fn since_then(
    connection: &mut Connection,
    topic: &str,
    partitions: &[i32],
    since: Timestamp,
) -> Result<BTreeMap<i32, i64>, Refusal> {
    let mut found = offsets(connection, topic, partitions, since.as_millisecond().max(0)).await?;
    found.retain(|_, offset| *offset >= 0);
    Ok(found)
}

/// The first offset of each partition that this broker leads, and the one that its next record will have.
pub(super) async fn bounds(
    connection: &mut Connection,
    topic: &str,
    partitions: &[i32],
) -> Result<BTreeMap<i32, (i64, i64)>, Refusal> {
    let first = offsets(connection, topic, partitions, EARLIEST).await?;
    let end = offsets(connection, topic, partitions, LATEST).await?;
    Ok(first.into_iter().map(|(partition, first)| (partition, (first, end[&partition]))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_begins_at_the_end_and_goes_on_where_it_was_left() {
        let topic = Topic { id: [1; 16], leaders: BTreeMap::new() };
        let fresh = Positions::default();
        assert_eq!(position(&fresh, &topic, 0, 3, 10), 10);
        let left = Positions { topic: Some([1; 16]), next: BTreeMap::from([(0, 7)]) };
        let cases = [
            ("where it was left", 0, 3, 10, 7),
            ("a new partition", 1, 0, 4, 0),
            ("retention went past it", 0, 8, 10, 8),
            ("the log was cut off", 0, 0, 5, 5),
        ];
        for (what, partition, first, end, expected) in cases {
            assert_eq!(position(&left, &topic, partition, first, end), expected, "{what}");
        }
        let anew = Topic { id: [2; 16], leaders: BTreeMap::new() };
        assert_eq!(position(&left, &anew, 0, 0, 20), 0, "deleted and made anew");
    }
}
