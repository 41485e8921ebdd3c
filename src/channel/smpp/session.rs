//! One bind: a connection with a name and a password, whose answers find the questions, and whose deliveries wait to be taken.
//!
//! One task reads and one writes, so that neither waits for the other; both end with the session. An SMS centre that says
//! nothing is asked every 20 s whether it is there.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rusmpp::pdus::{BindReceiver, BindTransceiver, BindTransmitter, DeliverSm, DeliverSmResp, SubmitSm};
use rusmpp::types::COctetString;
use rusmpp::values::{InterfaceVersion, Npi, Ton};
use rusmpp::{Command, CommandId, CommandStatus, Pdu};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::sent::{Owner, Sent, Unanswered};
use super::wire::{Incoming, Pdus};
use super::{Account, Version};
use crate::channel::dial::{Dialer, Limit, Stream};
use crate::channel::refusal::Refusal;
use crate::channel::seen::note;
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::seen::What;
use crate::time::{Human, Now};

/// How often a quiet peer is asked whether it is there.
const ENQUIRE: Duration = Duration::from_secs(20);
/// And how long it may take to say so.
const ENQUIRE_ANSWER: Duration = Duration::from_secs(10);
/// A goodbye may take this long; then the connection is ended without one.
const GOODBYE: Duration = Duration::from_secs(1);
/// PDUs that wait to be written.
const QUEUE: usize = 64;
/// Deliveries that wait to be taken; more are sent back for another time.
const DELIVERIES: usize = 256;
/// Submits without an answer that are remembered: a late answer still gives the id that a receipt will name.
const REMEMBERED: usize = 1_024;
/// Sequence numbers go from 1 to here, and round again (SMPP 3.4 section 3.2).
const LAST_SEQUENCE: u32 = 0x7fff_ffff;

/// What a bind is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Transmitter,
    Receiver,
    Transceiver,
}

/// Where to bind, and as whom.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) dialer: Dialer,
    pub(super) account: Account,
    pub(super) version: Version,
    pub(super) system_type: String,
}

/// What came from the SMS centre, stamped when its bytes were there.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) at: Now,
    pub(super) sequence: u32,
    pub(super) pdu: DeliverSm,
}

/// The answer to a submit.
#[derive(Debug)]
pub(super) enum Answer {
    /// Taken, under this id.
    Taken(String),
    /// Not taken.
    Refused(CommandStatus),
    /// Nobody can read it.
    Unreadable(String),
}

/// A bind that stands, as far as is known. Its connection ends with it.
pub(super) struct Session {
    /// `host:port`, for messages.
    pub(super) peer: String,
    /// What took how long to make it: `dns`, `connect`, `tls`, `bind`.
    pub(super) phases: Vec<Phase>,
    shared: Arc<Shared>,
    deliveries: Mutex<Option<mpsc::Receiver<Delivery>>>,
    _driver: JoinSet<()>,
}

/// What the session and its driver share.
struct Shared {
    clock: Clock,
    peer: String,
    role: Role,
    sent: Arc<Sent>,
    commands: mpsc::Sender<Command>,
    sequence: AtomicU32,
    questions: Mutex<Questions>,
    /// Someone doubts that the peer is there.
    doubt: Notify,
    /// The last round trip of an `enquire_link`.
    round_trip: watch::Sender<Option<Duration>>,
    /// Why the session ended, once it has.
    ended: watch::Sender<Option<String>>,
}

/// What waits for an answer, by sequence number.
#[derive(Default)]
struct Questions {
    submits: BTreeMap<u32, Submitted>,
    others: HashMap<u32, oneshot::Sender<Command>>,
}

struct Submitted {
    owner: Owner,
    tell: oneshot::Sender<Answer>,
    _unanswered: Unanswered,
}

impl Session {
    /// Connects and binds.
    ///
    /// # Errors
    /// Name not resolved, nothing listening, TLS, credentials, or `limit` passed: each with its own words.
    pub(super) async fn open(
        endpoint: &Endpoint,
        role: Role,
        sent: Arc<Sent>,
        clock: Clock,
        limit: Limit,
    ) -> Result<Session, Refusal> {
        let request = bind(endpoint, role)?;
        let dialed = endpoint.dialer.connect(limit).await?;
        let (peer, mut phases) = (dialed.peer, dialed.phases);
        let (read, write) = tokio::io::split(dialed.stream);
        let (mut from, mut to) = (FramedRead::new(read, Pdus), FramedWrite::new(write, Pdus));

        let began = clock.now().mono;
        let binding = async {
            to.send(Command::new(CommandStatus::EsmeRok, 1, request))
                .await
                .map_err(|error| Refusal::lost(&peer, error))?;
            bound(&mut from, &peer, &endpoint.account.system_id).await
        };
        let answer = timeout_at(limit.instant(), binding).await;
        answer.unwrap_or_else(|_| Err(Refusal::silence("binding", &peer, limit.length())))?;
        phases.push(Phase { name: "bind".to_owned(), took: clock.now().mono.since(began) });
        tracing::debug!(peer, system_id = endpoint.account.system_id, role = ?role, "bound");

        let (commands, queue) = mpsc::channel(QUEUE);
        let (deliver, deliveries) = mpsc::channel(DELIVERIES);
        let shared = Arc::new(Shared {
            clock,
            peer: peer.clone(),
            role,
            sent,
            commands,
            sequence: AtomicU32::new(2),
            questions: Mutex::default(),
            doubt: Notify::new(),
            round_trip: watch::Sender::new(None),
            ended: watch::Sender::new(None),
        });
        let mut driver = JoinSet::new();
        driver.spawn(drive(shared.clone(), from, to, queue, deliver));
        Ok(Session { peer, phases, shared, deliveries: Mutex::new(Some(deliveries)), _driver: driver })
    }

    /// Whether it still stands, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.shared.ended.borrow().is_none()
    }

    /// Waits until it ends; why, in words.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.shared.ended.subscribe();
        let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| format!("lost the connection to {}", self.peer))
    }

    /// What comes, for the one who asks first.
    pub(super) fn deliveries(&self) -> Option<mpsc::Receiver<Delivery>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts a submit on its way. The answer is recorded whether or not someone still waits for it.
    pub(super) async fn submit(&self, pdu: SubmitSm, owner: Owner) -> Result<oneshot::Receiver<Answer>, Refusal> {
        let (tell, answer) = oneshot::channel();
        let sequence = self.shared.next_sequence();
        let submitted = Submitted { owner, tell, _unanswered: self.shared.sent.begin() };
        {
            let mut questions = self.shared.questions();
            questions.submits.insert(sequence, submitted);
            if questions.submits.len() > REMEMBERED {
                questions.submits.pop_first();
            }
        }
        let command = Command::new(CommandStatus::EsmeRok, sequence, pdu);
        if self.shared.commands.send(command).await.is_err() || !self.is_open() {
            self.shared.questions().submits.remove(&sequence);
            return Err(Refusal::lost(&self.peer, self.ended().await));
        }
        Ok(answer)
    }

    /// Says that a delivery was taken.
    pub(super) async fn acknowledge(&self, sequence: u32) {
        self.shared.answer_delivery(sequence, CommandStatus::EsmeRok).await;
    }

    /// Has the peer asked at once whether it is there: it swallowed something.
    pub(super) fn doubt(&self) {
        self.shared.doubt.notify_one();
    }

    /// The last round trip of an `enquire_link`.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        *self.shared.round_trip.borrow()
    }

    /// Unbinds, so that the SMS centre need not find out that we are gone.
    pub(super) async fn close(&self) {
        let goodbye = self.shared.ask(Pdu::Unbind);
        let _ = timeout(GOODBYE, goodbye).await;
        self.shared.end("we have unbound".to_owned());
    }
}

impl Shared {
    fn questions(&self) -> std::sync::MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_sequence(&self) -> u32 {
        loop {
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) & LAST_SEQUENCE;
            if sequence != 0 {
                return sequence;
            }
        }
    }

    /// Sends a request and waits for its answer; `None` if the session ends first.
    async fn ask(&self, pdu: Pdu) -> Option<Command> {
        let (tell, answer) = oneshot::channel();
        let sequence = self.next_sequence();
        self.questions().others.insert(sequence, tell);
        let sent = self.commands.send(Command::new(CommandStatus::EsmeRok, sequence, pdu)).await;
        let answer = if sent.is_ok() { answer.await.ok() } else { None };
        self.questions().others.remove(&sequence);
        answer
    }

    async fn answer(&self, sequence: u32, status: CommandStatus, pdu: impl Into<Pdu>) {
        // Fails only with the session.
        let _ = self.commands.send(Command::new(status, sequence, pdu)).await;
    }

    async fn answer_delivery(&self, sequence: u32, status: CommandStatus) {
        self.answer(sequence, status, DeliverSmResp::default()).await;
    }

    /// The first reason stays. Whoever still waits for an answer learns that none will come.
    fn end(&self, why: String) {
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(why);
            is_first
        });
        *self.questions() = Questions::default();
    }

    /// Takes the answer to a question, if there was one.
    fn answered(&self, command: Command) {
        let sequence = command.sequence_number();
        let submitted = {
            let mut questions = self.questions();
            if let Some(tell) = questions.others.remove(&sequence) {
                let _ = tell.send(command);
                return;
            }
            questions.submits.remove(&sequence)
        };
        let Some(Submitted { owner, tell, _unanswered }) = submitted else {
            tracing::debug!(peer = self.peer, sequence, "an answer to nothing");
            return;
        };
        let answer = match (command.status(), command.pdu()) {
            (CommandStatus::EsmeRok, Some(Pdu::SubmitSmResp(answer))) => {
                let id = answer.message_id().as_str().to_owned();
                // Before anything else: its receipt may be the next thing to come.
                self.sent.taken(&id, owner);
                Answer::Taken(id)
            }
            (CommandStatus::EsmeRok, other) => Answer::Unreadable(format!("not an answer to a submit_sm: {other:?}")),
            (status, _) => Answer::Refused(status),
        };
        // Nobody waits any more for one that comes late.
        let _ = tell.send(answer);
    }

    /// Deals with what came, stamped `at`; why the session is over, if it is.
    async fn take(&self, incoming: Incoming, at: Now, deliver: &mpsc::Sender<Delivery>) -> Result<(), String> {
        let command = match incoming {
            Incoming::Pdu(command) => command,
            Incoming::Unreadable { id, status, sequence, why } => {
                tracing::warn!(peer = self.peer, id = ?id, sequence, %why, "cannot read what came");
                self.take_unreadable(id, status, sequence, why).await;
                return Ok(());
            }
        };
        let sequence = command.sequence_number();
        if command.id().is_response() {
            self.answered(*command);
            return Ok(());
        }
        match (command.id(), command.pdu()) {
            (CommandId::DeliverSm, Some(Pdu::DeliverSm(_))) if self.role == Role::Transmitter => {
                self.answer_delivery(sequence, CommandStatus::EsmeRinvbndsts).await;
            }
            (CommandId::DeliverSm, Some(Pdu::DeliverSm(pdu))) => {
                let delivery = Delivery { at, sequence, pdu: pdu.clone() };
                if deliver.try_send(delivery).is_err() {
                    tracing::debug!(peer = self.peer, "more comes than is taken: sent back for another time");
                    self.answer_delivery(sequence, CommandStatus::EsmeRxTAppn).await;
                }
            }
            (CommandId::EnquireLink, _) => self.answer(sequence, CommandStatus::EsmeRok, Pdu::EnquireLinkResp).await,
            (CommandId::Unbind, _) => {
                self.answer(sequence, CommandStatus::EsmeRok, Pdu::UnbindResp).await;
                return Err(format!("{} ended the session (unbind)", self.peer));
            }
            // Needs no answer (SMPP 3.4 section 4.12).
            (CommandId::AlertNotification, _) => {}
            (id, _) => {
                tracing::debug!(peer = self.peer, id = ?id, "not a request for us");
                self.answer(sequence, CommandStatus::EsmeRinvcmdid, Pdu::GenericNack).await;
            }
        }
        Ok(())
    }

    async fn take_unreadable(&self, id: CommandId, status: CommandStatus, sequence: u32, why: String) {
        if id.is_response() {
            let mut questions = self.questions();
            questions.others.remove(&sequence);
            if let Some(submitted) = questions.submits.remove(&sequence) {
                let _ = submitted.tell.send(match status {
                    CommandStatus::EsmeRok => Answer::Unreadable(why),
                    status => Answer::Refused(status),
                });
            }
        } else if id == CommandId::DeliverSm {
            // "Do not send it again": it would not become better.
            self.answer_delivery(sequence, CommandStatus::EsmeRxRAppn).await;
        } else {
            self.answer(sequence, CommandStatus::EsmeRinvcmdlen, Pdu::GenericNack).await;
        }
    }
}

/// The request to bind.
fn bind(endpoint: &Endpoint, role: Role) -> Result<Pdu, Refusal> {
    let Endpoint { account, version, system_type, .. } = endpoint;
    let refused = |what: &str, room: usize| {
        Refusal::new(Cause::Refused, format!("{what} is empty, too long for SMPP (at most {room} bytes), or not ASCII"))
    };
    let password = account.password.as_ref().map(|password| password.reveal());
    let password = password.as_ref().map_or("", |password| password.as_str());
    let system_id = COctetString::from_str(&account.system_id).map_err(|_| refused("the system id", 15))?;
    let password = COctetString::from_str(password).map_err(|_| refused("the password", 8))?;
    let system_type = COctetString::from_str(system_type).map_err(|_| refused("`system_type`", 12))?;
    let version = match version {
        Version::V34 => InterfaceVersion::Smpp3_4,
        Version::V50 => InterfaceVersion::Smpp5_0,
    };
    let (ton, npi, range) = (Ton::Unknown, Npi::Unknown, COctetString::empty());
    Ok(match role {
        Role::Transmitter => BindTransmitter::new(system_id, password, system_type, version, ton, npi, range).into(),
        Role::Receiver => BindReceiver::new(system_id, password, system_type, version, ton, npi, range).into(),
        Role::Transceiver => BindTransceiver::new(system_id, password, system_type, version, ton, npi, range).into(),
    })
}

type From = FramedRead<ReadHalf<Stream>, Pdus>;
type To = FramedWrite<WriteHalf<Stream>, Pdus>;

/// Waits for the answer to the bind.
async fn bound(from: &mut From, peer: &str, system_id: &str) -> Result<(), Refusal> {
    loop {
        let (id, status) = match from.next().await {
            Some(Ok(Incoming::Pdu(command))) => {
                note(What::Server, &centre(command.pdu()));
                (command.id(), command.status())
            }
            // Only the status is of interest, and that can be read.
            Some(Ok(Incoming::Unreadable { id, status, .. })) => (id, status),
            Some(Err(error)) => return Err(Refusal::lost(peer, error)),
            None => return Err(Refusal::lost(peer, "it ended the connection instead of answering the bind")),
        };
        match (id.is_response(), status) {
            (true, CommandStatus::EsmeRok) => return Ok(()),
            (true, status) => return Err(Refusal::of_bind(status, peer, system_id)),
            (false, _) => {}
        }
    }
}

/// What an SMS centre says of itself in the answer to a bind: its name, and its version of the protocol where it tells that.
fn centre(pdu: Option<&Pdu>) -> String {
    let (name, version) = match pdu {
        Some(Pdu::BindTransmitterResp(answer)) => (&answer.system_id, answer.sc_interface_version()),
        Some(Pdu::BindReceiverResp(answer)) => (&answer.system_id, answer.sc_interface_version()),
        Some(Pdu::BindTransceiverResp(answer)) => (&answer.system_id, answer.sc_interface_version()),
        _ => return String::new(),
    };
    // 0x34 is 3.4 (SMPP 3.4 section 5.2.4).
    let version = version.map(u8::from).map(|version| format!(" SMPP {:x}.{:x}", version >> 4, version & 0xf));
    format!("{name}{}", version.unwrap_or_default())
}

/// Reads, writes and asks until one of them ends.
async fn drive(
    shared: Arc<Shared>,
    from: From,
    to: To,
    queue: mpsc::Receiver<Command>,
    deliver: mpsc::Sender<Delivery>,
) {
    let mut ended = shared.ended.subscribe();
    let why = tokio::select! {
        why = read(&shared, from, deliver) => why,
        why = write(&shared, to, queue) => why,
        why = enquire(&shared) => why,
        _ = ended.wait_for(Option::is_some) => return,
    };
    tracing::debug!(peer = shared.peer, %why, "the session has ended");
    shared.end(why);
}

async fn read(shared: &Shared, mut from: From, deliver: mpsc::Sender<Delivery>) -> String {
    loop {
        let incoming = from.next().await;
        let at = shared.clock.now();
        let taken = match incoming {
            Some(Ok(incoming)) => shared.take(incoming, at, &deliver).await,
            Some(Err(error)) => Err(format!("lost the connection to {}: {error}", shared.peer)),
            None => Err(format!("{} ended the connection", shared.peer)),
        };
        if let Err(why) = taken {
            return why;
        }
    }
}

async fn write(shared: &Shared, mut to: To, mut queue: mpsc::Receiver<Command>) -> String {
    while let Some(command) = queue.recv().await {
        if let Err(error) = to.send(command).await {
            return format!("lost the connection to {}: {error}", shared.peer);
        }
    }
    format!("lost the connection to {}", shared.peer)
}

async fn enquire(shared: &Shared) -> String {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ENQUIRE) => {}
            () = shared.doubt.notified() => {}
        }
        let began = shared.clock.now().mono;
        match timeout(ENQUIRE_ANSWER, shared.ask(Pdu::EnquireLink)).await {
            Ok(Some(_)) => {
                let took = shared.clock.now().mono.since(began);
                tracing::debug!(peer = shared.peer, round_trip = %Human(took), "enquire_link");
                shared.round_trip.send_replace(Some(took));
            }
            Ok(None) => return format!("lost the connection to {}", shared.peer),
            Err(_) => {
                return format!("no answer from {} to enquire_link within {}", shared.peer, Human(ENQUIRE_ANSWER));
            }
        }
    }
}
