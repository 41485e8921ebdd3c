//! A sandbox mail server: takes what it is sent by SMTP (RFC 5321) and keeps the newest, for people to read.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::mime::{self, Letter};
use super::ring::Ring;
use super::smtp::{Next, Session};
use crate::clock::Clock;

/// Mail for this address is announced to a webhook.
pub const DRILLS: &str = "drills@demo.invalid";
/// This many mails are kept.
pub const KEPT: usize = 100;

/// A mail, as it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// When its last line was here.
    pub at: Timestamp,
    /// The envelope's sender.
    pub sender: String,
    /// The envelope's recipients.
    pub recipients: Vec<String>,
    /// What is in it.
    pub letter: Letter,
}

/// The mails, bounded.
pub struct Mailbox {
    mails: Mutex<Ring<Mail>>,
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> Arc<Mailbox> {
        Arc::new(Mailbox { mails: Mutex::new(Ring::new(KEPT)) })
    }

    /// The mails, the newest first.
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    fn put(&self, mail: Mail) {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
    }
}

/// Where mail for [`DRILLS`] is announced, as mail providers do by a rule of their customers.
pub struct Rule {
    /// The webhook.
    pub hook: String,
    /// Its bearer token.
    pub key: String,
    /// Calls it.
    pub client: reqwest::Client,
}

impl Rule {
    /// Announces a mail if it is for that address. One that the webhook does not take is not announced again.
    async fn announce(&self, mail: &Mail) {
        if !mail.recipients.iter().any(|recipient| recipient == DRILLS) {
            return;
        }
        let Letter { subject, from, to, text, .. } = &mail.letter;
        let body = json!({ "from": from, "to": to, "subject": subject, "text": text }).to_string();
        let call = self.client.post(&self.hook).bearer_auth(&self.key).header("content-type", "application/json");
        let taken = call.body(body).send().await.and_then(reqwest::Response::error_for_status);
        if let Err(error) = taken {
            tracing::warn!(%error, "a mail of the sandbox could not be announced");
        }
    }
}

/// Serves SMTP on a loopback port of its own, in `tasks`, until `stop`.
///
/// # Errors
/// No port could be had.
pub async fn serve(
    mailbox: Arc<Mailbox>,
    rule: Rule,
    clock: Clock,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (accepting, stop, rule) = (tasks.clone(), stop.clone(), Arc::new(rule));
    tasks.spawn(async move {
        let permits = Arc::new(Semaphore::new(MAX_SESSIONS));
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = take(&listener, &permits) => taken,
            };
            match taken {
                Ok((stream, permit)) => {
                    let (mailbox, rule, stop) = (mailbox.clone(), rule.clone(), stop.clone());
                    accepting.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            ended = converse(stream, &mailbox, &rule, clock) => log_end(ended),
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the sandbox's mail server cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(address)
}

async fn take(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

fn log_end(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an SMTP session of the sandbox was cut");
    }
}

async fn converse(mut stream: TcpStream, mailbox: &Mailbox, rule: &Rule, clock: Clock) -> io::Result<()> {
    // Replies are small and each is waited for.
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let mut session = Session::default();
    write.write_all(Session::GREETING.as_bytes()).await?;
    loop {
        let line = match tokio::time::timeout(IDLE, read_line(&mut read)).await {
            Err(_) => return write.write_all(b"421 4.4.2 idle for too long\r\n").await,
            Ok(line) => line?,
        };
        let Some(line) = line else { return Ok(()) };
        match session.line(&line) {
            Next::Silence => {}
            Next::Say(reply) => write.write_all(reply.as_bytes()).await?,
            Next::Quit(reply) => return write.write_all(reply.as_bytes()).await,
            Next::Take(envelope, reply) => {
                let letter = mime::read(&envelope.data);
                let at = clock.now().wall;
                // Kept before it is acknowledged: a 250 that is not true is what we are here to find in others.
                let mail = Mail { at, sender: envelope.sender, recipients: envelope.recipients, letter };
                mailbox.put(mail.clone());
                write.write_all(reply.as_bytes()).await?;
                // Whoever has more to send waits for the webhook: so announcements cannot pile up.
                rule.announce(&mail).await;
            }
        }
    }
}

/// One line up to and with its LF. Of one that is too long the rest is read and left out; what is kept is still too long, with and
/// without a stuffed dot, so that the session sees it. `None` at the end of the stream; a line without an end is not a line.
async fn read_line(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let available = read.fill_buf().await?;
        if available.is_empty() {
            return Ok(None);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.map_or(available.len(), |end| end + 1)];
        let room = (Session::MAX_LINE + 2).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len();
        read.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// RFC 5321 section 4.5.3.2.7 asks for five minutes.
const IDLE: Duration = Duration::from_secs(300);
/// Without file descriptors `accept` fails at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const MAX_SESSIONS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_whole() {
        let long = format!("{}\r\nnext\r\nrest", "x".repeat(5000));
        let mut read = BufReader::with_capacity(7, long.as_bytes());
        assert_eq!(read_line(&mut read).await.unwrap().unwrap().len(), Session::MAX_LINE + 2);
        assert_eq!(read_line(&mut read).await.unwrap().unwrap(), b"next\r\n");
        assert_eq!(read_line(&mut read).await.unwrap(), None);
    }

    #[test]
    fn the_oldest_mail_goes() {
        let mailbox = Mailbox::new();
        for serial in 0..KEPT + 5 {
            let letter = Letter { subject: serial.to_string(), ..Letter::default() };
            mailbox.put(Mail { at: Timestamp::UNIX_EPOCH, sender: String::new(), recipients: Vec::new(), letter });
        }
        let mails = mailbox.mails();
        assert_eq!(mails.len(), KEPT);
        assert_eq!((mails[0].letter.subject.as_str(), mails[KEPT - 1].letter.subject.as_str()), ("104", "5"));
    }
}
