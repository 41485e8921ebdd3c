//! Vonage. The Messages API sends a JSON web token (<https://developer.vonage.com/en/getting-started/concepts/webhooks>), the SMS
//! API a parameter `sig` beside the others (<https://developer.vonage.com/en/getting-started/concepts/signing-messages>).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Hmac;
use jiff::Timestamp;
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use url::form_urlencoded::parse;

use super::{any, bearer, fresh, hex, mac, seconds};
use crate::channel::webhook::{SigHash, VonageMethod};
use crate::secret::Secret;

/// Judges a call.
pub(super) fn check(
    secrets: &[Secret],
    method: &VonageMethod,
    tolerance: Duration,
    head: &Parts,
    body: &[u8],
    now: Timestamp,
) -> Result<(), &'static str> {
    let at = match method {
        VonageMethod::Jwt { api_key } => check_token(secrets, api_key.as_deref(), head, body, now)?,
        VonageMethod::Sig(hash) => check_sig(secrets, *hash, head, body)?,
    };
    fresh(at, tolerance, now)
}

/// The part of a token's header that decides how it is read.
#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iat: i64,
    exp: Option<i64>,
    nbf: Option<i64>,
    jti: Option<String>,
    payload_hash: Option<String>,
    api_key: Option<String>,
}

/// Judges the token; gives when it was issued. Its signature is judged first: of a token that is not right nothing is read.
fn check_token(
    secrets: &[Secret],
    api_key: Option<&str>,
    head: &Parts,
    body: &[u8],
    now: Timestamp,
) -> Result<i64, &'static str> {
    let token = bearer(&head.headers, AUTHORIZATION.as_str())?;
    let (signed, sent) = token.rsplit_once('.').ok_or("not a JSON web token")?;
    let (header, claims) = signed.split_once('.').ok_or("not a JSON web token")?;
    let is_right = |secret: &[u8]| {
        let expected = URL_SAFE_NO_PAD.encode(mac::<Hmac<Sha256>>(secret, signed.as_bytes()));
        expected.as_bytes().ct_eq(sent.as_bytes())
    };
    if !any(secrets, is_right) {
        return Err("wrong signature");
    }
    let header: Header = decoded(header).ok_or("the token's header cannot be read")?;
    // Whatever else it says, we have computed HS256; a token that says otherwise was signed for another purpose.
    if header.alg != "HS256" || header.crit.is_some() {
        return Err("the token is not signed by HS256 alone");
    }
    let claims: Claims = decoded(claims).ok_or("the token's claims cannot be read")?;
    let (Some(hash), Some(_)) = (&claims.payload_hash, &claims.jti) else {
        return Err("the token lacks `payload_hash` or `jti`");
    };
    let is_same = hex(&Sha256::digest(body)).as_bytes().ct_eq(hash.to_ascii_lowercase().as_bytes());
    if !bool::from(is_same) {
        return Err("the body is not the one that was signed");
    }
    if api_key.is_some() && api_key != claims.api_key.as_deref() {
        return Err("the token is for another account");
    }
    let now = now.as_second();
    if claims.exp.is_some_and(|exp| exp <= now) || claims.nbf.is_some_and(|nbf| nbf > now) {
        return Err("the token is not valid now");
    }
    Ok(claims.iat)
}

fn decoded<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Judges `sig`; gives the parameter `timestamp`, which is signed with the others.
fn check_sig(secrets: &[Secret], hash: SigHash, head: &Parts, body: &[u8]) -> Result<i64, &'static str> {
    let mut parameters = if body.is_empty() {
        form(head.uri.query().unwrap_or_default().as_bytes())?
    } else if body.trim_ascii_start().starts_with(b"{") {
        object(body)?
    } else {
        form(body)?
    };
    let sent = parameters.remove("sig").ok_or("no parameter `sig`")?.to_ascii_lowercase();
    let mut signed = String::new();
    for (name, value) in &parameters {
        // Only values are cleaned before they are signed: such a name could pass for a name and a value that were signed.
        if name.contains(['&', '=']) {
            return Err("a parameter's name has a separator in it");
        }
        signed.extend(["&", name, "=", &value.replace(['&', '='], "_")]);
    }
    let is_right = |secret: &[u8]| {
        let signed = signed.as_bytes();
        let digest = match hash {
            SigHash::Sha1 => mac::<Hmac<Sha1>>(secret, signed),
            SigHash::Sha256 => mac::<Hmac<Sha256>>(secret, signed),
            SigHash::Sha512 => mac::<Hmac<Sha512>>(secret, signed),
        };
        hex(&digest).as_bytes().ct_eq(sent.as_bytes())
    };
    if !any(secrets, is_right) {
        return Err("wrong signature");
    }
    parameters.get("timestamp").and_then(|text| seconds(text)).ok_or("no time is signed")
}

/// The parameters of a form or a query, by name. What is there twice is refused: we and the signature might mean another.
fn form(bytes: &[u8]) -> Result<BTreeMap<Cow<'_, str>, Cow<'_, str>>, &'static str> {
    let mut parameters = BTreeMap::new();
    for (name, value) in parse(bytes) {
        if parameters.insert(name, value).is_some() {
            return Err("a parameter is there more than once");
        }
    }
    Ok(parameters)
}

/// The parameters of a flat object in JSON, as accounts that are set to `POST-JSON` send it.
fn object(body: &[u8]) -> Result<BTreeMap<Cow<'_, str>, Cow<'_, str>>, &'static str> {
    let Members(members) = serde_json::from_slice(body).map_err(|_| "the parameters cannot be read")?;
    let mut parameters = BTreeMap::new();
    for (name, value) in members {
        let value = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            _ => return Err("a parameter is neither a text nor a number"),
        };
        if parameters.insert(Cow::from(name), Cow::from(value)).is_some() {
            return Err("a parameter is there more than once");
        }
    }
    Ok(parameters)
}

/// The members of an object as they stand there: a map would keep the last of two with one name, and not tell.
struct Members(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Call, secrets};
    use super::*;

    /// From the tests of Vonage's libraries; each was computed once more, outside this code.
    #[test]
    fn the_published_vectors_of_the_sms_api() {
        let vectors = [
            (SigHash::Sha1, "3e19a4e6880fdc2c1426bfd0587c98b9532f0210"),
            (SigHash::Sha256, "a321e824b9b816be7c3f28859a31749a098713d39f613c80d455bbaffae1cd24"),
            (
                SigHash::Sha512,
                "812a18f76680fa0fe1b8bd9ee1625466ceb1bd96242e4d050d2cfd9a7b40166c63ed26ec9702168781b6edcf1633db8ff95af9341701004eec3fcf9550572ee8",
            ),
        ];
        for (hash, sig) in vectors {
            for call in [
                Call::post("/in", &format!("b=2&sig={sig}&timestamp=1461605396&a=1")),
                Call::post("/in", &format!(r#" {{"b":2,"sig":"{sig}","timestamp":"1461605396","a":"1"}}"#)),
                Call::post(&format!("/in?a=1&b=2&timestamp=1461605396&sig={}", sig.to_uppercase()), ""),
            ] {
                let (head, body) = call.taken();
                assert_eq!(check_sig(&secrets(&["old", "secret"]), hash, &head, &body), Ok(1_461_605_396), "{hash:?}");
                assert_eq!(check_sig(&secrets(&["old"]), hash, &head, &body), Err("wrong signature"));
                let now = Timestamp::from_second(1_461_605_396 + 301).unwrap();
                let method = VonageMethod::Sig(hash);
                let judged = check(&secrets(&["secret"]), &method, Duration::from_secs(300), &head, &body, now);
                assert_eq!(judged, Err("what is signed is too old"));
            }
        }
    }

    #[test]
    fn separators_in_values_are_signed_as_underscores() {
        // HMAC-SHA-256 of `&text=a_b_c&timestamp=1461605396` by openssl.
        let sig = "9fd854a2ca444ddb99a6445f352dd5692bf6ab2bac7c72a528f1a18d8ec8d2fb";
        let (head, body) = Call::post("/in", &format!("text=a%26b%3Dc&timestamp=1461605396&sig={sig}")).taken();
        assert_eq!(check_sig(&secrets(&["secret"]), SigHash::Sha256, &head, &body), Ok(1_461_605_396));
    }

    /// The token of the introduction to JSON web tokens, in use everywhere: its signature is right, and it says nothing of a body.
    #[test]
    fn a_right_signature_alone_is_not_enough() {
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
        let (head, body) = Call::post("/in", "{}").header("authorization", &format!("Bearer {token}")).taken();
        let judged = |secret| check_token(&secrets(&[secret]), None, &head, &body, Timestamp::UNIX_EPOCH);
        assert_eq!(judged("your-256-bit-secret"), Err("the token lacks `payload_hash` or `jti`"));
        assert_eq!(judged("your-256-bit-secre"), Err("wrong signature"));
    }

    /// Made by Python's hmac and json, with the claims of Vonage's documentation.
    #[test]
    fn a_token_of_the_messages_api() {
        let body = r#"{"to":"447700900000","from":"447700900001","channel":"sms","text":"probe jm01"}"#;
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE1ODc0OTQ5NjIsImp0aSI6ImM1YmE4ZjI0LTFhMTQtNGMxMC1iZmRmLTNmYmU4Y2U1MTFiNSIsImlzcyI6IlZvbmFnZSIsInBheWxvYWRfaGFzaCI6IjdiNTVlNDI3MzkzNDBjMjY1N2RmMTYyYjkyMzkxNmFlZWJiOTU4ODg4ODQ3NWFiMzYyNTkwNGI0ODFhNTdmNzIiLCJhcGlfa2V5IjoiYTFiMmMzZCIsImFwcGxpY2F0aW9uX2lkIjoiYWFhYWFhYWEtYmJiYi1jY2NjLWRkZGQtMDEyMzQ1Njc4OWFiIn0.yGvRnqlygjUMryzMTIHlM9qIf8F-GVqf8c0oVKWNIw8";
        let (head, taken) = Call::post("/in", body).header("authorization", &format!("Bearer {token}")).taken();
        let key = secrets(&["other", "ZYpZbYHzDUbNdFJDwZGaNBJMnMpNtMHG"]);
        let now = Timestamp::from_second(1_587_494_962 + 60).unwrap();
        let judged = |api_key: Option<&str>| check_token(&key, api_key, &head, &taken, now);
        assert_eq!(judged(None), Ok(1_587_494_962));
        assert_eq!(judged(Some("a1b2c3d")), Ok(1_587_494_962));
        assert_eq!(judged(Some("a1b2c3e")), Err("the token is for another account"));
    }
}
