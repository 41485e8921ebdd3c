//! Which mails are ours to delete. Pure.

use jiff::Timestamp;

use super::bounce::Notice;
use crate::journey::message::Message;
use crate::journey::token::{Mint, Origin, Token};

/// The field that our mails carry their token in.
pub(super) const TOKEN_HEADER: &str = "X-Journeyman-Token";

/// Whether it carries a token of ours and is no person's answer to one that did: somebody may reply to a probe and quote it.
/// A notice about a mail of ours is ours too.
pub(super) fn is_ours(message: &Message, notice: Option<&Notice>, mint: &Mint) -> bool {
    let is_ours = |token: Token| mint.origin(token) == Origin::Ours;
    let marked = message.header(TOKEN_HEADER).and_then(Token::parse).is_some_and(is_ours);
    let is_answer = message.header("In-Reply-To").or_else(|| message.header("References")).is_some();
    // RFC 3834: what a program wrote says so.
    let by_program = message.header("Auto-Submitted").is_some_and(|word| !word.trim().eq_ignore_ascii_case("no"));
    let headers = message.headers.iter().map(|(_, value)| value.as_bytes());
    let mut tokens = headers.chain([message.body.as_slice()]).flat_map(Token::find_all).chain(trace(message));
    let about = notice.and_then(|notice| notice.token).is_some_and(is_ours);
    marked || about || (!is_answer || by_program) && tokens.any(is_ours)
}

/// The trace id of a `traceparent`: the token's bits.
fn trace(message: &Message) -> Option<Token> {
    let id = message.header("traceparent")?.split('-').nth(1).filter(|id| id.len() == 32)?;
    u128::from_str_radix(id, 16).ok().map(Token::from_bits)
}

/// Whether the mail with this header is one of ours from before `then`, left behind. Only the fields that we set ourselves count.
pub(super) fn is_left_behind(header: &str, mint: &Mint, then: Timestamp) -> bool {
    token_in_header(header).is_some_and(|token| mint.origin(token) == Origin::Ours && token.issued() < then)
}

/// The token in the fields of a header that we set: our own, or the left side of the Message-ID.
pub(super) fn token_in_header(header: &str) -> Option<Token> {
    let field = |wanted: &str| {
        let lines = header.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
    };
    let id = || Token::parse(field("Message-ID")?.strip_prefix('<')?.split_once('@')?.0);
    field(TOKEN_HEADER).and_then(Token::parse).or_else(id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::bounce::Fate;
    use super::*;
    use crate::time::later;

    fn message(headers: &[(&str, &str)], body: &str) -> Message {
        let mut message = Message::new(body);
        message.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        message
    }

    #[test]
    fn only_what_carries_our_token_is_ours_and_a_persons_answer_is_not() {
        let (mint, theirs) = (Mint::new([1; 32], 0), Mint::new([2; 32], 0));
        let then = "2026-01-02T03:04:05Z".parse().unwrap();
        let (token, foreign) = (mint.issue(then), theirs.issue(then));
        let forged = Token::from_bits(token.bits() ^ 1).to_string();
        let (token, trace, foreign) = (token.to_string(), token.traceparent(), foreign.to_string());
        let (id, quoted) = (format!("<{token}@example.net>"), format!("> probe {token}"));
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, bool);
        let cases: &[Case<'_>] = &[
            (&[("X-Journeyman-Token", &token)], "", true),
            (&[("Subject", &token)], "", true),
            (&[("traceparent", &trace)], "", true),
            (&[], &quoted, true),
            (&[("X-Journeyman-Token", &foreign)], "", false),
            (&[("X-Journeyman-Token", &forged)], "", false),
            (&[("Subject", "lunch?")], "at one", false),
            (&[("In-Reply-To", &id)], &quoted, false),
            (&[("References", &id), ("Auto-Submitted", "no")], &quoted, false),
            (&[("In-Reply-To", &id), ("Auto-Submitted", "auto-replied")], &quoted, true),
            (&[("References", &id), ("X-Journeyman-Token", &token)], "", true),
        ];
        for (headers, body, expected) in cases {
            assert_eq!(is_ours(&message(headers, body), None, &mint), *expected, "{headers:?} {body}");
        }
        for (text, expected) in [(&token, true), (&foreign, false)] {
            let notice = Notice { token: Token::parse(text), fate: Fate::Failed, words: String::new() };
            assert_eq!(is_ours(&message(&[("In-Reply-To", &id)], ""), Some(&notice), &mint), expected);
        }
    }

    #[test]
    fn only_what_we_sent_long_ago_was_left_behind() {
        let (mint, theirs) = (Mint::new([1; 32], 0), Mint::new([2; 32], 0));
        let issued: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let (token, foreign) = (mint.issue(issued), theirs.issue(issued));
        let after = later(issued, Duration::from_secs(1));
        for (header, then, expected) in [
            (format!("X-Journeyman-Token: {token}\r\n"), after, true),
            (format!("Subject: x\r\nmessage-id: <{token}@example.net>\r\n\r\n"), after, true),
            (format!("X-Journeyman-Token: {token}\r\n"), issued, false),
            (format!("X-Journeyman-Token: {foreign}\r\n"), after, false),
            (format!("Subject: {token}\r\n"), after, false),
            (format!("Message-ID: <x.{token}@example.net>\r\n"), after, false),
            (String::new(), after, false),
        ] {
            assert_eq!(is_left_behind(&header, &mint, then), expected, "{header}");
        }
    }
}
