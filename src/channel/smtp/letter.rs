//! A message as a mail (RFC 5322): who it is from and for, what marks it as ours, and its text in lines. Pure.

use jiff::Timestamp;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0, To};
use lettre::message::{Body, Mailbox, Mailboxes};
use lettre::{Address, Message};

use crate::channel::life::time_to_live;
use crate::journey::Outgoing;
use crate::time::later;

/// A mail ready to be sent.
pub(super) struct Letter {
    /// The sender in the envelope.
    pub(super) from: Address,
    /// The recipients in the envelope, each once.
    pub(super) to: Vec<Address>,
    /// Headers and body, in ASCII.
    pub(super) bytes: Vec<u8>,
}

/// The mail that `outgoing` is; its fields `to` and `subject`, and its headers, go before what we would say ourselves.
///
/// # Errors
/// In words: a recipient that is none, a header that cannot be one.
pub(super) fn letter(from: &Mailbox, to: &[Mailbox], outgoing: &Outgoing, now: Timestamp) -> Result<Letter, String> {
    let to = match outgoing.fields.get("to") {
        Some(text) => mailboxes(text)?,
        None => to.to_vec(),
    };
    let mut recipients: Vec<Address> = Vec::new();
    for recipient in &to {
        if !recipients.contains(&recipient.email) {
            recipients.push(recipient.email.clone());
        }
    }
    if recipients.is_empty() {
        return Err("`to` names nobody: give it in the channel, or in the step".to_owned());
    }
    let token = outgoing.token.to_string();
    let subject = outgoing.fields.get("subject").cloned().unwrap_or_else(|| format!("journeyman {token}"));
    let expires = later(now, time_to_live(outgoing.timeout));
    let mut builder = Message::builder()
        .from(from.clone())
        .header(To::from(Mailboxes::from_iter(to)))
        .subject(subject)
        .date(now.into())
        .message_id(Some(format!("<{token}@{}>", from.email.domain())))
        .header(MIME_VERSION_1_0)
        .header(content_type(outgoing.content_type)?);
    let marks = [
        ("X-Journeyman-Token", token),
        ("traceparent", outgoing.token.traceparent()),
        // RFC 3834: answering machines must not answer. Exchange heeds only its own header, of MS-OXCMAIL.
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("X-Auto-Response-Suppress", "All".to_owned()),
        // RFC 4021, 2.1.50: what is still there then may be thrown away. Few servers do.
        ("Expires", expires.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()),
    ];
    let marks = marks.into_iter().map(|(name, value)| (name.to_owned(), value));
    for (name, value) in marks.chain(outgoing.headers.iter().cloned()) {
        let header = HeaderName::new_from_ascii(name.clone());
        let header = header.map_err(|_| format!("`{name}` is not the name of a mail's header"))?;
        if value.chars().any(char::is_control) {
            return Err(format!("the header `{name}` has control characters in it"));
        }
        builder = builder.raw_header(HeaderValue::new(header, value));
    }
    let envelope = lettre::address::Envelope::new(Some(from.email.clone()), recipients.clone());
    let envelope = envelope.map_err(|error| format!("the mail has no envelope: {error}"))?;
    let message = builder.envelope(envelope).body(body(&outgoing.body));
    let message = message.map_err(|error| format!("the mail cannot be put together: {error}"))?;
    Ok(Letter { from: from.email.clone(), to: recipients, bytes: message.formatted() })
}

/// The payload's type; a mail without one is plain text.
fn content_type(payload: Option<&str>) -> Result<ContentType, String> {
    let text = match payload {
        None => "text/plain; charset=utf-8",
        // JSON is UTF-8 by itself (RFC 8259, 8.1); mail programs want to be told.
        Some("application/json") => "application/json; charset=utf-8",
        Some(other) => other,
    };
    ContentType::parse(text).map_err(|_| format!("`{text}` is not a media type"))
}

/// The payload as a mail's body. A mail is made of lines, and each has an end: the payload's last line gets one here, and the
/// `imap` channel takes one away, so that what was sent is what is seen. What is not lines of text goes as base64.
fn body(payload: &[u8]) -> Body {
    let text = std::str::from_utf8(payload).ok();
    let is_plain = |text: &&str| !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    match text.filter(is_plain) {
        Some(text) => Body::new(format!("{text}\n")),
        None => {
            let mut bytes = payload.to_vec();
            bytes.extend_from_slice(b"\r\n");
            match Body::new_with_encoding(bytes, ContentTransferEncoding::Base64) {
                Ok(body) => body,
                Err(bytes) => Body::new(bytes),
            }
        }
    }
}

/// Reads `ops@example.net` or `Ops <ops@example.net>`. A domain outside ASCII takes its `xn--` form.
///
/// # Errors
/// In words.
pub(super) fn mailbox(text: &str) -> Result<Mailbox, String> {
    let parsed: Mailbox =
        text.parse().map_err(|error| format!("`{text}` is not a mail address ({error}): write `ops@example.net`"))?;
    in_ascii(parsed)
}

/// Reads one address or several, with commas between them. (lettre's list of addresses ends in silence where one is wrong.)
fn mailboxes(text: &str) -> Result<Vec<Mailbox>, String> {
    text.split(',').map(|one| mailbox(one.trim()).map_err(|why| format!("`to`: {why}"))).collect()
}

fn in_ascii(mailbox: Mailbox) -> Result<Mailbox, String> {
    let Mailbox { name, email } = mailbox;
    if !email.user().is_ascii() {
        return Err(format!(
            "`{email}` has letters outside ASCII before the `@`: few servers take them, and we do not send them"
        ));
    }
    if email.domain().is_ascii() {
        return Ok(Mailbox::new(name, email));
    }
    let domain = url::Host::parse(email.domain()).map_err(|error| format!("the domain of `{email}`: {error}"))?;
    let email = Address::new(email.user(), domain.to_string()).map_err(|error| format!("`{email}`: {error}"))?;
    Ok(Mailbox::new(name, email))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journey::token::Token;

    fn outgoing(body: &str) -> Outgoing {
        Outgoing {
            token: Token::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            body: body.as_bytes().to_vec(),
            content_type: Some("text/plain; charset=utf-8"),
            ..Outgoing::empty(Duration::from_secs(10))
        }
    }

    fn written(outgoing: &Outgoing) -> Result<(Vec<String>, String), String> {
        let from = mailbox("Probe <probe@bücher.example>").unwrap();
        let to = [mailbox("inbox@example.org").unwrap(), mailbox("Two <two@example.org>").unwrap()];
        let now = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let letter = letter(&from, &to, outgoing, now)?;
        assert_eq!(letter.from.to_string(), "probe@xn--bcher-kva.example");
        let to = letter.to.iter().map(ToString::to_string).collect();
        Ok((to, String::from_utf8(letter.bytes).unwrap()))
    }

    #[test]
    fn a_mail_carries_its_token_where_the_protocol_has_a_place_for_it() {
        let (to, text) = written(&outgoing("Grüße")).unwrap();
        assert_eq!(to, ["inbox@example.org", "two@example.org"]);
        let token = outgoing("").token;
        let expected = [
            "From: Probe <probe@xn--bcher-kva.example>".to_owned(),
            "To: inbox@example.org, Two <two@example.org>".to_owned(),
            format!("Subject: journeyman {token}"),
            "Date: Fri, 02 Jan 2026 03:04:05 +0000".to_owned(),
            "Expires: Fri, 02 Jan 2026 04:04:05 +0000".to_owned(),
            format!("Message-ID: <{token}@xn--bcher-kva.example>"),
            format!("X-Journeyman-Token: {token}"),
            format!("traceparent: {}", token.traceparent()),
            "Auto-Submitted: auto-generated".to_owned(),
            "MIME-Version: 1.0".to_owned(),
            "Content-Type: text/plain; charset=utf-8".to_owned(),
        ];
        for line in expected {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.is_ascii(), "{text}");
    }

    #[test]
    fn a_step_goes_before_the_channel() {
        let mut mail = outgoing("x");
        let fields = [("to", "a@example.net, B <b@example.net>, a@example.net"), ("subject", "Grüße aus Zürich")];
        mail.fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        mail.headers = vec![("X-Tier".to_owned(), "ä".to_owned()), ("auto-submitted".to_owned(), "no".to_owned())];
        let (to, text) = written(&mail).unwrap();
        assert_eq!(to, ["a@example.net", "b@example.net"]);
        for part in ["Subject: =?utf-8?", "X-Tier: =?utf-8?b?w6Q=?=\r\n", "auto-submitted: no\r\n"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("auto-generated"), "{text}");
    }

    #[test]
    fn every_body_keeps_its_last_end_of_line_and_only_text_goes_as_text() {
        for (payload, encoding, wire) in [
            ("a\nb", "7bit", "a\r\nb\r\n"),
            ("a\n", "7bit", "a\r\n\r\n"),
            ("", "7bit", "\r\n"),
            ("one ä in a long text", "quoted-printable", "one =C3=A4 in a long text\r\n"),
            ("ä", "base64", "w6QNCg=="),
            ("a\rb", "base64", "YQ1iDQo="),
        ] {
            let (_, text) = written(&outgoing(payload)).unwrap();
            assert!(text.contains(&format!("Content-Transfer-Encoding: {encoding}\r\n")), "{payload:?}\n{text}");
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, wire, "{payload:?}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_said() {
        let refusal = |change: &dyn Fn(&mut Outgoing)| {
            let mut mail = outgoing("x");
            change(&mut mail);
            written(&mail).unwrap_err()
        };
        assert!(refusal(&|mail| drop(mail.fields.insert("to".to_owned(), "nobody".to_owned()))).contains("`nobody`"));
        assert!(refusal(&|mail| drop(mail.fields.insert("to".to_owned(), String::new()))).contains("`to`"));
        assert!(refusal(&|mail| mail.headers.push(("a b".to_owned(), "x".to_owned()))).contains("`a b`"));
        let bcc = |mail: &mut Outgoing| mail.headers.push(("X-A".to_owned(), "x\r\nBcc: b@example.net".to_owned()));
        assert!(refusal(&bcc).contains("control characters"));
        assert!(mailbox("jürgen@example.net").unwrap_err().contains("outside ASCII"));
    }
}
