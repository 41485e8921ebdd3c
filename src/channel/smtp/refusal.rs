//! What a server's no means for the mail: by its code, and by how far the conversation had got. Pure.

use crate::channel::mail::one_line;
use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;

/// Of a reply, this much is kept.
const WORDS: usize = 300;

/// How far a conversation has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The server's first words, and the answer to ours.
    Greeting,
    /// Asking for TLS.
    StartTls,
    /// Saying who we are.
    Auth,
    /// Naming the sender.
    Sender,
    /// Naming a recipient.
    Recipient,
    /// Announcing the content.
    Data,
    /// The final dot: from here on the server may have the mail.
    Dot,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Its code (RFC 5321, 4.2.1).
    pub(super) code: u16,
    /// Its lines, without the code.
    pub(super) lines: Vec<String>,
}

impl Reply {
    /// Done, as asked.
    pub(super) fn is_yes(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Go on.
    pub(super) fn is_more(&self) -> bool {
        (300..400).contains(&self.code)
    }

    /// Code and words on one line, as the server said them.
    pub(super) fn words(&self) -> String {
        one_line(&format!("{} {}", self.code, self.lines.join(" ")), WORDS)
    }

    /// The enhanced status code (RFC 3463) without its class: 7 and 1 of `4.7.1`.
    fn enhanced(&self) -> Option<(u16, u16)> {
        let mut parts = self.lines.first()?.split(' ').next()?.split('.');
        let mut number = || parts.next()?.parse::<u16>().ok();
        let (class, subject, detail) = (number()?, number()?, number()?);
        matches!(class, 2 | 4 | 5).then_some((subject, detail))
    }

    fn says(&self, any: &[&str]) -> bool {
        let words = self.lines.join(" ").to_lowercase();
        any.iter().any(|word| words.contains(word))
    }

    /// RFC 6647: a server that greylists lets an unknown sender in when it comes back after some minutes. By the code alone it
    /// cannot be told from a mailbox that is busy.
    fn is_greylisting(&self) -> bool {
        matches!(self.code, 421 | 450 | 451)
            && self.says(&["greylist", "graylist", "grey-list", "gray-list", "grey list", "gray list"])
    }
}

/// The refusal that a reply is at this stage; `about` names what was refused: a recipient, the sender.
pub(super) fn refused(stage: Stage, reply: &Reply, peer: &str, about: &str) -> Refusal {
    let cause = cause(stage, reply);
    let doing = match stage {
        Stage::Greeting => "does not greet us".to_owned(),
        Stage::StartTls => "does not begin TLS".to_owned(),
        Stage::Auth => format!("does not let {about} in"),
        Stage::Sender => format!("refused the sender {about}"),
        Stage::Recipient => format!("refused the recipient {about}"),
        Stage::Data => "refused the mail before its content".to_owned(),
        Stage::Dot => "refused the mail after its content".to_owned(),
    };
    let words = reply.words();
    if reply.is_greylisting() {
        let hint =
            "it lets unknown senders in some minutes after their first attempt; ask its operator to exempt this one";
        return Refusal::new(cause, format!("greylisted: {peer} {doing} for now: {words}; {hint}"));
    }
    let for_now = if (400..500).contains(&reply.code) { " for now" } else { "" };
    Refusal::new(cause, format!("{peer} {doing}{for_now}: {words}{}", advice(stage, cause)))
}

/// What kind of failure it is, by what an operator does next.
fn cause(stage: Stage, reply: &Reply) -> Cause {
    let enhanced = reply.enhanced();
    match reply.code {
        _ if reply.is_greylisting() => Cause::Throttled,
        // The server goes down; no pace of ours changes that (RFC 3463: 4.3.x is its mail system).
        421 if matches!(enhanced, Some((3, _))) || reply.says(&["shutting down", "shutdown"]) => Cause::Unreachable,
        421 | 452 => Cause::Throttled,
        // RFC 4954: authentication required, failed, too weak, wants encryption. RFC 3463: 5.7.8 and 5.7.9 are credentials.
        530 | 534 | 535 | 538 => Cause::Auth,
        _ if stage == Stage::Auth || matches!(enhanced, Some((7, 8 | 9))) => Cause::Auth,
        _ if stage == Stage::StartTls => Cause::Tls,
        400..=499 if reply.says(&["too many", "too fast", "rate limit", "ratelimit", "rate-limit", "slow down"]) => {
            Cause::Throttled
        }
        // It had the mail, and says that it will not carry it.
        _ if stage == Stage::Dot => Cause::Rejected,
        _ => Cause::Refused,
    }
}

fn advice(stage: Stage, cause: Cause) -> &'static str {
    match (cause, stage) {
        (Cause::Auth, Stage::Auth) => "; check the user name and the password of this channel",
        (Cause::Auth, _) => {
            "; it wants TLS or a sign-in first: use `smtp+starttls://` or `smtps://`, and give a user and a password"
        }
        (Cause::Refused, Stage::Greeting) => "; ask its operator why this machine is not welcome",
        (Cause::Refused, Stage::Sender) => "; check `from`: it does not let us send as this address",
        (Cause::Refused, Stage::Recipient) => "; check the address, and that this server takes mail for it from us",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, text: &str) -> Reply {
        Reply { code, lines: text.split('|').map(str::to_owned).collect() }
    }

    #[test]
    fn every_no_has_its_cause_and_keeps_the_servers_words() {
        use Stage::{Auth, Data, Dot, Greeting, Recipient, Sender, StartTls};
        let table = [
            (Greeting, 554, "5.7.1 You are not welcome", Cause::Refused, "why this machine is not welcome"),
            (Greeting, 421, "4.7.0 Too many connections", Cause::Throttled, "for now"),
            (Greeting, 421, "4.3.2 System not accepting messages", Cause::Unreachable, "does not greet us"),
            (Greeting, 421, "mx.example.net shutting down", Cause::Unreachable, ""),
            (StartTls, 454, "4.7.0 TLS not available due to local problem", Cause::Tls, "does not begin TLS"),
            (Auth, 535, "5.7.8 Error: authentication failed", Cause::Auth, "check the user name and the password"),
            (Auth, 454, "4.7.0 Temporary authentication failure", Cause::Auth, "for now"),
            (Auth, 421, "4.7.0 Too many errors", Cause::Throttled, ""),
            (Sender, 530, "5.7.0 Must issue a STARTTLS command first", Cause::Auth, "smtp+starttls"),
            (Sender, 550, "5.7.1 Sender not allowed", Cause::Refused, "check `from`"),
            (Sender, 552, "5.3.4 Message size exceeds fixed limit", Cause::Refused, ""),
            (Sender, 451, "4.3.0 Local error", Cause::Refused, "for now"),
            (Recipient, 450, "4.2.0 <x>: Recipient address rejected: Greylisted", Cause::Throttled, "greylisted: "),
            (Recipient, 451, "4.7.1 Greylisting in action, come back later", Cause::Throttled, "ask its operator"),
            (Recipient, 450, "4.2.1 mailbox busy", Cause::Refused, "for now"),
            (Recipient, 450, "4.7.1 Error: too many recipients", Cause::Throttled, ""),
            (Recipient, 452, "4.5.3 Too many recipients", Cause::Throttled, ""),
            (Recipient, 550, "5.1.1 User unknown", Cause::Refused, "refused the recipient x: 550 5.1.1 User unknown"),
            (Recipient, 552, "5.2.2 Mailbox full", Cause::Refused, "552"),
            (Recipient, 554, "5.7.1 Relay access denied", Cause::Refused, "takes mail for it from us"),
            (Recipient, 550, "5.7.9 Credentials needed", Cause::Auth, ""),
            (Data, 554, "5.5.1 No valid recipients", Cause::Refused, "before its content"),
            (Dot, 552, "5.3.4 Too large", Cause::Rejected, "after its content"),
            (Dot, 554, "5.7.1 Spam", Cause::Rejected, "554 5.7.1 Spam"),
            (Dot, 451, "4.3.0 Queue file write error", Cause::Rejected, "for now"),
            (Dot, 452, "4.3.1 Insufficient system storage", Cause::Throttled, ""),
            (Dot, 451, "4.7.1 graylisted", Cause::Throttled, "greylisted"),
        ];
        for (stage, code, text, expected, words) in table {
            let refusal = refused(stage, &reply(code, text), "mx:25", "x");
            assert_eq!((refusal.cause, refusal.is_verdict), (expected, true), "{stage:?} {code} {text}");
            assert!(refusal.detail.contains(words) && refusal.detail.contains(text), "{stage:?} {code}: {refusal:?}");
            assert!(refusal.detail.contains("mx:25"), "{refusal:?}");
        }
    }

    #[test]
    fn a_reply_of_several_lines_is_one_line_of_words() {
        let reply = reply(550, "5.7.1 first|second\r\n third");
        assert_eq!(reply.words(), "550 5.7.1 first second third");
        assert_eq!(reply.enhanced(), Some((7, 1)));
        assert_eq!(super::Reply { code: 250, lines: vec!["1.2.3 no class".to_owned()] }.enhanced(), None);
    }
}
