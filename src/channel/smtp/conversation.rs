//! One SMTP conversation (RFC 5321), command by command.

use std::sync::Arc;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::extension::ClientId;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout_at;
use zeroize::Zeroizing;

use super::refusal::{Reply, Stage, refused};
use crate::channel::dial::{Limit, Stream, agree_on_tls};
use crate::channel::mail::{Login, no_starttls};
use crate::channel::refusal::Refusal;
use crate::channel::seen::note;
use crate::journey::outcome::Cause;
use crate::journey::seen::What;
use crate::secret::{MASK, base64};

/// A reply's line has at most 512 bytes (RFC 5321, 4.5.3.1.5); some servers say more.
const LONGEST_LINE: usize = 4_096;
/// No reply that means anything has more lines.
const MOST_LINES: usize = 128;
/// A server that has given its answer owes us nothing any more.
const GOODBYE: Duration = Duration::from_secs(1);

/// A conversation whose next words are ours.
pub(super) struct Conversation {
    stream: Stream,
    /// Read, and not looked at yet.
    read: Vec<u8>,
    peer: String,
    limit: Limit,
    /// What the server offers, as it said it in answer to our name.
    offers: Vec<String>,
}

impl Conversation {
    /// Hears the server's greeting and says our name, all within `limit`, as everything else that is said.
    pub(super) async fn begin(stream: Stream, peer: String, limit: Limit) -> Result<Conversation, Refusal> {
        let mut conversation = Conversation { stream, read: Vec::new(), peer, limit, offers: Vec::new() };
        let greeting = conversation.hear(Stage::Greeting).await?;
        note(What::Banner, &greeting.lines.join(" "));
        if !greeting.is_yes() {
            return Err(refused(Stage::Greeting, &greeting, &conversation.peer, ""));
        }
        conversation.hello().await?;
        Ok(conversation)
    }

    /// `host:port`, for messages.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    async fn hello(&mut self) -> Result<(), Refusal> {
        let answer = self.ask(Stage::Greeting, &format!("EHLO {}", ClientId::default()), "").await?;
        self.offers = answer.lines.into_iter().skip(1).map(|line| line.to_uppercase()).collect();
        Ok(())
    }

    /// What follows the keyword of an extension that the server offers.
    fn offer(&self, keyword: &str) -> Option<&str> {
        self.offers.iter().find_map(|offer| {
            let rest = offer.strip_prefix(keyword)?;
            (rest.is_empty() || rest.starts_with([' ', '='])).then(|| rest.trim_start_matches(['=', ' ']))
        })
    }

    /// Agrees on TLS in mid-conversation, and begins it anew (RFC 3207).
    pub(super) async fn start_tls(mut self, host: &str, config: Arc<ClientConfig>) -> Result<Conversation, Refusal> {
        if self.offer("STARTTLS").is_none() {
            return Err(no_starttls(&self.peer, "`smtps://` (port 465)"));
        }
        self.ask(Stage::StartTls, "STARTTLS", "").await?;
        let Stream::Plain(tcp) = self.stream else {
            return Err(Refusal::new(Cause::Tls, format!("{} is spoken to by TLS already", self.peer)));
        };
        // Whoever sits on the connection could append replies to the server's `220` in the clear, to pass for its own under TLS
        // (https://nostarttls.secvuln.info/).
        if !self.read.is_empty() {
            let detail =
                format!("{} was made to say more than one answer before TLS began: nothing was sent", self.peer);
            return Err(Refusal::new(Cause::Tls, detail));
        }
        let tls = agree_on_tls(tcp, host, &self.peer, config, self.limit).await?;
        let stream = Stream::Tls(Box::new(tls));
        let mut conversation = Conversation { stream, offers: Vec::new(), ..self };
        conversation.hello().await?;
        Ok(conversation)
    }

    /// Says who we are (RFC 4954).
    pub(super) async fn sign_in(&mut self, login: &Login) -> Result<(), Refusal> {
        let mechanisms = self.offer("AUTH").unwrap_or_default();
        let has = |name: &str| mechanisms.split(' ').any(|mechanism| mechanism == name);
        let (has_plain, has_login) = (has("PLAIN"), has("LOGIN"));
        let password = login.password.reveal();
        let signed = if has_plain {
            let secret = base64(format!("\0{}\0{}", login.user, *password).as_bytes());
            self.tell(&format!("AUTH PLAIN {secret}"), &secret, &login.user).await.map(drop)
        } else if has_login {
            self.say_login(&login.user, &password).await
        } else {
            let detail = format!(
                "{} offers no way to sign in that we have (PLAIN, LOGIN), so nothing was sent: many servers offer them only under TLS",
                self.peer
            );
            Err(Refusal::new(Cause::Auth, detail))
        };
        // Some servers repeat what they were given.
        signed.map_err(|refusal| Refusal { detail: refusal.detail.replace(password.as_str(), MASK), ..refusal })
    }

    async fn say_login(&mut self, user: &str, password: &str) -> Result<(), Refusal> {
        self.tell("AUTH LOGIN", "", user).await?;
        self.tell(&base64(user.as_bytes()), "", user).await?;
        let secret = base64(password.as_bytes());
        self.tell(&secret, &secret, user).await.map(drop)
    }

    /// A step of signing in, whose words hold a secret.
    async fn tell(&mut self, command: &str, secret: &str, user: &str) -> Result<Reply, Refusal> {
        let command = Zeroizing::new(command.to_owned());
        let asked = self.ask(Stage::Auth, &command, &format!("user `{user}`")).await;
        asked.map_err(|refusal| match secret {
            "" => refusal,
            secret => Refusal { detail: refusal.detail.replace(secret, MASK), ..refusal },
        })
    }

    /// Names the sender and every recipient, and announces the content. One recipient refused is a refusal of the whole: the
    /// others are sent nothing.
    pub(super) async fn announce(&mut self, from: &Address, to: &[Address], size: usize) -> Result<(), Refusal> {
        let size = if self.offer("SIZE").is_some() { format!(" SIZE={size}") } else { String::new() };
        self.ask(Stage::Sender, &format!("MAIL FROM:<{from}>{size}"), from.as_ref()).await?;
        let mut refusals = Vec::new();
        for recipient in to {
            self.write(format!("RCPT TO:<{recipient}>\r\n").as_bytes(), Stage::Recipient).await?;
            let reply = self.hear(Stage::Recipient).await?;
            if !reply.is_yes() {
                refusals.push(refused(Stage::Recipient, &reply, &self.peer, recipient.as_ref()));
            }
        }
        let count = refusals.len();
        if let Some(first) = refusals.first() {
            let words: Vec<_> = refusals.iter().map(|refusal| refusal.detail.as_str()).collect();
            let detail = match to.len() {
                1 => first.detail.clone(),
                all => {
                    format!("{count} of {all} recipients refused, so nobody was sent anything: {}", words.join("; "))
                }
            };
            return Err(Refusal { cause: first.cause, detail, is_verdict: true });
        }
        let reply = self.ask(Stage::Data, "DATA", "").await?;
        if reply.is_more() { Ok(()) } else { Err(self.out_of_step(&reply)) }
    }

    /// Sends the content and the final dot; the server's words on it. Until the dot has left, nothing can have been taken.
    pub(super) async fn content(&mut self, content: &[u8]) -> Result<String, Refusal> {
        self.write(&stuffed(content), Stage::Data).await?;
        self.write(b".\r\n", Stage::Dot).await?;
        let reply = self.hear(Stage::Dot).await?;
        if reply.is_yes() { Ok(reply.words()) } else { Err(refused(Stage::Dot, &reply, &self.peer, "")) }
    }

    /// Says goodbye, so that the server's log shows no client that vanished.
    pub(super) async fn quit(mut self) {
        let goodbye = async {
            self.write(b"QUIT\r\n", Stage::Greeting).await?;
            self.hear(Stage::Greeting).await
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    /// A command, and the answer to it; a no is a refusal of `about`.
    async fn ask(&mut self, stage: Stage, command: &str, about: &str) -> Result<Reply, Refusal> {
        self.write(Zeroizing::new(format!("{command}\r\n")).as_bytes(), stage).await?;
        let reply = self.hear(stage).await?;
        if reply.is_yes() || reply.is_more() { Ok(reply) } else { Err(refused(stage, &reply, &self.peer, about)) }
    }

    async fn write(&mut self, bytes: &[u8], stage: Stage) -> Result<(), Refusal> {
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(self.limit.instant(), writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(stage, &error.to_string())),
            Err(_) => Err(self.silent(stage)),
        }
    }

    /// The server's next reply: lines of one code, of which all but the last have a hyphen behind it (RFC 5321, 4.2.1).
    async fn hear(&mut self, stage: Stage) -> Result<Reply, Refusal> {
        let mut lines = Vec::new();
        loop {
            let line = self.line(stage).await?;
            let Some((code, is_last, text)) = parse(&line) else {
                return Err(self.lost(stage, "it answered something that is not SMTP"));
            };
            lines.push(text.to_owned());
            if is_last {
                return Ok(Reply { code, lines });
            }
            if lines.len() >= MOST_LINES {
                return Err(self.lost(stage, "its answer has no end"));
            }
        }
    }

    async fn line(&mut self, stage: Stage) -> Result<String, Refusal> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.read.len() > LONGEST_LINE {
                return Err(self.lost(stage, "its answer has no end"));
            }
            match timeout_at(self.limit.instant(), self.stream.read_buf(&mut self.read)).await {
                Ok(Ok(0)) => return Err(self.lost(stage, "it ended the connection")),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.lost(stage, &error.to_string())),
                Err(_) => return Err(self.silent(stage)),
            }
        }
    }

    fn out_of_step(&self, reply: &Reply) -> Refusal {
        Refusal::lost(&self.peer, format!("it answered out of step: {}", reply.words())).before_sending()
    }

    fn lost(&self, stage: Stage, why: &str) -> Refusal {
        let lost = Refusal::lost(&self.peer, format!("{why}, while {}", doing(stage)));
        unanswered(stage, lost)
    }

    fn silent(&self, stage: Stage) -> Refusal {
        unanswered(stage, Refusal::silence(doing(stage), &self.peer, self.limit.length()))
    }
}

fn doing(stage: Stage) -> &'static str {
    match stage {
        Stage::Greeting => "greeting it",
        Stage::StartTls => "asking it for TLS",
        Stage::Auth => "signing in",
        Stage::Sender => "naming the sender",
        Stage::Recipient => "naming a recipient",
        Stage::Data => "handing over the mail",
        Stage::Dot => "waiting for its word on the mail",
    }
}

/// Without an answer, the server may have taken the mail if it had all of it, and cannot have before.
fn unanswered(stage: Stage, refusal: Refusal) -> Refusal {
    if stage == Stage::Dot { Refusal { cause: Cause::Uncertain, ..refusal } } else { refusal.before_sending() }
}

/// Code, whether it is the last line of its reply, and text.
fn parse(line: &str) -> Option<(u16, bool, &str)> {
    let code = line.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))?;
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    match line.as_bytes().get(3) {
        None => Some((code, true, "")),
        Some(b' ') => Some((code, true, line.get(4..)?)),
        Some(b'-') => Some((code, false, line.get(4..)?)),
        Some(_) => None,
    }
}

/// The content with its lines' leading dots doubled (RFC 5321, 4.5.2) and an end of line at its end.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Lines of a server's reply, and what it means at every stage.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut reply = Reply { code: 0, lines: Vec::new() };
    for (code, is_last, words) in text.lines().map_while(parse) {
        reply.code = code;
        reply.lines.push(words.to_owned());
        if is_last {
            break;
        }
    }
    use Stage::{Auth, Data, Dot, Greeting, Recipient, Sender, StartTls};
    for stage in [Greeting, StartTls, Auth, Sender, Recipient, Data, Dot] {
        let refusal = refused(stage, &reply, "127.0.0.1:25", "ops@example.net");
        assert!(!refusal.detail.contains(char::is_control), "{refusal:?}");
    }
    let content = stuffed(data);
    assert!(content.ends_with(b"\r\n") && !content.starts_with(b".\r\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_replies_are_read_and_others_are_not() {
        assert_eq!(parse("250-SIZE 1000"), Some((250, false, "SIZE 1000")));
        assert_eq!(parse("250 ok"), Some((250, true, "ok")));
        assert_eq!(parse("354"), Some((354, true, "")));
        for line in ["", "2", "25", "HTTP/1.1 400 Bad Request", "2500 x", "199 x", "650 x", "+OK", "2é0 x", "-12 x"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn leading_dots_are_doubled_and_the_last_line_has_an_end() {
        assert_eq!(stuffed(b".\r\na.\r\n..b"), b"..\r\na.\r\n...b\r\n");
        assert_eq!(stuffed(b"a\r\n"), b"a\r\n");
        assert_eq!(stuffed(b""), b"\r\n");
    }
}
