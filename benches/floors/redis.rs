//! The floor under the `redis` channel: the same round trip with nothing but the client library around it.
//!
//! One entry in flight, twenty a second, from just before the `XADD` to the end of the `XREAD` that brings it. What Journeyman
//! measures above this is its own.

use std::time::Duration;

use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, IntoConnectionInfo};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// From one entry to the next.
const EVERY: Duration = Duration::from_millis(50);

/// The latency of each round trip through the server at `url`, in the order in which they were made, for `seconds`.
/// Every entry is received before the next is sent, and its id awaited, as the channel does.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]
pub(crate) async fn run(url: &str, seconds: u64) -> Vec<Duration> {
    let info = url.into_connection_info().expect("a URL");
    // Otherwise one Nagle is measured against another's absence.
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = Client::open(info.set_tcp_settings(settings)).expect("a URL");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connect = async || {
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        connection.expect("the server is there")
    };
    let (mut sends, mut receives) = (connect().await, connect().await);
    // What an earlier run left would be read at once.
    let _: usize = sends.del("floor").await.expect("it can be deleted");
    let options = StreamReadOptions::default().block(5_000).count(1);
    let mut last = "0-0".to_owned();
    let payload = "x".repeat(256);

    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut latencies, end) = (Vec::new(), Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        ticks.tick().await;
        // The reader waits before the entry is added, as the channel's does.
        let receiving = async {
            let reply: StreamReadReply =
                receives.xread_options(&["floor"], &[&last], &options).await.expect("it can be read");
            let at = Instant::now();
            (at, reply.keys[0].ids[0].id.clone())
        };
        let sending = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let started = Instant::now();
            let _: String = sends.xadd("floor", "*", &[("body", &payload)]).await.expect("it is added");
            started
        };
        let ((at, id), started) = tokio::join!(receiving, sending);
        last = id;
        latencies.push(at - started);
    }
    latencies
}
