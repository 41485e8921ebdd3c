//! AMQP 0-9-1 on a RabbitMQ of its own.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::block_on;
use crate::support::rabbitmq::RabbitMq;

struct Amqp {
    broker: RabbitMq,
}

/// Where a tag's messages are queued for somebody else.
fn production(tag: &str) -> String {
    format!("{tag}.production")
}

fn url(address: SocketAddr) -> String {
    format!("amqp://guest:guest@{address}/%2f")
}

fn channel(name: &str, url: &str, exchange: &str, queue: Option<&str>) -> String {
    let queue = queue.map(|from| {
        format!("queue = {{ name = \"{from}.{name}\", bind = [{{ exchange = \"{from}\", routing_key = \"#\" }}] }}\n")
    });
    format!(
        "[channels.{name}]\ntype = \"amqp\"\nurl = \"{url}\"\nexchange = \"{exchange}\"\nrouting_key = \"probe\"\n{}",
        queue.unwrap_or_default()
    )
}

impl Rig for Amqp {
    fn name(&self) -> &'static str {
        "amqp"
    }

    fn promises(&self) -> Promises {
        Promises::default()
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.broker.address(), self.broker.address())
    }

    async fn prepare(&self, tag: &str) {
        for place in ["work", "back"] {
            let exchange = json!({"type": "topic", "durable": true});
            self.broker.api(reqwest::Method::PUT, &format!("/exchanges/%2f/{tag}.{place}"), Some(exchange)).await;
        }
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        let (work, far) = (format!("{tag}.work"), format!("{tag}.back"));
        channel("out", &url(out), &work, None) + &channel("in", &url(back), "", Some(&far))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let (work, far) = (format!("{tag}.work"), format!("{tag}.back"));
        let url = url(self.broker.address());
        channel("work", &url, "", Some(&work)) + &channel("back", &url, &far, None)
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        Some(channel("out", &format!("amqp://guest:wrong@{out}/%2f"), &format!("{tag}.work"), None))
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        let url = format!("amqps://guest:guest@{out}/%2f");
        Some(channel("out", &url, &format!("{tag}.work"), None) + &format!("ca_file = \"{}\"\n", ca_file.display()))
    }

    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        let queue = production(tag);
        let api = async |method, path: &str, body| self.broker.api(method, path, body).await;
        api(reqwest::Method::PUT, &format!("/queues/%2f/{queue}"), Some(json!({"durable": true}))).await;
        let binding = json!({"routing_key": "order"});
        api(reqwest::Method::POST, &format!("/bindings/%2f/e/{tag}.back/q/{queue}"), Some(binding)).await;
        for n in 0..count {
            let message = json!({
                "properties": {"delivery_mode": 2}, "routing_key": "order",
                "payload": format!("order {n}"), "payload_encoding": "string"
            });
            api(reqwest::Method::POST, &format!("/exchanges/%2f/{tag}.back/publish"), Some(message)).await;
        }
        Some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        let path = format!("/queues/%2f/{}/get", production(tag));
        let get = json!({"count": 100, "ackmode": "ack_requeue_true", "encoding": "auto"});
        self.broker.api(reqwest::Method::POST, &path, Some(get)).await.as_array().map_or(0, Vec::len)
    }

    async fn kill(&mut self) -> bool {
        self.broker.kill();
        true
    }

    async fn revive(&mut self) {
        self.broker.start().await;
    }
}

/// On a broker of its own.
pub(crate) async fn start() -> Option<impl Rig> {
    Some(Amqp { broker: RabbitMq::private().await? })
}

#[test]
fn amqp() {
    block_on(async {
        let Some(rig) = start().await else { return };
        suite(rig).await;
    });
}
