//! One SMTP conversation for one message to one recipient (RFC 5321), and what its failures mean.
//!
//! The conversation is driven command by command, because what a lost connection means depends on how far it had got: before the
//! content it is safe to try again, afterwards the server may have taken the message.

use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::{Response, Severity};

use super::wire::Wire;
use super::{Security, one_line};
use crate::notifier::NotifyError;
use crate::time::Human;

/// From the connection to the server's word that it wants the content.
const BEFORE_CONTENT: Duration = Duration::from_secs(30);
/// From the first byte of the content to the server's word that it has taken it. Servers scan content before they answer.
const CONTENT: Duration = Duration::from_secs(30);
/// A server that has taken the message owes us nothing any more.
const GOODBYE: Duration = Duration::from_secs(1);
/// Of a reply, this much is kept.
const REPLY: usize = 300;

/// Where and how to hand over a message.
pub(super) struct Server<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) security: Security,
    /// Set unless `security` is plain.
    pub(super) tls: Option<&'a TlsParameters>,
    pub(super) credentials: Option<Credentials>,
}

/// How far a conversation has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Name, connection, greeting; TLS if it is there from the first byte.
    Connect,
    StartTls,
    Auth,
    Sender,
    Recipient,
    /// The announcement of the content.
    Data,
    /// The content, and the answer to its final dot.
    Content,
}

/// What went wrong, without where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server said no: 4xx or 5xx.
    Reply { code: u16, words: String },
    /// The handshake failed; most often the certificate.
    Tls(String),
    /// The server does not offer what we insist on.
    NotOffered,
    /// The connection could not be made, ended, or made no sense.
    Lost(String),
    /// No answer in time.
    Timeout(Duration),
}

/// Hands `content` over; gives the server's answer to the final dot.
///
/// # Errors
/// As [`judge`] says.
pub(super) async fn send(
    server: &Server<'_>,
    from: &Address,
    to: &Address,
    content: &[u8],
) -> Result<String, NotifyError> {
    let mut phase = Phase::Connect;
    let judge = |phase, failure| judge(phase, &failure, server, to.as_ref());
    let announced = tokio::time::timeout(BEFORE_CONTENT, announce(server, from, to, &mut phase)).await;
    let mut connection = match announced {
        Ok(Ok(connection)) => connection,
        Ok(Err(failure)) => return Err(judge(phase, failure)),
        Err(_) => return Err(judge(phase, Failure::Timeout(BEFORE_CONTENT))),
    };
    // lettre's own timeout covers the connect alone (lettre/lettre#1027). The connection is dropped with the future.
    let answer = match tokio::time::timeout(CONTENT, connection.message(content)).await {
        Ok(Ok(response)) if response.code().severity == Severity::PositiveCompletion => words(&response),
        Ok(Ok(response)) => return Err(judge(Phase::Content, out_of_step(&response))),
        Ok(Err(error)) => return Err(judge(Phase::Content, failure(&error))),
        Err(_) => return Err(judge(Phase::Content, Failure::Timeout(CONTENT))),
    };
    let _ = tokio::time::timeout(GOODBYE, connection.quit()).await;
    Ok(answer)
}

/// Connects and says who we are, and leaves again.
///
/// # Errors
/// As [`judge`] says.
pub(super) async fn prove(server: &Server<'_>, from: &Address) -> Result<(), NotifyError> {
    let mut phase = Phase::Connect;
    let judge = |phase, failure| judge(phase, &failure, server, from.as_ref());
    let entered = tokio::time::timeout(BEFORE_CONTENT, enter(server, &mut phase)).await;
    let mut connection = match entered {
        Ok(Ok(connection)) => connection,
        Ok(Err(failure)) => return Err(judge(phase, failure)),
        Err(_) => return Err(judge(phase, Failure::Timeout(BEFORE_CONTENT))),
    };
    let _ = tokio::time::timeout(GOODBYE, connection.quit()).await;
    Ok(())
}

/// Everything up to the server's `354`.
async fn announce(
    server: &Server<'_>,
    from: &Address,
    to: &Address,
    phase: &mut Phase,
) -> Result<AsyncSmtpConnection, Failure> {
    let mut connection = enter(server, phase).await?;
    *phase = Phase::Sender;
    connection.command(Mail::new(Some(from.clone()), Vec::new())).await.map_err(|e| failure(&e))?;
    *phase = Phase::Recipient;
    connection.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(|e| failure(&e))?;
    *phase = Phase::Data;
    let response = connection.command(Data).await.map_err(|e| failure(&e))?;
    if response.code().severity == Severity::PositiveIntermediate {
        Ok(connection)
    } else {
        Err(out_of_step(&response))
    }
}

/// A connection on which the server knows who we are.
async fn enter(server: &Server<'_>, phase: &mut Phase) -> Result<AsyncSmtpConnection, Failure> {
    let hello = ClientId::default();
    let wrapped = server.tls.filter(|_| server.security == Security::Tls).cloned();
    let mut connection = match wrapped {
        Some(tls) => {
            // Of several addresses, one that does not answer leaves time for the next.
            let each = Some(BEFORE_CONTENT / 3);
            let address = (server.host, server.port);
            AsyncSmtpConnection::connect_tokio1(address, each, &hello, Some(tls), None)
                .await
                .map_err(|e| failure(&e))?
        }
        None => {
            let wire = Wire::connect(server.host, server.port, BEFORE_CONTENT / 3).await;
            let wire = wire.map_err(|error| Failure::Lost(error.to_string()))?;
            AsyncSmtpConnection::connect_with_transport(Box::new(wire), &hello).await.map_err(|e| failure(&e))?
        }
    };
    if let Some(tls) = server.tls.filter(|_| server.security == Security::StartTls) {
        *phase = Phase::StartTls;
        connection.starttls(tls.clone(), &hello).await.map_err(|e| failure(&e))?;
    }
    if let Some(credentials) = &server.credentials {
        *phase = Phase::Auth;
        connection.auth(&[Mechanism::Plain, Mechanism::Login], credentials).await.map_err(|e| failure(&e))?;
    }
    Ok(connection)
}

fn words(response: &Response) -> String {
    let text: Vec<&str> = response.message().collect();
    one_line(&format!("{} {}", response.code(), text.join(" ")), REPLY)
}

fn out_of_step(response: &Response) -> Failure {
    Failure::Lost(format!("it answered out of step: {}", words(response)))
}

fn failure(error: &lettre::transport::smtp::Error) -> Failure {
    use std::error::Error as _;
    let said = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    if let Some(code) = error.status() {
        return Failure::Reply { code: code.into(), words: one_line(&said, REPLY) };
    }
    if let Some(tls) = crate::tls::error_in(error) {
        return Failure::Tls(tls.to_string());
    }
    // lettre says so of nothing but a missing extension or mechanism: the messages that we make need no other.
    if error.is_client() { Failure::NotOffered } else { Failure::Lost(one_line(&said, REPLY)) }
}

/// What a failure means for the notice. The words say what happened, where, and what to do.
pub(super) fn judge(phase: Phase, failure: &Failure, server: &Server<'_>, to: &str) -> NotifyError {
    let place = format!("{}:{}", server.host, server.port);
    let doing = match phase {
        Phase::Connect => format!("connecting to the mail server {place}"),
        Phase::StartTls => format!("asking the mail server {place} for TLS"),
        Phase::Auth => format!("signing in to the mail server {place}"),
        Phase::Sender => format!("naming the sender to the mail server {place}"),
        Phase::Recipient => format!("naming the recipient {to} to the mail server {place}"),
        Phase::Data => format!("announcing the message for {to} to the mail server {place}"),
        Phase::Content => format!("handing the message for {to} to the mail server {place}"),
    };
    match failure {
        Failure::Reply { code: code @ 400..=499, words } => {
            // RFC 6647: a greylisting server lets an unknown sender in when it comes back after some minutes.
            let grey = *code == 451 && matches!(phase, Phase::Recipient | Phase::Data | Phase::Content);
            let hint = if grey { "; usual for greylisting, tried again" } else { "" };
            NotifyError::Backoff(format!("{doing}: told to come back later: {code} {words}{hint}"))
        }
        Failure::Reply { code, words } => {
            NotifyError::Never(format!("{doing}: refused: {code} {words}; {}", advice(phase, *code)))
        }
        Failure::Tls(words) => NotifyError::Never(format!(
            "{doing}: TLS failed: {words}; nothing was sent. The server's certificate must be valid for this name and issued by an \
             authority that this machine trusts"
        )),
        Failure::NotOffered if phase == Phase::StartTls => NotifyError::Never(format!(
            "{doing}: it does not offer STARTTLS, so nothing was sent: either somebody strips it from the connection, or the server \
             wants `smtps://` (port 465)"
        )),
        Failure::NotOffered => NotifyError::Never(format!(
            "{doing}: it offers no way to sign in that we have (PLAIN, LOGIN), so nothing was sent: many servers offer them only under \
             TLS"
        )),
        Failure::Lost(words) if phase == Phase::Content => {
            NotifyError::Ambiguous(format!("{doing}: the connection was lost: {words}"))
        }
        Failure::Lost(words) => NotifyError::Backoff(format!("{doing}: {words}")),
        Failure::Timeout(limit) => {
            let text = format!("{doing}: no answer within {}", Human(*limit));
            if phase == Phase::Content { NotifyError::Ambiguous(text) } else { NotifyError::Backoff(text) }
        }
    }
}

/// What a person can do about a permanent refusal.
fn advice(phase: Phase, code: u16) -> &'static str {
    match (phase, code) {
        (Phase::Auth, _) => "check the user name and the password of this notifier",
        (_, 530) => {
            "the server wants TLS or a sign-in first: use `smtp+starttls://` or `smtps://`, and give user name and password"
        }
        (Phase::Connect | Phase::StartTls, _) => "ask the server's operator why this machine is not welcome",
        (Phase::Sender, _) => "check `from`: the server does not let us send as this address",
        (Phase::Recipient, _) => "check the address in `to`, and that this server relays to it for us",
        (Phase::Data | Phase::Content, _) => "ask the server's operator what it has against the message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Server<'static> =
        Server { host: "mail.example.net", port: 25, security: Security::Plain, tls: None, credentials: None };

    fn reply(code: u16) -> Failure {
        Failure::Reply { code, words: "words of the server".to_owned() }
    }

    #[test]
    fn every_failure_has_its_class_and_says_what_to_do() {
        use Phase::{Auth, Connect, Content, Data, Recipient, Sender, StartTls};
        let lost = || Failure::Lost("Connection reset by peer".to_owned());
        let late = || Failure::Timeout(Duration::from_secs(30));
        let certificate = || Failure::Tls("invalid peer certificate: UnknownIssuer".to_owned());
        let table = [
            (Connect, lost(), "backoff", "connecting to the mail server mail.example.net:25: Connection reset"),
            (Connect, late(), "backoff", "no answer within 30s"),
            (Connect, reply(421), "backoff", "421 words of the server"),
            (Connect, reply(554), "never", "not welcome"),
            (Connect, certificate(), "never", "UnknownIssuer; nothing was sent"),
            (StartTls, certificate(), "never", "UnknownIssuer; nothing was sent"),
            (StartTls, Failure::NotOffered, "never", "does not offer STARTTLS, so nothing was sent"),
            (StartTls, reply(454), "backoff", "454"),
            (StartTls, lost(), "backoff", "for TLS: Connection reset"),
            (Auth, reply(535), "never", "check the user name and the password"),
            (Auth, reply(454), "backoff", "454"),
            (Auth, Failure::NotOffered, "never", "no way to sign in"),
            (Sender, reply(451), "backoff", "come back later: 451 words of the server"),
            (Sender, reply(530), "never", "sign-in first"),
            (Sender, reply(550), "never", "check `from`"),
            (Recipient, reply(450), "backoff", "450"),
            (Recipient, reply(451), "backoff", "greylisting"),
            (Recipient, reply(452), "backoff", "452"),
            (
                Recipient,
                reply(550),
                "never",
                "ops@example.net to the mail server mail.example.net:25: refused: 550 words",
            ),
            (Recipient, late(), "backoff", "no answer"),
            (Data, reply(421), "backoff", "421"),
            (Data, reply(554), "never", "554"),
            (Data, lost(), "backoff", "announcing"),
            (Content, reply(451), "backoff", "greylisting"),
            (Content, reply(552), "never", "what it has against the message"),
            (Content, lost(), "ambiguous", "the connection was lost"),
            (Content, late(), "ambiguous", "no answer within 30s"),
        ];
        for (phase, failure, class, words) in table {
            let judged = judge(phase, &failure, &SERVER, "ops@example.net");
            let found = match &judged {
                NotifyError::Never(_) => "never",
                NotifyError::Backoff(_) => "backoff",
                NotifyError::After { .. } => "after",
                NotifyError::Ambiguous(_) => "ambiguous",
            };
            assert_eq!(found, class, "{phase:?} {failure:?}");
            assert!(judged.to_string().contains(words), "{phase:?} {failure:?}: {judged}");
        }
    }
}
