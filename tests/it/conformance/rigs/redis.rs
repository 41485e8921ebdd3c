//! Redis: streams, and topics.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::block_on;
use crate::support::redis::Redis;

struct Rigged {
    kind: &'static str,
    server: Redis,
    /// Publishing to nobody is refused; the relay is to be able to publish while we are away.
    bystanders: Mutex<Vec<redis::aio::PubSub>>,
}

impl Rigged {
    fn is_stream(&self) -> bool {
        self.kind == "stream"
    }

    fn channel(&self, name: &str, url: &str, to: Option<&str>, from: Option<&str>) -> String {
        let kind = self.kind;
        let to = to.map(|to| format!("{kind} = \"{to}\"\n")).unwrap_or_default();
        let from = from.map(|from| format!("receive = {{ {kind} = \"{from}\" }}\n")).unwrap_or_default();
        format!("[channels.{name}]\ntype = \"redis\"\nurl = \"{url}\"\n{to}{from}")
    }
}

impl Rig for Rigged {
    fn name(&self) -> &'static str {
        if self.is_stream() { "redis streams" } else { "redis topics" }
    }

    fn promises(&self) -> Promises {
        let is_stream = self.is_stream();
        Promises {
            keeps: is_stream,
            survives: is_stream,
            redelivers: false,
            carries_headers: is_stream,
            ..Promises::default()
        }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.server.address(), self.server.address())
    }

    async fn prepare(&self, tag: &str) {
        if !self.is_stream() {
            let client = redis::Client::open(self.server.url()).expect("a URL");
            let mut bystander = client.get_async_pubsub().await.expect("it takes connections");
            bystander.subscribe(format!("{tag}.back")).await.expect("it takes subscriptions");
            self.bystanders.lock().expect("nobody panicked with it").push(bystander);
        }
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        let (work, far) = (format!("{tag}.work"), format!("{tag}.back"));
        self.channel("out", &format!("redis://{out}"), Some(&work), None)
            + &self.channel("in", &format!("redis://{back}"), None, Some(&far))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let (work, far, url) = (format!("{tag}.work"), format!("{tag}.back"), self.server.url());
        self.channel("work", &url, None, Some(&work)) + &self.channel("back", &url, Some(&far), None)
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        Some(self.channel("out", &format!("redis://nobody:wrong@{out}"), Some(tag), None))
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        let channel =
            self.channel("out", &format!("rediss://localhost:{}", out.port()), Some(&format!("{tag}.work")), None);
        Some(format!("{channel}ca_file = \"{}\"\n", ca_file.display()))
    }

    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        for n in (0..count).filter(|_| self.is_stream()) {
            let _: String = self.server.ask(&["XADD", &format!("{tag}.back"), "*", "stranger", &n.to_string()]).await;
        }
        self.is_stream().then_some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        type Entries = Vec<(String, Vec<String>)>;
        let entries: Entries = self.server.ask(&["XRANGE", &format!("{tag}.back"), "-", "+"]).await;
        entries.iter().filter(|(_, fields)| fields[0] == "stranger").count()
    }

    async fn kill(&mut self) -> bool {
        self.server.kill();
        true
    }

    async fn revive(&mut self) {
        self.server.revive().await;
    }
}

#[test]
fn redis_streams() {
    block_on(async {
        let Some(server) = Redis::start().await else { return };
        suite(Rigged { kind: "stream", server, bystanders: Mutex::default() }).await;
    });
}

#[test]
fn redis_topics() {
    block_on(async {
        let Some(server) = Redis::start().await else { return };
        suite(Rigged { kind: "topic", server, bystanders: Mutex::default() }).await;
    });
}
