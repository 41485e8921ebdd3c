//! Twilio: HMAC-SHA-1 over the URL that it calls and what it posts. <https://www.twilio.com/docs/usage/security>

use std::collections::BTreeSet;

use axum::http::request::Parts;
use hmac::Hmac;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use url::form_urlencoded::parse;

use super::{any, hex, mac, the_only};
use crate::secret::{Secret, base64};

const HEADER: &str = "X-Twilio-Signature";
/// The parameter that it adds to the URL when the body is no form.
const BODY_HASH: &str = "bodySHA256";

/// Judges a call to `url`, the address as Twilio has it, without a query.
pub(super) fn check(secrets: &[Secret], url: &str, head: &Parts, body: &[u8]) -> Result<(), &'static str> {
    let sent = the_only(&head.headers, HEADER)?;
    let posted = posted(head.uri.query().unwrap_or_default(), body)?;
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let signed = with_and_without_port(url).map(|url| format!("{url}{query}{posted}"));
    let is_right = |secret: &[u8]| {
        signed.iter().fold(Choice::from(0), |found, signed| {
            let expected = base64(&mac::<Hmac<Sha1>>(secret, signed.as_bytes()));
            found | expected.as_bytes().ct_eq(sent.as_bytes())
        })
    };
    any(secrets, is_right).then_some(()).ok_or("wrong signature")
}

/// What of the body is signed after the URL: names and values of a form in the order of their names, each once. A body that is
/// no form is not: its hash stands in the query, which is signed.
fn posted(query: &str, body: &[u8]) -> Result<String, &'static str> {
    let mut hashes = parse(query.as_bytes()).filter(|(name, _)| name == BODY_HASH).map(|(_, hash)| hash);
    match (hashes.next(), hashes.next()) {
        (None, _) => {
            let pairs: BTreeSet<_> = parse(body).collect();
            Ok(pairs.iter().flat_map(|(name, value)| [&**name, &**value]).collect())
        }
        (Some(hash), None) => {
            let is_right = hex(&Sha256::digest(body)).as_bytes().ct_eq(hash.to_ascii_lowercase().as_bytes());
            if is_right.into() { Ok(String::new()) } else { Err("the body is not the one that was signed") }
        }
        (Some(_), Some(_)) => Err("more than one hash of the body"),
    }
}

/// The URL without a port, and with its own or its scheme's: Twilio's services do not agree on whether they sign the port, and
/// its libraries try both.
fn with_and_without_port(url: &str) -> [String; 2] {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        // What follows the last colon of an IPv6 address is no port.
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (authority, if scheme.eq_ignore_ascii_case("http") { "80" } else { "443" }),
    };
    [format!("{scheme}://{host}{path}"), format!("{scheme}://{host}:{port}{path}")]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Call, secrets};
    use super::*;

    /// Documented by Twilio, and part of the tests of its libraries. Each was computed once more, outside this code.
    #[test]
    fn the_published_vectors() {
        let form = "Digits=1234&To=%2B18005551212&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE";
        let json = r#"{"property": "value", "boolean": true}"#;
        let hash = "bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
        let both = format!("foo=1&bar=2&{hash}");
        let plain = "https://mycompany.com/myapp.php";
        let vectors = [
            (plain, "foo=1&bar=2", form, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            // A name with several values: in their order, each once.
            (
                plain,
                "foo=1&bar=2",
                "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
                "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
            ),
            (plain, &both, json, "a9nBmqA0ju/hNViExpshrM61xv4="),
            // The host as it is written.
            ("https://MyCompany.com/myapp.php", "foo=1&bar=2", form, "g9IN/x4Cft2g517EjYvEvM/W7LU="),
            // With a port, its own or its scheme's, and signed without the one that it has.
            ("https://MyCompany.com:1234/myapp.php", "foo=1&bar=2", form, "PCqOZm8cnu/L6+u5i5fuEd+Iac4="),
            ("http://mycompany.com:1234/myapp.php", "foo=1&bar=2", form, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
            (plain, "foo=1&bar=2", form, "kvajT1Ptam85bY51eRf/AJRuM3w="),
            ("http://mycompany.com/myapp.php", "foo=1&bar=2", form, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
            ("https://mycompany.com:1234/myapp.php", "foo=1&bar=2", form, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ];
        for (url, query, body, signature) in vectors {
            let call = Call::post(&format!("/any?{query}"), body).header(HEADER, signature);
            let (head, body) = call.taken();
            assert_eq!(check(&secrets(&["54321", "12345"]), url, &head, &body), Ok(()), "{url}?{query} {signature}");
            assert_eq!(check(&secrets(&["54321"]), url, &head, &body), Err("wrong signature"));
        }
    }

    #[test]
    fn the_port_is_that_of_the_url_or_of_its_scheme() {
        for (url, expected) in [
            ("https://h.example/a", ["https://h.example/a", "https://h.example:443/a"]),
            ("http://h.example", ["http://h.example", "http://h.example:80"]),
            ("https://h.example:8443/a:1", ["https://h.example/a:1", "https://h.example:8443/a:1"]),
            ("https://u:p@h.example/a", ["https://u:p@h.example/a", "https://u:p@h.example:443/a"]),
            ("https://[::1]/a", ["https://[::1]/a", "https://[::1]:443/a"]),
            ("https://[::1]:8443/a", ["https://[::1]/a", "https://[::1]:8443/a"]),
        ] {
            assert_eq!(with_and_without_port(url), expected);
        }
    }
}
