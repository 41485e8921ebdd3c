//! What a failed exchange was: from the client's error chain and from how far it got, to a cause and a sentence.

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use crate::channel::http::guard::Forbidden;
use crate::channel::http::phases::Stage;
use crate::journey::outcome::Cause;
use crate::time::Human;

/// What the links of an error chain say.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    /// TLS said no.
    tls: Option<rustls::Error>,
    /// What the operating system said, innermost.
    io: Option<ErrorKind>,
    /// The client gave the request back: not a byte of it left.
    is_unsent: bool,
    /// The connection ended before the response did.
    is_cut_off: bool,
    /// What came is not HTTP.
    is_garbled: bool,
    /// It is nowhere that we go.
    forbidden: Option<Forbidden>,
    /// The innermost words.
    words: String,
}

impl Signs {
    /// Reads a chain from its outermost error.
    pub(super) fn read(error: &(dyn Error + 'static)) -> Signs {
        let mut signs = Signs::default();
        let mut link = Some(error);
        while let Some(error) = link {
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                signs.tls = Some(error.clone());
            }
            if let Some(error) = error.downcast_ref::<Forbidden>() {
                signs.forbidden = Some(error.clone());
            }
            if let Some(error) = error.downcast_ref::<hyper::Error>() {
                signs.is_unsent |= error.is_canceled();
                signs.is_cut_off |= error.is_incomplete_message() || error.is_closed();
                signs.is_garbled |= error.is_parse();
            }
            signs.words = error.to_string();
            link = match error.downcast_ref::<std::io::Error>() {
                // `source` of such an error skips the very error that it wraps.
                Some(io) => {
                    signs.io = Some(io.kind());
                    io.get_ref().map(|inner| inner as &(dyn Error + 'static))
                }
                None => error.source(),
            };
        }
        signs
    }

    /// The innermost words.
    pub(super) fn words(&self) -> &str {
        &self.words
    }

    /// The other side closed the connection without a word. On a kept-alive one it may have done so before it saw the request.
    pub(super) fn is_closed(&self) -> bool {
        use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        self.tls.is_none()
            && (self.is_cut_off
                || matches!(
                    self.io,
                    Some(ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | UnexpectedEof)
                ))
    }
}

/// How far an exchange got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// What it was waiting for.
    pub(super) stage: Stage,
    /// A server has answered already, with a redirect.
    pub(super) was_redirected: bool,
}

/// What a failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) cause: Cause,
    pub(super) uncertain: bool,
    pub(super) detail: String,
}

/// What an error means to a journey. `target` is the host and port it was for.
pub(super) fn judge(signs: &Signs, reached: Reached, target: &str) -> Verdict {
    let uncertain = may_have_left(reached) && (!signs.is_unsent || reached.was_redirected);
    let told = |cause, detail| Verdict { cause, uncertain, detail };
    if let Some(error) = &signs.tls {
        return told(Cause::Tls, crate::tls::words(error, target));
    }
    if let Some(forbidden) = &signs.forbidden {
        return told(Cause::Refused, format!("{target} is an address where we do not go: {forbidden}"));
    }
    match reached.stage {
        Stage::Dns => told(Cause::Unreachable, format!("the name of {target} cannot be resolved: {}", signs.words)),
        Stage::Connect => match signs.io {
            Some(ErrorKind::ConnectionRefused) => {
                told(Cause::Unreachable, format!("{target} refused the connection: nothing listens there"))
            }
            Some(ErrorKind::TimedOut) => {
                told(Cause::Unreachable, format!("{target} did not answer the connection attempt"))
            }
            _ => told(Cause::Unreachable, format!("no connection to {target}: {}", signs.words)),
        },
        Stage::Tls => told(Cause::Tls, format!("{target} broke off the TLS handshake: {}", signs.words)),
        Stage::FirstByte | Stage::Body if signs.is_garbled => {
            told(Cause::Mismatch, format!("what {target} answered is not HTTP: {}", signs.words))
        }
        Stage::FirstByte if signs.is_unsent => {
            told(Cause::Unreachable, format!("{target} closed the connection before the request was sent"))
        }
        Stage::FirstByte if signs.is_closed() => {
            told(Cause::Unreachable, format!("{target} closed the connection without a response"))
        }
        Stage::FirstByte => told(Cause::Unreachable, format!("no response from {target}: {}", signs.words)),
        Stage::Body => {
            told(Cause::Unreachable, format!("{target} broke off in the middle of its response: {}", signs.words))
        }
    }
}

/// What it means that the time was up.
pub(super) fn judge_timeout(reached: Reached, limit: Duration, target: &str) -> Verdict {
    let within = Human(limit);
    let detail = match reached.stage {
        Stage::Dns => format!("the name of {target} was not resolved within {within}"),
        Stage::Connect => format!("no connection to {target} within {within}"),
        Stage::Tls => format!("the TLS handshake with {target} was not done within {within}"),
        Stage::FirstByte => format!("no response from {target} within {within}"),
        Stage::Body => format!("the response of {target} was not complete within {within}"),
    };
    Verdict { cause: Cause::Unreachable, uncertain: may_have_left(reached), detail }
}

/// Once a connection stands the request goes out at once, and nobody tells how much of it arrived.
fn may_have_left(reached: Reached) -> bool {
    reached.was_redirected || reached.stage >= Stage::FirstByte
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::CertificateError;

    use super::*;

    /// An error around another, as every layer of the client adds one.
    #[derive(Debug, thiserror::Error)]
    #[error("client error ({0})")]
    struct Layer(&'static str, #[source] Box<dyn Error + Send + Sync>);

    fn chain(inner: impl Into<Box<dyn Error + Send + Sync>>) -> Layer {
        Layer("SendRequest", Box::new(Layer("Connect", inner.into())))
    }

    fn reached(stage: Stage) -> Reached {
        Reached { stage, was_redirected: false }
    }

    #[test]
    fn each_failure_has_its_name_and_says_whether_the_message_may_have_left() {
        let certificate =
            |error| io::Error::other(io::Error::new(ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error)));
        let os = |kind| io::Error::from(kind);
        use CertificateError as C;
        use ErrorKind as K;
        let cases: [(io::Error, Stage, Cause, bool, &str); 15] = [
            (
                io::Error::other("Name or service not known"),
                Stage::Dns,
                Cause::Unreachable,
                false,
                "cannot be resolved",
            ),
            (os(K::ConnectionRefused), Stage::Connect, Cause::Unreachable, false, "refused the connection"),
            (os(K::TimedOut), Stage::Connect, Cause::Unreachable, false, "did not answer"),
            (os(K::HostUnreachable), Stage::Connect, Cause::Unreachable, false, "host unreachable"),
            (os(K::ConnectionReset), Stage::Connect, Cause::Unreachable, false, "no connection to"),
            (certificate(C::Expired), Stage::Tls, Cause::Tls, false, "has expired"),
            (certificate(C::NotValidForName), Stage::Tls, Cause::Tls, false, "another name"),
            (certificate(C::UnknownIssuer), Stage::Tls, Cause::Tls, false, "`ca_file`"),
            (certificate(C::Revoked), Stage::Tls, Cause::Tls, false, "TLS with"),
            (os(K::UnexpectedEof), Stage::Tls, Cause::Tls, false, "broke off the TLS handshake"),
            (os(K::ConnectionReset), Stage::FirstByte, Cause::Unreachable, true, "without a response"),
            (os(K::BrokenPipe), Stage::FirstByte, Cause::Unreachable, true, "without a response"),
            (io::Error::other("stream error"), Stage::FirstByte, Cause::Unreachable, true, "no response from"),
            (os(K::ConnectionReset), Stage::Body, Cause::Unreachable, true, "in the middle of its response"),
            (certificate(C::Expired), Stage::FirstByte, Cause::Tls, true, "has expired"),
        ];
        for (error, stage, cause, uncertain, words) in cases {
            let verdict = judge(&Signs::read(&chain(error)), reached(stage), "gate.example:443");
            assert_eq!((verdict.cause, verdict.uncertain), (cause, uncertain), "{verdict:?}");
            assert!(verdict.detail.contains(words) && verdict.detail.contains("gate.example:443"), "{verdict:?}");
        }
    }

    #[test]
    fn a_request_that_was_given_back_never_left_unless_a_server_had_answered() {
        let signs = Signs { is_unsent: true, ..Signs::default() };
        assert!(!judge(&signs, reached(Stage::FirstByte), "h:1").uncertain);
        for stage in [Stage::Dns, Stage::Connect, Stage::FirstByte] {
            assert!(judge(&signs, Reached { stage, was_redirected: true }, "h:1").uncertain, "{stage:?}");
        }
    }

    #[test]
    fn answers_that_are_not_http_are_a_mismatch() {
        let signs = Signs { is_garbled: true, words: "invalid HTTP version parsed".to_owned(), ..Signs::default() };
        let verdict = judge(&signs, reached(Stage::FirstByte), "h:1");
        assert_eq!((verdict.cause, verdict.uncertain), (Cause::Mismatch, true));
    }

    #[test]
    fn a_timeout_is_certain_until_the_request_may_have_left() {
        let second = Duration::from_secs(1);
        for (stage, uncertain, words) in [
            (Stage::Dns, false, "not resolved within 1s"),
            (Stage::Connect, false, "no connection to h:1 within 1s"),
            (Stage::Tls, false, "TLS handshake"),
            (Stage::FirstByte, true, "no response from h:1 within 1s"),
            (Stage::Body, true, "not complete within"),
        ] {
            let verdict = judge_timeout(reached(stage), second, "h:1");
            assert_eq!((verdict.cause, verdict.uncertain), (Cause::Unreachable, uncertain), "{stage:?}");
            assert!(verdict.detail.contains(words), "{verdict:?}");
        }
        assert!(judge_timeout(Reached { stage: Stage::Connect, was_redirected: true }, second, "h:1").uncertain);
    }
}
