//! An SMS centre of our own: takes binds and messages, answers as the test says, sends receipts and the answers of handsets.
//! What is not acknowledged comes again on the next bind, as it does from a real one.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rusmpp::pdus::{BindReceiverResp, BindTransceiverResp, BindTransmitterResp, DeliverSm, SubmitSm, SubmitSmResp};
use rusmpp::tlvs::{MessageDeliveryRequestTlvValue, TlvValue};
use rusmpp::tokio_codec::CommandCodec;
use rusmpp::types::{COctetString, OctetString};
use rusmpp::values::{DataCoding, EsmClass, InterfaceVersion, MessageState};
use rusmpp::{Command, CommandId, CommandStatus, Pdu};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::codec::Framed;

use super::{free_port, wait_for};

const BOUND: Duration = Duration::from_secs(20);

/// What a submit is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An id.
    #[default]
    Takes,
    /// This status.
    Says(CommandStatus),
    /// Nothing.
    Nothing,
    /// The end of the connection; the message is taken all the same.
    HangsUp,
}

/// How receipts name the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// By the parameter `receipted_message_id`.
    Parameter,
    /// In the text, as the answer had it.
    Text,
    /// In the text, in decimal; the answer had it in hexadecimal.
    Decimal,
}

/// What it does by itself.
#[derive(Clone, Debug)]
pub(crate) struct Conduct {
    pub(crate) answer: Answer,
    /// The receipts that a message that is taken gets, one for each state.
    pub(crate) states: Vec<&'static str>,
    pub(crate) naming: Naming,
    /// Receipts go out before the answer.
    pub(crate) receipt_first: bool,
    /// The handset answers with the text it got.
    pub(crate) echo: bool,
}

impl Default for Conduct {
    fn default() -> Self {
        let states = vec!["DELIVRD"];
        Conduct { answer: Answer::Takes, states, naming: Naming::Text, receipt_first: false, echo: true }
    }
}

/// A bind that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) role: CommandId,
    pub(crate) system_id: String,
    pub(crate) version: u8,
}

/// An SMS centre. It ends with its owner.
pub(crate) struct Smsc {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    tasks: JoinSet<()>,
}

struct Account {
    password: String,
    most_binds: usize,
    /// Where its messages go as well.
    tap: Option<mpsc::UnboundedSender<SubmitSm>>,
}

#[derive(Default)]
struct State {
    accounts: BTreeMap<String, Account>,
    conduct: Conduct,
    sessions: Vec<Session>,
    binds: Vec<Bind>,
    submits: Vec<SubmitSm>,
    /// What is not acknowledged, in the order in which it is due.
    undelivered: VecDeque<Undelivered>,
    answers: Vec<(u32, CommandStatus)>,
    enquiries: usize,
    unbinds: usize,
    last_sequence: u32,
    last_id: u32,
}

#[derive(Clone)]
struct Undelivered {
    sequence: u32,
    /// For whom; `None` is for whoever receives.
    account: Option<String>,
    delivery: DeliverSm,
}

impl Undelivered {
    fn is_for(&self, session: &Session) -> bool {
        session.role != CommandId::BindTransmitter
            && self.account.as_ref().is_none_or(|account| *account == session.system_id)
    }
}

struct Session {
    number: u32,
    role: CommandId,
    system_id: String,
    out: mpsc::UnboundedSender<Command>,
}

impl Smsc {
    /// Who may bind.
    pub(crate) const SYSTEM_ID: &'static str = "probe";
    /// And with which password.
    pub(crate) const PASSWORD: &'static str = "s3cr3t-8";

    /// One that does everything right.
    pub(crate) async fn start() -> Smsc {
        let state = Arc::new(Mutex::new(State::default()));
        let mut smsc = Smsc { address: ([127, 0, 0, 1], free_port()).into(), state, tasks: JoinSet::new() };
        smsc.account(Smsc::SYSTEM_ID, Smsc::PASSWORD, 1);
        smsc.restart();
        smsc
    }

    /// Listens, again where it was after [`kill`](Self::kill).
    pub(crate) fn restart(&mut self) {
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket.set_reuseaddr(true).expect("a socket can be reused");
        socket.bind(self.address).expect("loopback has a free port");
        let listener = socket.listen(64).expect("a socket can listen");
        self.address = listener.local_addr().expect("it is bound");
        self.tasks.spawn(accept(listener, self.state.clone()));
    }

    /// Ends every connection without a word, and listens no more.
    pub(crate) async fn kill(&mut self) {
        self.tasks.shutdown().await;
        self.state().sessions.clear();
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked")
    }

    /// Lets someone bind, at most so often at once.
    pub(crate) fn account(&self, system_id: &str, password: &str, most_binds: usize) {
        let account = Account { password: password.to_owned(), most_binds, tap: None };
        self.state().accounts.insert(system_id.to_owned(), account);
    }

    /// What this account sends, from now on.
    pub(crate) fn tap(&self, system_id: &str) -> mpsc::UnboundedReceiver<SubmitSm> {
        let (sender, taken) = mpsc::unbounded_channel();
        self.state().accounts.get_mut(system_id).expect("an account").tap = Some(sender);
        taken
    }

    /// Delivers to this account, by whatever holds it: a relay outlives the borrow of its owner.
    pub(crate) fn deliverer(&self, system_id: &str) -> impl Fn(DeliverSm) + Send + Sync + 'static {
        let (state, account) = (self.state.clone(), system_id.to_owned());
        move |delivery| state.lock().expect("nobody panicked").deliver(Some(account.clone()), delivery)
    }

    /// What it does from now on.
    pub(crate) fn conduct(&self, change: impl FnOnce(&mut Conduct)) {
        change(&mut self.state().conduct);
    }

    /// Every bind that it took so far.
    pub(crate) fn binds(&self) -> Vec<Bind> {
        self.state().binds.clone()
    }

    /// Who is bound now.
    pub(crate) fn bound(&self) -> Vec<(CommandId, String)> {
        self.state().sessions.iter().map(|session| (session.role, session.system_id.clone())).collect()
    }

    /// Every message that came so far, whatever it was answered with.
    pub(crate) fn submits(&self) -> Vec<SubmitSm> {
        self.state().submits.clone()
    }

    /// The answers to what was delivered, in their order.
    pub(crate) fn answers(&self) -> Vec<CommandStatus> {
        self.state().answers.iter().map(|(_, status)| *status).collect()
    }

    /// How many deliveries are not acknowledged.
    pub(crate) fn undelivered(&self) -> usize {
        self.state().undelivered.len()
    }

    /// How often it was asked whether it is there.
    pub(crate) fn enquiries(&self) -> usize {
        self.state().enquiries
    }

    /// How often someone said goodbye.
    pub(crate) fn unbinds(&self) -> usize {
        self.state().unbinds
    }

    /// Delivers to whoever receives, or will.
    pub(crate) fn deliver(&self, delivery: DeliverSm) {
        self.state().deliver(None, delivery);
    }

    /// Sends bytes' worth of a request as it is to whoever receives.
    pub(crate) fn say(&self, pdu: impl Into<Pdu>) {
        let mut state = self.state();
        let command = Command::new(CommandStatus::EsmeRok, state.next_sequence(), pdu);
        for session in &state.sessions {
            let _ = session.out.send(command.clone());
        }
    }

    /// Waits until `is_it` holds.
    pub(crate) async fn wait(&self, what: &str, is_it: impl Fn(&Smsc) -> bool) {
        wait_for(what, BOUND, async || is_it(self).then_some(())).await;
    }
}

/// A text message from a handset.
pub(crate) fn mobile_originated(text: &[u8], data_coding: u8) -> DeliverSm {
    DeliverSm::builder()
        .source_addr(COctetString::from_str("4915112345678").expect("a number"))
        .destination_addr(COctetString::from_str("72727").expect("a number"))
        .esm_class(EsmClass::from(0))
        .data_coding(DataCoding::from(data_coding))
        .short_message(OctetString::from_slice(text).expect("short enough"))
        .build()
}

/// A receipt for a message to `number`, named as `naming` says.
pub(crate) fn receipt(id: u32, number: &str, state: &str, naming: Naming) -> DeliverSm {
    let in_text = match naming {
        Naming::Text => format!("{id:08X}"),
        Naming::Decimal => format!("{id:010}"),
        Naming::Parameter => "0".to_owned(),
    };
    let dates = "submit date:261121093000 done date:261121093002";
    let text = format!("id:{in_text} sub:001 dlvrd:001 {dates} stat:{state} err:000 text:Your code is");
    let mut receipt = DeliverSm::builder()
        .source_addr(COctetString::from_str(number).expect("a number"))
        .destination_addr(COctetString::from_str("Shop").expect("a name"))
        .esm_class(EsmClass::from(4))
        .short_message(OctetString::from_slice(text.as_bytes()).expect("short enough"))
        .build();
    if naming == Naming::Parameter {
        let id = COctetString::from_str(&format!("{id:08X}")).expect("an id");
        receipt.push_tlv(MessageDeliveryRequestTlvValue::ReceiptedMessageId(id));
        let state = match state {
            "DELIVRD" => MessageState::Delivered,
            "ENROUTE" => MessageState::Enroute,
            "UNDELIV" => MessageState::Undeliverable,
            other => panic!("no number for {other}"),
        };
        receipt.push_tlv(MessageDeliveryRequestTlvValue::MessageState(state));
    }
    receipt
}

impl Session {
    fn deliver(&self, Undelivered { sequence, delivery, .. }: &Undelivered) {
        let _ = self.out.send(Command::new(CommandStatus::EsmeRok, *sequence, delivery.clone()));
    }
}

impl State {
    fn next_sequence(&mut self) -> u32 {
        self.last_sequence += 1;
        self.last_sequence
    }

    fn deliver(&mut self, account: Option<String>, delivery: DeliverSm) {
        let undelivered = Undelivered { sequence: self.next_sequence(), account, delivery };
        if let Some(session) = self.sessions.iter().find(|session| undelivered.is_for(session)) {
            session.deliver(&undelivered);
        }
        self.undelivered.push_back(undelivered);
    }

    fn bind(&mut self, bind: Bind, password: &str, number: u32, out: mpsc::UnboundedSender<Command>) -> CommandStatus {
        let Some(account) = self.accounts.get(bind.system_id.as_str()) else { return CommandStatus::EsmeRinvsysid };
        if account.password != password {
            return CommandStatus::EsmeRbindfail;
        }
        let now = self.sessions.iter().filter(|session| session.system_id == bind.system_id).count();
        if now >= account.most_binds {
            return CommandStatus::EsmeRalybnd;
        }
        self.sessions.push(Session { number, role: bind.role, system_id: bind.system_id.clone(), out });
        self.binds.push(bind);
        CommandStatus::EsmeRok
    }

    /// What is still to be delivered goes out again on a new bind.
    fn deliver_again(&self, number: u32) {
        let Some(session) = self.sessions.iter().find(|session| session.number == number) else { return };
        for undelivered in self.undelivered.iter().filter(|undelivered| undelivered.is_for(session)) {
            session.deliver(undelivered);
        }
    }

    /// Takes a message; `false` ends the connection.
    fn submit(&mut self, number: u32, sequence: u32, submit: &SubmitSm, out: &mpsc::UnboundedSender<Command>) -> bool {
        self.submits.push(submit.clone());
        let sender = self.sessions.iter().find(|session| session.number == number);
        let account = sender.and_then(|session| self.accounts.get(&session.system_id));
        if let Some(tap) = account.and_then(|account| account.tap.as_ref()) {
            let _ = tap.send(submit.clone());
        }
        let conduct = self.conduct.clone();
        let answer = |status, id: &str| {
            let id = COctetString::from_str(id).expect("an id");
            let _ = out.send(Command::new(status, sequence, SubmitSmResp::new(id, Vec::new())));
        };
        match conduct.answer {
            Answer::Says(status) => {
                answer(status, "");
                return true;
            }
            Answer::Nothing => return true,
            Answer::Takes | Answer::HangsUp => {}
        }
        self.last_id += 1;
        let id = 0x1a2b_0000 + self.last_id;
        let answers = conduct.answer == Answer::Takes;
        if answers && !conduct.receipt_first {
            answer(CommandStatus::EsmeRok, &format!("{id:08X}"));
        }
        for state in conduct.states {
            self.deliver(None, receipt(id, submit.destination_addr.as_str(), state, conduct.naming));
        }
        if answers && conduct.receipt_first {
            answer(CommandStatus::EsmeRok, &format!("{id:08X}"));
        }
        if conduct.echo {
            let payload = submit.tlvs().iter().find_map(|parameter| match parameter.value() {
                Some(TlvValue::MessagePayload(payload)) => Some(payload.value.as_ref().to_vec()),
                _ => None,
            });
            let text = payload.unwrap_or_else(|| submit.short_message().as_ref().to_vec());
            let mut echo = mobile_originated(&text[..text.len().min(255)], u8::from(submit.data_coding));
            echo.esm_class = submit.esm_class;
            self.deliver(None, echo);
        }
        answers
    }

    fn delivered(&mut self, sequence: u32, status: CommandStatus) {
        self.answers.push((sequence, status));
        // "Not now" keeps it; "never" and "taken" do not.
        if status != CommandStatus::EsmeRxTAppn {
            self.undelivered.retain(|undelivered| undelivered.sequence != sequence);
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        number += 1;
        connections.spawn(connection(stream, state.clone(), number));
    }
}

async fn connection(stream: TcpStream, state: Arc<Mutex<State>>, number: u32) {
    serve(stream, &state, number).await;
    state.lock().expect("nobody panicked").sessions.retain(|session| session.number != number);
}

async fn serve(stream: TcpStream, state: &Arc<Mutex<State>>, number: u32) {
    let mut framed = Framed::new(stream, CommandCodec::new().without_max_length());
    let (out, mut queue) = mpsc::unbounded_channel::<Command>();
    loop {
        tokio::select! {
            command = framed.next() => {
                let Some(Ok(command)) = command else { return };
                let goes_on = take(&command, &mut state.lock().expect("nobody panicked"), number, &out);
                if !goes_on {
                    // What was said before goes out first.
                    while let Ok(command) = queue.try_recv() {
                        let _ = framed.send(command).await;
                    }
                    return;
                }
            }
            Some(command) = queue.recv() => {
                if framed.send(command).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn take(command: &Command, state: &mut State, number: u32, out: &mpsc::UnboundedSender<Command>) -> bool {
    let sequence = command.sequence_number();
    let say = |status, pdu: Pdu| {
        let _ = out.send(Command::new(status, sequence, pdu));
    };
    let id = COctetString::from_str("smsc").expect("a name");
    let mut bind = |system_id: &COctetString<1, 16>, password: &COctetString<1, 9>, version| {
        let bind = Bind { role: command.id(), system_id: system_id.as_str().to_owned(), version };
        state.bind(bind, password.as_str(), number, out.clone())
    };
    match command.pdu() {
        Some(Pdu::BindTransmitter(request)) => {
            let status = bind(&request.system_id, &request.password, request.interface_version.into());
            say(status, BindTransmitterResp::new(id, None).into());
        }
        Some(Pdu::BindReceiver(request)) => {
            let status = bind(&request.system_id, &request.password, request.interface_version.into());
            say(status, BindReceiverResp::new(id, None).into());
        }
        Some(Pdu::BindTransceiver(request)) => {
            let status = bind(&request.system_id, &request.password, request.interface_version.into());
            say(status, BindTransceiverResp::new(id, Some(InterfaceVersion::Smpp3_4)).into());
        }
        Some(Pdu::SubmitSm(submit)) => return state.submit(number, sequence, submit, out),
        Some(Pdu::EnquireLink) => {
            state.enquiries += 1;
            say(CommandStatus::EsmeRok, Pdu::EnquireLinkResp);
        }
        Some(Pdu::Unbind) => {
            state.unbinds += 1;
            say(CommandStatus::EsmeRok, Pdu::UnbindResp);
            return false;
        }
        _ if command.id() == CommandId::DeliverSmResp => state.delivered(sequence, command.status()),
        _ => {}
    }
    let is_bind =
        matches!(command.id(), CommandId::BindTransmitter | CommandId::BindReceiver | CommandId::BindTransceiver);
    if is_bind {
        state.deliver_again(number);
    }
    true
}
