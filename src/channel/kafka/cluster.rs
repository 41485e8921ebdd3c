//! Where a topic lives: which brokers there are, which partitions it has, and who leads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::time::timeout_at;

use super::connection::Connection;
use super::wire::{ApiKey, ErrorCode, METADATA, MetadataRequest, MetadataResponse};
use super::{KafkaSettings, SaslSettings};
use crate::channel::dial::{Dialer, Limit};
use crate::channel::refusal::Refusal;
use crate::clock::Clock;
use crate::journey::outcome::Cause;

/// How to reach the cluster.
#[derive(Clone)]
pub(super) struct Access {
    seeds: Vec<(String, u16)>,
    tls: Option<Arc<ClientConfig>>,
    /// Who we are.
    pub(super) sasl: Option<SaslSettings>,
    client_id: String,
    clock: Clock,
}

/// A cluster as one of its brokers sees it, as far as it concerns some topics.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// Host and port by which the cluster knows each broker.
    pub(super) brokers: BTreeMap<i32, (String, u16)>,
    /// By name.
    pub(super) topics: BTreeMap<String, Topic>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    /// Another one, when it was deleted and made anew under the same name. Zero where the broker does not say.
    pub(super) id: [u8; 16],
    /// Who leads each partition; `None` while nobody does.
    pub(super) leaders: BTreeMap<i32, Option<i32>>,
}

impl Access {
    /// Reads certificates; touches no network.
    ///
    /// # Errors
    /// In words: certificates that cannot be read.
    pub(super) fn new(settings: &KafkaSettings, clock: Clock) -> Result<Access, String> {
        let tls = match settings.tls {
            true => Some(Arc::new(crate::channel::seen::tls_client(settings.ca_file.as_deref())?)),
            false => None,
        };
        let (seeds, sasl, client_id) = (settings.brokers.clone(), settings.sasl.clone(), settings.client_id.clone());
        Ok(Access { seeds, tls, sasl, client_id, clock })
    }

    /// A connection to the first of the configured brokers that answers.
    pub(super) async fn bootstrap(&self, limit: Limit) -> Result<Connection, Refusal> {
        let mut outcome = Err(Refusal::new(Cause::Unreachable, "the channel names no broker"));
        for (index, (host, port)) in self.seeds.iter().enumerate() {
            // A share each: a broker that is down must not use up the time of those that are not.
            let share = limit.share(self.seeds.len() - index);
            let connecting = timeout_at(share, self.connect(host, *port, limit)).await;
            outcome = connecting.unwrap_or_else(|_| {
                Err(Refusal::silence("connecting", &format!("{host}:{port}"), limit.length()).before_sending())
            });
            match &outcome {
                // The other brokers would say the same.
                Ok(_) | Err(Refusal { cause: Cause::Auth, .. }) => break,
                Err(_) => {}
            }
        }
        outcome
    }

    /// A connection to a broker by its number.
    pub(super) async fn node(&self, cluster: &Cluster, node: i32, limit: Limit) -> Result<Connection, Refusal> {
        let Some((host, port)) = cluster.brokers.get(&node) else {
            let detail = format!("broker {node} leads a partition, and the cluster does not say where it is");
            return Err(Refusal::new(Cause::Unreachable, detail));
        };
        self.connect(host, *port, limit).await.map_err(|refusal| {
            // Most often the cluster names itself by an address that only it can reach.
            let detail = format!("broker {node}, which the cluster says is at {host}:{port}: {}", refusal.detail);
            Refusal { detail, ..refusal }
        })
    }

    async fn connect(&self, host: &str, port: u16, limit: Limit) -> Result<Connection, Refusal> {
        let dialer = Dialer { host: host.to_owned(), port, tls: self.tls.clone() };
        Connection::open(&dialer, &self.client_id, self.sasl.as_ref(), self.clock, limit).await
    }

    /// Asks over `connection` where these topics live.
    ///
    /// # Errors
    /// A topic that is not there or not for us.
    pub(super) async fn look(&self, connection: &mut Connection, topics: &[&str]) -> Result<Cluster, Refusal> {
        let request = MetadataRequest::for_topics(topics.to_vec());
        let seen: MetadataResponse =
            connection.call(ApiKey::Metadata, METADATA, &request).await.map_err(|refusal| {
                if self.sasl.is_none() && refusal.cause == Cause::Unreachable {
                    let detail = format!("{}; a listener that wants `sasl` does this", refusal.detail);
                    return Refusal { detail, ..refusal };
                }
                refusal
            })?;
        connection.quieten(seen.throttle_time_ms);
        Cluster::read(seen)
    }
}

impl Cluster {
    fn read(seen: MetadataResponse) -> Result<Cluster, Refusal> {
        let mut cluster = Cluster::default();
        for broker in seen.brokers {
            cluster.brokers.insert(broker.node_id, (broker.host, u16::try_from(broker.port).unwrap_or_default()));
        }
        for topic in seen.topics {
            let name = topic.name.unwrap_or_default();
            // A topic whose partitions have no leader is there all the same: each partition tells for itself.
            if !matches!(topic.error_code, ErrorCode::None | ErrorCode::LeaderNotAvailable) {
                return Err(Refusal::coded(topic.error_code, &format!("topic `{name}`"), None));
            }
            let leader = |id: i32| (id >= 0).then_some(id);
            let leaders = topic.partitions.iter().map(|found| (found.partition_index, leader(found.leader_id)));
            let leaders: BTreeMap<_, _> = leaders.collect();
            if leaders.is_empty() {
                return Err(Refusal::coded(ErrorCode::LeaderNotAvailable, &format!("topic `{name}`"), None));
            }
            cluster.topics.insert(name, Topic { id: topic.topic_id.unwrap_or_default(), leaders });
        }
        Ok(cluster)
    }

    /// A topic that was asked for.
    pub(super) fn topic(&self, name: &str) -> Result<&Topic, Refusal> {
        let missing = || Refusal::coded(ErrorCode::UnknownTopicOrPartition, &format!("topic `{name}`"), None);
        self.topics.get(name).ok_or_else(missing)
    }

    /// These partitions of a topic by the broker that leads them.
    ///
    /// # Errors
    /// A partition that is not there, or that nobody leads.
    pub(super) fn by_leader(
        &self,
        name: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Result<BTreeMap<i32, Vec<i32>>, Refusal> {
        let topic = self.topic(name)?;
        let mut by_leader: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for partition in partitions {
            let place = format!("partition {partition} of topic `{name}`");
            match topic.leaders.get(&partition) {
                Some(Some(leader)) => by_leader.entry(*leader).or_default().push(partition),
                Some(None) => return Err(Refusal::coded(ErrorCode::LeaderNotAvailable, &place, None)),
                None => {
                    let words = format!("the topic has {}", count(topic.leaders.len(), "partition"));
                    return Err(Refusal::coded(ErrorCode::UnknownTopicOrPartition, &place, Some(&words)));
                }
            }
        }
        Ok(by_leader)
    }
}

/// `1 partition`, `2 partitions`.
pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let leaders = BTreeMap::from([(0, Some(1)), (1, Some(2)), (2, Some(1)), (3, None)]);
        let topics = BTreeMap::from([("orders".to_owned(), Topic { id: [0; 16], leaders })]);
        Cluster { brokers: BTreeMap::new(), topics }
    }

    #[test]
    fn partitions_go_to_their_leaders() {
        let by_leader = cluster().by_leader("orders", [0, 1, 2]).unwrap();
        assert_eq!(by_leader, BTreeMap::from([(1, vec![0, 2]), (2, vec![1])]));
    }

    #[test]
    fn what_is_not_there_and_what_has_no_leader_differ() {
        let cases = [
            ("orders", 4, Cause::Unroutable, "partition 4 of topic `orders`"),
            ("orders", 3, Cause::Rejected, "partition 3 of topic `orders`: LEADER_NOT_AVAILABLE"),
            ("other", 0, Cause::Unroutable, "topic `other`"),
        ];
        for (topic, partition, cause, words) in cases {
            let refusal = cluster().by_leader(topic, [partition]).unwrap_err();
            assert!(refusal.cause == cause && refusal.is_verdict && refusal.detail.contains(words), "{refusal:?}");
        }
    }
}
