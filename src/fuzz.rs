//! Everything that takes bytes of strangers, of people or of a damaged disk, each as a function of bytes. What holds for all of
//! them: no panic, and no more time or memory than a small input is worth; most know more that must hold.
//!
//! `tests/fuzz` has a fuzzer search for what breaks them, and a unit test gives them what it has found: `fuzz/corpus/NAME`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;

use crate::channel::webhook::{self, Algorithm, Encoding, SigHash, Verify, VonageMethod};
use crate::config::{load_text, render};
use crate::journey::expect::{JsonPath, Query, View};
use crate::journey::message::Message;
use crate::journey::own::{self, Call};
use crate::journey::schedule::Calendar;
use crate::journey::template::{Medium, Scope, Template};
use crate::journey::token::Token;
use crate::journey::value::{Decimal, Value};
use crate::metrics::Metrics;
use crate::secret::{MASK, Redactor, Secret};
use crate::time::{Human, parse_duration};
use crate::{channel, http, notifier, store};

/// A name, and what is given the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("config", config),
    ("times", times),
    ("template", template),
    ("token", token),
    ("query", query),
    ("redaction", redaction),
    ("metrics", metrics),
    ("html", http::fuzz),
    ("redirect", channel::http::fuzz),
    ("verify_hmac", |data| webhook::fuzz(&SCHEMES.hmac, data)),
    ("verify_twilio", |data| webhook::fuzz(&SCHEMES.twilio, data)),
    ("verify_vonage", |data| SCHEMES.vonage.iter().for_each(|scheme| webhook::fuzz(scheme, data))),
    ("verify_slack", |data| webhook::fuzz(&SCHEMES.slack, data)),
    ("slack_answer", notifier::slack::fuzz::answer),
    ("slack_escape", notifier::slack::fuzz::escape),
    ("slack_press", notifier::slack::fuzz::press),
    ("store_rows", store::sqlite::fuzz::rows),
    ("store_file", store::sqlite::fuzz::file),
    #[cfg(feature = "smtp")]
    ("smtp_reply", channel::smtp::fuzz),
    #[cfg(feature = "exec")]
    ("exec_verdict", channel::exec::fuzz),
    #[cfg(feature = "imap")]
    ("mail", channel::imap::fuzz),
    #[cfg(feature = "nats")]
    ("nats_wire", channel::nats::wire::fuzz),
    #[cfg(feature = "checks")]
    ("dns_wire", channel::dns::fuzz),
    #[cfg(feature = "smpp")]
    ("smpp_wire", channel::smpp::fuzz),
];

/// A daemon's file and, after a line `%%`, a probe file. Whatever is refused has a place.
fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (main, probes) = text.split_once("\n%%\n").unwrap_or((&text, ""));
    let (is_refused, problems) = match load_text("journeyman.toml", main, &[("probes.toml", probes)], Path::new("/")) {
        Ok((_, problems)) => (false, problems),
        Err(problems) => (true, problems),
    };
    assert_eq!(is_refused, problems.iter().any(|problem| problem.is_error()), "{problems:?}");
    for problem in &problems {
        let place = problem.place.to_string();
        assert!(problem.place.source().text().is_empty() || place.matches(':').count() == 2, "{problem}");
    }
    let _ = render(&problems, false);
}

/// A duration, a number, or a zone and after a line's end a cron expression.
fn times(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(duration) = parse_duration(&text) {
        let _ = Human(duration).to_string();
    }
    let _ = Decimal::parse(&text);
    let (zone, expression) = text.split_once('\n').unwrap_or(("UTC", &text));
    let Ok(calendar) = Calendar::parse(expression, zone) else { return };
    let at = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1_790_000_000);
    if let Some(next) = calendar.next(at) {
        assert!(next > at, "{next}");
        assert!(calendar.last(at).is_none_or(|last| last <= at));
        assert!(calendar.next(next).is_none_or(|later| later > next), "{next} and not later");
    }
}

/// A template, for every medium.
fn template(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let known = BTreeSet::from(["sid".to_owned()]);
    let Ok(template) = Template::parse(&text, &known) else { return };
    let mut scope = Scope::new(Token::from_bits(1), "sms".into(), Timestamp::UNIX_EPOCH, 1);
    scope.set("sid", "a\r\nb: c/%<\"".to_owned());
    for medium in [Medium::Plain, Medium::Url, Medium::Header] {
        let _ = template.render(&scope, medium);
    }
    let _ = template.holds(&scope);
}

/// Whatever is found is there.
fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data).to_ascii_lowercase();
    for token in Token::find_all(data) {
        assert_eq!(Token::parse(&token.to_string()), Some(token));
        assert!(text.contains(&token.to_string()), "{token}");
    }
}

/// A JSONPath and a pattern on the first line, a message below.
fn query(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let line = String::from_utf8_lossy(&data[..at]);
    let mut queries = vec![Query::Body, Query::Size, Query::Form("id".to_owned()), Query::Header("x".to_owned())];
    queries.extend(JsonPath::parse(&line).ok().map(Query::Json));
    queries.extend(regex::RegexBuilder::new(&line).size_limit(1 << 20).build().ok().map(Query::Regex));
    let message = Message::new(data.get(at + 1..).unwrap_or_default());
    let view = View::of(&message, Timestamp::UNIX_EPOCH);
    for query in queries {
        if let Some(value) = query.find(view) {
            let _ = (value.to_text(), value.as_f64(), value.compare(&Value::from("1")), query.to_string());
        }
    }
}

/// No secret gets out, whatever stands around it: the first line is the secret.
fn redaction(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some((secret, rest)) = text.split_once('\n') else { return };
    // What hides one could complete another.
    if secret.chars().any(|c| MASK.contains(c)) {
        return;
    }
    let redactor = Redactor::default();
    redactor.add(secret);
    let said = format!("{rest}{secret}{rest}");
    // What is too short to be a secret is left as it is.
    if let Some(clean) = redactor.redact(&said) {
        assert!(!clean.contains(secret), "{clean:?}");
    }
}

/// Names and addresses as labels: every line of the exposition is a sample or a comment.
fn metrics(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let metrics = Arc::new(Metrics::new(&[], Some(&text)));
    let mut journey = own::journey(Duration::from_secs(60), Call { channel: "own", is_answered: false }, Vec::new());
    journey.name = text.as_ref().into();
    journey.steps[0].name = text.as_ref().into();
    let _journey = metrics.journey(&journey);
    let channel = metrics.channel(&text.as_ref().into(), true);
    channel.checked(&text, &BTreeMap::from([("depth", Value::from_json(&serde_json::json!(1)))]));
    let exposition = metrics.render();
    assert!(exposition.contains("journeyman_step_duration_seconds_count{"));
    for line in exposition.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(is_sample(line), "{line:?}");
    }
}

/// A name, labels in braces with values in quotes, a space, a number.
fn is_sample(line: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
    let Some((name, labelled)) = line.split_once('{') else {
        return line.split_once(' ').is_some_and(|(name, value)| is_name(name) && value.parse::<f64>().is_ok());
    };
    let mut rest = labelled;
    while let Some((label, after)) = rest.split_once("=\"") {
        let mut is_escaped = false;
        let end = after.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !is_escaped;
            is_escaped = *c == '\\' && !is_escaped;
            ends
        });
        let Some((end, _)) = end else { return false };
        if !is_name(label) {
            return false;
        }
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    is_name(name) && rest.strip_prefix("} ").is_some_and(|value| value.parse::<f64>().is_ok())
}

/// The ways to sign a call, with a secret that no input has.
struct Schemes {
    hmac: Verify,
    twilio: Verify,
    vonage: [Verify; 2],
    slack: Verify,
}

static SCHEMES: LazyLock<Schemes> = LazyLock::new(|| {
    let secrets = vec![Secret::new("nobody-knows-this-one".to_owned(), &Redactor::default())];
    let tolerance = Duration::from_secs(300);
    let vonage = |method| Verify::Vonage { secrets: secrets.clone(), method, tolerance };
    Schemes {
        hmac: Verify::Hmac {
            secrets: secrets.clone(),
            header: "x-signature".to_owned(),
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
            prefix: "sha256=".to_owned(),
        },
        twilio: Verify::Twilio { secrets: secrets.clone(), url: "https://hooks.example.net/sms".to_owned() },
        vonage: [vonage(VonageMethod::Jwt { api_key: None }), vonage(VonageMethod::Sig(SigHash::Sha256))],
        slack: Verify::Slack { secrets: secrets.clone(), tolerance },
    }
});

#[cfg(test)]
mod tests;
