//! Kafka on a Tansu of its own, whose log is in memory. Its clients are told where to come, and would go there past every proxy:
//! what it says of that is rewritten on its way.

use std::net::SocketAddr;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::conformance::world::Proxies;
use crate::support::block_on;
use crate::support::tansu::{Front, Tansu};

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
        // A reader commits nothing, and so acknowledges nothing.
        Promises { survives: false, redelivers: false, asks: true, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.broker.address(), self.broker.address())
    }

    async fn proxies(&self, _tag: &str) -> Proxies {
        let (to_out, to_back) =
            (Front::before(self.broker.address()).await, Front::before(self.broker.address()).await);
        let mut proxies = Proxies::before(to_out.address(), to_back.address()).await;
        let (out, back) = (proxies.out.address(), proxies.back.address());
        proxies.behind.spawn(to_out.serve(out));
        proxies.behind.spawn(to_back.serve(back));
        proxies
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

/// On a broker of its own.
pub(crate) async fn start() -> Option<impl Rig> {
    Some(Kafka { broker: Tansu::start().await? })
}

#[test]
fn kafka() {
    block_on(async {
        let Some(rig) = start().await else { return };
        suite(rig).await;
    });
}
