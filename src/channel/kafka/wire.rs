//! The Kafka protocol: what krafka encodes and decodes for us, and the requests that it keeps to itself. Pure.
//!
//! The only file that names krafka's internals. They have no promise of stability: its version is exact in Cargo.toml.

use bytes::{BufMut, Bytes};
pub(super) use krafka::__private::network::{ChallengeResponse, SaslAuthenticator};
pub(super) use krafka::__private::protocol::{
    ApiKey, ApiVersionRange, ApiVersionsResponse, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, FetchPartitionRequest, FetchRequest, FetchResponse,
    FetchTopicRequest, FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest,
    ListOffsetsRequestPartition, ListOffsetsRequestTopic, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetFetchResponse, ProduceResponse, RecordBatch, RecordBatchBuilder, RecordBatchHeader, RequestHeader,
    ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    TimestampType, VersionedDecode, VersionedEncode,
};
use krafka::__private::protocol::{ApiVersionsRequest, Encode, KafkaBytes, KafkaString, TaggedFields, TryEncode};
use krafka::__private::util::varint::encode_unsigned_varint;
pub(super) use krafka::auth::AuthConfig;
pub(super) use krafka::error::{ErrorCode, KrafkaError};
pub(super) use krafka::producer::murmur2;

/// Versions of a request that we speak, lowest and highest.
pub(super) type Versions = (i16, i16);

/// From version 13 on topics go by their id.
pub(super) const PRODUCE: Versions = (3, 12);
/// From version 13 on topics go by their id.
pub(super) const FETCH: Versions = (4, 12);
/// From version 2 on with an isolation level.
pub(super) const LIST_OFFSETS: Versions = (2, 10);
/// From version 4 on a topic is not made by asking for it.
pub(super) const METADATA: Versions = (4, 12);
/// From version 4 on several groups at once.
pub(super) const FIND_COORDINATOR: Versions = (1, 3);
/// From version 2 on all topics of a group; from 9 on for members.
pub(super) const OFFSET_FETCH: Versions = (2, 8);
/// See the Kafka protocol guide, `DescribeGroups`.
pub(super) const DESCRIBE_GROUPS: Versions = (1, 5);
/// See KIP-848.
pub(super) const CONSUMER_GROUP_DESCRIBE: Versions = (0, 1);
/// Version 0 is the older way, without frames.
pub(super) const SASL_HANDSHAKE: Versions = (1, 1);
/// From version 1 on with the session's life (KIP-368).
pub(super) const SASL_AUTHENTICATE: Versions = (0, 1);

/// An `ApiVersions` request: the first on every connection.
pub(super) struct Greeting;

impl VersionedEncode for Greeting {
    fn encode_versioned(&self, version: i16, buf: &mut impl BufMut) -> Result<(), KrafkaError> {
        let request = ApiVersionsRequest::new().with_client_software("journeyman", env!("CARGO_PKG_VERSION"));
        if version == 0 { request.encode_v0(buf) } else { request.encode_v3(buf) }
    }
}

/// A `Produce` request for one topic.
pub(super) struct Produce<'a> {
    /// 0: no answer. 1: the leader has it. -1: all in-sync replicas have it.
    pub(super) acks: i16,
    /// How long the leader may wait for its replicas.
    pub(super) timeout_ms: i32,
    /// Its name.
    pub(super) topic: &'a str,
    /// One batch for each partition.
    pub(super) batches: Vec<(i32, Bytes)>,
}

impl VersionedEncode for Produce<'_> {
    fn encode_versioned(&self, version: i16, buf: &mut impl BufMut) -> Result<(), KrafkaError> {
        if version < ApiKey::Produce.flexible_version() {
            KafkaString::null().try_encode(buf)?;
            buf.put_i16(self.acks);
            buf.put_i32(self.timeout_ms);
            buf.put_i32(1);
            KafkaString::new(self.topic).try_encode(buf)?;
            buf.put_i32(i32::try_from(self.batches.len()).unwrap_or(i32::MAX));
            for (partition, batch) in &self.batches {
                partition.encode(buf);
                KafkaBytes::new(batch.clone()).try_encode(buf)?;
            }
            return Ok(());
        }
        // The compact form: a length is written plus one, and each structure ends with its tagged fields.
        let tags = TaggedFields::default();
        KafkaString::null().try_encode_compact(buf)?;
        buf.put_i16(self.acks);
        buf.put_i32(self.timeout_ms);
        encode_unsigned_varint(2, buf);
        KafkaString::new(self.topic).try_encode_compact(buf)?;
        encode_unsigned_varint(u32::try_from(self.batches.len() + 1).unwrap_or(u32::MAX), buf);
        for (partition, batch) in &self.batches {
            partition.encode(buf);
            KafkaBytes::new(batch.clone()).try_encode_compact(buf)?;
            tags.try_encode(buf)?;
        }
        tags.try_encode(buf)?;
        tags.try_encode(buf)
    }
}

/// An `OffsetFetch` request: what a group has committed, on every topic that it has committed anything on.
pub(super) struct OffsetFetch<'a> {
    /// Its name.
    pub(super) group: &'a str,
}

impl VersionedEncode for OffsetFetch<'_> {
    fn encode_versioned(&self, version: i16, buf: &mut impl BufMut) -> Result<(), KrafkaError> {
        let (group, tags) = (KafkaString::new(self.group), TaggedFields::default());
        if version < ApiKey::OffsetFetch.flexible_version() {
            group.try_encode(buf)?;
            buf.put_i32(-1);
            return Ok(());
        }
        // From version 8 on for several groups at once.
        if version >= 8 {
            encode_unsigned_varint(2, buf);
        }
        group.try_encode_compact(buf)?;
        encode_unsigned_varint(0, buf);
        if version >= 8 {
            tags.try_encode(buf)?;
        }
        // From version 7 on: whether to wait for transactions that are under way.
        if version >= 7 {
            buf.put_u8(0);
        }
        tags.try_encode(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_fetch_asks_for_all_topics_in_every_form() {
        let written = |version| {
            let mut bytes = Vec::new();
            OffsetFetch { group: "g" }.encode_versioned(version, &mut bytes).unwrap();
            bytes
        };
        assert_eq!(written(5), [0, 1, b'g', 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(written(6), [2, b'g', 0, 0]);
        assert_eq!(written(7), [2, b'g', 0, 0, 0]);
        assert_eq!(written(8), [2, 2, b'g', 0, 0, 0, 0]);
    }

    #[test]
    fn a_produce_request_is_written_in_both_forms() {
        let batches = vec![(3, Bytes::from_static(b"xy"))];
        let request = Produce { acks: -1, timeout_ms: 5, topic: "ab", batches };
        let mut classic = Vec::new();
        request.encode_versioned(8, &mut classic).unwrap();
        // https://kafka.apache.org/protocol.html#The_Messages_Produce: no transaction, acks, timeout, then the arrays.
        let expected = [
            &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 5][..],
            &[0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 1, 0, 0, 0, 3],
            &[0, 0, 0, 2, b'x', b'y'],
        ];
        assert_eq!(classic, expected.concat());
        let mut compact = Vec::new();
        request.encode_versioned(12, &mut compact).unwrap();
        let expected = [&[0, 0xff, 0xff, 0, 0, 0, 5, 2, 3, b'a', b'b', 2, 0, 0, 0, 3, 3, b'x', b'y'][..], &[0, 0, 0]];
        assert_eq!(compact, expected.concat());
    }
}
