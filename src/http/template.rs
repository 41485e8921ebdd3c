//! The pages' templates: HTML that escapes every value, and the filters that say durations, times and shares to people.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use sha2::{Digest, Sha256};

use crate::http::charts;
use crate::text::visible;
use crate::time::{Human, between};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
const ICON: &str = include_str!("icon.svg");

const TEMPLATES: [(&str, &str); 16] = [
    ("layout.html", include_str!("layout.html")),
    ("parts.html", include_str!("parts.html")),
    ("status.html", include_str!("status.html")),
    ("journey.html", include_str!("journey.html")),
    ("run.html", include_str!("run.html")),
    ("channels.html", include_str!("channels.html")),
    ("report.html", include_str!("report.html")),
    ("public.html", include_str!("public.html")),
    ("incident.html", include_str!("incident.html")),
    ("ack.html", include_str!("ack.html")),
    ("run_again.html", include_str!("run_again.html")),
    ("asked.html", include_str!("asked.html")),
    ("drills.html", include_str!("drills.html")),
    ("incidents.html", include_str!("incidents.html")),
    ("outbox.html", include_str!("outbox.html")),
    ("error.html", include_str!("error.html")),
];

/// A file that pages load.
pub(super) struct StaticFile {
    pub(super) name: &'static str,
    pub(super) media_type: &'static str,
    pub(super) content: &'static str,
}

/// Every file that pages load.
pub(super) const FILES: [StaticFile; 3] = [
    StaticFile { name: "style.css", media_type: "text/css; charset=utf-8", content: STYLE },
    StaticFile { name: "live.js", media_type: "text/javascript; charset=utf-8", content: SCRIPT },
    StaticFile { name: "icon.svg", media_type: "image/svg+xml", content: ICON },
];

/// The compiled templates.
pub(super) struct Templates(Environment<'static>);

impl Templates {
    pub(super) fn new() -> Templates {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the usual delimiters are sound"));
        for (name, source) in TEMPLATES {
            environment.add_template(name, source).expect("a template that every test renders compiles");
        }
        environment.add_filter("duration", duration);
        environment.add_filter("ago", ago);
        environment.add_filter("utc", utc);
        environment.add_filter("day", day);
        environment.add_filter("pace", pace);
        environment.add_filter("percent", percent);
        environment.add_filter("count", count);
        environment.add_filter("rate", rate);
        environment.add_filter("path", path);
        environment.add_filter("link", link);
        environment.add_filter("mark", mark);
        environment.add_function("sample", |verdict: &str| Value::from_safe_string(charts::sample(verdict)));
        environment.add_function("symbol", |name: &str| Value::from_safe_string(charts::symbol(name)));
        // A new build's files have new addresses, so that caches need not ask.
        let mut digest = Sha256::new();
        FILES.iter().for_each(|file| digest.update(file.content));
        let version = digest.finalize()[..4].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        environment.add_global("files_version", version);
        environment.add_global("version", env!("CARGO_PKG_VERSION"));
        Templates(environment)
    }

    /// The page as it is at `now`, or what is wrong with its template.
    pub(super) fn render(&self, name: &str, context: Value, now: Timestamp) -> Result<String, Error> {
        // A global, because macros see no context; a copy, because pages are rendered at the same time.
        let mut environment = self.0.clone();
        environment.add_global("now", now.to_string());
        environment.get_template(name)?.render(context)
    }
}

/// JSON as a template's value. Characters that could hide or turn around what follows are made visible; what is left of
/// right-to-left text is kept apart by `<bdi>`.
pub(super) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(real)) => Value::from(real),
            (None, None) => Value::from(number.to_string()),
        },
        serde_json::Value::String(text) => Value::from(&*visible(text)),
        serde_json::Value::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        serde_json::Value::Object(members) => {
            Value::from_pairs(members.iter().map(|(name, member)| (name.clone(), value(member))))
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    f64::try_from(value.clone()).ok()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// Seconds as people write them; a dash for what is not known.
fn duration(seconds: &Value) -> String {
    let duration = number(seconds).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.map_or_else(|| "–".to_owned(), |duration| Human(duration).to_string())
}

/// A time as its distance from the page's `now`, with the time itself for machines, and on pointing unless it is to be `short`.
fn ago(state: &State, at: &Value, short: Option<bool>) -> Result<Value, Error> {
    let now = state.lookup("now").and_then(|now| time(&now));
    let now = now.ok_or_else(|| Error::new(ErrorKind::UndefinedError, "the page has no time"))?;
    let Some(at) = time(at) else { return Ok(Value::from("never")) };
    let (past, future) = (between(at, now), between(now, at));
    let text = match (past.as_secs(), future.as_secs()) {
        (0, 0) => "now".to_owned(),
        (0, _) => format!("in {}", distance(future)),
        _ => format!("{} ago", distance(past)),
    };
    let machine = at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let title = match short {
        Some(true) => String::new(),
        _ => at.strftime(" title=\"%Y-%m-%d %H:%M:%S UTC\"").to_string(),
    };
    Ok(Value::from_safe_string(format!("<time datetime={machine}{title}>{text}</time>")))
}

/// A length of time in its largest whole unit.
fn distance(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A time in full.
fn utc(at: &Value) -> Value {
    let Some(at) = time(at) else { return Value::from("–") };
    let (machine, person) = (at.strftime("%Y-%m-%dT%H:%M:%SZ"), at.strftime("%Y-%m-%d %H:%M:%S UTC"));
    Value::from_safe_string(format!("<time datetime={machine}>{person}</time>"))
}

/// A time's day.
fn day(at: &Value) -> Value {
    let Some(at) = time(at) else { return Value::from("–") };
    Value::from_safe_string(at.strftime("<time datetime=%Y-%m-%d>%Y-%m-%d</time>").to_string())
}

/// Calls a second, as people write a rate.
fn pace(rate: &Value) -> String {
    match number(rate) {
        None => "–".to_owned(),
        Some(rate) if rate >= 1.0 => format!("{rate:.3}").trim_end_matches('0').trim_end_matches('.').to_owned() + "/s",
        Some(rate) if rate * 60.0 >= 1.0 => format!("{:.0}/min", rate * 60.0),
        Some(rate) => format!("{:.0}/h", rate * 3_600.0),
    }
}

/// A share in percent, cut and never rounded up: 99.9996 % is not 100 %.
fn percent(share: &Value, decimals: Option<u32>) -> String {
    let Some(share) = number(share).filter(|share| share.is_finite()) else { return "–".to_owned() };
    let decimals = decimals.unwrap_or(3).min(6);
    let scale = 10f64.powi(decimals as i32);
    // What is a whole number but for the last bits of its binary form is that number.
    let cut = (share * 100.0 * scale + 1e-6).floor() / scale;
    let text = format!("{cut:.*}", decimals as usize);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}\u{a0}%")
}

/// Runs: whole from ten, with one decimal below, and thousands apart.
fn count(runs: &Value) -> String {
    let Some(runs) = number(runs) else { return "–".to_owned() };
    if runs.fract() != 0.0 && runs.abs() < 10.0 {
        return format!("{runs:.1}");
    }
    let digits = format!("{:.0}", runs.abs().floor());
    let mut out = if runs < 0.0 { "−".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A burn rate; without bound where an objective of 100 % has no budget.
fn rate(burn: &Value) -> String {
    match number(burn) {
        None => "∞".to_owned(),
        Some(burn) if burn >= 100.0 => format!("{burn:.0}×"),
        Some(burn) => format!("{burn:.1}×"),
    }
}

/// Text as one segment of a path, or as a query's value (RFC 3986 section 2.3).
pub(super) fn path(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Whether text may be a link: `javascript:` and its like stay text.
fn link(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https" | "mailto"))
}

/// The sign that stands before a state's word, so that none is told by its colour alone.
fn mark(word: &str) -> &'static str {
    match word {
        "ok" | "good" | "passed" | "ready" | "sent" | "resolved" | "closed" | "operational" => "✓",
        "down" | "failed" | "dead" | "open" | "firing" | "forced_open" | "outage" => "✗",
        "slow" | "late" | "half_open" | "degraded" => "◔",
        "stale" => "◌",
        "suspect" | "warned" | "warning" | "ambiguous" => "!",
        "recovering" => "↗",
        "skipped" | "excluded" | "silenced" | "acked" | "superseded" | "forced_closed" | "observe_only" => "·",
        "paused" | "maintenance" => "⏸",
        "pending" | "leased" | "starting" => "…",
        _ => "?",
    }
}

/// Text from anywhere, on a page: no mark of it is HTML's.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    static TEMPLATES: std::sync::LazyLock<Templates> = std::sync::LazyLock::new(Templates::new);
    let text = String::from_utf8_lossy(data);
    let context = serde_json::json!({ "code": 404, "message": format!("[[{text}]]") });
    let page = TEMPLATES.render("error.html", value(&context), Timestamp::UNIX_EPOCH);
    let page = page.expect("a page is rendered, whatever it says");
    let shown = page.split_once("[[").and_then(|(_, rest)| rest.rsplit_once("]]"));
    let (shown, _) = shown.expect("what it says is on it");
    assert!(!shown.contains(['<', '>', '"', '\'', '\u{202e}', '\0']), "{shown:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_cut_and_never_flattered() {
        let table = [
            (0.999_996, "99.999\u{a0}%"),
            (1.0, "100\u{a0}%"),
            (0.995, "99.5\u{a0}%"),
            (0.29, "29\u{a0}%"),
            (-0.5, "-50\u{a0}%"),
        ];
        for (share, text) in table {
            assert_eq!(percent(&Value::from(share), None), text);
        }
        assert_eq!(percent(&Value::from(()), None), "–");
    }

    #[test]
    fn runs_are_counted_in_groups_of_three() {
        let table = [(0.43, "0.4"), (5.0, "5"), (43_200.0, "43\u{202f}200"), (-1_200.0, "−1\u{202f}200")];
        for (runs, text) in table {
            assert_eq!(count(&Value::from(runs)), text);
        }
    }

    #[test]
    fn a_path_segment_holds_any_name() {
        assert_eq!(path("a/b [eu] ü?"), "a%2Fb%20%5Beu%5D%20%C3%BC%3F");
    }

    #[test]
    fn only_web_and_mail_addresses_become_links() {
        assert!(link("https://wiki.example/runbook") && link("mailto:ops@example.net"));
        assert!(!link("javascript:alert(1)") && !link("data:text/html,x") && !link("wiki page 7"));
    }
}
