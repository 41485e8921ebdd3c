//! What a program's exit code and output mean: the Nagios plug-in interface, with JSON for those who want to say more. Pure.
//!
//! <https://www.monitoring-plugins.org/doc/guidelines.html>

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::journey::expect::cut;
use crate::journey::message::{Message, Trouble};
use crate::journey::outcome::Cause;
use crate::journey::value::Value;

/// The facts that a JSON report may state, by the names of the queries that read them.
const REPORTED: &[&str] = &["depth", "consumers", "lag", "value"];
/// So much of standard error is shown to a journey.
const COMPLAINT: usize = 4_096;

/// A program's answer, read.
pub(super) struct Verdict {
    /// Exit code as status, output as body, performance data as header fields.
    pub(super) message: Message,
    /// What it said, or how it ended: one line.
    pub(super) words: String,
    /// What it measured itself.
    pub(super) latency: Option<Duration>,
}

/// Good, or how bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Good,
    Warning,
    Failed,
}

/// Reads what a program left when it ended.
pub(super) fn read(status: ExitStatus, stdout: Vec<u8>, stderr: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let complaint = String::from_utf8_lossy(stderr).into_owned();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let report = lines().next_back().and_then(object).filter(is_report);
    let of_report = |key: &str| report.as_ref().and_then(|report| report.get(key));
    let (said, measured) = plugin_output(&text);

    let own_words = of_report("message").and_then(serde_json::Value::as_str).map(str::to_owned);
    let is_prose = !said.is_empty() && object(&said).is_none();
    let last_complaint = complaint.lines().map(str::trim).rfind(|line| !line.is_empty());
    let words = own_words.or(is_prose.then(|| said.clone())).or(last_complaint.map(str::to_owned));

    let code = code(status);
    let by_code = state_of(code, &said);
    let (by_report, puzzle) = match of_report("outcome").map(serde_json::Value::as_str) {
        None => (State::Good, None),
        Some(Some("good")) => (State::Good, None),
        Some(Some("warning")) => (State::Warning, None),
        Some(Some("failed")) => (State::Failed, None),
        Some(_) => (State::Failed, Some("its last line has an `outcome` that is none of good, warning, failed")),
    };
    // A script that warns by its last line need not think of a code that says so, and code 1 is then the same warning.
    let by_code = if code == 1 && by_report == State::Warning { State::Warning } else { by_code };
    let state = by_code.max(by_report);
    let ended = match (puzzle, by_report > by_code) {
        (Some(puzzle), _) => puzzle.to_owned(),
        (None, true) => format!("by its own report {}", if state == State::Warning { "a warning" } else { "failed" }),
        (None, false) => told(status, code, state),
    };
    // What an expectation on `status` judges: a report of something worse has the code that stands for it.
    let code = match (code, by_report) {
        (0, State::Warning) => 1,
        (0, State::Failed) => 2,
        _ => code,
    };

    let mut message = Message::new(stdout);
    message.status = Some(code);
    message.headers = measured.iter().map(|(label, value, unit)| (label.clone(), format!("{value}{unit}"))).collect();
    if !complaint.trim().is_empty() {
        let begin = complaint.len().saturating_sub(COMPLAINT);
        let begin = (begin..).find(|at| complaint.is_char_boundary(*at)).unwrap_or(0);
        message.headers.push(("stderr".to_owned(), complaint[begin..].trim().to_owned()));
    }
    for name in REPORTED {
        message.facts.extend(of_report(name).map(|value| (*name, Value::from_json(value))));
    }
    let first = measured.first().and_then(|(_, value, _)| object_number(value));
    if let (None, Some(first)) = (message.facts.get("value"), &first) {
        message.facts.insert("value", Value::from_json(first));
    }
    let detail = match &words {
        Some(words) => format!("{ended}: {}", cut(words)),
        None => ended,
    };
    let said = || Some(Box::new(Trouble { cause: Cause::Exec, detail: detail.clone() }));
    match state {
        State::Good => {}
        State::Warning => message.warning = said(),
        State::Failed => message.trouble = said(),
    }
    let latency = of_report("latency_ms").and_then(serde_json::Value::as_f64).filter(|millis| *millis >= 0.0);
    let latency = latency.and_then(|millis| Duration::try_from_secs_f64(millis / 1e3).ok());
    let objects: Option<Vec<_>> = lines().map(object).collect();
    let json = if Value::parse_json(&message.body).is_ok() {
        None
    } else if let Some(objects) = objects.filter(|objects| !objects.is_empty()) {
        Some(serde_json::Value::Array(objects))
    } else if report.is_some() {
        report
    } else {
        performance(&measured)
    };
    if let Some(json) = json {
        message = message.with_json(json);
    }
    let words = if state == State::Good { words.map_or(detail, |words| cut(&words)) } else { detail };
    Verdict { message, words, latency }
}

/// The exit code, or what a shell makes of a signal.
fn code(status: ExitStatus) -> u16 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u16::try_from(code).ok()).unwrap_or(u16::MAX)
}

/// A plug-in that warns says so in its first line. A code of 1 without that is what interpreters and shells end with when a
/// script breaks, and must not pass for a warning.
fn state_of(code: u16, said: &str) -> State {
    match code {
        0 => State::Good,
        1 if said.to_ascii_uppercase().contains("WARN") => State::Warning,
        _ => State::Failed,
    }
}

fn told(status: ExitStatus, code: u16, state: State) -> String {
    match (status.signal(), code, state) {
        (Some(signal), ..) => format!("ended by signal {signal}{}", signal_name(signal)),
        (_, 1, State::Warning) => "WARNING".to_owned(),
        (_, 0, _) => "exit code 0".to_owned(),
        (_, 2, _) => "CRITICAL (exit code 2)".to_owned(),
        (_, 3, _) => "UNKNOWN (exit code 3)".to_owned(),
        _ => format!("exit code {code}"),
    }
}

/// The signals that a program may end by and whose name says more than their number.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (HUP)",
        2 => " (INT)",
        6 => " (ABRT)",
        9 => " (KILL)",
        11 => " (SEGV)",
        13 => " (PIPE)",
        15 => " (TERM)",
        _ => "",
    }
}

/// A line that is a JSON object.
fn object(line: &str) -> Option<serde_json::Value> {
    Value::parse_json(line.as_bytes()).ok().filter(serde_json::Value::is_object)
}

fn object_number(text: &str) -> Option<serde_json::Value> {
    Value::parse_json(text.as_bytes()).ok().filter(serde_json::Value::is_number)
}

/// Whether a last line is meant for us.
fn is_report(object: &serde_json::Value) -> bool {
    ["outcome", "message", "latency_ms"].iter().chain(REPORTED).any(|key| object.get(key).is_some())
}

/// Label, value, unit.
type Measurement = (String, String, String);

/// The first line without its performance data, and all performance data: what stands behind the bar of the first line, and
/// behind the bar of the long text below it.
fn plugin_output(text: &str) -> (String, Vec<Measurement>) {
    let mut lines = text.lines().skip_while(|line| line.trim().is_empty());
    let first = lines.next().unwrap_or_default();
    let (said, data) = first.split_once('|').unwrap_or((first, ""));
    if object(first.trim()).is_some() {
        return (first.trim().to_owned(), Vec::new());
    }
    let mut measured = measurements(data);
    let mut is_data = false;
    for line in lines {
        let data = if is_data { Some(line) } else { line.split_once('|').map(|(_, data)| data) };
        if let Some(data) = data {
            is_data = true;
            measured.extend(measurements(data));
        }
    }
    (said.trim().to_owned(), measured)
}

/// `'label'=value[unit];[warn];[crit];[min];[max]`, apart by spaces; a quote within a label is written twice.
fn measurements(text: &str) -> Vec<Measurement> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some((label, after)) = label(rest) {
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let value = after[..end].split(';').next().unwrap_or_default();
        let digits = value.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(value.len());
        let (number, unit) = value.split_at(digits);
        // `U` says that there is no value.
        if let (false, Some(number)) = (label.is_empty(), decimal(number)) {
            found.push((label, number, unit.to_owned()));
        }
        rest = after[end..].trim_start();
    }
    found
}

/// A number as JSON writes it; plug-ins also write `+1`, `.5` and `1.`.
fn decimal(text: &str) -> Option<String> {
    text.parse::<f64>().ok()?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.trim_start_matches('+')),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") })
}

/// The label at the beginning, and what follows its `=`.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (label, rest) = text.split_once('=')?;
        return Some((label.trim().to_owned(), rest));
    };
    let mut label = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (c, chars.peek()) {
            ('\'', Some((_, '\''))) => {
                chars.next();
                label.push('\'');
            }
            ('\'', _) => return quoted[at + 1..].strip_prefix('=').map(|rest| (label, rest)),
            _ => label.push(c),
        }
    }
    None
}

/// Performance data as a document, so that it can be compared as numbers.
fn performance(measured: &[Measurement]) -> Option<serde_json::Value> {
    let members: serde_json::Map<_, _> =
        measured.iter().filter_map(|(label, value, _)| Some((label.clone(), object_number(value)?))).collect();
    (!members.is_empty()).then(|| serde_json::json!({ "perfdata": members }))
}

/// What a script printed, after each way to end.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    use std::os::unix::process::ExitStatusExt;
    let (stdout, stderr) = data.split_at(data.len() - data.len() / 4);
    for status in [0, 1 << 8, 2 << 8, 3 << 8, 9] {
        let _ = read(ExitStatus::from_raw(status), stdout.to_vec(), stderr);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn verdict(code: i32, stdout: &str) -> Verdict {
        read(exit(code), stdout.as_bytes().to_vec(), b"")
    }

    /// How bad it is, and the words.
    fn judged(verdict: &Verdict) -> (State, &str) {
        match (&verdict.message.trouble, &verdict.message.warning) {
            (Some(trouble), _) => (State::Failed, &trouble.detail),
            (None, Some(warning)) => (State::Warning, &warning.detail),
            (None, None) => (State::Good, &verdict.words),
        }
    }

    #[test]
    fn codes_are_read_as_plug_ins_mean_them_and_a_crash_is_no_warning() {
        let cases = [
            (0, "SMS OK - delivered in 2 s | time=2.1s", State::Good, "SMS OK - delivered in 2 s"),
            (0, "", State::Good, "exit code 0"),
            (1, "SMS WARNING - slow", State::Warning, "WARNING: SMS WARNING - slow"),
            (1, "sending\n", State::Failed, "exit code 1: sending"),
            (1, "", State::Failed, "exit code 1"),
            (2, "SMS CRITICAL - lost", State::Failed, "CRITICAL (exit code 2): SMS CRITICAL - lost"),
            (3, "SMS UNKNOWN - no route", State::Failed, "UNKNOWN (exit code 3): SMS UNKNOWN - no route"),
            (127, "", State::Failed, "exit code 127"),
        ];
        for (code, stdout, state, words) in cases {
            let verdict = verdict(code, stdout);
            assert_eq!(judged(&verdict), (state, words), "{code} {stdout:?}");
            assert_eq!(verdict.message.status, Some(code as u16));
            assert!(verdict.message.trouble.is_none_or(|trouble| trouble.cause == Cause::Exec));
        }
        let killed = read(ExitStatus::from_raw(9), Vec::new(), b"");
        assert_eq!(judged(&killed), (State::Failed, "ended by signal 9 (KILL)"));
        assert_eq!(killed.message.status, Some(137));
    }

    #[test]
    fn a_crash_is_told_in_the_last_words_of_its_complaint() {
        let crash = b"Traceback (most recent call last):\n  File \"x.py\", line 1\nKeyError: 'sid'\n";
        let verdict = read(exit(1), Vec::new(), crash);
        assert_eq!(judged(&verdict), (State::Failed, "exit code 1: KeyError: 'sid'"));
        assert!(verdict.message.header("stderr").unwrap().starts_with("Traceback"));
        let long = "ä".repeat(COMPLAINT);
        let kept = read(exit(0), Vec::new(), long.as_bytes()).message;
        assert_eq!(kept.header("stderr").unwrap().len(), COMPLAINT);
    }

    #[test]
    fn performance_data_are_header_fields_numbers_and_the_first_is_the_value() {
        let stdout = "OK: fine | 'round trip'=.250s;1;2;0; queue=17 'it''s'=+3.B free=U bad\nlong text\nmore | rta=1.5ms;;\nloss=0%\n";
        let message = verdict(0, stdout).message;
        let headers: Vec<_> = message.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(headers, ["round trip=0.250s", "queue=17", "it's=3B", "rta=1.5ms", "loss=0%"]);
        assert_eq!(message.facts["value"], Value::from_json(&serde_json::json!(0.25)));
        let json = message.json().unwrap();
        assert_eq!((&json["perfdata"]["queue"], &json["perfdata"]["loss"]), (&17.into(), &0.into()));
        assert_eq!(message.text(), stdout);
    }

    #[test]
    fn a_report_in_the_last_line_adds_and_never_takes_away() {
        let report = |code, outcome: &str| {
            verdict(
                code,
                &format!("working\n{{\"outcome\":\"{outcome}\",\"message\":\"7 of 9\",\"latency_ms\":120.5}}\n"),
            )
        };
        let cases = [
            (0, "good", State::Good, "7 of 9", 0),
            (0, "warning", State::Warning, "by its own report a warning: 7 of 9", 1),
            (1, "warning", State::Warning, "WARNING: 7 of 9", 1),
            (0, "failed", State::Failed, "by its own report failed: 7 of 9", 2),
            (2, "good", State::Failed, "CRITICAL (exit code 2): 7 of 9", 2),
            (2, "warning", State::Failed, "CRITICAL (exit code 2): 7 of 9", 2),
        ];
        for (code, outcome, state, words, status) in cases {
            let verdict = report(code, outcome);
            assert_eq!(judged(&verdict), (state, words), "{code} {outcome}");
            assert_eq!(verdict.message.status, Some(status), "{code} {outcome}");
            assert_eq!(verdict.latency, Some(Duration::from_micros(120_500)));
            assert_eq!(verdict.message.json().unwrap()["message"], "7 of 9");
        }
        assert!(judged(&report(0, "fine")).1.contains("none of good, warning, failed"));
        let facts = verdict(0, "{\"depth\": 12, \"value\": [\"a\"], \"other\": 1}").message.facts;
        assert_eq!(facts["depth"], Value::from(12));
        assert_eq!(facts["value"], Value::List(vec![Value::from("a")]));
        assert_eq!(facts.len(), 2);
    }

    #[test]
    fn json_is_the_document_or_the_list_of_the_lines() {
        let json = |stdout: &str| verdict(0, stdout).message.json().cloned();
        assert_eq!(json("{\n \"a\": [1]\n}").unwrap()["a"][0], 1);
        assert_eq!(json("{\"n\":1}\n\n{\"n\":2}\n").unwrap()[1]["n"], 2);
        assert_eq!(json("all is well"), None);
        assert_eq!(json("all is well\n{\"other\":1}"), None, "not meant for us");
    }

    proptest! {
        #[test]
        fn any_output_has_a_verdict(code in 0i32..256, stdout: Vec<u8>, stderr: Vec<u8>, line in "[ -~]{0,60}", data in "[a-c'=|;. 0-9\n]{0,60}") {
            for stdout in [stdout, format!("{line}|{data}").into_bytes()] {
                let verdict = read(exit(code), stdout, &stderr);
                prop_assert_eq!(code == 0, verdict.message.status == Some(0));
                prop_assert!(code < 2 || verdict.message.trouble.is_some());
                prop_assert!(!verdict.words.is_empty());
            }
        }
    }
}
