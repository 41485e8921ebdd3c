//! Slack over Socket Mode, against a fake of its own; every case has conversations and apps of its own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::conformance::rig::{Promises, Rig};
use crate::conformance::suite;
use crate::support::block_on;
use crate::support::fake_slack::{APP_TOKEN, FakeSlack, TOKEN};

struct Slack {
    workspace: FakeSlack,
}

/// The id of a tag's conversation.
fn conversation(tag: &str, place: char) -> String {
    tag.bytes().fold(format!("C{place}"), |mut id, byte| {
        write!(id, "{byte:02X}").expect("text can be written");
        id
    })
}

fn channel(name: &str, tag: &str, place: char, address: impl std::fmt::Display) -> String {
    format!(
        "[channels.{name}]\ntype = \"slack\"\ntoken = \"{TOKEN}\"\napp_token = \"{APP_TOKEN}-{tag}-{name}\"\n\
         channel = \"{}\"\napi_url = \"{address}/api/\"\n",
        conversation(tag, place)
    )
}

impl Rig for Slack {
    fn name(&self) -> &'static str {
        "slack"
    }

    fn promises(&self) -> Promises {
        // Events carry no metadata, and headers are metadata.
        Promises { recognises: true, carries_headers: false, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.workspace.address(), self.workspace.address())
    }

    async fn prepare(&self, tag: &str) {
        for place in ['W', 'B'] {
            let id = conversation(tag, place);
            self.workspace.add_channel(&id, &id, true);
        }
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        channel("out", tag, 'W', format!("http://{out}")) + &channel("in", tag, 'B', format!("http://{back}"))
    }

    fn relay_channels(&self, tag: &str) -> String {
        let address = format!("http://{}", self.workspace.address());
        channel("work", tag, 'W', &address) + "keep = true\n" + &channel("back", tag, 'B', &address)
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        Some(channel("out", tag, 'W', format!("http://{out}")).replace(TOKEN, "xoxb-wrong"))
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        let channel = channel("out", tag, 'W', format!("https://localhost:{}", out.port()));
        Some(format!("{channel}ca_file = \"{}\"\n", ca_file.display()))
    }

    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        for n in 0..count {
            self.workspace.say(&conversation(tag, 'B'), &format!("order {n}"));
        }
        Some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        let left = self.workspace.messages(&conversation(tag, 'B'));
        left.iter().filter(|message| message.text.starts_with("order")).count()
    }
}

#[test]
fn slack() {
    block_on(async { suite(Slack { workspace: FakeSlack::start().await }).await });
}
