//! TLS: a handshake and nothing else. Who is it, by which protocol, and for how long still.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use serde_json::json;

use crate::channel::certificate::{self, Certificate};
use crate::channel::dial::{Dialed, Dialer, Limit, agree_on_tls};
use crate::channel::refusal::Refusal;
use crate::channel::seen::version_name;
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::message::Message;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::journey::value::Value;

/// Settings of a `tls` channel.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whose certificate it must show, if not `host`'s.
    pub server_name: Option<String>,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// A `tls` channel.
pub struct Tls {
    settings: TlsSettings,
    config: Arc<ClientConfig>,
    clock: Clock,
}

/// What a handshake came to.
struct Shaken {
    peer: String,
    version: String,
    cipher: String,
    /// From the server's own certificate upwards, in DER.
    chain: Vec<Vec<u8>>,
}

impl Tls {
    /// Opens the channel. Reads `ca_file`; touches no network.
    ///
    /// # Errors
    /// In words: certificates that cannot be read.
    pub fn open(settings: TlsSettings, clock: Clock) -> Result<Tls, String> {
        let config = crate::channel::seen::tls_client(settings.ca_file.as_deref())?;
        Ok(Tls { settings, config: Arc::new(config), clock })
    }

    fn name(&self) -> &str {
        self.settings.server_name.as_deref().unwrap_or(&self.settings.host)
    }

    async fn shake(&self, limit: Limit, phases: &mut Vec<Phase>) -> Result<Shaken, Refusal> {
        let dialer = Dialer { host: self.settings.host.clone(), port: self.settings.port, tls: None };
        let Dialed { stream, peer, phases: connecting } = dialer.connect(limit).await?;
        phases.extend(connecting);
        let connected = self.clock.now();
        let stream = agree_on_tls(stream, self.name(), &peer, self.config.clone(), limit).await;
        phases.push(Phase { name: "tls".to_owned(), took: self.clock.now().mono.since(connected.mono) });
        let stream = stream?;
        let (_, session) = stream.get_ref();
        let version = session.protocol_version().and_then(|version| version.as_str().map(version_name));
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let chain = session.peer_certificates().unwrap_or_default().iter().map(|der| der.to_vec()).collect();
        let text = |found: Option<&str>| found.unwrap_or("unknown").to_owned();
        Ok(Shaken { peer, version: text(version), cipher: text(cipher), chain })
    }
}

/// What the journey reads.
fn message(shaken: &Shaken, server_name: &str) -> Message {
    let chain: Vec<_> = shaken.chain.iter().map(|der| certificate::read(der)).collect();
    let shown = |certificate: &Option<Certificate>| match certificate {
        Some(Certificate { subject, issuer, names, not_before, not_after }) => json!({
            "subject": subject, "issuer": issuer, "names": names,
            "not_before": not_before.to_string(), "not_after": not_after.to_string(),
        }),
        None => json!({}),
    };
    let document = json!({
        "version": shaken.version, "cipher": shaken.cipher, "server_name": server_name,
        "chain": chain.iter().map(shown).collect::<Vec<_>>(),
    });
    let mut message = Message::new(document.to_string());
    if let Some(Some(own)) = chain.first() {
        message.facts.insert("certificate_expires", Value::Text(own.not_after.to_string()));
    }
    message
}

impl Channel for Tls {
    fn send<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        let detail = "a `tls` channel shakes hands and says nothing more; use a `check`, or a channel of type `tcp`";
        Box::pin(std::future::ready(Err(cannot(self.clock, detail))))
    }

    fn check<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async move {
            let started = self.clock.now();
            let mut phases = Vec::new();
            let shaken = self.shake(Limit::new(self.clock, outgoing.timeout), &mut phases).await;
            let finished = self.clock.now();
            match shaken {
                Ok(shaken) => {
                    let ack = format!("{}, {}", shaken.version, shaken.cipher);
                    let message = Some(message(&shaken, self.name()));
                    Ok(Reply { started, finished, ack, message, phases })
                }
                Err(refusal) => Err(refusal.before_sending().into_fault(started, finished, phases)),
            }
        })
    }

    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            let started = self.clock.now();
            let shaken = self.shake(Limit::new(self.clock, limit), &mut Vec::new()).await;
            shaken
                .map(|shaken| {
                    format!("{} speaks {} with a certificate for {}", shaken.peer, shaken.version, self.name())
                })
                .map_err(|refusal| refusal.before_sending().into_fault(started, self.clock.now(), Vec::new()))
        })
    }

    /// Nothing arrives here.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move { listener.stop.cancelled().await })
    }
}
