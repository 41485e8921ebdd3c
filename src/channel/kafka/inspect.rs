//! Looking at a topic or at a group: what is there, how far behind the group is. Nothing is consumed, committed or joined.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::timeout_at;

use super::cluster::{Access, Cluster, count};
use super::connection::Connection;
use super::message;
use super::receive::{bounds, request};
use super::wire::{
    ApiKey, CONSUMER_GROUP_DESCRIBE, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DESCRIBE_GROUPS,
    DescribeGroupsRequest, DescribeGroupsResponse, ErrorCode, FETCH, FIND_COORDINATOR, FetchResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, OFFSET_FETCH, OffsetFetch, OffsetFetchResponse,
};
use super::{FETCH_WAIT, KafkaSettings};
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::value::Value;
use crate::time::between;

/// One partition, as its leader and the group's coordinator have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    partition: i32,
    /// The first offset that is still there.
    first: i64,
    /// The offset that the next record will have.
    end: i64,
    /// Where the group will read on; `None` if it has committed nothing here.
    committed: Option<i64>,
}

impl Seen {
    /// How many records the group has still to read. Where it has committed nothing, all that is there.
    fn lag(&self) -> i64 {
        (self.end - self.next()).max(0)
    }

    fn next(&self) -> i64 {
        self.committed.unwrap_or(self.first).max(self.first)
    }
}

/// Asks the brokers for the topic and the group that the step names; without either, for the channel's topic.
pub(super) async fn check(
    settings: &KafkaSettings,
    access: &Access,
    clock: Clock,
    outgoing: &Outgoing,
) -> Result<Reply, Fault> {
    let started = clock.now();
    let limit = Limit::new(clock, outgoing.timeout);
    let group = outgoing.fields.get("group").map(String::as_str);
    let topic = match (outgoing.fields.get("topic"), group) {
        (Some(topic), _) => Some(topic.as_str()),
        (None, Some(_)) => None,
        (None, None) => Some(settings.topic.as_str()),
    };
    let looking = async {
        match group {
            Some(group) => look_at_group(access, clock, group, topic, limit).await,
            None => look_at_topic(access, topic.unwrap_or_default(), limit).await,
        }
    };
    let silence = || Refusal::silence("looking", "the cluster", limit.length());
    let seen = timeout_at(limit.instant(), looking).await.unwrap_or_else(|_| Err(silence()));
    let finished = clock.now();
    let phases = vec![Phase { name: "look".to_owned(), took: finished.mono.since(started.mono) }];
    match seen {
        Ok(message) => Ok(Reply { started, finished, ack: "seen".to_owned(), message: Some(message), phases }),
        Err(refusal) => Err(refusal.before_sending().into_fault(started, finished, phases)),
    }
}

/// Connects, says who we are, and asks where the channel's topics live.
pub(super) async fn prove(
    settings: &KafkaSettings,
    access: &Access,
    clock: Clock,
    within: Duration,
) -> Result<String, Fault> {
    let asked = clock.now();
    let limit = Limit::new(clock, within);
    let mut topics = vec![settings.topic.as_str(), settings.receive_topic.as_str()];
    topics.retain(|topic| !topic.is_empty());
    topics.dedup();
    let proving = async {
        let mut connection = access.bootstrap(limit).await?;
        let cluster = access.look(&mut connection, &topics).await?;
        for (name, topic) in &cluster.topics {
            // Each leader is asked for a connection: a broker behind an address that only the cluster reaches is found here.
            for leader in cluster.by_leader(name, topic.leaders.keys().copied())?.into_keys() {
                access.node(&cluster, leader, limit).await?;
            }
        }
        let leaders: BTreeSet<_> = cluster.topics.values().flat_map(|topic| topic.leaders.values()).collect();
        let there = cluster.topics.iter().map(|(name, topic)| {
            let partitions = count(topic.leaders.len(), "partition");
            format!("topic `{name}` has {partitions}")
        });
        let there: Vec<_> = there.collect();
        let brokers = count(leaders.len(), "broker");
        let greets = if access.sasl.is_some() { "takes our credentials" } else { "answers" };
        Ok(format!("{} {greets}; {}, led by {brokers}", connection.peer, there.join(", ")))
    };
    let proved = timeout_at(limit.instant(), proving).await;
    let silence = || Refusal::silence("asking where the topic lives", "the cluster", limit.length());
    proved
        .unwrap_or_else(|_| Err(silence()))
        .map_err(|refusal: Refusal| refusal.before_sending().into_fault(asked, clock.now(), Vec::new()))
}

async fn look_at_topic(access: &Access, topic: &str, limit: Limit) -> Result<Message, Refusal> {
    if topic.is_empty() {
        return Err(Refusal::new(Cause::Refused, "neither the channel nor the step has a `topic` to look at"));
    }
    let mut connection = access.bootstrap(limit).await?;
    let cluster = access.look(&mut connection, &[topic]).await?;
    let mut leaders = BTreeMap::new();
    let seen = see(access, &cluster, &mut leaders, topic, &BTreeMap::new(), limit).await?;
    let depth: i64 = seen.iter().map(|seen| seen.end - seen.first).sum();
    let mut message = Message::new(json!({ "topics": [document(topic, &seen, false)] }).to_string());
    message.facts.insert("depth", Value::from(depth));
    Ok(message)
}

async fn look_at_group(
    access: &Access,
    clock: Clock,
    group: &str,
    topic: Option<&str>,
    limit: Limit,
) -> Result<Message, Refusal> {
    let mut connection = access.bootstrap(limit).await?;
    let mut coordinator = coordinator(access, &mut connection, group, limit).await?;
    let mut committed = committed(&mut coordinator, group).await?;
    committed.retain(|name, _| topic.is_none_or(|topic| topic == name));
    if committed.is_empty() {
        let on = topic.map(|topic| format!(" on topic `{topic}`")).unwrap_or_default();
        let detail = format!(
            "group `{group}` has committed no offset{on}: it never read, or it expired, or it has another name"
        );
        return Err(Refusal::new(Cause::Refused, detail));
    }
    let topics: Vec<_> = committed.keys().map(String::as_str).collect();
    let cluster = access.look(&mut connection, &topics).await?;
    let (mut leaders, mut lag, mut oldest, mut documents) = (BTreeMap::new(), 0, None, Vec::new());
    for (topic, committed) in &committed {
        let seen = see(access, &cluster, &mut leaders, topic, committed, limit).await?;
        lag += seen.iter().map(Seen::lag).sum::<i64>();
        documents.push(document(topic, &seen, true));
        let waiting = oldest_waiting(&cluster, &mut leaders, topic, &seen, clock).await?;
        oldest = [oldest, waiting].into_iter().flatten().min();
    }
    let mut message = Message::new(json!({ "group": group, "topics": documents }).to_string());
    message.facts.insert("lag", Value::from(lag));
    message.facts.insert("depth", Value::from(lag));
    // A group that is not behind has nothing that waits.
    let age = match (lag, oldest) {
        (0, _) => Some(Duration::ZERO),
        (_, oldest) => oldest.map(|oldest| between(oldest, clock.now().wall)),
    };
    message.facts.extend(age.map(|age| ("oldest_age", Value::Duration(age))));
    let members = members(&mut coordinator, group).await?;
    message.facts.extend(members.map(|members| ("consumers", Value::from(members))));
    Ok(message)
}

/// What the leaders of a topic's partitions say of them.
async fn see(
    access: &Access,
    cluster: &Cluster,
    leaders: &mut BTreeMap<i32, Connection>,
    topic: &str,
    committed: &BTreeMap<i32, i64>,
    limit: Limit,
) -> Result<Vec<Seen>, Refusal> {
    let mut seen = Vec::new();
    for (leader, partitions) in cluster.by_leader(topic, cluster.topic(topic)?.leaders.keys().copied())? {
        let mut connection = match leaders.remove(&leader) {
            Some(connection) => connection,
            None => access.node(cluster, leader, limit).await?,
        };
        for (partition, (first, end)) in bounds(&mut connection, topic, &partitions).await? {
            seen.push(Seen { partition, first, end, committed: committed.get(&partition).copied() });
        }
        leaders.insert(leader, connection);
    }
    seen.sort_by_key(|seen| seen.partition);
    Ok(seen)
}

/// When the oldest record was written that the group has still to read, as far as records say so.
async fn oldest_waiting(
    cluster: &Cluster,
    leaders: &mut BTreeMap<i32, Connection>,
    topic: &str,
    seen: &[Seen],
    clock: Clock,
) -> Result<Option<Timestamp>, Refusal> {
    let behind: BTreeMap<_, _> =
        seen.iter().filter(|seen| seen.lag() > 0).map(|seen| (seen.partition, seen.next())).collect();
    let mut oldest = None;
    for (leader, partitions) in cluster.by_leader(topic, behind.keys().copied())? {
        let Some(connection) = leaders.get_mut(&leader) else { continue };
        // One at a time: an answer that is full with one partition says nothing of the others.
        for partition in partitions {
            let from = behind[&partition];
            // It is there, so this waits for nothing; a broker that may not wait at all does not always look.
            let request = request(topic, &BTreeMap::from([(partition, from)]), FETCH_WAIT);
            let answer: FetchResponse = connection.call(ApiKey::Fetch, FETCH, &request).await?;
            for said in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
                // Who may see how far a group is may not be let read: then the age stays unsaid.
                let Some(records) = said.records.filter(|_| said.error_code == ErrorCode::None) else { continue };
                let batches = message::read(topic, partition, from, records, clock.now())?;
                let written = batches.records.first().and_then(|record| record.message.header("kafka-timestamp"));
                oldest = [oldest, written.and_then(|text| text.parse().ok())].into_iter().flatten().min();
            }
        }
    }
    Ok(oldest)
}

async fn coordinator(
    access: &Access,
    connection: &mut Connection,
    group: &str,
    limit: Limit,
) -> Result<Connection, Refusal> {
    let request = FindCoordinatorRequest::for_group(group);
    let found: FindCoordinatorResponse = connection.call(ApiKey::FindCoordinator, FIND_COORDINATOR, &request).await?;
    if found.error_code != ErrorCode::None {
        let place = format!("group `{group}`");
        return Err(Refusal::coded(found.error_code, &place, found.error_message.as_deref()));
    }
    let address = (found.host, u16::try_from(found.port).unwrap_or_default());
    let cluster = Cluster { brokers: BTreeMap::from([(found.node_id, address)]), ..Cluster::default() };
    access.node(&cluster, found.node_id, limit).await
}

/// What the group has committed, by topic and partition.
async fn committed(coordinator: &mut Connection, group: &str) -> Result<BTreeMap<String, BTreeMap<i32, i64>>, Refusal> {
    let answer: OffsetFetchResponse =
        coordinator.call(ApiKey::OffsetFetch, OFFSET_FETCH, &OffsetFetch { group }).await?;
    if answer.error_code != ErrorCode::None {
        return Err(Refusal::coded(answer.error_code, &format!("group `{group}`"), None));
    }
    let mut committed = BTreeMap::new();
    for topic in answer.topics {
        let mut offsets = BTreeMap::new();
        for said in topic.partitions {
            if said.error_code != ErrorCode::None {
                let place = format!("group `{group}`, partition {} of topic `{}`", said.partition_index, topic.name);
                return Err(Refusal::coded(said.error_code, &place, None));
            }
            // -1 stands for nothing committed.
            if said.committed_offset >= 0 {
                offsets.insert(said.partition_index, said.committed_offset);
            }
        }
        if !offsets.is_empty() {
            committed.insert(topic.name, offsets);
        }
    }
    Ok(committed)
}

/// How many members the group has; `None` if we may not know. Groups of the newer protocol are described by another request.
async fn members(coordinator: &mut Connection, group: &str) -> Result<Option<i64>, Refusal> {
    let mut members = None;
    if coordinator.speaks(ApiKey::DescribeGroups, DESCRIBE_GROUPS) {
        let request = DescribeGroupsRequest { groups: vec![group.to_owned()], include_authorized_operations: false };
        let answer: DescribeGroupsResponse =
            coordinator.call(ApiKey::DescribeGroups, DESCRIBE_GROUPS, &request).await?;
        let found = answer.groups.iter().find(|found| found.error_code == ErrorCode::None);
        members = found.map(|found| found.members.len());
    }
    if members.unwrap_or_default() == 0 && coordinator.speaks(ApiKey::ConsumerGroupDescribe, CONSUMER_GROUP_DESCRIBE) {
        let request = ConsumerGroupDescribeRequest::new(vec![group.to_owned()]);
        let answer: ConsumerGroupDescribeResponse =
            coordinator.call(ApiKey::ConsumerGroupDescribe, CONSUMER_GROUP_DESCRIBE, &request).await?;
        let found = answer.groups.iter().find(|found| found.error_code == ErrorCode::None);
        members = found.map(|found| found.members.len()).or(members);
    }
    Ok(members.and_then(|members| i64::try_from(members).ok()))
}

/// For `json` queries and for the evidence.
fn document(topic: &str, seen: &[Seen], is_group: bool) -> serde_json::Value {
    let partition = |seen: &Seen| {
        let mut document = json!({ "partition": seen.partition, "first": seen.first, "end": seen.end });
        if is_group {
            document["committed"] = json!(seen.committed);
            document["lag"] = json!(seen.lag());
        }
        document
    };
    json!({ "topic": topic, "partitions": seen.iter().map(partition).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_is_there_and_not_yet_read() {
        let seen = |first, end, committed| Seen { partition: 0, first, end, committed };
        let cases = [
            ("behind", seen(0, 10, Some(4)), 6),
            ("at the end", seen(0, 10, Some(10)), 0),
            ("never read", seen(3, 10, None), 7),
            ("what it had to read is gone", seen(5, 10, Some(2)), 5),
            ("ahead of a log that was cut off", seen(0, 10, Some(12)), 0),
        ];
        for (what, seen, lag) in cases {
            assert_eq!(seen.lag(), lag, "{what}");
        }
    }
}
