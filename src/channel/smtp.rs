//! SMTP: hands a mail to a server and waits for its word after the final dot.
//!
//! Each mail has a connection of its own, and the conversation is held command by command: what a failure means depends on how
//! far it had got. Before the final dot nothing was taken, after it everything may have been.

mod conversation;
mod letter;
mod refusal;

#[cfg(any(test, fuzzing))]
pub(crate) use conversation::fuzz;

use std::time::Duration;

use futures_util::future::BoxFuture;
use lettre::message::Mailbox;

use crate::channel::dial::Limit;
use crate::channel::mail::{MailServer, Way};
use crate::channel::refusal::Refusal;
use crate::channel::smtp::conversation::Conversation;
use crate::channel::{Channel, Listener, cannot};
use crate::clock::Clock;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};

/// Settings of an `smtp` channel.
#[derive(Clone, Debug)]
pub struct SmtpSettings {
    /// The server that takes our mail.
    pub server: MailServer,
    /// The sender, with an optional display name.
    pub from: String,
    /// The recipients, unless a step says otherwise; one mail goes to all of them.
    pub to: Vec<String>,
}

/// An `smtp` channel.
pub struct Smtp {
    settings: SmtpSettings,
    from: Mailbox,
    to: Vec<Mailbox>,
    way: Way,
    clock: Clock,
}

/// A channel with these settings. Nothing is connected before it is needed.
///
/// # Errors
/// In words: an address that is none, certificates that cannot be read.
pub fn open(settings: SmtpSettings, clock: Clock) -> Result<Smtp, String> {
    let from = letter::mailbox(&settings.from).map_err(|why| format!("`from`: {why}"))?;
    let to = settings.to.iter().map(|text| letter::mailbox(text)).collect::<Result<_, _>>();
    let to = to.map_err(|why| format!("`to`: {why}"))?;
    let way = settings.server.way()?;
    Ok(Smtp { settings, from, to, way, clock })
}

impl Smtp {
    /// One mail, over a connection of its own, all within the message's timeout. Nothing is sent twice.
    async fn deliver(&self, outgoing: &Outgoing) -> Result<Reply, Fault> {
        let asked = self.clock.now();
        let limit = Limit::new(self.clock, outgoing.timeout);
        let mut phases = Vec::new();
        let greeted = async {
            let letter = letter::letter(&self.from, &self.to, outgoing, asked.wall)
                .map_err(|why| Refusal::new(Cause::Refused, why))?;
            Ok((letter, self.greet(limit, &mut phases).await?))
        };
        let (letter, mut conversation) = match Box::pin(greeted).await {
            Ok(greeted) => greeted,
            Err(refusal) => {
                let refusal: Refusal = refusal;
                return Err(refusal.before_sending().into_fault(asked, self.clock.now(), phases));
            }
        };
        let started = self.clock.now();
        let answer = match conversation.announce(&letter.from, &letter.to, letter.bytes.len()).await {
            Ok(()) => {
                phases.push(self.phase("envelope", started));
                let content = self.clock.now();
                let answer = conversation.content(&letter.bytes).await;
                phases.push(self.phase("content", content));
                answer
            }
            Err(refusal) => {
                phases.push(self.phase("envelope", started));
                Err(refusal)
            }
        };
        let finished = self.clock.now();
        conversation.quit().await;
        match answer {
            Ok(ack) => Ok(Reply { started, finished, ack, message: None, phases }),
            Err(refusal) => Err(refusal.into_fault(started, finished, phases)),
        }
    }

    /// A conversation in which the next word is the sender's address.
    async fn greet(&self, limit: Limit, phases: &mut Vec<Phase>) -> Result<Conversation, Refusal> {
        let dialed = self.way.dialer.connect(limit).await?;
        phases.extend(dialed.phases);
        let began = self.clock.now();
        let mut conversation = Conversation::begin(dialed.stream, dialed.peer, limit).await?;
        phases.push(self.phase("greeting", began));
        if let Some(config) = &self.way.upgrade {
            let began = self.clock.now();
            conversation = conversation.start_tls(&self.settings.server.host, config.clone()).await?;
            phases.push(self.phase("starttls", began));
        }
        if let Some(login) = &self.settings.server.login {
            let began = self.clock.now();
            conversation.sign_in(login).await?;
            phases.push(self.phase("login", began));
        }
        Ok(conversation)
    }

    fn phase(&self, name: &str, began: crate::time::Now) -> Phase {
        Phase { name: name.to_owned(), took: self.clock.now().mono.since(began.mono) }
    }

    async fn knock(&self, within: Duration) -> Result<String, Fault> {
        let asked = self.clock.now();
        let mut phases = Vec::new();
        match self.greet(Limit::new(self.clock, within), &mut phases).await {
            Ok(conversation) => {
                let who = if self.settings.server.login.is_some() { "takes our credentials" } else { "greets us" };
                let told = format!("{} {who}", conversation.peer());
                conversation.quit().await;
                Ok(told)
            }
            Err(refusal) => Err(refusal.before_sending().into_fault(asked, self.clock.now(), phases)),
        }
    }
}

impl Channel for Smtp {
    /// Hands the mail over; acknowledged by the server's words after the final dot.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(self.deliver(outgoing))
    }

    fn check<'a>(&'a self, _outgoing: &'a Outgoing) -> BoxFuture<'a, Result<Reply, Fault>> {
        Box::pin(async { Err(cannot(self.clock, "a mail server that sends has nothing to look at")) })
    }

    /// Connects, agrees on TLS and says who we are; names no recipient.
    fn prove<'a>(&'a self, limit: Duration) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(self.knock(limit))
    }

    fn listen<'a>(&'a self, listener: Listener) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let why = "an `smtp` channel only sends; receive the mail on an `imap` channel";
            crate::channel::receiving::never_receives(&listener, why).await;
        })
    }
}
