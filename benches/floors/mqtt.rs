//! The floor under the `mqtt` channel: the same round trip with nothing but the client library around it.
//!
//! One message in flight, twenty a second, from just before the publish to the message's arrival at the subscriber. What Journeyman
//! measures above this is its own.

use std::time::Duration;

use rumqttc_v5::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// From one message to the next.
const EVERY: Duration = Duration::from_millis(50);

/// The latency of each round trip through the broker on this port of the loopback, in the order in which they were made, for
/// `seconds`. Every message is received before the next is sent, and its acknowledgement awaited, as the channel does.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]
pub(crate) async fn run(port: u16, seconds: u64) -> Vec<Duration> {
    let (publisher, mut publishing) = client("floor-publisher", port);
    let (subscriber, mut subscribing) = client("floor-subscriber", port);
    let (arrived, mut arrivals) = mpsc::channel(16);
    let mut loops = JoinSet::new();
    loops.spawn(async move { while publishing.poll().await.is_ok() {} });
    loops.spawn(async move {
        while let Ok(event) = subscribing.poll().await {
            if let Event::Incoming(Packet::Publish(_)) = event {
                let _ = arrived.send(Instant::now()).await;
            }
        }
    });
    let subscribed = subscriber.subscribe_tracked("floor", QoS::AtLeastOnce).await.expect("the loop runs");
    subscribed.wait_async().await.expect("it is granted");

    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut latencies, end) = (Vec::new(), Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        ticks.tick().await;
        let started = Instant::now();
        let sending = async {
            let options = PublishOptions::new(QoS::AtLeastOnce);
            let sent = publisher.publish_tracked("floor", vec![b'x'; 256], options).await.expect("the loop runs");
            sent.wait_async().await.expect("it is acknowledged");
        };
        let ((), arrival) = tokio::join!(sending, arrivals.recv());
        latencies.push(arrival.expect("the loop runs") - started);
    }
    latencies
}

fn client(id: &str, port: u16) -> (AsyncClient, EventLoop) {
    AsyncClient::builder(MqttOptions::new(id, ("127.0.0.1", port))).capacity(16).build()
}
