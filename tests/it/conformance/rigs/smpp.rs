//! SMPP 3.4 on an SMS centre of our own. The system under watch has the other end of it: it sees what an account sends, and
//! answers as a handset does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::Path;

use futures_util::future::BoxFuture;
use journeyman::journey::message::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::conformance::rig::{Parcel, Promises, Relay, Rig};
use crate::conformance::suite;
use crate::support::block_on;
use crate::support::smsc::{Smsc, mobile_originated};

/// ISO 8859-1, which both sides take for the default alphabet.
const LATIN1: u8 = 3;
/// More than a connection that is made anew needs before the SMS centre has noticed that the last one has ended.
const BINDS: usize = 8;

struct Smpp {
    smsc: Smsc,
}

/// System ids have room for 15 bytes.
fn system_id(tag: &str, channel: &str) -> String {
    let mut hasher = DefaultHasher::new();
    tag.hash(&mut hasher);
    format!("{channel}-{:08x}", hasher.finish() as u32)
}

fn channel(tag: &str, channel: &str, scheme: &str, address: SocketAddr, password: &str) -> String {
    let system_id = system_id(tag, channel);
    format!(
        "[channels.{channel}]\ntype = \"smpp\"\nurl = \"{scheme}://{system_id}@{address}\"\npassword = \"{password}\"\n\
         from = \"Shop\"\nto = \"+4915112345678\"\nalphabet = \"latin1\"\n"
    )
}

impl Rig for Smpp {
    fn name(&self) -> &'static str {
        "smpp"
    }

    fn promises(&self) -> Promises {
        Promises { carries_headers: false, binds_anew: false, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.smsc.address(), self.smsc.address())
    }

    async fn prepare(&self, tag: &str) {
        for channel in ["out", "in"] {
            self.smsc.account(&system_id(tag, channel), Smsc::PASSWORD, BINDS);
        }
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        channel(tag, "out", "smpp", out, Smsc::PASSWORD) + &channel(tag, "in", "smpp", back, Smsc::PASSWORD)
    }

    async fn relay(&self, tag: &str) -> Relay {
        let mut submits = self.smsc.tap(&system_id(tag, "out"));
        let (take, taken) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(submit) = submits.recv().await {
                let octets = submit.short_message().as_ref();
                let text: String = octets.iter().copied().map(char::from).collect();
                let _ = take.send(Message::new(text)).await;
            }
        });
        let deliver = self.smsc.deliverer(&system_id(tag, "in"));
        let put = move |parcel: Parcel| -> BoxFuture<'static, Result<(), String>> {
            let text = String::from_utf8(parcel.body).expect("a text");
            let octets: Vec<u8> = text.chars().map(|character| u8::try_from(character).expect("Latin-1")).collect();
            deliver(mobile_originated(&octets, LATIN1));
            Box::pin(std::future::ready(Ok(())))
        };
        Relay::new(taken, Box::new(put), CancellationToken::new(), tasks)
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        Some(channel(tag, "out", "smpp", out, "wr0ng-pw"))
    }

    fn over_tls(&self, tag: &str, out: SocketAddr, ca_file: &Path) -> Option<String> {
        let channel = channel(tag, "out", "smpps", out, Smsc::PASSWORD);
        Some(format!("{channel}ca_file = \"{}\"\n", ca_file.display()))
    }

    async fn kill(&mut self) -> bool {
        self.smsc.kill().await;
        true
    }

    async fn revive(&mut self) {
        self.smsc.restart();
    }
}

#[test]
fn smpp() {
    block_on(async {
        let smsc = Smsc::start().await;
        smsc.conduct(|conduct| (conduct.echo, conduct.states) = (false, Vec::new()));
        suite(Smpp { smsc }).await;
    });
}
