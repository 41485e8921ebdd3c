//! NATS, core and JetStream, on a nats-server of its own.

use std::net::SocketAddr;
use std::path::Path;

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt;
use journeyman::journey::message::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::conformance::rig::{Parcel, Promises, Relay, Rig};
use crate::conformance::suite;
use crate::support::nats::NatsServer;
use crate::support::{Scratch, block_on};

struct Nats {
    name: &'static str,
    has_streams: bool,
    server: NatsServer,
}

impl Nats {
    /// Each place is a subject, and with JetStream a stream of its own.
    fn channel(&self, name: &str, authority: &str, place: &str, receives: bool) -> String {
        let key = if receives { "subscribe" } else { "subject" };
        let stream =
            if self.has_streams { format!("stream = \"{}\"\n", place.replace('.', "-")) } else { String::new() };
        format!("[channels.{name}]\ntype = \"nats\"\nurl = \"{authority}\"\n{key} = \"{place}\"\n{stream}")
    }

    async fn somebody(&self) -> async_nats::Client {
        let options = async_nats::ConnectOptions::with_user_and_password("probe".into(), "pass".into());
        options.connect(self.server.url()).await.expect("the server is there")
    }

    async fn context(&self) -> jetstream::Context {
        jetstream::new(self.somebody().await)
    }
}

fn url(address: SocketAddr) -> String {
    format!("nats://probe:pass@{address}")
}

impl Rig for Nats {
    fn name(&self) -> &'static str {
        self.name
    }

    fn promises(&self) -> Promises {
        let keeps = self.has_streams;
        Promises { keeps, redelivers: false, survives: keeps, ..Promises::default() }
    }

    fn server(&self) -> (SocketAddr, SocketAddr) {
        (self.server.address(), self.server.address())
    }

    async fn prepare(&self, tag: &str) {
        if !self.has_streams {
            return;
        }
        let context = self.context().await;
        for place in ["work", "back"] {
            let config = stream::Config {
                name: format!("{tag}-{place}"),
                subjects: vec![format!("{tag}.{place}"), format!("{tag}.{place}.theirs")],
                ..stream::Config::default()
            };
            context.create_stream(config).await.expect("a stream can be made");
        }
    }

    fn channels(&self, tag: &str, out: SocketAddr, back: SocketAddr) -> String {
        self.channel("out", &url(out), &format!("{tag}.work"), false)
            + &self.channel("in", &url(back), &format!("{tag}.back"), true)
    }

    /// By another client than ours, and without message ids: a stream takes each id only once, and cases hand on copies.
    async fn relay(&self, tag: &str) -> Relay {
        let client = self.somebody().await;
        let mut work = client.subscribe(format!("{tag}.work")).await.expect("it can be subscribed to");
        let (sender, taken) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let (probe, far) = (client.clone(), format!("{tag}.back"));
        tasks.spawn(async move {
            while let Some(delivery) = work.next().await {
                let mut message = Message::new(delivery.payload);
                let headers = delivery.headers.iter().flat_map(async_nats::HeaderMap::iter);
                let fields = headers.flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
                message.headers = fields.map(|(name, value)| (name.to_string(), value.to_string())).collect();
                let _ = sender.send(message).await;
            }
        });
        // The server deals with all of it in order: once it says that nobody answers, it has the subscription.
        assert!(client.request("nobody.there", "".into()).await.is_err(), "somebody answers");
        Relay::new(
            taken,
            Box::new(move |parcel| Box::pin(put(probe.clone(), far.clone(), parcel))),
            CancellationToken::new(),
            tasks,
        )
    }

    fn wrong_credentials(&self, tag: &str, out: SocketAddr) -> Option<String> {
        Some(self.channel("out", &format!("nats://probe:wrong@{out}"), &format!("{tag}.work"), false))
    }

    fn over_tls(&self, _tag: &str, _out: SocketAddr, _ca_file: &Path) -> Option<String> {
        None
    }

    async fn plant(&self, tag: &str, count: usize) -> Option<()> {
        if !self.has_streams {
            return None;
        }
        let context = self.context().await;
        let theirs = context.get_stream(format!("{tag}-back")).await.expect("the stream is there");
        let config =
            consumer::pull::Config { durable_name: Some("production".into()), ..consumer::pull::Config::default() };
        theirs
            .create_consumer(consumer::pull::Config { filter_subject: format!("{tag}.back.theirs"), ..config })
            .await
            .expect("a consumer can be made");
        for n in 0..count {
            let order = format!("order {n}").into();
            context
                .publish(format!("{tag}.back.theirs"), order)
                .await
                .expect("it can be published")
                .await
                .expect("it is stored");
        }
        Some(())
    }

    async fn strangers(&self, tag: &str) -> usize {
        let theirs = self.context().await.get_stream(format!("{tag}-back")).await.expect("the stream is there");
        let mut worker =
            theirs.get_consumer::<consumer::pull::Config>("production").await.expect("the consumer is there");
        worker.info().await.expect("the server answers").num_pending as usize
    }

    async fn kill(&mut self) -> bool {
        self.server.kill();
        true
    }

    async fn revive(&mut self) {
        self.server.start_again().await;
    }
}

/// Publishes, and waits until the server has it: a request that nobody answers comes back at once.
async fn put(client: async_nats::Client, subject: String, parcel: Parcel) -> Result<(), String> {
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in &parcel.headers {
        headers.append(name.as_str(), value.as_str());
    }
    client.publish_with_headers(subject, headers, parcel.body.into()).await.expect("it can be published");
    assert!(client.request("nobody.there", "".into()).await.is_err(), "somebody answers");
    Ok(())
}

async fn start(name: &'static str, has_streams: bool) -> Option<Nats> {
    let users = "authorization { user: probe, password: pass }";
    let server = NatsServer::with(Scratch::new("nats"), users).await?;
    Some(Nats { name, has_streams, server })
}

/// JetStream on a server of its own.
pub(crate) async fn with_streams() -> Option<impl Rig> {
    start("nats jetstream", true).await
}

async fn run(name: &'static str, has_streams: bool) {
    let Some(rig) = start(name, has_streams).await else { return };
    suite(rig).await;
}

#[test]
fn nats() {
    block_on(run("nats", false));
}

#[test]
fn jetstream() {
    block_on(run("nats jetstream", true));
}
