//! The floor under the `kafka` channel: the same round trip with nothing but the client library around it.
//!
//! One message in flight, twenty a second, from just before the send to the record's arrival at the consumer. What Journeyman
//! measures above this is its own.

use std::time::Duration;

use krafka::Kafka;
use krafka::producer::Record;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// From one message to the next.
const EVERY: Duration = Duration::from_millis(50);

/// The latency of each round trip through the broker at `address`, on partition 0 of `topic`, in the order in which they were
/// made, for `seconds`. Every message is received before the next is sent, and its acknowledgement awaited, as the channel does.
/// The broker may hold a fetch for `wait`, as the channel lets it.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]
pub(crate) async fn run(address: &str, topic: &str, wait: Duration, seconds: u64) -> Vec<Duration> {
    let connect = || Kafka::builder(address).connect();
    let (sends, receives) =
        (connect().await.expect("the broker is there"), connect().await.expect("the broker is there"));
    let producer = sends.producer().linger(Duration::ZERO).idempotent(false).build().await.expect("a producer");
    let consumer = receives.consumer_without_group().fetch_max_wait(wait).build().await.expect("a consumer");
    consumer.assign(topic, vec![0]).await.expect("it can be assigned");
    consumer.seek_to_end(topic, 0).await.expect("it has an end");
    consumer.poll(wait).await.expect("it can be read");

    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut latencies, end) = (Vec::new(), Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        // A reader that is not reading would find the message waiting, and pay for no fetch.
        let receiving = async {
            loop {
                let records = consumer.poll(Duration::from_secs(5)).await.expect("it can be read");
                if !records.is_empty() {
                    return Instant::now();
                }
            }
        };
        let sending = async {
            ticks.tick().await;
            let started = Instant::now();
            let sent = producer.send(Record::new(topic, vec![b'x'; 256]).partition(0)).await;
            let _ = sent.expect("it is acknowledged");
            started
        };
        let (started, arrived) = tokio::join!(sending, receiving);
        latencies.push(arrived.duration_since(started));
    }
    latencies
}
