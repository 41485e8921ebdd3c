//! What a forger tries: for each scheme a call that is right, and more than forty that only nearly are.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use journeyman::channel::webhook::{Algorithm, Encoding, SigHash, TOLERANCE, Verify, VonageMethod};
use journeyman::clock::Clock;
use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::webhook_channel::{call, hex, secret};

/// What it takes to be believed; the second is there as during a rotation.
pub(super) const KEYS: [&str; 2] = ["canary-key-0-old-one", "canary-key-1-new-one"];
pub(super) const PUBLIC_URL: &str = "https://hooks.example.net";
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

pub(super) fn mac<M: Mac + KeyInit>(key: &str, parts: &[&str]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part.as_bytes()));
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn now() -> i64 {
    Clock::system().now().wall.as_second()
}

/// A call to the listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) target: String,
    headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Call {
    pub(super) fn post(target: &str, headers: &[(&'static str, &str)], body: &str) -> Call {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Call { method: "POST", target: target.to_owned(), headers, body: body.to_owned() }
    }

    /// With another value of a header, or with it once more.
    fn header(mut self, name: &'static str, value: &str) -> Call {
        self.headers.retain(|(other, _)| *other != name);
        self.also(name, value)
    }

    fn also(mut self, name: &'static str, value: &str) -> Call {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Call {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    pub(super) fn body(self, body: &str) -> Call {
        Call { body: body.to_owned(), ..self }
    }

    pub(super) fn target(self, target: &str) -> Call {
        Call { target: target.to_owned(), ..self }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        call(self.method, &self.target, &headers, &self.body)
    }
}

/// A scheme with a call that is right, and others that only nearly are.
pub(super) struct Scheme {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    pub(super) verify: Verify,
    /// `verify` as the configuration has it.
    pub(super) written: &'static str,
    pub(super) good: Call,
    pub(super) forged: Vec<(String, Call)>,
    /// What nobody may be told: the signature that the good call has.
    pub(super) signature: String,
}

impl Scheme {
    fn forge(&mut self, what: &str, call: Call) {
        self.forged.push((what.to_owned(), call));
    }

    /// The good call with a header bent in all the ways in which signatures are.
    fn bend_header(&mut self, name: &'static str, good: &str, has_case: bool) {
        for (what, value) in bent(good, has_case) {
            self.forge(&format!("{name}: {what}"), self.good.clone().header(name, &value));
        }
        let good_call = self.good.clone();
        self.forge("no such header", good_call.clone().without(name));
        self.forge("the header twice", good_call.clone().also(name, good));
        self.forge("the header twice, the first one wrong", good_call.clone().header(name, "x").also(name, good));
        self.forge("both in one header", good_call.header(name, &format!("{good}, {good}")));
    }
}

/// The text in other words: digits changed one by one, cut, lengthened, quoted, encoded once more.
fn bent(good: &str, has_case: bool) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, value: String| all.push((what.to_owned(), value));
    for at in (0..good.len()).step_by(good.len().div_ceil(16)) {
        let other = if good.as_bytes()[at] == b'1' { "2" } else { "1" };
        add(&format!("another sign at {at}"), format!("{}{other}{}", &good[..at], &good[at + 1..]));
    }
    let length = good.len();
    let middle = length / 2;
    add("empty", String::new());
    add("the first sign missing", good[1..].to_owned());
    add("the last sign missing", good[..length - 1].to_owned());
    add("two signs missing", good[..length - 2].to_owned());
    add("half of it", good[..middle].to_owned());
    add("twice without a separator", good.repeat(2));
    add("one sign more", format!("{good}0"));
    add("padding after it", format!("{good}="));
    add("a sign before it", format!("0{good}"));
    add("backwards", good.chars().rev().collect());
    add("a space in it", format!("{} {}", &good[..middle], &good[middle..]));
    add("a tab in it", format!("{}\t{}", &good[..middle], &good[middle..]));
    add("a full-width digit in it", format!("{}１{}", &good[..middle], &good[middle + 1..]));
    add("a letter with an accent after it", format!("{good}é"));
    add("in quotes", format!("\"{good}\""));
    add("encoded for a URL", format!("{}%{:02x}{}", &good[..middle], good.as_bytes()[middle], &good[middle + 1..]));
    add("as zeros", "0".repeat(length));
    add("as a star", "*".to_owned());
    add("in base64 once more", STANDARD.encode(good));
    if has_case {
        add("in capitals", good.to_uppercase());
        add("in small letters", good.to_lowercase());
    }
    all.retain(|(_, value)| value != good);
    all
}

const TEXT: &str = "probe jm01";

fn bearer() -> Scheme {
    let good = Call::post("/bearer", &[("authorization", "Bearer canary-key-1-new-one")], TEXT);
    let mut scheme = Scheme {
        name: "bearer",
        path: "/bearer",
        verify: Verify::Bearer { secrets: KEYS.map(secret).to_vec() },
        written: r#"{ scheme = "bearer", secrets = [{ file = "key-0" }, { file = "key-1" }] }"#,
        forged: Vec::new(),
        signature: KEYS[1].to_owned(),
        good: good.clone(),
    };
    for (what, value) in bent(KEYS[1], true) {
        scheme.forge(&what, good.clone().header("authorization", &format!("Bearer {value}")));
    }
    let authorization = |value: &str| good.clone().header("authorization", value);
    scheme.forge("no header", good.clone().without("authorization"));
    scheme.forge("the header twice", good.clone().also("authorization", "Bearer canary-key-1-new-one"));
    scheme.forge("another header", good.clone().without("authorization").also("x-authorization", KEYS[1]));
    scheme.forge("another scheme", authorization("Basic canary-key-1-new-one"));
    scheme.forge("no scheme", authorization(KEYS[1]));
    scheme.forge("the scheme alone", authorization("Bearer"));
    scheme.forge("the scheme twice", authorization("Bearer Bearer canary-key-1-new-one"));
    scheme.forge("a tab after the scheme", authorization("Bearer\tcanary-key-1-new-one"));
    scheme.forge("both keys", authorization("Bearer canary-key-0-old-one,canary-key-1-new-one"));
    scheme.forge("in the query", good.without("authorization").target("/bearer?access_token=canary-key-1-new-one"));
    scheme
}

fn hmac_sha256() -> Scheme {
    let signature = hex(&mac::<Hmac<Sha256>>(KEYS[1], &[TEXT]));
    let verify = Verify::Hmac {
        secrets: KEYS.map(secret).to_vec(),
        header: "X-Signature".to_owned(),
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Hex,
        prefix: "v1=".to_owned(),
    };
    let written = r#"{ scheme = "hmac", secrets = [{ file = "key-0" }, { file = "key-1" }], prefix = "v1=" }"#;
    over_body("hmac", "/hmac", "x-signature", "v1=", signature, verify, written)
}

fn github() -> Scheme {
    let signature = hex(&mac::<Hmac<Sha256>>(KEYS[1], &[TEXT]));
    let verify = Verify::github(KEYS.map(secret).to_vec());
    let written = r#"{ scheme = "github", secrets = [{ file = "key-0" }, { file = "key-1" }] }"#;
    let mut scheme = over_body("github", "/github", "x-hub-signature-256", "sha256=", signature, verify, written);
    let sha1 = format!("sha1={}", hex(&mac::<Hmac<Sha1>>(KEYS[1], &[TEXT])));
    let good = scheme.good.clone();
    scheme.forge("the header of old", good.clone().without("x-hub-signature-256").also("x-hub-signature", &sha1));
    scheme.forge("SHA-1 in the new header", good.header("x-hub-signature-256", &sha1));
    scheme
}

/// What all have in common that sign nothing but the body.
fn over_body(
    name: &'static str,
    path: &'static str,
    header: &'static str,
    prefix: &str,
    signature: String,
    verify: Verify,
    written: &'static str,
) -> Scheme {
    let value = format!("{prefix}{signature}");
    let good = Call::post(path, &[(header, &value)], TEXT);
    let mut scheme = Scheme { name, path, verify, written, good: good.clone(), forged: Vec::new(), signature };
    scheme.bend_header(header, &value, false);
    let signed = |key: &str, body: &str| format!("{prefix}{}", hex(&mac::<Hmac<Sha256>>(key, &[body])));
    scheme.forge("without its prefix", good.clone().header(header, &scheme.signature.clone()));
    scheme.forge("another prefix", good.clone().header(header, &format!("v2={}", scheme.signature)));
    scheme.forge("another key", good.clone().header(header, &signed("canary-key-2", TEXT)));
    scheme.forge("an empty key", good.clone().header(header, &signed("", TEXT)));
    scheme.forge("both keys", good.clone().header(header, &signed(&KEYS.concat(), TEXT)));
    scheme.forge(
        "another hash",
        good.clone().header(header, &format!("{prefix}{}", hex(&mac::<Hmac<Sha512>>(KEYS[1], &[TEXT])))),
    );
    scheme.forge("no key", good.clone().header(header, &format!("{prefix}{}", hex(&Sha256::digest(TEXT)))));
    scheme.forge("of another body", good.clone().header(header, &signed(KEYS[1], "probe jm02")));
    scheme.forge("another body", good.clone().body("probe jm02"));
    scheme.forge("a longer body", good.clone().body("probe jm01\n"));
    scheme.forge("a shorter body", good.clone().body("probe jm0"));
    scheme.forge("no body", good.body(""));
    scheme
}

fn slack() -> Scheme {
    let body = r#"{"type":"event_callback","event":{"type":"message","text":"probe jm01"}}"#;
    let at = now();
    let sign =
        |key: &str, at: &str, body: &str| format!("v0={}", hex(&mac::<Hmac<Sha256>>(key, &["v0:", at, ":", body])));
    let value = sign(KEYS[1], &at.to_string(), body);
    let (signature, timestamp) = ("x-slack-signature", "x-slack-request-timestamp");
    let good = Call::post("/slack", &[(signature, &value), (timestamp, &at.to_string())], body);
    let mut scheme = Scheme {
        name: "slack",
        path: "/slack",
        verify: Verify::Slack { secrets: KEYS.map(secret).to_vec(), tolerance: TOLERANCE },
        written: r#"{ scheme = "slack", secrets = [{ file = "key-0" }, { file = "key-1" }] }"#,
        good: good.clone(),
        forged: Vec::new(),
        signature: value[3..].to_owned(),
    };
    scheme.bend_header(signature, &value, true);
    let signed = |value: &str| good.clone().header(signature, value);
    scheme.forge("another version", signed(&value.replace("v0=", "v1=")));
    scheme.forge("without its version", signed(&value[3..]));
    scheme.forge("the digits in capitals", signed(&format!("v0={}", value[3..].to_uppercase())));
    scheme.forge("another key", signed(&sign("canary-key-2", &at.to_string(), body)));
    scheme.forge("the body alone", signed(&format!("v0={}", hex(&mac::<Hmac<Sha256>>(KEYS[1], &[body])))));
    scheme.forge("another body", good.clone().body(&body.replace("jm01", "jm02")));
    scheme.forge("a space after the body", good.clone().body(&format!("{body} ")));
    scheme.forge("no body", good.clone().body(""));
    scheme.forge("no time", good.clone().without(timestamp));
    scheme.forge("the time twice", good.clone().also(timestamp, &at.to_string()));
    scheme.forge("another time", good.clone().header(timestamp, &(at + 1).to_string()));
    // Each of these is signed rightly, and not at a time that can be believed.
    for (what, at) in [
        ("a time long ago", (at - 310).to_string()),
        ("a year ago", (at - 365 * 86_400).to_string()),
        ("a time to come", (at + 400).to_string()),
        ("the beginning", "0".to_owned()),
        ("before the beginning", "-1".to_owned()),
        ("a time with a sign", format!("+{at}")),
        ("a time with a fraction", format!("{at}.0")),
        ("milliseconds", format!("{at}000")),
        ("no digits", "now".to_owned()),
        ("an empty time", String::new()),
        ("more than a time can be", "99999999999999999999".to_owned()),
        ("a time with a separator", format!("{at}:")),
    ] {
        scheme.forge(what, good.clone().header(timestamp, &at).header(signature, &sign(KEYS[1], &at, body)));
    }
    scheme
}

/// The signature of a call by Twilio to what it believes to be the URL.
pub(super) fn twilio_sign(key: &str, url: &str, form: &str) -> String {
    let pairs: BTreeSet<_> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let posted: String = pairs.into_iter().flat_map(|(name, value)| [name, value]).collect();
    STANDARD.encode(mac::<Hmac<Sha1>>(key, &[url, &posted]))
}

fn twilio() -> Scheme {
    let url = format!("{PUBLIC_URL}/twilio?tenant=7");
    // One whose signature has all the signs that the two kinds of base64 write differently.
    let (form, value) = (0..)
        .map(|count| format!("MessageSid=SM{count}&From=%2B447700900001&To=%2B447700900123&Body=probe+jm01"))
        .map(|form| (form.clone(), twilio_sign(KEYS[1], &url, &form)))
        .find(|(_, value)| value.contains('+') && value.contains('/'))
        .unwrap();
    let name = "x-twilio-signature";
    let good = Call::post("/twilio?tenant=7", &[("content-type", FORM), (name, &value)], &form);
    let mut scheme = Scheme {
        name: "twilio",
        path: "/twilio",
        verify: Verify::Twilio { secrets: KEYS.map(secret).to_vec(), url: format!("{PUBLIC_URL}/twilio") },
        written: r#"{ scheme = "twilio", secrets = [{ file = "key-0" }, { file = "key-1" }] }"#,
        good: good.clone(),
        forged: Vec::new(),
        signature: value.clone(),
    };
    scheme.bend_header(name, &value, true);
    let signed = |value: &str| good.clone().header(name, value);
    scheme.forge("base64 for URLs", signed(&value.replace('+', "-").replace('/', "_")));
    scheme.forge("without padding", signed(value.trim_end_matches('=')));
    scheme.forge("in hexadecimal", signed(&hex(&STANDARD.decode(&value).unwrap())));
    scheme.forge("another key", signed(&twilio_sign("canary-key-2", &url, &form)));
    let pairs: String = url::form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .flat_map(|(name, value)| [name, value])
        .collect();
    scheme.forge("SHA-256", signed(&STANDARD.encode(mac::<Hmac<Sha256>>(KEYS[1], &[&url, &pairs]))));
    for (what, other) in [
        ("http", "http://hooks.example.net/twilio?tenant=7"),
        ("another host", "https://hooks.example.org/twilio?tenant=7"),
        ("our own address", "http://127.0.0.1/twilio?tenant=7"),
        ("another port", "https://hooks.example.net:8443/twilio?tenant=7"),
        ("another path", "https://hooks.example.net/twilio/?tenant=7"),
        ("a path in capitals", "https://hooks.example.net/Twilio?tenant=7"),
        ("another query", "https://hooks.example.net/twilio?tenant=8"),
        ("no query", "https://hooks.example.net/twilio"),
        ("a fragment", "https://hooks.example.net/twilio?tenant=7#rc=5"),
    ] {
        scheme.forge(&format!("of another URL: {what}"), signed(&twilio_sign(KEYS[1], other, &form)));
    }
    for (what, target) in [
        ("another query", "/twilio?tenant=8"),
        ("no query", "/twilio"),
        ("a longer query", "/twilio?tenant=7&admin=1"),
        ("the query written otherwise", "/twilio?tenant=%37"),
    ] {
        scheme.forge(&format!("at another URL: {what}"), good.clone().target(target));
    }
    // A hash of the body in the query counts only if it is signed, alone, and right.
    let hash = hex(&Sha256::digest(&form));
    scheme.forge(
        "a hash of the body that was not signed",
        good.clone().target(&format!("/twilio?tenant=7&bodySHA256={hash}")),
    );
    for (what, query) in [
        ("the hash of another body", format!("tenant=7&bodySHA256={}", hex(&Sha256::digest("{}")))),
        ("two hashes", format!("tenant=7&bodySHA256={hash}&bodySHA256={hash}")),
        ("an empty hash", "tenant=7&bodySHA256=".to_owned()),
    ] {
        let url = format!("{PUBLIC_URL}/twilio?{query}");
        scheme.forge(what, signed(&twilio_sign(KEYS[1], &url, "")).target(&format!("/twilio?{query}")));
    }
    for (what, body) in [
        ("another text", form.replace("jm01", "jm02")),
        ("another name", form.replace("Body", "body")),
        ("one more", format!("{form}&Admin=1")),
        ("one less", form.replace("&Body=probe+jm01", "")),
        ("a second value", format!("{form}&Body=probe+jm02")),
        (
            "two values in the other order",
            form.replace("From=%2B447700900001&To=%2B447700900123", "From=%2B447700900123&To=%2B447700900001"),
        ),
        ("no body", String::new()),
        ("the same as JSON", r#"{"Body":"probe jm01"}"#.to_owned()),
    ] {
        scheme.forge(&format!("another body: {what}"), good.clone().body(&body));
    }
    scheme
}

/// A JSON web token: header and claims as they are, signed by HS256.
fn token(key: &str, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac::<Hmac<Sha256>>(key, &[&signed])))
}

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn vonage() -> Scheme {
    let body = r#"{"to":"447700900123","channel":"sms","text":"probe jm01"}"#;
    let (at, hash) = (now(), hex(&Sha256::digest(body)));
    let jti = "c5ba8f24-1a14-4c10-bfdf-3fbe8ce511b5";
    let claims = json!({"iat": at, "jti": jti, "iss": "Vonage", "payload_hash": hash, "api_key": "a1b2c3d"});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims.to_string()
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims.to_string()
    };
    let value = token(KEYS[1], HS256, &claims.to_string());
    let bearer = |token: &str| format!("Bearer {token}");
    let good = Call::post("/vonage", &[("authorization", &bearer(&value))], body);
    let (signed, signature) = value.rsplit_once('.').unwrap();
    let mut scheme = Scheme {
        name: "vonage",
        path: "/vonage",
        verify: Verify::Vonage {
            secrets: KEYS.map(secret).to_vec(),
            method: VonageMethod::Jwt { api_key: Some("a1b2c3d".to_owned()) },
            tolerance: TOLERANCE,
        },
        written: r#"{ scheme = "vonage", api_key = "a1b2c3d", secrets = [{ file = "key-0" }, { file = "key-1" }] }"#,
        good: good.clone(),
        forged: Vec::new(),
        signature: signature.to_owned(),
    };
    let sent = |token: &str| good.clone().header("authorization", &bearer(token));
    for (what, signature) in bent(signature, true) {
        scheme.forge(&format!("signature: {what}"), sent(&format!("{signed}.{signature}")));
    }
    for (what, signed) in bent(signed, false) {
        scheme.forge(&format!("signed: {what}"), sent(&format!("{signed}.{signature}")));
    }
    scheme.forge("no header", good.clone().without("authorization"));
    scheme.forge("the header twice", good.clone().also("authorization", &bearer(&value)));
    scheme.forge("not as a bearer", good.clone().header("authorization", &value));
    scheme.forge("as basic", good.clone().header("authorization", &format!("Basic {value}")));
    scheme.forge("the signature alone", sent(signature));
    scheme.forge("two parts", sent(signed));
    scheme.forge("four parts", sent(&format!("{value}.{signature}")));
    scheme.forge("a dot alone", sent("."));
    scheme.forge("two dots alone", sent(".."));
    scheme.forge(
        "base64 for mail",
        sent(&format!("{signed}.{}", STANDARD.encode(URL_SAFE_NO_PAD.decode(signature).unwrap()))),
    );
    scheme.forge("another key", sent(&token("canary-key-2", HS256, &claims.to_string())));
    scheme.forge("an empty key", sent(&token("", HS256, &claims.to_string())));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let claimed = URL_SAFE_NO_PAD.encode(claims.to_string());
    scheme.forge("no algorithm, no signature", sent(&format!("{none}.{claimed}.")));
    scheme.forge("no algorithm, the good signature", sent(&format!("{none}.{claimed}.{signature}")));
    // From here on each signature is right.
    for header in [
        r#"{"alg":"none","typ":"JWT"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"RS256","typ":"JWT"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{}"#,
        "",
        "null",
    ] {
        scheme.forge(&format!("header {header}"), sent(&token(KEYS[1], header, &claims.to_string())));
    }
    for (what, claims) in [
        ("the hash of another body", with("payload_hash", json!(hex(&Sha256::digest("{}"))))),
        ("the hash in base64", with("payload_hash", json!(STANDARD.encode(Sha256::digest(body))))),
        ("an empty hash", with("payload_hash", json!(""))),
        ("no hash", without("payload_hash")),
        ("null as the hash", with("payload_hash", json!(null))),
        ("a list as the hash", with("payload_hash", json!([hash]))),
        ("no id", without("jti")),
        ("no time", without("iat")),
        ("a time in words", with("iat", json!("now"))),
        ("a time as text", with("iat", json!(at.to_string()))),
        ("a time with a fraction", with("iat", json!(at as f64 + 0.5))),
        ("too old", with("iat", json!(at - 310))),
        ("from the future", with("iat", json!(at + 400))),
        ("milliseconds", with("iat", json!(at * 1_000))),
        ("the end of time", with("iat", json!(i64::MAX))),
        ("the beginning of time", with("iat", json!(i64::MIN))),
        ("expired", with("exp", json!(at - 1))),
        ("not valid yet", with("nbf", json!(at + 400))),
        ("another account", with("api_key", json!("a1b2c3e"))),
        ("no account", without("api_key")),
        ("not an object", "[]".to_owned()),
        ("not JSON", "probe".to_owned()),
        ("a claim twice", format!("{{\"payload_hash\":\"{hash}\",{}", &claims.to_string()[1..])),
    ] {
        scheme.forge(what, sent(&token(KEYS[1], HS256, &claims)));
    }
    scheme.forge("another body", good.clone().body(&body.replace("jm01", "jm02")));
    scheme.forge("a space after the body", good.clone().body(&format!("{body} ")));
    scheme.forge("no body", good.clone().body(""));
    // The other kind of Vonage's signatures is no proof where this one is asked for.
    let form = format!("text=probe+jm01&timestamp={at}");
    let sig = hex(&mac::<Hmac<Sha256>>(KEYS[1], &["&text=probe jm01&timestamp=", &at.to_string()]));
    scheme.forge("by `sig`", good.without("authorization").body(&format!("{form}&sig={sig}")));
    scheme
}

fn vonage_sms() -> Scheme {
    let at = now().to_string();
    let sign = |key: &str, signed: &str| hex(&mac::<Hmac<Sha512>>(key, &[signed]));
    let signed = format!("&msisdn=447700900001&nonce=abc&text=probe jm01_2_&timestamp={at}&to=447700900123");
    let sig = sign(KEYS[1], &signed);
    let form = |at: &str, sig: &str| {
        format!("to=447700900123&msisdn=447700900001&text=probe+jm01%262%3D&nonce=abc&timestamp={at}&sig={sig}")
    };
    let good = Call::post("/vonage/sms", &[("content-type", FORM)], &form(&at, &sig));
    let mut scheme = Scheme {
        name: "vonage-sms",
        path: "/vonage/sms",
        verify: Verify::Vonage {
            secrets: KEYS.map(secret).to_vec(),
            method: VonageMethod::Sig(SigHash::Sha512),
            tolerance: TOLERANCE,
        },
        written: r#"{ scheme = "vonage", method = "sha512", secrets = [{ file = "key-0" }, { file = "key-1" }] }"#,
        good: good.clone(),
        forged: Vec::new(),
        signature: sig.clone(),
    };
    for (what, sig) in bent(&sig, false) {
        let sig: String = url::form_urlencoded::byte_serialize(sig.as_bytes()).collect();
        scheme.forge(&format!("sig: {what}"), good.clone().body(&form(&at, &sig)));
    }
    let all = form(&at, &sig);
    let unsigned = all.split("&sig=").next().unwrap().to_owned();
    for (what, body) in [
        ("another text", all.replace("jm01", "jm02")),
        ("another name", all.replace("msisdn", "msisdm")),
        ("a name in capitals", all.replace("&text", "&Text")),
        ("one more", format!("{all}&type=text")),
        ("one less", all.replace("&nonce=abc", "")),
        ("a second value", format!("{all}&text=probe+jm02")),
        ("sig twice", format!("{all}&sig={sig}")),
        ("sig twice, the first one wrong", format!("sig=0&{all}")),
        ("Sig", all.replace("&sig=", "&Sig=")),
        ("no sig", unsigned.clone()),
        ("no time", all.replace("timestamp", "timestomp")),
        ("no body", String::new()),
        ("another time", all.replace(&at, &(now() - 5).to_string())),
        // What was a name, a value and the next name becomes one name.
        (
            "names run together",
            all.replace(
                "msisdn=447700900001&text=probe+jm01%262%3D&nonce=abc",
                "msisdn%3D447700900001%26nonce=abc&text=probe+jm01%262%3D",
            ),
        ),
        ("a list of signs", r#"{"sig":["a"],"timestamp":"1"}"#.to_owned()),
        ("not JSON", "{".to_owned()),
    ] {
        scheme.forge(what, good.clone().body(&body));
    }
    let other = |key: &str| form(&at, &sign(key, &signed));
    scheme.forge("another key", good.clone().body(&other("canary-key-2")));
    scheme.forge("an empty key", good.clone().body(&other("")));
    scheme.forge("SHA-256", good.clone().body(&form(&at, &hex(&mac::<Hmac<Sha256>>(KEYS[1], &[&signed])))));
    scheme.forge("SHA-1", good.clone().body(&form(&at, &hex(&mac::<Hmac<Sha1>>(KEYS[1], &[&signed])))));
    scheme.forge("no keyed hash", good.clone().body(&form(&at, &hex(&Sha512::digest(format!("{signed}{}", KEYS[1]))))));
    scheme.forge(
        "separators as they are",
        good.clone().body(&form(&at, &sign(KEYS[1], &signed.replace("jm01_2_", "jm01&2=")))),
    );
    scheme.forge(
        "the parameters in another order",
        good.clone()
            .body(&form(&at, &sign(KEYS[1], &format!("&to=447700900123{}", signed.replace("&to=447700900123", ""))))),
    );
    for (what, time) in [
        ("too old", (now() - 310).to_string()),
        ("from the future", (now() + 400).to_string()),
        ("milliseconds", format!("{at}000")),
        ("a time in words", "now".to_owned()),
        ("an empty time", String::new()),
        ("before the beginning", "-1".to_owned()),
    ] {
        let sig = sign(KEYS[1], &signed.replace(&at, &time));
        scheme.forge(what, good.clone().body(&form(&time, &sig)));
    }
    // Both kinds of parameters under one roof: of two with one name none is believed.
    let json = format!(
        r#"{{"text":"probe jm02","text":"probe jm01","timestamp":"{at}","sig":"{}"}}"#,
        sign(KEYS[1], &format!("&text=probe jm01&timestamp={at}"))
    );
    scheme.forge("a name twice in JSON", good.clone().header("content-type", "application/json").body(&json));
    let bearer = token(
        KEYS[1],
        HS256,
        &json!({"iat": now(), "jti": "1", "payload_hash": hex(&Sha256::digest(&unsigned))}).to_string(),
    );
    scheme.forge("by a token", good.body(&unsigned).header("authorization", &format!("Bearer {bearer}")));
    scheme
}

pub(super) fn schemes() -> Vec<Scheme> {
    vec![bearer(), hmac_sha256(), github(), slack(), twilio(), vonage(), vonage_sms()]
}
