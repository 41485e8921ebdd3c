//! Why a broker said no: Kafka's error codes as causes and sentences. Pure.

use super::wire::{ErrorCode, KrafkaError};
use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

impl Refusal {
    /// A broker's error code. `place` is what it is about; `words` is what the broker says beside the code.
    /// <https://kafka.apache.org/protocol.html#protocol_error_codes>
    pub(super) fn coded(code: ErrorCode, place: &str, words: Option<&str>) -> Refusal {
        use ErrorCode as E;
        let (cause, is_verdict, advice) = match code {
            E::UnknownTopicOrPartition | E::UnknownTopicId => {
                (Cause::Unroutable, true, "there is no such topic or partition; create it, or correct the name")
            }
            E::TopicAuthorizationFailed => (Cause::Auth, true, "the topic's ACLs do not let us"),
            E::GroupAuthorizationFailed => (Cause::Auth, true, "the group's ACLs do not let us"),
            E::ClusterAuthorizationFailed | E::TransactionalIdAuthorizationFailed => {
                (Cause::Auth, true, "the cluster's ACLs do not let us")
            }
            E::SaslAuthenticationFailed => (Cause::Auth, true, "our credentials are not accepted"),
            E::UnsupportedSaslMechanism | E::IllegalSaslState | E::SecurityDisabled => {
                (Cause::Auth, true, "the listener does not authenticate that way")
            }
            E::NotEnoughReplicas => (Cause::Rejected, true, "fewer replicas are in sync than `min.insync.replicas`"),
            E::NotEnoughReplicasAfterAppend => {
                (Cause::Rejected, false, "the leader has it, and too few replicas are in sync to keep it")
            }
            E::RequestTimedOut => (Cause::Uncertain, false, "the replicas did not have it in time"),
            E::NetworkException => (Cause::Uncertain, false, "the broker lost a connection of its own"),
            E::UnknownServerError => (Cause::Rejected, false, "the broker's log knows more"),
            E::NotLeaderForPartition | E::FencedLeaderEpoch | E::UnknownLeaderEpoch | E::NewLeaderElected => {
                (Cause::Rejected, true, "the partition has another leader now")
            }
            E::LeaderNotAvailable | E::BrokerNotAvailable | E::ReplicaNotAvailable => {
                (Cause::Rejected, true, "the partition has no leader now")
            }
            E::KafkaStorageException => (Cause::Rejected, true, "the broker cannot write its disk"),
            E::CoordinatorLoadInProgress | E::CoordinatorNotAvailable | E::NotCoordinator => {
                (Cause::Rejected, true, "the group has no coordinator now")
            }
            E::MessageTooLarge | E::RecordListTooLarge => {
                (Cause::Refused, true, "it is larger than the topic's `max.message.bytes`")
            }
            E::ThrottlingQuotaExceeded => (Cause::Throttled, true, "our quota is used up"),
            _ => (Cause::Refused, true, ""),
        };
        let mut detail = format!("{place}: {} ({})", name(code), code.to_i16());
        for more in [advice, words.unwrap_or_default()].into_iter().filter(|more| !more.is_empty()) {
            detail.push_str("; ");
            detail.push_str(more);
        }
        Refusal { cause, detail, is_verdict }
    }

    /// Bytes that are not what the protocol says. The message may have been taken.
    pub(super) fn garbled(peer: &str, error: &KrafkaError) -> Refusal {
        let detail = format!("{peer} does not speak Kafka as we know it: {error}");
        Refusal { cause: Cause::Unreachable, detail, is_verdict: false }
    }
}

/// The code's name as Kafka's logs and documentation have it.
fn name(code: ErrorCode) -> String {
    let mut name = String::new();
    for (at, letter) in format!("{code:?}").chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_decides_the_cause_and_whether_the_message_may_have_been_taken() {
        let cases = [
            (3, Cause::Unroutable, true),
            (100, Cause::Unroutable, true),
            (29, Cause::Auth, true),
            (30, Cause::Auth, true),
            (31, Cause::Auth, true),
            (58, Cause::Auth, true),
            (33, Cause::Auth, true),
            (19, Cause::Rejected, true),
            (20, Cause::Rejected, false),
            (56, Cause::Rejected, true),
            (5, Cause::Rejected, true),
            (6, Cause::Rejected, true),
            (74, Cause::Rejected, true),
            (15, Cause::Rejected, true),
            (-1, Cause::Rejected, false),
            (7, Cause::Uncertain, false),
            (13, Cause::Uncertain, false),
            (10, Cause::Refused, true),
            (18, Cause::Refused, true),
            (87, Cause::Refused, true),
            (44, Cause::Refused, true),
            (32, Cause::Refused, true),
            (89, Cause::Throttled, true),
            (9_999, Cause::Refused, true),
        ];
        for (code, cause, is_verdict) in cases {
            let refusal = Refusal::coded(ErrorCode::from_i16(code), "topic `orders`", Some("because"));
            assert_eq!((refusal.cause, refusal.is_verdict), (cause, is_verdict), "{code}");
            assert!(refusal.detail.contains(&code.to_string()), "{refusal:?}");
            assert!(refusal.detail.starts_with("topic `orders`: ") && refusal.detail.ends_with("; because"));
        }
    }

    #[test]
    fn a_code_has_the_name_that_logs_have() {
        let refusal = Refusal::coded(ErrorCode::NotEnoughReplicas, "here", None);
        let expected = "here: NOT_ENOUGH_REPLICAS (19); fewer replicas are in sync than `min.insync.replicas`";
        assert_eq!(refusal.detail, expected);
    }
}
