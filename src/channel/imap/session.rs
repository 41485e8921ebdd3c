//! One IMAP session (RFC 3501): signed in, and spoken to command by command.
//!
//! async-imap's own commands take a `NO` for an empty answer, and a connection that ends for the end of one; a monitor must tell
//! them apart. So each command is run here, and its answers are read one by one to the last.

use std::time::Duration;

use async_imap::Client;
use async_imap::error::Error;
use async_imap::imap_proto::{Capability, MailboxDatum, RequestId, Response, Status};
use tokio::time::{timeout, timeout_at};

use super::sign_in::{said, sign_in};
use crate::channel::dial::{Limit, Stream, agree_on_tls};
use crate::channel::mail::{MailServer, Way, no_starttls, one_line};
use crate::channel::refusal::Refusal;
use crate::channel::seen::note;
use crate::journey::outcome::Cause;
use crate::journey::seen::What;

/// No answer is this long in coming from a server that lives.
const ANSWER: Duration = Duration::from_secs(10);
/// A server that we leave owes us nothing any more.
const GOODBYE: Duration = Duration::from_secs(1);
/// Of what a server says, this much is kept.
pub(super) const WORDS: usize = 300;

/// A session that is signed in.
pub(super) struct Session {
    inner: async_imap::Session<Stream>,
    pub(super) peer: String,
    pub(super) can: Can,
    /// The server said that a mail came, and nobody has looked since.
    pub(super) noticed: bool,
    /// The IDLE that is under way.
    idle: Option<RequestId>,
}

/// What the server can do beyond the plain protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Can {
    /// RFC 2177.
    pub(super) idle: bool,
    /// RFC 4315: deletes what is named, and nothing else.
    pub(super) uid_expunge: bool,
    /// RFC 6154: says which folder is for spam.
    pub(super) special_use: bool,
}

impl Session {
    /// Connects, protects the connection, signs in.
    ///
    /// # Errors
    /// Name not resolved, nothing listening, TLS, credentials, or `limit` passed: each with its own words.
    pub(super) async fn open(server: &MailServer, way: &Way, limit: Limit) -> Result<Session, Refusal> {
        let dialed = way.dialer.connect(limit).await?;
        let peer = dialed.peer;
        let within = limit.length();
        let signing = async {
            let mut client = greeted(dialed.stream, &peer).await?;
            if let Some(config) = &way.upgrade {
                client.run_command_and_check_ok("STARTTLS", None).await.map_err(|error| match error {
                    Error::No(_) | Error::Bad(_) => no_starttls(&peer, "`imaps://` (port 993)"),
                    other => failed(&other, &peer, "asking for TLS"),
                })?;
                // What was read already goes with the client: nothing that somebody appended in the clear passes for the server's
                // own word under TLS (https://nostarttls.secvuln.info/).
                let Stream::Plain(tcp) = client.into_inner() else {
                    return Err(Refusal::new(Cause::Tls, format!("{peer} is spoken to by TLS already")));
                };
                let tls = agree_on_tls(tcp, &server.host, &peer, config.clone(), limit).await?;
                client = Client::new(Stream::Tls(Box::new(tls)));
            }
            let Some(login) = &server.login else {
                return Err(Refusal::new(Cause::Auth, "the channel has no `username` and `password` to sign in with"));
            };
            let inner = sign_in(client, login, &peer).await?;
            let mut session = Session { inner, peer: peer.clone(), can: Can::default(), noticed: false, idle: None };
            session.can = session.capabilities().await?;
            Ok(session)
        };
        match timeout_at(limit.instant(), Box::pin(signing)).await {
            Ok(signed) => signed,
            Err(_) => Err(Refusal::silence("signing in", &peer, within)),
        }
    }

    /// Runs a command to its end; `each` sees every answer before the last. `what` says in words what is done.
    pub(super) async fn run(
        &mut self,
        command: &str,
        what: &str,
        each: impl FnMut(&Response<'_>) + Send,
    ) -> Result<(), Refusal> {
        let begun = timeout(ANSWER, self.inner.run_command(command)).await;
        let begun = begun.map_err(|_| Refusal::silence(what, &self.peer, ANSWER))?;
        let tag = begun.map_err(|error| failed(&error, &self.peer, what))?;
        self.answers(&tag, what, each).await
    }

    /// Every answer to the command of that tag, to its last.
    async fn answers(
        &mut self,
        tag: &RequestId,
        what: &str,
        mut each: impl FnMut(&Response<'_>) + Send,
    ) -> Result<(), Refusal> {
        loop {
            let read = timeout(ANSWER, self.inner.read_response()).await;
            let read = read.map_err(|_| Refusal::silence(what, &self.peer, ANSWER))?;
            let Some(response) = read.map_err(|error| garbled(&error, &self.peer, what))? else {
                return Err(Refusal::lost(&self.peer, format!("it ended the connection, while {what}")));
            };
            match response.parsed() {
                Response::Done { tag: done, status, outcome } if done == tag => {
                    let words = one_line(outcome.information.as_deref().unwrap_or_default(), WORDS);
                    return match status {
                        Status::Ok => Ok(()),
                        _ => Err(Refusal::new(Cause::Refused, format!("{} says no while {what}: {words}", self.peer))),
                    };
                }
                Response::Data { status: Status::Bye, outcome } => {
                    return Err(bye(outcome.information.as_deref(), &self.peer));
                }
                other => {
                    self.noticed |= matches!(other, Response::MailboxData(MailboxDatum::Exists(_)));
                    each(other);
                }
            }
        }
    }

    async fn capabilities(&mut self) -> Result<Can, Refusal> {
        let mut can = Can::default();
        self.run("CAPABILITY", "asking what it can do", |response| {
            let Response::Capabilities(all) = response else { return };
            let has = |name: &str| {
                all.iter().any(|one| matches!(one, Capability::Atom(found) if found.eq_ignore_ascii_case(name)))
            };
            can = Can { idle: has("IDLE"), uid_expunge: has("UIDPLUS"), special_use: has("SPECIAL-USE") };
        })
        .await?;
        Ok(can)
    }

    /// Begins to idle; from the server's `+` on it tells at once what comes.
    pub(super) async fn idle(&mut self) -> Result<(), Refusal> {
        const WHAT: &str = "beginning to idle";
        let begun = timeout(ANSWER, self.inner.run_command("IDLE")).await;
        let begun = begun.map_err(|_| Refusal::silence(WHAT, &self.peer, ANSWER))?;
        let tag = begun.map_err(|error| failed(&error, &self.peer, WHAT))?;
        loop {
            let read = timeout(ANSWER, self.inner.read_response()).await;
            let read = read.map_err(|_| Refusal::silence(WHAT, &self.peer, ANSWER))?;
            let Some(response) = read.map_err(|error| garbled(&error, &self.peer, WHAT))? else {
                return Err(Refusal::lost(&self.peer, "it ended the connection instead of idling"));
            };
            match response.parsed() {
                Response::Continue(_) => {
                    self.idle = Some(tag);
                    return Ok(());
                }
                Response::Done { tag: done, outcome, .. } if *done == tag => {
                    let words = one_line(outcome.information.as_deref().unwrap_or_default(), WORDS);
                    return Err(Refusal::new(Cause::Refused, format!("{} does not idle: {words}", self.peer)));
                }
                other => self.noticed |= matches!(other, Response::MailboxData(MailboxDatum::Exists(_))),
            }
        }
    }

    /// Whether an IDLE is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// In IDLE: waits until the server tells of a mail, or ends. May be given up at any point, and called again.
    pub(super) async fn told(&mut self) -> Result<(), Refusal> {
        loop {
            let read = self.inner.read_response().await.map_err(|error| garbled(&error, &self.peer, "idling"))?;
            let Some(response) = read else { return Err(Refusal::lost(&self.peer, "it ended the connection")) };
            match response.parsed() {
                Response::MailboxData(MailboxDatum::Exists(_)) => {
                    self.noticed = true;
                    return Ok(());
                }
                Response::Data { status: Status::Bye, outcome } => {
                    return Err(bye(outcome.information.as_deref(), &self.peer));
                }
                Response::Done { .. } => return Err(Refusal::lost(&self.peer, "it stopped idling by itself")),
                // Keep-alives, and what other clients do.
                _ => {}
            }
        }
    }

    /// Ends the IDLE, if there is one.
    pub(super) async fn wake(&mut self) -> Result<(), Refusal> {
        const WHAT: &str = "ending the idling";
        let Some(tag) = self.idle.take() else { return Ok(()) };
        let told = timeout(ANSWER, self.inner.run_command_untagged("DONE")).await;
        let told = told.map_err(|_| Refusal::silence(WHAT, &self.peer, ANSWER))?;
        told.map_err(|error| failed(&error, &self.peer, WHAT))?;
        self.answers(&tag, WHAT, |_| {}).await
    }

    /// Says goodbye, so that the server's log shows no client that vanished.
    pub(super) async fn logout(&mut self) {
        let goodbye = async {
            self.wake().await?;
            self.run("LOGOUT", "saying goodbye", |_| {}).await
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

/// A client that has heard the server's greeting.
async fn greeted(stream: Stream, peer: &str) -> Result<Client<Stream>, Refusal> {
    let mut client = Client::new(stream);
    let greeting = client.read_response().await.map_err(|error| garbled(&error, peer, "greeting it"))?;
    let Some(greeting) = greeting else {
        return Err(Refusal::lost(peer, "it ended the connection without a greeting"));
    };
    if let Response::Data { outcome, .. } = greeting.parsed() {
        note(What::Banner, outcome.information.as_deref().unwrap_or_default());
    }
    match greeting.parsed() {
        Response::Data { status: Status::Ok, .. } => Ok(client),
        Response::Data { outcome, .. } => Err(bye(outcome.information.as_deref(), peer)),
        _ => Err(Refusal::lost(peer, "its greeting is not IMAP")),
    }
}

pub(super) fn failed(error: &Error, peer: &str, what: &str) -> Refusal {
    match error {
        Error::Io(error) => garbled(error, peer, what),
        Error::No(text) | Error::Bad(text) => {
            Refusal::new(Cause::Refused, format!("{peer} says no while {what}: {}", said(text)))
        }
        Error::ConnectionLost => Refusal::lost(peer, format!("it ended the connection, while {what}")),
        other => Refusal::lost(peer, format!("{other}, while {what}")),
    }
}

/// An answer that did not come, or cannot be read. The library repeats what it cannot read, which may be anybody's mail: we do not.
fn garbled(error: &std::io::Error, peer: &str, what: &str) -> Refusal {
    let why = match error.kind() {
        std::io::ErrorKind::Other => "what it says cannot be read as IMAP".to_owned(),
        std::io::ErrorKind::UnexpectedEof => "it ended the connection".to_owned(),
        _ => error.to_string(),
    };
    Refusal::lost(peer, format!("{why}, while {what}"))
}

fn bye(words: Option<&str>, peer: &str) -> Refusal {
    Refusal::lost(peer, format!("it ended the session: {}", one_line(words.unwrap_or("no reason given"), WORDS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_repeated() {
        let error = std::io::Error::other("Error during parsing of \"* 1 FETCH somebody's mail\"");
        let refusal = garbled(&error, "imap:143", "fetching mails");
        assert_eq!(
            refusal.detail,
            "lost the connection to imap:143: what it says cannot be read as IMAP, while fetching mails"
        );
    }
}
