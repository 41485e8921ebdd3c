//! What SQS and SNS have in common: signed calls, and what AWS means by its answers.

mod answer;
mod sigv4;

use std::path::PathBuf;

use url::Url;

use crate::channel::refusal::Refusal;
use crate::channel::web::{Call, Errand, Web};
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::journey::token::Token;
use crate::secret::Secret;

/// Who we are to AWS. Read again for every call, so rotated keys need no restart.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `AKIA…`, or `ASIA…` with a session token.
    pub access_key_id: Secret,
    /// Its key.
    pub secret_access_key: Secret,
    /// What temporary credentials have beside them.
    pub session_token: Option<Secret>,
}

/// One service of AWS in one region, or a server that speaks like it.
pub(super) struct Service {
    web: Web,
    /// `sqs`, `sns`: part of the signature.
    name: &'static str,
    region: String,
    /// As the `host` header has it: part of the signature.
    host: String,
    credentials: Credentials,
    clock: Clock,
}

impl Service {
    /// The service at `endpoint`. Reads certificates; touches no network.
    pub(super) fn open(
        name: &'static str,
        endpoint: &Url,
        region: &str,
        credentials: Credentials,
        ca_file: Option<PathBuf>,
        clock: Clock,
    ) -> Result<Service, String> {
        let mut root = endpoint.clone();
        root.set_path("/");
        root.set_query(None);
        let host = root.host_str().unwrap_or_default();
        let host = root.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let web = Web::open(root, ca_file, clock)?;
        Ok(Service { web, name, region: region.to_owned(), host, credentials, clock })
    }

    /// Asks once. `headers` have lower-case names, and are signed.
    ///
    /// # Errors
    /// No answer, or one that says no.
    pub(super) async fn ask(
        &self,
        mut headers: Vec<(String, String)>,
        body: Vec<u8>,
        errand: Errand,
    ) -> Result<Reply, Fault> {
        let Credentials { access_key_id, secret_access_key, session_token } = &self.credentials;
        let at = sigv4::date(self.clock.now().wall);
        headers.push(("x-amz-date".to_owned(), at.clone()));
        if let Some(token) = session_token {
            headers.push(("x-amz-security-token".to_owned(), token.reveal().to_string()));
        }
        let (id, key) = (access_key_id.reveal(), secret_access_key.reveal());
        let signer = sigv4::Signer { id: &id, key: &key, at: &at, region: &self.region, service: self.name };
        let signed: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let signed = [signed.as_slice(), &[("host", self.host.as_str())]].concat();
        let authorization = signer.authorization("POST", &signed, &body);
        headers.push(("authorization".to_owned(), authorization));
        let call = Call { method: "POST", path: None, query: Vec::new(), headers, body, errand };
        let reply = self.web.call(call).await?;
        let message = reply.message.as_ref();
        let status = message.and_then(|message| message.status).unwrap_or_default();
        if status == 200 {
            return Ok(reply);
        }
        let body = message.map(|message| message.text()).unwrap_or_default();
        Err(answer::refusal(status, &body, &self.host).into_fault(reply.started, reply.finished, reply.phases))
    }

    /// The fault of an answer that is not the service's.
    pub(super) fn strange(&self, reply: Reply) -> Fault {
        let detail = format!("what {} answered is not {}'s answer", self.host, self.name.to_uppercase());
        let refusal = Refusal { cause: Cause::Mismatch, detail, is_verdict: false };
        refusal.into_fault(reply.started, reply.finished, reply.phases)
    }
}

pub(super) use answer::element;

/// The attributes of a message: the token, the trace, and the step's headers; never more than AWS takes.
///
/// # Errors
/// In words: what AWS would not take, or would take in silence and deliver to nobody.
pub(super) fn attributes(token: Token, headers: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
    let mut attributes = vec![(TOKEN_ATTRIBUTE.to_owned(), token.to_string())];
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("traceparent")) {
        attributes.push(("traceparent".to_owned(), token.traceparent()));
    }
    attributes.extend_from_slice(headers);
    if attributes.len() > MOST_ATTRIBUTES {
        let ours = attributes.len() - headers.len();
        let room = MOST_ATTRIBUTES - ours;
        return Err(format!(
            "the step has {} headers; a message has {MOST_ATTRIBUTES} attributes at most, of which the token and the trace \
             take {ours}, so {room} are left",
            headers.len()
        ));
    }
    for (name, value) in &attributes {
        let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let reserved = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws."))
            || name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("amazon."));
        if name.is_empty() || name.len() > 256 || !name.chars().all(is_known) || reserved {
            return Err(format!(
                "`{name}` cannot be an attribute's name: letters, digits, `_`, `-` and `.`, not beginning with `AWS.` or `Amazon.`"
            ));
        }
        if value.is_empty() {
            return Err(format!("the header `{name}` is empty; an attribute has a value"));
        }
    }
    Ok(attributes)
}

/// The payload as the text that AWS takes.
///
/// # Errors
/// In words: it is empty, or not text.
pub(super) fn text(body: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the payload is not text, and a message here is".to_owned())?;
    if text.is_empty() {
        Err("the payload is empty; a message here has at least one character".to_owned())
    } else {
        Ok(text)
    }
}

/// The attribute that carries the token.
const TOKEN_ATTRIBUTE: &str = "journeyman-token";
/// SNS delivers to no queue, and says nothing, what has more (Amazon SNS developer guide, "message attributes": raw delivery).
const MOST_ATTRIBUTES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_the_token_the_trace_and_the_headers_and_at_most_ten() {
        let token = Token::from_bits(7);
        let headers = |count: usize| (0..count).map(|n| (format!("x-{n}"), "v".to_owned())).collect::<Vec<_>>();
        let all = attributes(token, &headers(8)).unwrap();
        assert_eq!(all.len(), 10);
        assert_eq!(all[0], ("journeyman-token".to_owned(), token.to_string()));
        assert_eq!(all[1], ("traceparent".to_owned(), token.traceparent()));
        let told = attributes(token, &headers(9)).unwrap_err();
        assert!(told.contains("has 9 headers") && told.ends_with("so 8 are left"), "{told}");
        let own = [("traceparent".to_owned(), "00-mine".to_owned())];
        assert_eq!(attributes(token, &own).unwrap()[1].1, "00-mine");
        for (name, value, expected) in
            [("x y", "v", "`x y`"), ("AWS.x", "v", "`AWS.x`"), ("", "v", "``"), ("x", "", "`x` is empty")]
        {
            let told = attributes(token, &[(name.to_owned(), value.to_owned())]).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_payload_is_text_and_not_nothing() {
        assert_eq!(text("grüße".as_bytes()), Ok("grüße"));
        assert!(text(b"").unwrap_err().contains("empty") && text(&[0xff]).unwrap_err().contains("not text"));
    }
}
