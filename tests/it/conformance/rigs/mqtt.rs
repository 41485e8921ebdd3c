//! MQTT in both versions, on a Mosquitto of its own.

use std::net::SocketAddr;
use std::path::Path;

use rumqttc_v5::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::mosquitto::{Mosquitto, password_file};
use crate::support::{Scratch, block_on};

struct Mqtt {
    name: &'static str,
    version: &'static str,
    broker: Mosquitto,
}

impl Mqtt {
    fn channel(&self, name: &str, authority: &str, topic: &str, subscribe: &str) -> String {
        let topic = if topic.is_empty() { String::new() } else { format!("topic = \"{topic}\"\n") };
        let subscribe = if subscribe.is_empty() { String::new() } else { format!("subscribe = \"{subscribe}\"\n") };
        format!(
            "[channels.{name}]\ntype = \"mqtt\"\nurl = \"{authority}\"\nversion = \"{}\"\n{topic}{subscribe}",
            self.version
        )
    }

    fn somebody(&self) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new("production", ("127.0.0.1", self.broker.address().port()));
        options.set_credentials("probe", "pass");
        AsyncClient::builder(options).capacity(16).build()
    }
}

fn url(address: SocketAddr) -> String {
    format!("mqtt://probe:pass@{address}")
}

impl Rig for Mqtt {
    fn name(&self) -> &'static str {
        self.name
    }

    fn promises(&self) -> Promises {
        Promises {
            keeps: false,
            redelivers: false,
            survives: false,
            carries_headers: self.version == "5",
            ..Promises::default()
        }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.broker.address(), self.broker.address())
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        self.channel("out", &url(out), &format!("{tag}/work"), "")
            + &self.channel("in", &url(back), "", &format!("{tag}/back/#"))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let url = url(self.broker.address());
        // Also when nobody is there to have it, which the broker would say of QoS 1.
        let back = self.channel("back", &url, &format!("{tag}/back"), "") + "qos = 2\n";
        self.channel("work", &url, "", &format!("{tag}/work")) + &back
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        Some(self.channel("out", &format!("mqtt://probe:wrong@{out}"), &format!("{tag}/work"), ""))
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        let url = format!("mqtts://probe:pass@localhost:{}", out.port());
        let channel = self.channel("out", &url, &format!("{tag}/work"), "");
        Some(format!("{channel}ca_file = \"{}\"\n", ca_file.display()))
    }

    /// Retained messages: what we must not take away.
    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        let (client, mut events) = self.somebody();
        for n in 0..count {
            let options = PublishOptions::new(QoS::AtLeastOnce).retained();
            client.publish(format!("{tag}/back/{n}"), format!("order {n}"), options).await.expect("the loop runs");
        }
        let mut stored = 0;
        while stored < count {
            let event = events.poll().await.expect("the broker is there");
            stored += usize::from(matches!(event, Event::Incoming(Packet::PubAck(_))));
        }
        Some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        let (client, mut events) = self.somebody();
        client.subscribe(format!("{tag}/back/+"), QoS::AtMostOnce).await.expect("the loop runs");
        let mut found = 0;
        loop {
            match events.poll().await.expect("the broker is there") {
                // What is retained comes with the subscription, and so before what is published after it.
                Event::Incoming(Packet::SubAck(_)) => {
                    let options = PublishOptions::new(QoS::AtMostOnce);
                    client.publish(format!("{tag}/back/end"), "", options).await.expect("the loop runs");
                }
                Event::Incoming(Packet::Publish(publish)) if publish.retain => found += 1,
                Event::Incoming(Packet::Publish(_)) => return found,
                _ => {}
            }
        }
    }

    async fn kill(&mut self) -> bool {
        self.broker.kill();
        true
    }

    async fn revive(&mut self) {
        self.broker.start_again().await;
    }
}

async fn start(name: &'static str, version: &'static str) -> Option<Mqtt> {
    let scratch = Scratch::new("mosquitto");
    let passwords = password_file(scratch.path(), &[("probe", "pass")])?;
    let lines = format!("allow_anonymous false\npassword_file {}\n", passwords.display());
    Some(Mqtt { name, version, broker: Mosquitto::with(scratch, &lines).await? })
}

/// The newer version, on a broker of its own.
pub(crate) async fn version_5() -> Option<impl Rig> {
    start("mqtt 5", "5").await
}

async fn run(name: &'static str, version: &'static str) {
    let Some(rig) = start(name, version).await else { return };
    suite(rig).await;
}

#[test]
fn mqtt_5() {
    block_on(run("mqtt 5", "5"));
}

#[test]
fn mqtt_3_1_1() {
    block_on(run("mqtt 3.1.1", "3.1.1"));
}
