//! Kafka on a Tansu of its own, whose log is in memory.

use std::net::SocketAddr;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::block_on;
use crate::support::tansu::Tansu;

/// More than one, so that a message's key decides where it goes.
const PARTITIONS: i32 = 2;

struct Kafka {
    broker: Tansu,
}

fn channel(name: &str, broker: SocketAddr, topic: &str) -> String {
    format!("[channels.{name}]\ntype = \"kafka\"\nbrokers = [\"{broker}\"]\ntopic = \"{topic}\"\n")
}

impl Rig for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn promises(&self) -> Promises {
        // Its clients are told where to come, and go there past every proxy; `tests/it/kafka.rs` puts the proxy there.
        Promises { survives: false, goes_through_proxies: false, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.broker.address(), self.broker.address())
    }

    async fn prepare(&self, tag: &str) {
        for place in ["work", "back"] {
            self.broker.create_topic(&format!("{tag}.{place}"), PARTITIONS).await;
        }
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        channel("out", out, &format!("{tag}.work")) + &channel("in", back, &format!("{tag}.back"))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let broker = self.broker.address();
        channel("work", broker, &format!("{tag}.work")) + &channel("back", broker, &format!("{tag}.back"))
    }

    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        for n in 0..count {
            self.broker.write(&format!("{tag}.back"), 0, &format!("order {n}")).await;
        }
        Some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        let payloads = self.broker.payloads(&format!("{tag}.back"), 0).await;
        payloads.iter().filter(|payload| payload.starts_with("order ")).count()
    }

    async fn kill(&mut self) -> bool {
        self.broker.kill();
        true
    }

    async fn revive(&mut self) {
        self.broker.restart().await;
    }
}

#[test]
fn kafka() {
    block_on(async {
        let Some(broker) = Tansu::start().await else { return };
        suite(Kafka { broker }).await;
    });
}
