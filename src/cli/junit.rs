//! Runs as JUnit XML, in the form that CI systems read: a suite for each journey, a case for each step and each expectation.
//!
//! There is no standard; this keeps to what Jenkins, GitLab and GitHub actions have in common: `testsuites`, `testsuite`, `testcase`
//! with `failure`, `error` or `skipped`.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::once::Ran;
use crate::journey::expect::Check;
use crate::journey::outcome::Outcome;
use crate::journey::report::{Report, StepReport, StepStatus};

/// The document.
pub(super) fn junit(runs: &[Ran]) -> String {
    let suites: Vec<_> = runs.iter().map(|(report, _)| suite(report)).collect();
    let mut total = Counts::default();
    suites.iter().for_each(|suite| total.add(&suite.counts));
    let time = runs.iter().map(|(report, _)| length(report)).sum::<Duration>();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuites name=\"journeyman\"{} time=\"{}\">", total.attributes(), seconds(time));
    suites.iter().for_each(|suite| xml.push_str(&suite.xml));
    xml + "</testsuites>\n"
}

#[derive(Default)]
struct Counts {
    cases: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.cases += other.cases;
        self.failures += other.failures;
        self.errors += other.errors;
        self.skipped += other.skipped;
    }

    fn attributes(&self) -> String {
        let Counts { cases, failures, errors, skipped } = self;
        format!(" tests=\"{cases}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"")
    }
}

struct Suite {
    counts: Counts,
    xml: String,
}

/// What became of a case.
enum End {
    Passed,
    Failed { kind: String, why: String },
    Unknown { kind: String, why: String },
    Skipped { why: String },
}

fn suite(report: &Report) -> Suite {
    let mut suite = Suite { counts: Counts::default(), xml: String::new() };
    for step in &report.steps {
        suite.case(&report.journey, &step.name, step.took, of_step(report, step));
        for check in &step.checks {
            let class = format!("{}.{}", report.journey, step.name);
            suite.case(&class, &check.expectation, Duration::ZERO, of_check(check));
        }
    }
    // What is true of no step alone: that the whole took too long, or that nobody can tell.
    let whole = match &report.outcome {
        Outcome::Slow { .. } if !report.steps.iter().any(|step| step.status == StepStatus::Slow) => {
            Some(End::Failed { kind: "slow".to_owned(), why: report.verdict_line() })
        }
        Outcome::Unknown { why } => Some(End::Unknown { kind: why.to_string(), why: report.verdict_line() }),
        Outcome::Excluded { .. } => Some(End::Skipped { why: report.verdict_line() }),
        _ => None,
    };
    if let Some(end) = whole {
        suite.case(&report.journey, "run", report.latency, end);
    }
    let Suite { counts, xml } = suite;
    let mut text = format!(
        "  <testsuite name=\"{}\"{} time=\"{}\" timestamp=\"{}\">\n    <properties>\n",
        escaped(&report.journey),
        counts.attributes(),
        seconds(length(report)),
        report.started.strftime("%Y-%m-%dT%H:%M:%S"),
    );
    let verdict = report.outcome.verdict();
    let properties =
        [("run", report.token.to_string()), ("trace", report.token.trace_id()), ("verdict", verdict.to_string())];
    for (name, value) in properties {
        let _ = writeln!(text, "      <property name=\"{name}\" value=\"{}\"/>", escaped(&value));
    }
    Suite { counts, xml: text + "    </properties>\n" + &xml + "  </testsuite>\n" }
}

impl Suite {
    fn case(&mut self, class: &str, name: &str, took: Duration, end: End) {
        self.counts.cases += 1;
        let open = format!(
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{}\"",
            escaped(class),
            escaped(name),
            seconds(took)
        );
        let inner = match end {
            End::Passed => None,
            End::Failed { kind, why } => {
                self.counts.failures += 1;
                Some(format!("<failure type=\"{}\" message=\"{}\"/>", escaped(&kind), escaped(&why)))
            }
            End::Unknown { kind, why } => {
                self.counts.errors += 1;
                Some(format!("<error type=\"{}\" message=\"{}\"/>", escaped(&kind), escaped(&why)))
            }
            End::Skipped { why } => {
                self.counts.skipped += 1;
                Some(format!("<skipped message=\"{}\"/>", escaped(&why)))
            }
        };
        let _ = match inner {
            None => writeln!(self.xml, "{open}/>"),
            Some(inner) => writeln!(self.xml, "{open}>\n      {inner}\n    </testcase>"),
        };
    }
}

/// A step that failed by an expectation has done its part: the case of the expectation fails, and only that.
fn of_step(report: &Report, step: &StepReport) -> End {
    let has_failed_check = step.checks.iter().any(|check| !check.passed && !check.soft);
    let kind = || match report.outcome.cause() {
        Some(cause) => cause.to_string(),
        None => "failed".to_owned(),
    };
    match step.status {
        StepStatus::Failed if has_failed_check => End::Passed,
        StepStatus::Failed => End::Failed { kind: kind(), why: step.summary() },
        StepStatus::Slow => End::Failed { kind: "slow".to_owned(), why: "over its budget".to_owned() },
        StepStatus::Skipped => {
            let why = step.detail.clone().unwrap_or_else(|| "not reached".to_owned());
            End::Skipped { why }
        }
        StepStatus::Passed | StepStatus::Warned => End::Passed,
    }
}

fn of_check(check: &Check) -> End {
    if check.passed {
        return End::Passed;
    }
    let found = check.found.as_deref().unwrap_or("nothing");
    if check.soft {
        return End::Skipped { why: format!("a warning: found {found}") };
    }
    let kind = check.cause.map_or_else(|| "mismatch".to_owned(), |cause| cause.to_string());
    End::Failed { kind, why: format!("{}, found {found}", check.expectation) }
}

/// From the first step's beginning to the last one's end.
fn length(report: &Report) -> Duration {
    report.steps.iter().map(|step| step.at + step.took).max().unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// For an attribute. XML 1.0 has no place at all for most control characters, and turns line ends into spaces.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
