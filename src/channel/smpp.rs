//! SMPP 3.4 and 5 (SMS centres): text messages out, text messages and delivery receipts in.
//!
//! An account has few binds to give, often one. So sending and receiving share a transceiver, unless the configuration gives
//! each an account of its own; a channel that nobody receives on binds as a transmitter, which gets no receipts.

mod alphabet;
mod message;
mod receipt;
mod receive;
mod refusal;
mod sent;
mod session;
mod submit;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::channel::dial::{Dialer, Limit};
use crate::channel::held::Held;
use crate::channel::refusal::Refusal;
use crate::channel::smpp::sent::Sent;
use crate::channel::smpp::session::{Endpoint, Role, Session};
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::secret::Secret;

pub use crate::channel::smpp::alphabet::Alphabet;

/// Settings of an `smpp` channel.
#[derive(Clone, Debug)]
pub struct SmppSettings {
    /// The account that sends; it receives too, unless there is a `receiver`.
    pub account: Account,
    /// The account that receives, where that is another bind.
    pub receiver: Option<Account>,
    /// Which version of the protocol we say that we speak.
    pub version: Version,
    /// What some SMS centres want to know of us; usually empty.
    pub system_type: String,
    /// Who sends, unless a step says otherwise; empty leaves it to the SMS centre.
    pub from: String,
    /// To whom, unless a step says otherwise.
    pub to: String,
    /// Kind of number and numbering plan of `from`; `None` goes by what it looks like.
    pub from_kind: NumberKind,
    /// Kind of number and numbering plan of `to`; `None` goes by what it looks like.
    pub to_kind: NumberKind,
    /// What the SMS centre means by its default alphabet.
    pub alphabet: Alphabet,
    /// What becomes of a text that is too long for one message.
    pub long: Long,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where to bind, and as whom.
#[derive(Clone, Debug)]
pub struct Account {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS begins at once.
    pub tls: bool,
    /// Our name at the SMS centre.
    pub system_id: String,
    /// Its password; some accounts have none.
    pub password: Option<Secret>,
}

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.4
    V34,
    /// 5.0
    V50,
}

/// Type of number and numbering plan (SMPP 3.4 sections 5.2.5 and 5.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NumberKind {
    /// TON.
    pub ton: Option<u8>,
    /// NPI.
    pub npi: Option<u8>,
}

/// What becomes of a text that is too long for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Long {
    /// It goes whole in the `message_payload` parameter; the SMS centre divides it.
    Payload,
    /// We divide it: several messages with a header that tells handsets how they belong together.
    Split,
}

/// An `smpp` channel.
pub struct Smpp {
    settings: SmppSettings,
    clock: Clock,
    sending: Endpoint,
    receiving: Endpoint,
    /// A session that only sends: while nobody receives, or beside a receiver of its own.
    transmitter: Held<Session>,
    /// A session that does both.
    transceiver: Held<Session>,
    is_received_on: AtomicBool,
    sent: Arc<Sent>,
}

/// A channel with these settings. Reads certificates; nothing is connected before it is needed.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn open(settings: SmppSettings, clock: Clock) -> Result<Smpp, String> {
    let is_tls = settings.account.tls || settings.receiver.as_ref().is_some_and(|account| account.tls);
    let tls = match is_tls {
        true => Some(Arc::new(crate::channel::seen::tls_client(settings.ca_file.as_deref())?)),
        false => None,
    };
    let endpoint = |account: &Account| Endpoint {
        dialer: Dialer { host: account.host.clone(), port: account.port, tls: tls.clone().filter(|_| account.tls) },
        account: account.clone(),
        version: settings.version,
        system_type: settings.system_type.clone(),
    };
    Ok(Smpp {
        sending: endpoint(&settings.account),
        receiving: endpoint(settings.receiver.as_ref().unwrap_or(&settings.account)),
        transmitter: Held::default(),
        transceiver: Held::default(),
        is_received_on: AtomicBool::new(false),
        sent: Arc::default(),
        settings,
        clock,
    })
}

impl Smpp {
    /// Whether sending and receiving share one session now.
    fn is_shared(&self) -> bool {
        self.settings.receiver.is_none() && self.is_received_on.load(Ordering::Acquire)
    }

    /// The session that messages go out by, and whether this call made it.
    async fn session(&self, limit: Limit) -> Result<(Arc<Session>, bool), Refusal> {
        let (held, role) = match self.is_shared() {
            true => (&self.transceiver, Role::Transceiver),
            false => (&self.transmitter, Role::Transmitter),
        };
        loop {
            let connect = || Session::open(&self.sending, role, self.sent.clone(), self.clock, limit);
            let (session, is_new) = held.get(limit, None, connect).await?;
            if session.is_open() || is_new {
                return Ok((session, is_new));
            }
            held.forget(&session);
        }
    }

    /// Gives the transmitter up that was bound before anyone received: the account may have only one bind to give.
    async fn retire_transmitter(&self, limit: Limit) {
        let none = || async { Err(Refusal::new(Cause::Refused, "")) };
        if let Ok((session, _)) = self.transmitter.get(limit, None, none).await {
            self.transmitter.forget(&session);
            session.close().await;
        }
    }
}

impl Channel for Smpp {
    fn takes(&self) -> bool {
        true
    }

    /// Submits and waits for the SMS centre's answer. A text that we divide is one submit for each part.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(submit::send(self, outgoing))
    }

    fn check<'a>(&'a self, _: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async { Err(cannot(self.clock, "an SMS centre has nothing to look at; `send` to it")) })
    }

    /// Binds each account as a transmitter, which takes no receipts from anyone, and unbinds.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(submit::prove(self, limit))
    }

    /// Binds, and reads what comes; ready from the bind's answer on.
    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        self.is_received_on.store(true, Ordering::Release);
        Box::pin(receive::listen(self, listener))
    }
}

/// PDUs of an SMS centre, and the messages in them.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    use rusmpp::Pdu;
    use tokio_util::codec::Decoder;
    let mut bytes = bytes::BytesMut::from(data);
    while let Ok(Some(incoming)) = wire::Pdus.decode(&mut bytes) {
        if let wire::Incoming::Pdu(command) = incoming
            && let Some(Pdu::DeliverSm(delivery)) = command.pdu()
        {
            for alphabet in [Alphabet::Gsm, Alphabet::Latin1] {
                let _ = message::read(delivery, alphabet);
            }
        }
    }
}
