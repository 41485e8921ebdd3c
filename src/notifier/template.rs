//! Texts of people's own for notices. Strict: a name that nothing gives a value to is an error, and it shows when the
//! configuration is loaded, because every template is tried on notices of every reason.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value};

use crate::incident::{LISTED, NotifyReason};
use crate::journey::report::Report;
use crate::notice::sample::sample;
use crate::notice::{Mark, Notification, delivery_id};
use crate::notifier::Delivery;
use crate::secret::Redactor;
use crate::time::{Human, between};

/// A template's name within its own environment.
const NAME: &str = "notice";

/// Where a template's text goes, which decides how values are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Plain text: nothing to escape here; what follows makes it one line, or escapes it for Slack.
    Text,
    /// HTML: values are escaped, but for those that a template marks `| safe`.
    Html,
}

/// The texts that a notifier has of its own; the others are built in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Templates {
    /// A mail's subject.
    pub subject: Option<Template>,
    /// A mail's text part, or a Slack message's headline.
    pub text: Option<Template>,
    /// A mail's HTML part.
    pub html: Option<Template>,
}

/// A compiled template that was tried.
#[derive(Clone)]
pub struct Template {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The line, from 1, where the engine knows it.
    pub line: Option<usize>,
    /// What it says.
    pub message: String,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let message = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        Fault { line: error.line(), message }
    }
}

impl Template {
    /// Compiles it and tries it on a notice of every reason, and on one that has next to nothing to say.
    ///
    /// # Errors
    /// It is no template, uses a name that nothing has, or says nothing at all.
    pub fn parse(source: &str, medium: Medium) -> Result<Template, Fault> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_recursion_limit(20);
        environment.set_auto_escape_callback(move |_| match medium {
            Medium::Text => AutoEscape::None,
            Medium::Html => AutoEscape::Html,
        });
        environment.add_template_owned(NAME, source.to_owned())?;
        let template = Template { source: source.into(), environment: Arc::new(environment) };
        let redactor = Redactor::new();
        for notification in NotifyReason::ALL.iter().map(|reason| sample(*reason)).chain([bare()]) {
            let id = delivery_id(&notification.incident.id, notification.incident.sequence, &"ops".into());
            let delivery = Delivery { id, attempt: 1, is_ambiguous: false, notification, root: None, instead_of: None };
            let text = template.render(&delivery, &[], None, &redactor)?;
            if text.trim().is_empty() {
                let reason = delivery.notification.reason;
                return Err(Fault {
                    line: None,
                    message: format!("it says nothing for a notice of reason `{reason}`"),
                });
            }
        }
        Ok(template)
    }

    /// The text for a delivery. `picture` is the waterfall's address within the mail. No secret of the configuration is in it.
    ///
    /// # Errors
    /// What the engine says.
    pub fn render(
        &self,
        delivery: &Delivery,
        notes: &[String],
        picture: Option<&str>,
        redactor: &Redactor,
    ) -> Result<String, Fault> {
        let template = self.environment.get_template(NAME)?;
        Ok(template.render(context(delivery, notes, picture, redactor))?)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// A notice of which everything that may be missing is.
fn bare() -> Notification {
    let full = sample(NotifyReason::First);
    let mut bare = crate::notice::sample::test_notice(full.at, "");
    bare.incident.detectors = full.incident.detectors;
    bare
}

/// What templates see; docs/notices.md has the list. What is not there is empty, so that `{% if runbook %}` reads well.
fn context(delivery: &Delivery, notes: &[String], picture: Option<&str>, redactor: &Redactor) -> Value {
    let notice = &delivery.notification;
    let incident = &notice.incident;
    let report = notice.report.as_ref();
    let text = |text: &str| Value::from(redactor.clean(text));
    let maybe = |value: Option<String>| text(&value.unwrap_or_default());
    let list = |lines: &[String]| lines.iter().map(|line| text(line)).collect::<Value>();
    let pair = |name: &str, value: &str| table([("name", text(name)), ("value", text(value))]);
    let members = notice.members.iter().take(LISTED).map(|member| {
        table([
            ("subject", text(&member.subject.to_string())),
            ("said", text(&member.said)),
            ("since", text(&member.since.to_string())),
            ("firing", Value::from(member.ended.is_none())),
        ])
    });
    let labels = notice.labels.iter().map(|(name, value)| (name.clone(), text(value)));
    table([
        ("reason", text(notice.reason.as_str())),
        ("mark", text(notice.mark.map_or("", Mark::as_str))),
        ("state", text(notice.state_word())),
        ("severity", text(notice.severity().as_str())),
        ("subject", text(&notice.subject)),
        ("headline", text(&notice.headline())),
        ("verdict", maybe(report.map(Report::verdict_line))),
        ("decision", text(&notice.decision)),
        ("incident", text(&incident.id)),
        ("delivery", text(&delivery.id)),
        ("sequence", Value::from(incident.sequence)),
        ("since", text(&incident.since.to_string())),
        ("at", text(&notice.at.to_string())),
        ("lasted", text(&Human(between(incident.since, notice.at)).to_string())),
        ("bad_runs", Value::from(incident.bad_runs)),
        ("member_count", Value::from(incident.members)),
        ("firing_count", Value::from(incident.firing)),
        ("members", members.collect()),
        ("likely_cause", maybe(notice.likely_cause())),
        ("news", list(&notice.news)),
        ("acknowledged_by", maybe(incident.acked.as_ref().map(|ack| ack.by.clone()))),
        ("owner", maybe(notice.owner.clone())),
        ("runbook", maybe(notice.runbook.clone())),
        ("page", maybe(notice.link.clone())),
        ("location", maybe(notice.location.clone())),
        ("objective", maybe(notice.objective.clone())),
        ("latency", maybe(notice.latency_line())),
        ("failed_step", maybe(report.and_then(Report::failed_step).map(|step| step.name.to_string()))),
        ("outcome", maybe(report.map(|report| report.outcome.label().to_string()))),
        ("run", maybe(report.map(|report| report.token.to_string()))),
        ("trace", maybe(report.map(|report| report.token.trace_id()))),
        ("waterfall", maybe(notice.waterfall(24))),
        ("labels", Value::from(labels.collect::<BTreeMap<_, _>>())),
        ("facts", notice.facts().iter().map(|(name, value)| pair(name, value)).collect()),
        ("links", notice.links().iter().map(|(name, link)| pair(name, link)).collect()),
        ("notes", list(notes)),
        ("picture", text(picture.unwrap_or_default())),
    ])
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::from(entries.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(reason: NotifyReason) -> Delivery {
        let notification = sample(reason);
        let id = "7f3a2c01d2e4.1.ops".to_owned();
        Delivery { id, attempt: 1, is_ambiguous: false, notification, root: None, instead_of: None }
    }

    fn rendered(source: &str, medium: Medium, change: impl FnOnce(&mut Notification)) -> String {
        let mut delivery = delivery(NotifyReason::Worse);
        change(&mut delivery.notification);
        let redactor = Redactor::new();
        redactor.add("correct horse");
        Template::parse(source, medium).unwrap().render(&delivery, &[], None, &redactor).unwrap()
    }

    #[test]
    fn values_come_in_escaped_for_the_medium_and_without_secrets() {
        let source = "{{ state }} {{ subject }}{% for m in members if m.firing %} {{ m.subject }}{% endfor %}:\
                      {% for line in news %} {{ line }}{% endfor %} {{ labels.tier | default('-') }}";
        let hostile = |notice: &mut Notification| notice.news = vec!["<b>correct horse & \"cart\"</b>".to_owned()];
        assert_eq!(
            rendered(source, Medium::Text, hostile),
            "DOWN channel inbox checkout-mail password-reset invoice-mail: <b>••• & \"cart\"</b> 1"
        );
        let html = rendered("{% for line in news %}{{ line }}{% endfor %}.", Medium::Html, hostile);
        assert!(!html.contains('<') && html.contains("&lt;b&gt;••• &amp;"), "{html}");
    }

    #[test]
    fn what_would_fail_some_day_fails_at_once_and_says_where() {
        let fault = |source: &str| Template::parse(source, Medium::Text).unwrap_err();
        let unknown = fault("{{ subject }}\n{{ sbject }}");
        assert_eq!(unknown.line, Some(2), "{unknown}");
        assert!(unknown.message.contains("undefined"), "{unknown}");
        assert_eq!(fault("a\n{% if %}").line, Some(2));
        // Only in a branch that few notices take.
        assert_eq!(fault("x{% if reason == 'resolved' %}\n\n{{ lasted_for }}{% endif %}").line, Some(3));
        // Most notices have labels; not all.
        assert!(fault("{{ labels.tier }}").message.contains("undefined"));
        assert!(fault("{% if reason == 'first' %}x{% endif %}").message.contains("says nothing"));
    }
}
