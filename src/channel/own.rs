//! Whether a message is ours to take away.

use crate::journey::message::Message;
use crate::journey::token::{Mint, Origin, Token};

/// Whether it carries a token that this installation issued: in its payload, in a header, or as the trace of a `traceparent`.
/// Nothing else in a system is ever removed.
pub(crate) fn is_ours(message: &Message, mint: &Mint) -> bool {
    let headers = message.headers.iter().flat_map(|(name, value)| {
        let trace = name.eq_ignore_ascii_case("traceparent").then(|| trace(value)).flatten();
        trace.into_iter().chain(Token::find_all(value.as_bytes()))
    });
    Token::find_all(&message.body).chain(headers).any(|token| mint.origin(token) == Origin::Ours)
}

/// The trace id of a W3C `traceparent` as a token.
fn trace(value: &str) -> Option<Token> {
    let trace = value.trim().split('-').nth(1).filter(|trace| trace.len() == 32)?;
    u128::from_str_radix(trace, 16).ok().map(Token::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_by_payload_header_or_trace_and_by_nothing_else() {
        let (mint, other) = (Mint::new([1; 32], 0), Mint::new([2; 32], 0));
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let (ours, foreign) = (mint.issue(at), other.issue(at));
        let forged = Token::from_bits(ours.bits() ^ 1);
        let with = |body: &str, name: &str, value: String| {
            let mut message = Message::new(body);
            message.headers.push((name.to_owned(), value));
            is_ours(&message, &mint)
        };
        assert!(with(&format!("order {ours}"), "x", String::new()));
        assert!(with("", "journeyman-token", ours.to_string()));
        assert!(with("", "Traceparent", ours.traceparent()));
        assert!(!with("", "x", ours.traceparent()), "only the trace header holds a trace");
        for stranger in [foreign, forged] {
            assert!(!with(&stranger.to_string(), "traceparent", stranger.traceparent()));
        }
        assert!(!with("", "traceparent", "00-mine-x-01".to_owned()));
    }
}
