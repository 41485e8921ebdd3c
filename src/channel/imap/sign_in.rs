//! Signing in, and what a server means that does not let us.

use async_imap::error::Error;
use async_imap::{Authenticator, Client};
use zeroize::Zeroizing;

use super::session::{WORDS, failed};
use crate::channel::dial::Stream;
use crate::channel::mail::{Login, one_line};
use crate::channel::refusal::Refusal;
use crate::journey::outcome::Cause;
use crate::secret::MASK;

/// LOGIN, which every server has; or, for what it cannot carry, AUTHENTICATE PLAIN (RFC 4616).
pub(super) async fn sign_in(
    client: Client<Stream>,
    login: &Login,
    peer: &str,
) -> Result<async_imap::Session<Stream>, Refusal> {
    let password = login.password.reveal();
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii() && !c.is_ascii_control());
    let signed = if is_plain(&login.user) && is_plain(&password) {
        client.login(&login.user, &*password).await
    } else {
        let plain = Plain(Zeroizing::new(format!("\0{}\0{}", login.user, *password)));
        client.authenticate("PLAIN", plain).await
    };
    signed.map_err(|(error, _)| match &error {
        Error::No(text) | Error::Bad(text) => {
            let words = said(text).replace(password.as_str(), MASK);
            let advice = if login_cause(&words) == Cause::Auth { "; check `username` and `password`" } else { "" };
            Refusal::new(login_cause(&words), format!("{peer} does not let user `{}` in: {words}{advice}", login.user))
        }
        _ => failed(&error, peer, "signing in"),
    })
}

struct Plain(Zeroizing<String>);

impl Authenticator for Plain {
    type Response = Vec<u8>;

    fn process(&mut self, _challenge: &[u8]) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }
}

/// What a refused sign-in means (RFC 5530): most often the credentials, sometimes the server.
fn login_cause(words: &str) -> Cause {
    let says = |any: &[&str]| any.iter().any(|word| words.to_lowercase().contains(word));
    if says(&["[unavailable]", "[serverbug]", "temporarily", "internal error"]) {
        Cause::Unreachable
    } else if says(&["[limit]", "[inuse]", "too many", "maximum number of connections"]) {
        Cause::Throttled
    } else {
        Cause::Auth
    }
}

/// The server's words out of what the library makes of them: `code: None, info: Some("…")`.
pub(super) fn said(text: &str) -> String {
    let inside = text.split_once("info: Some(\"").and_then(|(_, rest)| rest.rsplit_once("\")"));
    one_line(&inside.map_or(text, |(words, _)| words).replace("\\\"", "\"").replace("\\\\", "\\"), WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_taken_out_and_judged() {
        let table = [
            ("code: None, info: Some(\"[AUTHENTICATIONFAILED] Authentication failed.\")", Cause::Auth),
            ("code: Some(Alert), info: Some(\"Application-specific password required\")", Cause::Auth),
            ("code: None, info: Some(\"[UNAVAILABLE] Temporary authentication failure.\")", Cause::Unreachable),
            ("code: None, info: Some(\"[LIMIT] Too many simultaneous connections.\")", Cause::Throttled),
            ("code: None, info: Some(\"[PRIVACYREQUIRED] Plaintext authentication disallowed\")", Cause::Auth),
        ];
        for (text, cause) in table {
            let words = said(text);
            assert_eq!(login_cause(&words), cause, "{words}");
            assert!(!words.contains("info:") && !words.contains('"'), "{words}");
        }
        assert_eq!(said("code: None, info: Some(\"a \\\"b\\\"\")"), "a \"b\"");
        assert_eq!(said("nothing known"), "nothing known");
    }
}
