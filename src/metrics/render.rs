//! Prometheus' text format 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;
use std::io::Write;

use crate::metrics::FAMILIES;
use crate::metrics::histogram::{Edges, Histogram};

/// So much is written at once.
const PART: usize = 64 * 1024;

/// An exposition on its way: of thousands of journeys it is longer than all else that is known of them, and is never kept as it is.
pub(super) struct Text<'a> {
    part: String,
    out: &'a mut dyn Write,
    /// The family whose first sample is yet to come.
    next: Option<&'static str>,
}

impl<'a> Text<'a> {
    /// `out` takes all that it is given.
    pub(super) fn new(out: &'a mut dyn Write) -> Text<'a> {
        Text { part: String::with_capacity(PART + 4_096), out, next: None }
    }

    /// Adds a family with the samples that `write` adds; one without any is left out.
    pub(super) fn family(&mut self, name: &'static str, write: impl FnOnce(&mut Text<'a>)) {
        self.next = Some(name);
        write(self);
        if self.next.take().is_none() {
            self.part.push('\n');
        }
    }

    /// Adds a sample. `labels` are as [`label`] has made them.
    pub(super) fn sample(&mut self, name: &str, labels: &str, more: &[(&str, &str)], value: f64) {
        self.begin(name, "", labels);
        for (name, value) in more {
            self.part.push(',');
            label(&mut self.part, name, value);
        }
        self.end(value);
    }

    /// Adds a histogram: each bucket with all that is below it, the sum, and the count.
    pub(super) fn histogram(&mut self, name: &str, labels: &str, edges: &Edges, histogram: &Histogram) {
        let buckets = edges.labels().zip(histogram.cumulative()).chain([("+Inf", histogram.count())]);
        for (edge, count) in buckets {
            self.begin(name, "_bucket", labels);
            self.part.push_str(",le=\"");
            self.part.push_str(edge);
            self.part.push('"');
            self.end(count as f64);
        }
        self.summary(name, labels, histogram.sum(), histogram.count());
    }

    /// Adds the sum and the count.
    pub(super) fn summary(&mut self, name: &str, labels: &str, sum: f64, count: u64) {
        self.begin(name, "_sum", labels);
        self.end(sum);
        self.begin(name, "_count", labels);
        self.end(count as f64);
    }

    /// What is still held back is written too.
    pub(super) fn finish(mut self) {
        self.spill();
    }

    fn begin(&mut self, name: &str, part: &str, labels: &str) {
        if let Some(family) = self.next.take().and_then(|name| FAMILIES.iter().find(|family| family.name == name)) {
            let (name, help, kind) = (family.name, family.help, family.kind);
            add(&mut self.part, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        self.part.push_str(name);
        self.part.push_str(part);
        self.part.push('{');
        self.part.push_str(labels);
    }

    fn end(&mut self, value: f64) {
        self.part.push_str("} ");
        // Most are counts and times of whole seconds, which are written much faster as what they are.
        if value.fract() == 0.0 && value.abs() < EXACT {
            add(&mut self.part, format_args!("{}\n", value as i64));
        } else {
            add(&mut self.part, format_args!("{value}\n"));
        }
        if self.part.len() >= PART {
            self.spill();
        }
    }

    fn spill(&mut self) {
        self.out.write_all(self.part.as_bytes()).expect("memory takes all");
        self.part.clear();
    }
}

/// Whole numbers below it are exact in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

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

    fn written(write: impl FnOnce(&mut Text<'_>)) -> String {
        let mut out = Vec::new();
        let mut text = Text::new(&mut out);
        write(&mut text);
        text.finish();
        String::from_utf8(out).unwrap()
    }

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
        assert_eq!(written(|text| text.family(STALE_AFTER, |_| {})), "");
        let text = written(|text| {
            text.family(RUN_DURATION, |_| {});
            text.family(STALE_AFTER, |text| {
                text.sample(STALE_AFTER, "journey=\"a\"", &[], 3.0);
                text.sample(STALE_AFTER, "journey=\"b\"", &[("sli", "delivered"), ("end", "low")], f64::NAN);
            });
        });
        let expected = "# HELP journeyman_stale_after_seconds How long the journey may be without a verdict before its alert says so.\n\
             # TYPE journeyman_stale_after_seconds gauge\n\
             journeyman_stale_after_seconds{journey=\"a\"} 3\n\
             journeyman_stale_after_seconds{journey=\"b\",sli=\"delivered\",end=\"low\"} NaN\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn nothing_is_lost_where_one_part_ends_and_the_next_begins() {
        let text = written(|text| {
            text.family(STALE_AFTER, |text| {
                (0..9_999).for_each(|n| text.sample(STALE_AFTER, &format!("journey=\"{n}\""), &[], f64::from(n)));
            });
        });
        assert!(text.len() > 4 * PART && text.ends_with("{journey=\"9998\"} 9998\n\n"));
        let all =
            (0..9_999).all(|n| text.contains(&format!("\njourneyman_stale_after_seconds{{journey=\"{n}\"}} {n}\n")));
        assert!(all && text.lines().count() == 2 + 9_999 + 1);
    }

    #[test]
    fn a_histogram_has_each_bucket_its_sum_and_its_count() {
        let edges = Edges::new(&[0.05, 1.0]);
        let mut samples = Histogram::default();
        [0.05, 0.5, 2.0].iter().for_each(|sample| samples.record(*sample, &edges));
        let text = written(|text| text.histogram(RUN_DURATION, "journey=\"a\"", &edges, &samples));
        let expected = "journeyman_run_duration_seconds_bucket{journey=\"a\",le=\"0.05\"} 1\n\
             journeyman_run_duration_seconds_bucket{journey=\"a\",le=\"1\"} 2\n\
             journeyman_run_duration_seconds_bucket{journey=\"a\",le=\"+Inf\"} 3\n\
             journeyman_run_duration_seconds_sum{journey=\"a\"} 2.55\n\
             journeyman_run_duration_seconds_count{journey=\"a\"} 3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn numbers_are_what_they_are() {
        for (value, expected) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (1_790_000_000.25, "1790000000.25"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (1e17, "100000000000000000"),
            (f64::INFINITY, "inf"),
        ] {
            let text = written(|text| text.sample(STALE_AFTER, "a=\"b\"", &[], value));
            assert_eq!(text, format!("{STALE_AFTER}{{a=\"b\"}} {expected}\n"));
        }
    }
}
