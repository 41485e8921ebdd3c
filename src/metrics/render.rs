//! Prometheus' text format 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write};

use crate::metrics::FAMILIES;
use crate::metrics::histogram::{Edges, Histogram};

/// Adds a family with the samples that `write` adds; one without any is left out.
pub(super) fn family(text: &mut String, name: &'static str, write: impl FnOnce(&mut String)) {
    let before = text.len();
    if let Some(family) = FAMILIES.iter().find(|family| family.name == name) {
        add(text, format_args!("# HELP {name} {}\n# TYPE {name} {}\n", family.help, family.kind));
    }
    let head = text.len();
    write(text);
    if text.len() == head {
        text.truncate(before);
    } else {
        text.push('\n');
    }
}

/// Adds a sample. `labels` are as [`label`] has made them.
pub(super) fn sample(text: &mut String, name: &str, labels: &str, more: &[(&str, &str)], value: impl Display) {
    begin(text, name, "", labels);
    for (name, value) in more {
        text.push(',');
        label(text, name, value);
    }
    end(text, value);
}

/// Adds a histogram: each bucket with all that is below it, the sum, and the count.
pub(super) fn histogram(text: &mut String, name: &str, labels: &str, edges: &Edges, histogram: &Histogram) {
    for (edge, count) in edges.labels().zip(histogram.cumulative()) {
        bucket(text, name, labels, edge, count);
    }
    bucket(text, name, labels, "+Inf", histogram.count());
    begin(text, name, "_sum", labels);
    end(text, histogram.sum());
    begin(text, name, "_count", labels);
    end(text, histogram.count());
}

fn bucket(text: &mut String, name: &str, labels: &str, edge: &str, count: u64) {
    begin(text, name, "_bucket", labels);
    text.push_str(",le=\"");
    text.push_str(edge);
    text.push('"');
    end(text, count);
}

fn begin(text: &mut String, name: &str, part: &str, labels: &str) {
    text.push_str(name);
    text.push_str(part);
    text.push('{');
    text.push_str(labels);
}

fn end(text: &mut String, value: impl Display) {
    add(text, format_args!("}} {value}\n"));
}

/// Adds a label. Whatever is in its value stays in it.
pub(super) fn label(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        text.push_str(&rest[..at]);
        text.push_str(match rest.as_bytes()[at] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        });
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
    text.push('"');
}

fn add(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("memory takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{RUN_DURATION, STALE_AFTER};

    #[test]
    fn whatever_is_in_a_label_stays_in_it() {
        for (value, expected) in [
            ("api[eu,us]", "api[eu,us]"),
            ("a\"b", "a\\\"b"),
            ("\\", "\\\\"),
            ("\\\\n\n", "\\\\\\\\n\\n"),
            ("größer\"\"", "größer\\\"\\\""),
            ("", ""),
        ] {
            let mut text = String::new();
            label(&mut text, "x", value);
            assert_eq!(text, format!("x=\"{expected}\""));
        }
    }

    #[test]
    fn a_family_is_written_once_and_only_with_samples() {
        let mut text = String::new();
        family(&mut text, STALE_AFTER, |_| {});
        assert_eq!(text, "");
        family(&mut text, STALE_AFTER, |text| {
            sample(text, STALE_AFTER, "journey=\"a\"", &[], 3.0);
            sample(text, STALE_AFTER, "journey=\"b\"", &[("sli", "delivered"), ("end", "low")], f64::NAN);
        });
        let expected = "# HELP journeyman_stale_after_seconds How long the journey may be without a verdict before its alert says so.\n\
             # TYPE journeyman_stale_after_seconds gauge\n\
             journeyman_stale_after_seconds{journey=\"a\"} 3\n\
             journeyman_stale_after_seconds{journey=\"b\",sli=\"delivered\",end=\"low\"} NaN\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_histogram_has_each_bucket_its_sum_and_its_count() {
        let edges = Edges::new(&[0.05, 1.0]);
        let mut samples = Histogram::default();
        [0.05, 0.5, 2.0].iter().for_each(|sample| samples.record(*sample, &edges));
        let mut text = String::new();
        histogram(&mut text, RUN_DURATION, "journey=\"a\"", &edges, &samples);
        let expected = "journeyman_run_duration_seconds_bucket{journey=\"a\",le=\"0.05\"} 1\n\
             journeyman_run_duration_seconds_bucket{journey=\"a\",le=\"1\"} 2\n\
             journeyman_run_duration_seconds_bucket{journey=\"a\",le=\"+Inf\"} 3\n\
             journeyman_run_duration_seconds_sum{journey=\"a\"} 2.55\n\
             journeyman_run_duration_seconds_count{journey=\"a\"} 3\n";
        assert_eq!(text, expected);
    }
}
