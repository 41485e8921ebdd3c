//! A mail as a journey reads it: headers in words, the text that people would read, hops from its `Received` lines. Pure.

use std::time::Duration;

use jiff::Timestamp;
use mail_parser::{DateTime, HeaderName, HeaderValue, Host, Message as Parsed, MessageParser, MimeHeaders, PartType};

use super::bounce::{self, Fate, Notice};
use crate::journey::message::{Hop, Message, Trouble};
use crate::journey::outcome::Cause;
use crate::journey::value::Value;

/// A mail, read.
#[derive(Debug)]
pub(super) struct Mail {
    /// As a journey reads it.
    pub(super) message: Message,
    /// What it says of a mail of ours, if it is a notice.
    pub(super) notice: Option<Notice>,
}

/// A mail as the server has it.
pub(super) struct Raw<'a> {
    /// Its bytes, or the first of them.
    pub(super) bytes: &'a [u8],
    /// How many there are.
    pub(super) size: Option<u32>,
    /// When the server took it (INTERNALDATE).
    pub(super) delivered: Option<Timestamp>,
    /// The folder that it is in.
    pub(super) folder: &'a str,
    /// Whether that is the spam folder.
    pub(super) is_spam: bool,
}

/// Reads a mail; one that is none is a body without headers.
pub(super) fn read(raw: &Raw<'_>) -> Mail {
    let parser = MessageParser::new().with_mime_headers().header_received(HeaderName::Received).default_header_text();
    // A header begins with a field; the parser takes any line for one.
    let is_mail = raw.bytes.split(|byte| *byte == b'\n').next().is_some_and(|line| line.contains(&b':'));
    let parsed = parser.parse(raw.bytes).filter(|parsed| is_mail && !parsed.parts.is_empty());
    let notice = parsed.as_ref().and_then(bounce::notice);
    let mut message = Message::new(parsed.as_ref().map_or_else(|| raw.bytes.to_vec(), body));
    if let Some(parsed) = &parsed {
        message.headers = headers(parsed);
        let (hops, skews) = hops(&stations(parsed));
        message.hops = hops;
        message.headers.extend(skews.into_iter().map(|skew| ("clock-skew".to_owned(), skew)));
    }
    message.headers.extend(raw.delivered.map(|at| ("delivered-at".to_owned(), at.to_string())));
    if let Some(size) = raw.size.filter(|size| *size as usize > raw.bytes.len()) {
        message.headers.push(("cut-off".to_owned(), format!("{} of {size} bytes were read", raw.bytes.len())));
    }
    message.stored = raw.delivered;
    message.facts.insert("folder", Value::from(raw.folder));
    let trouble = notice.as_ref().and_then(Notice::trouble).or_else(|| {
        let detail = format!("delivered to the spam folder `{}`", raw.folder);
        raw.is_spam.then_some(Trouble { cause: Cause::Misrouted, detail })
    });
    message.trouble = trouble.map(Box::new);
    if let Some(token) = notice.as_ref().filter(|notice| notice.fate == Fate::Failed).and_then(|notice| notice.token) {
        message.headers.push(("original-token".to_owned(), token.to_string()));
        message.token = Some(token);
    }
    Mail { message, notice }
}

/// Every field, encoded words decoded, folded lines joined.
fn headers(parsed: &Parsed<'_>) -> Vec<(String, String)> {
    let Some(root) = parsed.parts.first() else { return Vec::new() };
    let fields = root.headers.iter().map(|header| {
        let value = match &header.value {
            HeaderValue::Text(text) => text.to_string(),
            HeaderValue::Empty => String::new(),
            _ => {
                let bytes = parsed.raw_message.get(header.offset_start as usize..header.offset_end as usize);
                String::from_utf8_lossy(bytes.unwrap_or_default()).replace(['\r', '\n'], "").trim().to_owned()
            }
        };
        (header.name.as_str().to_owned(), value)
    });
    fields.collect()
}

/// What people would read: the plain text, else the HTML, else the first part that has content.
fn body(parsed: &Parsed<'_>) -> Vec<u8> {
    let texts = parsed.text_body.iter().chain(&parsed.html_body).filter_map(|id| parsed.part(*id));
    let leaves = parsed.parts.iter().filter(|part| !matches!(part.body, PartType::Multipart(_)));
    let Some(part) = texts.chain(leaves).next() else { return Vec::new() };
    let kind = part.content_type();
    let is_lines = part.is_text()
        || kind.is_some_and(|kind| {
            let subtype = kind.subtype().unwrap_or_default();
            let ends = |end: &str| subtype == end || subtype.ends_with(&format!("+{end}"));
            kind.ctype() == "application" && (ends("json") || ends("xml") || subtype == "x-www-form-urlencoded")
        });
    if is_lines { lines(part.contents()) } else { part.contents().to_vec() }
}

/// Text in lines as the wire has them, as text: LF between lines, and none behind the last, whose end belongs to the mail.
fn lines(wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(wire.len());
    let mut rest = wire.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\r' || rest.peek() != Some(&b'\n') {
            out.push(byte);
        }
    }
    if out.last() == Some(&b'\n') {
        out.pop();
    }
    out
}

/// Where a mail was, and when, in Unix seconds. The first is where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Station {
    name: String,
    at: i64,
}

/// Its `Date`, then its `Received` lines from the oldest, which is the last.
fn stations(parsed: &Parsed<'_>) -> Vec<Station> {
    let Some(root) = parsed.parts.first() else { return Vec::new() };
    let seconds = |date: &DateTime| date.is_valid().then(|| date.to_timestamp());
    let values = |wanted: HeaderName<'static>| root.headers.iter().filter(move |header| header.name == wanted);
    let written =
        values(HeaderName::Date).find_map(|header| seconds(&DateTime::parse_rfc822(header.value.as_text()?)?));
    let written = written.map(|at| Station { name: String::new(), at });
    let received = values(HeaderName::Received).filter_map(|header| {
        let received = header.value.as_received()?;
        let name = match received.by()? {
            Host::Name(name) => name.trim_end_matches('.').to_lowercase(),
            Host::IpAddr(address) => address.to_string(),
        };
        Some(Station { name, at: seconds(&received.date()?)? })
    });
    let mut received: Vec<_> = received.collect();
    received.reverse();
    written.into_iter().chain(received).collect()
}

/// The time from each station to the next, under the name of the one that it came to. A clock that is behind the one before it
/// gives zero, and is told: an average must not be made better by it.
fn hops(stations: &[Station]) -> (Vec<Hop>, Vec<String>) {
    let mut skews = Vec::new();
    let pairs = stations.windows(2).map(|pair| {
        let seconds = pair[1].at - pair[0].at;
        if seconds < 0 {
            skews.push(format!("{} has it {}s before the station before it", pair[1].name, seconds.unsigned_abs()));
        }
        Hop { name: pair[1].name.clone(), took: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)) }
    });
    (pairs.collect(), skews)
}

/// A mail from anywhere.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let _ = read(&Raw { bytes: data, size: Some(1 << 20), delivered: None, folder: "INBOX", is_spam: false });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::token::Token;

    fn seen(text: &str) -> Mail {
        let wire = text.replace('\n', "\r\n");
        read(&Raw { bytes: wire.as_bytes(), size: None, delivered: None, folder: "INBOX", is_spam: false })
    }

    #[test]
    fn the_text_is_what_was_sent_whatever_the_encoding() {
        let plain = "Content-Type: text/plain; charset=utf-8\n";
        for (head, body, expected) in [
            (String::new(), "a\nb\n", "a\nb"),
            (String::new(), "a\n\n", "a\n"),
            (String::new(), "\n", ""),
            (String::new(), "", ""),
            (
                format!("{plain}Content-Transfer-Encoding: quoted-printable\n"),
                "Gr=C3=BC=C3=9Fe =\nweit\n",
                "Grüße weit",
            ),
            (format!("{plain}Content-Transfer-Encoding: quoted-printable\n"), "a=0A\n\n", "a\n\n"),
            (format!("{plain}Content-Transfer-Encoding: base64\n"), "YQ0KYg0K\n", "a\nb"),
            ("Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n".to_owned(), "x\n", "x"),
            ("Content-Type: text/html\n".to_owned(), "<p>x</p>\n", "<p>x</p>"),
            ("Content-Type: application/json; charset=utf-8\n".to_owned(), "{\"a\":1}\n", "{\"a\":1}"),
        ] {
            let mail = seen(&format!("Subject: x\n{head}\n{body}"));
            assert_eq!(mail.message.text(), expected, "{head}{body:?}");
        }
        let parts = "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>x</p>\n--b\n\
                     Content-Type: text/plain\n\nx\ny\n--b--\n";
        assert_eq!(seen(parts).message.text(), "x\ny");
        assert_eq!(seen("no mail at all").message.text(), "no mail at all");
    }

    #[test]
    fn headers_are_decoded_and_unfolded_in_order() {
        let mail = seen(
            "Subject: =?utf-8?b?R3LDvMOfZQ==?= =?utf-8?q?_aus?=\n Bern\nX-A: one\nX-A: two\nContent-Type: text/plain;\n charset=utf-8\n\nx\n",
        );
        let message = mail.message;
        assert_eq!(message.header("subject"), Some("Grüße aus Bern"));
        assert_eq!(message.header("content-type"), Some("text/plain; charset=utf-8"));
        let of_a: Vec<_> =
            message.headers.iter().filter(|(name, _)| name == "X-A").map(|(_, value)| value.as_str()).collect();
        assert_eq!(of_a, ["one", "two"]);
    }

    #[test]
    fn hops_are_the_times_between_stations_and_a_clock_that_is_behind_is_told() {
        let mail = seen(
            "Received: from mx.example.net (mx.example.net [192.0.2.1]) by IMAP.example.org with LMTP id 1; Fri, 2 Jan 2026 03:04:09 +0000\n\
             Received: from probe (localhost [127.0.0.1])\n\tby mx.example.net (Postfix) with ESMTP id 4BC\n\tfor <a@example.org>; Fri,  2 Jan 2026 04:04:15 +0100 (CET)\n\
             Date: Fri, 02 Jan 2026 03:04:05 +0000\n\nx\n",
        );
        let hops: Vec<_> = mail.message.hops.iter().map(|hop| (hop.name.as_str(), hop.took.as_secs())).collect();
        assert_eq!(hops, [("mx.example.net", 10), ("imap.example.org", 0)]);
        assert_eq!(mail.message.header("clock-skew"), Some("imap.example.org has it 6s before the station before it"));
        assert!(seen("Received: nonsense\nDate: never\n\nx\n").message.hops.is_empty());
    }

    #[test]
    fn spam_is_trouble_and_what_was_cut_says_so() {
        let raw = Raw {
            bytes: b"Subject: x\r\n\r\nab",
            size: Some(400),
            delivered: Some("2026-01-02T03:04:05Z".parse().unwrap()),
            folder: "Spamverdacht",
            is_spam: true,
        };
        let message = read(&raw).message;
        assert_eq!(message.trouble.unwrap().detail, "delivered to the spam folder `Spamverdacht`");
        assert_eq!(message.facts["folder"], Value::from("Spamverdacht"));
        assert_eq!(message.headers[1], ("delivered-at".to_owned(), "2026-01-02T03:04:05Z".to_owned()));
        assert_eq!(message.headers[2], ("cut-off".to_owned(), "16 of 400 bytes were read".to_owned()));
    }

    fn report(action: &str, original: &str) -> Mail {
        seen(&format!(
            "From: MAILER-DAEMON@mx.example.net\nSubject: Undelivered Mail\nAuto-Submitted: auto-replied\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nI'm sorry.\n--b\n\
             Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\n\
             Final-Recipient: rfc822; gone@example.org\nAction: {action}\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1\n   User unknown\n\n\
             --b\n{original}\n--b--\n"
        ))
    }

    #[test]
    fn a_bounce_is_trouble_of_the_mail_that_came_back() {
        let token = Token::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        for original in [
            format!("Content-Type: message/rfc822\n\nX-Journeyman-Token: {token}\nSubject: y\n\nz"),
            format!("Content-Type: message/rfc822\n\nMessage-ID: <{token}@example.net>\n\nz"),
            format!("Content-Type: message/rfc822\n\nSubject: y\n\nplain {token}"),
            format!("Content-Type: text/rfc822-headers\n\nMessage-ID: <{token}@example.net>\nSubject: y"),
        ] {
            let mail = report("failed", &original);
            let trouble = mail.message.trouble.clone().expect(&original);
            assert_eq!(trouble.cause, Cause::Rejected);
            assert_eq!(
                trouble.detail, "not delivered: 5.1.1, smtp; 550 5.1.1 User unknown (to gone@example.org)",
                "{original}"
            );
            assert_eq!(mail.message.token, Some(token), "{original}");
            assert_eq!(mail.message.header("original-token"), Some(token.to_string().as_str()));
            assert_eq!(mail.message.text(), "I'm sorry.");
        }
    }

    #[test]
    fn a_notice_of_delay_or_delivery_is_no_failure_and_stands_for_nothing() {
        let original = "Content-Type: message/rfc822\n\nMessage-ID: <jm00000000000000000000000001@example.net>\n\nz";
        for (action, fate) in [("delayed", Fate::Delayed), ("relayed", Fate::Delivered), ("Delivered", Fate::Delivered)]
        {
            let mail = report(action, original);
            assert_eq!(mail.notice.map(|notice| notice.fate), Some(fate));
            assert_eq!((mail.message.trouble, mail.message.token), (None, None));
        }
        assert_eq!(seen("Subject: x\n\nx\n").notice, None);
    }
}
