//! The floor under the `amqp` channel: the same round trip with nothing but the client library around it.
//!
//! One message in flight, twenty a second, from just before the publish to the delivery's arrival at the consumer. What Journeyman
//! measures above this is its own.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// From one message to the next.
const EVERY: Duration = Duration::from_millis(50);

/// The latency of each round trip through the broker at `url`, in the order in which they were made, for `seconds`.
/// Every message is received before the next is sent, and its confirm awaited, as the channel does.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]
pub(crate) async fn run(url: &str, seconds: u64) -> Vec<Duration> {
    let publisher = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker is there");
    let consumer = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker is there");
    let (sends, receives) = (
        publisher.create_channel().await.expect("a channel can be opened"),
        consumer.create_channel().await.expect("a channel can be opened"),
    );
    sends.confirm_select(ConfirmSelectOptions::default()).await.expect("the broker confirms");
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue =
        receives.queue_declare("".into(), options, FieldTable::default()).await.expect("a queue can be declared");
    let queue = queue.name().clone();
    let mut deliveries = receives
        .basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .expect("the queue can be consumed");

    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut latencies, end) = (Vec::new(), Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        ticks.tick().await;
        let started = Instant::now();
        let publishing = async {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = BasicProperties::default().with_delivery_mode(2);
            let publish = sends.basic_publish("".into(), queue.clone(), options, &[b'x'; 256], properties);
            publish.await.expect("it is written").await.expect("it is confirmed");
        };
        let receiving = async {
            let delivery = deliveries.next().await.expect("the consumer lives").expect("the connection lives");
            let latency = started.elapsed();
            delivery.acker.ack(BasicAckOptions::default()).await.expect("it can be acknowledged");
            latency
        };
        let ((), latency) = tokio::join!(publishing, receiving);
        latencies.push(latency);
    }
    latencies
}
