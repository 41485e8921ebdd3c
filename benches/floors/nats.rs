//! The floor under the `nats` channel: the same round trip with nothing but a client library around it.
//!
//! One message in flight, twenty a second, from just before the publish to the message's arrival at the subscriber. What Journeyman
//! measures above this is its own.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// From one message to the next.
const EVERY: Duration = Duration::from_millis(50);

/// The latency of each round trip through the server at `url`, in the order in which they were made, for `seconds`. Every message
/// is received before the next is sent. With a stream, its acknowledgement is awaited, and an ordered consumer receives.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]
pub(crate) async fn run(url: &str, stream: Option<&str>, seconds: u64) -> Vec<Duration> {
    let publisher = async_nats::connect(url).await.expect("the server is there");
    let subscriber = async_nats::connect(url).await.expect("the server is there");
    let context = async_nats::jetstream::new(publisher.clone());
    let mut arrivals = match stream {
        None => subscriber.subscribe("floor").await.expect("it can be subscribed to").map(drop).boxed(),
        Some(stream) => {
            let stream =
                async_nats::jetstream::new(subscriber.clone()).get_stream(stream).await.expect("the stream is there");
            let config = async_nats::jetstream::consumer::push::OrderedConfig {
                deliver_subject: subscriber.new_inbox(),
                filter_subject: "floor".to_owned(),
                deliver_policy: async_nats::jetstream::consumer::DeliverPolicy::New,
                ..Default::default()
            };
            let consumer = stream.create_consumer(config).await.expect("a consumer can be made");
            consumer.messages().await.expect("it has messages").map(drop).boxed()
        }
    };
    // The server deals with all of it in order: once it says that nobody answers, it has the subscription.
    assert!(subscriber.request("nobody.there", "".into()).await.is_err(), "somebody answers");

    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut latencies, end) = (Vec::new(), Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        ticks.tick().await;
        let started = Instant::now();
        let sending = async {
            let payload = vec![b'x'; 256].into();
            match stream {
                None => publisher.publish("floor", payload).await.expect("the connection stands"),
                Some(_) => {
                    let sent = context.publish("floor", payload).await.expect("the connection stands");
                    sent.await.expect("it is stored");
                }
            }
        };
        let receiving = async {
            arrivals.next().await.expect("the connection stands");
            started.elapsed()
        };
        let ((), latency) = tokio::join!(sending, receiving);
        latencies.push(latency);
    }
    latencies
}
