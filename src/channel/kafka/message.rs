//! Messages to and from Kafka: a record batch for each partition out, a [`Message`] for each record in. Pure.

use bytes::Bytes;
use jiff::Timestamp;

use super::wire::{ErrorCode, RecordBatch, RecordBatchBuilder, RecordBatchHeader, TimestampType, murmur2};
use crate::channel::refusal::Refusal;
use crate::journey::Outgoing;
use crate::journey::message::{Hop, Message, Part};
use crate::time::{Now, between};

/// The header that has our token.
pub(super) const TOKEN: &str = "journeyman-token";
/// The header that says when we sent the message, in milliseconds since 1970.
const SENT: &str = "journeyman-sent";
/// The header of one of several messages of one send: `0/3` is the first of three.
const PART: &str = "journeyman-part";
/// Batches larger than this when unpacked are not read: they would be an attack, or an accident.
const MAX_UNPACKED: usize = 64 * 1024 * 1024;

/// What is produced, and where to.
#[derive(Debug)]
pub(super) struct Envelope {
    /// To which topic.
    pub(super) topic: String,
    target: Target,
    key: Bytes,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// Which partitions of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The one that the key leads to.
    Keyed,
    /// This one.
    One(i32),
    /// Each of them.
    Each,
}

impl Envelope {
    /// The envelope of `outgoing`; its fields `topic`, `key` and `partition` go before the channel's.
    ///
    /// # Errors
    /// A partition that is neither a number nor `each`, in words.
    pub(super) fn new(outgoing: &Outgoing, topic: &str) -> Result<Envelope, String> {
        let field = |name: &str| outgoing.fields.get(name).map(String::as_str);
        let topic = field("topic").unwrap_or(topic);
        if topic.is_empty() {
            return Err("neither the channel nor the step has a `topic`".to_owned());
        }
        let target = match field("partition") {
            None => Target::Keyed,
            Some("each") => Target::Each,
            Some(text) => {
                let number = text.parse().ok().filter(|number| *number >= 0);
                let wrong = || format!("`partition` is `{text}`; it is a number from 0 on, or \"each\"");
                Target::One(number.ok_or_else(wrong)?)
            }
        };
        // The token by default: keys spread the runs over the partitions, and a compacted topic refuses what has none.
        let token = outgoing.token.to_string();
        let key = field("key").unwrap_or(&token).as_bytes().to_vec().into();
        let mut headers = vec![(TOKEN.to_owned(), token)];
        if !outgoing.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("traceparent")) {
            headers.push(("traceparent".to_owned(), outgoing.token.traceparent()));
        }
        headers.extend(outgoing.content_type.map(|value| ("content-type".to_owned(), value.to_owned())));
        headers.extend(outgoing.headers.iter().cloned());
        Ok(Envelope { topic: topic.to_owned(), target, key, headers, body: outgoing.body.clone().into() })
    }

    /// Which of a topic's partitions it goes to. A key leads to the partition that every other client would choose.
    pub(super) fn partitions(&self, existing: &[i32]) -> Vec<i32> {
        match self.target {
            Target::Each => existing.to_vec(),
            Target::One(partition) => vec![partition],
            Target::Keyed => {
                let hash = (murmur2(&self.key) & 0x7fff_ffff) as usize;
                existing.get(hash % existing.len().max(1)).copied().into_iter().collect()
            }
        }
    }

    /// The record batch for the `index`th of `of` partitions.
    pub(super) fn batch(&self, index: usize, of: usize, now: Now) -> Result<Bytes, String> {
        let sent = now.wall.as_millisecond();
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (Bytes::from(name.clone()), Some(Bytes::from(value.clone()))))
            .collect();
        headers.push((Bytes::from_static(SENT.as_bytes()), Some(sent.to_string().into())));
        if self.target == Target::Each {
            headers.push((Bytes::from_static(PART.as_bytes()), Some(format!("{index}/{of}").into())));
        }
        RecordBatchBuilder::new()
            .base_timestamp(sent)
            .add_record_with_headers(Some(self.key.clone()), Some(self.body.clone()), headers)
            .build()
            .encode()
            .map_err(|error| format!("it cannot be written as a Kafka record: {error}"))
    }
}

/// A record as a journey reads it, and where it was.
#[derive(Debug)]
pub(super) struct Read {
    /// Its offset.
    pub(super) offset: i64,
    /// The record.
    pub(super) message: Message,
}

/// What a fetch brought of one partition.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// In the order of their offsets.
    pub(super) records: Vec<Read>,
    /// Where the next fetch begins.
    pub(super) next: i64,
    /// Offsets of batches that cannot be read, and why not. They are passed over: they would be there for ever.
    pub(super) unreadable: Vec<(i64, String)>,
}

/// The records of one partition from offset `from` on.
///
/// # Errors
/// Bytes that are no batch at all.
pub(super) fn read(topic: &str, partition: i32, from: i64, bytes: Bytes, now: Now) -> Result<Batches, Refusal> {
    let (mut rest, mut batches) = (bytes, Batches { next: from, ..Batches::default() });
    // The last batch may be cut off by the size that we asked for.
    while rest.len() >= RecordBatchHeader::SIZE {
        let place = || format!("partition {partition} of topic `{topic}` at offset {}", batches.next);
        let header = RecordBatchHeader::peek(&rest)
            .map_err(|error| Refusal::coded(ErrorCode::CorruptMessage, &place(), Some(&error.to_string())))?;
        if rest.len() < header.total_size() {
            break;
        }
        let mut bytes = rest.split_to(header.total_size());
        if header.attributes.is_control_batch {
            batches.next = batches.next.max(header.last_offset().saturating_add(1));
            continue;
        }
        match RecordBatch::decode_with_limit(&mut bytes, MAX_UNPACKED) {
            Ok(batch) => {
                let records = unpack(batch, topic, partition, now);
                // A fetch from the middle of a batch brings the whole of it.
                batches.records.extend(records.into_iter().filter(|record| record.offset >= from));
            }
            Err(error) => batches.unreadable.push((header.base_offset, error.to_string())),
        }
        batches.next = batches.next.max(header.last_offset().saturating_add(1));
    }
    Ok(batches)
}

fn unpack(batch: RecordBatch, topic: &str, partition: i32, now: Now) -> Vec<Read> {
    let clock = Stamped::of(batch.attributes.timestamp_type);
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut read = Vec::with_capacity(batch.records.len());
    for record in batch.records {
        let offset = batch.base_offset.saturating_add(i64::from(record.offset_delta));
        let stamp = match clock {
            Stamped::ByBroker => batch.max_timestamp,
            Stamped::ByProducer => batch.base_timestamp.saturating_add(record.timestamp_delta),
        };
        let mut message = Message::new(record.value.as_deref().unwrap_or_default());
        message.headers = record
            .headers
            .iter()
            .map(|header| (text(&header.key), header.value.as_ref().map(text).unwrap_or_default()))
            .collect();
        let stamp = Timestamp::from_millisecond(stamp).ok().filter(|stamp| *stamp > Timestamp::UNIX_EPOCH);
        message.hops = hops(clock, stamp, sent(&message), now);
        message.stored = stamp.filter(|_| clock == Stamped::ByBroker);
        message.part = message.header(PART).and_then(part);
        let facts = [
            ("kafka-topic", Some(topic.to_owned())),
            ("kafka-partition", Some(partition.to_string())),
            ("kafka-offset", Some(offset.to_string())),
            ("kafka-key", record.key.as_ref().map(text)),
            ("kafka-timestamp", stamp.map(|stamp| stamp.to_string())),
            ("kafka-timestamp-type", stamp.map(|_| clock.as_str().to_owned())),
        ];
        let facts = facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        message.headers.extend(facts);
        read.push(Read { offset, message });
    }
    read
}

/// Whose clock a record's time is from. Topics say which: `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamped {
    /// When it was written to the log.
    ByBroker,
    /// When its producer made it.
    ByProducer,
}

impl Stamped {
    fn of(kind: TimestampType) -> Stamped {
        if kind == TimestampType::LogAppendTime { Stamped::ByBroker } else { Stamped::ByProducer }
    }

    fn as_str(self) -> &'static str {
        match self {
            Stamped::ByBroker => "LogAppendTime",
            Stamped::ByProducer => "CreateTime",
        }
    }
}

fn sent(message: &Message) -> Option<Timestamp> {
    Timestamp::from_millisecond(message.header(SENT)?.parse().ok()?).ok()
}

/// With the broker's own time two hops: to the log, and from there to us. With the producer's time only the whole way.
fn hops(clock: Stamped, stamp: Option<Timestamp>, sent: Option<Timestamp>, now: Now) -> Vec<Hop> {
    let hop = |name: &str, from, to| Hop { name: name.to_owned(), took: between(from, to) };
    match (clock, stamp, sent) {
        (_, None, _) => Vec::new(),
        (Stamped::ByBroker, Some(append), Some(sent)) => {
            vec![hop("append", sent, append), hop("fetch", append, now.wall)]
        }
        (Stamped::ByBroker, Some(append), None) => vec![hop("fetch", append, now.wall)],
        (Stamped::ByProducer, Some(created), _) => vec![hop("since create", created, now.wall)],
    }
}

/// `0/3`.
fn part(text: &str) -> Option<Part> {
    let (index, of) = text.split_once('/')?;
    let part = Part { index: index.parse().ok()?, of: of.parse().ok()? };
    (part.index < part.of).then_some(part)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::journey::token::Token;
    use crate::time::Mono;

    fn outgoing() -> Outgoing {
        let mut outgoing = Outgoing::empty(Duration::from_secs(10));
        outgoing.token = Token::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        outgoing.headers = vec![("x-synthetic".to_owned(), "journeyman".to_owned())];
        outgoing.body = b"{}".to_vec();
        outgoing.content_type = Some("application/json");
        outgoing
    }

    fn with(fields: &[(&str, &str)]) -> Outgoing {
        let fields: BTreeMap<_, _> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Outgoing { fields, ..outgoing() }
    }

    fn at(text: &str) -> Now {
        Now { wall: text.parse().unwrap(), mono: Mono::default() }
    }

    fn batch(envelope: &Envelope, index: usize, of: usize) -> Bytes {
        envelope.batch(index, of, at("2026-01-02T03:04:05.678Z")).unwrap()
    }

    #[test]
    fn what_goes_out_comes_back_with_the_token_in_key_and_headers() {
        let outgoing = outgoing();
        let envelope = Envelope::new(&outgoing, "orders").unwrap();
        let later = at("2026-01-02T03:04:05.700Z");
        let read = read("orders", 2, 0, batch(&envelope, 0, 1), later).unwrap();
        assert_eq!((read.records.len(), read.next), (1, 1));
        let message = &read.records[0].message;
        let token = outgoing.token.to_string();
        let expected = [
            (TOKEN, token.as_str()),
            ("traceparent", &outgoing.token.traceparent()),
            ("content-type", "application/json"),
            ("x-synthetic", "journeyman"),
            ("kafka-key", token.as_str()),
            ("kafka-topic", "orders"),
            ("kafka-partition", "2"),
            ("kafka-offset", "0"),
            ("kafka-timestamp", "2026-01-02T03:04:05.678Z"),
            ("kafka-timestamp-type", "CreateTime"),
        ];
        for (name, value) in expected {
            assert_eq!(message.header(name), Some(value), "{name}");
        }
        assert_eq!((message.body.as_slice(), message.part), (&b"{}"[..], None));
        assert_eq!(message.hops, [Hop { name: "since create".to_owned(), took: Duration::from_millis(22) }]);
    }

    #[test]
    fn a_step_goes_before_the_channel() {
        let mut outgoing = with(&[("topic", "cancelled"), ("key", "k"), ("partition", "7")]);
        outgoing.headers.push(("TraceParent".to_owned(), "00-mine".to_owned()));
        let envelope = Envelope::new(&outgoing, "orders").unwrap();
        assert_eq!((envelope.topic.as_str(), envelope.partitions(&[0, 1])), ("cancelled", vec![7]));
        let read = read("cancelled", 7, 0, batch(&envelope, 0, 1), at("2026-01-02T03:04:05.678Z")).unwrap();
        let message = &read.records[0].message;
        assert_eq!((message.header("kafka-key"), message.header("traceparent")), (Some("k"), Some("00-mine")));
        for wrong in ["-1", "all", "1.5", ""] {
            let told = Envelope::new(&with(&[("partition", wrong)]), "orders").unwrap_err();
            assert!(told.contains("or \"each\""), "{told}");
        }
        assert!(Envelope::new(&with(&[]), "").unwrap_err().contains("`topic`"));
    }

    #[test]
    fn each_partition_has_its_part_and_a_key_always_the_same() {
        let envelope = Envelope::new(&with(&[("partition", "each")]), "orders").unwrap();
        assert_eq!(envelope.partitions(&[0, 1, 2]), [0, 1, 2]);
        let read = read("orders", 1, 0, batch(&envelope, 1, 3), at("2026-01-02T03:04:06Z")).unwrap();
        assert_eq!(read.records[0].message.part, Some(Part { index: 1, of: 3 }));
        for wrong in ["3/3", "1", "/", "a/b", "-1/3", "0/0"] {
            assert_eq!(part(wrong), None, "{wrong}");
        }
        // What the Java client's partitioner gives for these keys on ten partitions.
        let chosen = ["21", "foobar", "a-little-bit-long-string"].map(|key| {
            let envelope = Envelope::new(&with(&[("key", key)]), "orders").unwrap();
            envelope.partitions(&(0..10).collect::<Vec<_>>())[0]
        });
        let java = [-973_932_308_i32, -790_332_482, -985_981_536].map(|hash| (hash & 0x7fff_ffff) % 10);
        assert_eq!(chosen, java);
    }

    #[test]
    fn the_brokers_own_time_splits_the_way_in_two() {
        let time = |text: &str| -> Option<Timestamp> { Some(text.parse().unwrap()) };
        let (sent, append) = (time("2026-01-02T03:04:05.000Z"), time("2026-01-02T03:04:05.010Z"));
        let now = at("2026-01-02T03:04:05.030Z");
        let named = |hops: Vec<Hop>| -> Vec<_> {
            hops.into_iter().map(|hop| (hop.name, u64::try_from(hop.took.as_millis()).unwrap())).collect()
        };
        let hop = |name: &str, millis: u64| (name.to_owned(), millis);
        let (log, create) = (Stamped::ByBroker, Stamped::ByProducer);
        assert_eq!(named(hops(log, append, sent, now)), [hop("append", 10), hop("fetch", 20)]);
        assert_eq!(named(hops(log, append, None, now)), [hop("fetch", 20)]);
        assert_eq!(named(hops(create, sent, sent, now)), [hop("since create", 30)]);
        assert!(hops(create, None, sent, now).is_empty());
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_passed_over_and_one_cut_off_is_left() {
        let envelope = Envelope::new(&outgoing(), "orders").unwrap();
        let now = at("2026-01-02T03:04:06Z");
        let good = batch(&envelope, 0, 1);
        let mut bad = good.to_vec();
        *bad.last_mut().unwrap() ^= 1;
        let second = [&0_i64.to_be_bytes()[..], &bad[8..]].concat();
        let third = [&1_i64.to_be_bytes()[..], &good[8..]].concat();
        let all = [second.as_slice(), &third, &good[..70]].concat();
        let read = read("orders", 0, 0, all.into(), now).unwrap();
        assert_eq!((read.records.len(), read.next, read.unreadable.len()), (1, 2, 1));
        assert_eq!((read.records[0].offset, read.unreadable[0].0), (1, 0));
        let told = super::read("orders", 0, 5, vec![0xff; 80].into(), now).unwrap_err();
        assert!(told.detail.contains("offset 5"), "{told:?}");
    }
}
