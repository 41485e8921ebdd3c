//! SQS queues of a moto of their own.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::block_on;
use crate::support::moto::{Moto, REGION};

struct Sqs {
    server: Option<Moto>,
    address: SocketAddr,
}

const ACCOUNT: &str = "123456789012";

fn channel(name: &str, queue: &str, endpoint: &str) -> String {
    format!(
        "[channels.{name}]\ntype = \"sqs\"\nqueue = \"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{queue}\"\n\
         endpoint = \"{endpoint}\"\naccess_key_id = \"AKIDEXAMPLE\"\nsecret_access_key = \"s3cr3t-of-the-key\"\n"
    )
}

impl Sqs {
    fn moto(&self) -> &Moto {
        self.server.as_ref().expect("it runs")
    }

    fn queue(&self, name: &str) -> String {
        format!("http://{}/{ACCOUNT}/{name}", self.address)
    }
}

impl Rig for Sqs {
    fn name(&self) -> &'static str {
        "sqs"
    }

    fn promises(&self) -> Promises {
        // What moto has is in its memory.
        Promises { survives: false, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.address, self.address)
    }

    async fn prepare(&self, tag: &str) {
        for place in ["work", "back"] {
            self.moto().named_queue(&format!("{tag}-{place}"), json!({})).await;
        }
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        channel("out", &format!("{tag}-work"), &format!("http://{out}"))
            + &channel("in", &format!("{tag}-back"), &format!("http://{back}"))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let endpoint = format!("http://{}", self.address);
        channel("work", &format!("{tag}-work"), &endpoint) + &channel("back", &format!("{tag}-back"), &endpoint)
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        let endpoint = format!("https://localhost:{}", out.port());
        Some(format!("{}ca_file = \"{}\"\n", channel("out", &format!("{tag}-work"), &endpoint), ca_file.display()))
    }

    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        for n in 0..count {
            self.moto().put(&self.queue(&format!("{tag}-back")), &format!("order {n}")).await;
        }
        Some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        let (visible, hidden) = self.moto().held(&self.queue(&format!("{tag}-back"))).await;
        (visible + hidden) as usize
    }

    async fn kill(&mut self) -> bool {
        self.server.take().expect("it runs").kill();
        true
    }

    async fn revive(&mut self) {
        self.server = Moto::at(self.address.port()).await;
    }
}

#[test]
fn sqs() {
    block_on(async {
        let Some(server) = Moto::private().await else { return };
        let address = server.address();
        suite(Sqs { server: Some(server), address }).await;
    });
}
