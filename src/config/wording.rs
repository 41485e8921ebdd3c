//! `template` of a notifier: texts of people's own, compiled and tried before anything starts.

use crate::config::document::{Node, Section};
use crate::config::files;
use crate::config::problem::{Place, Problem, Source};
use crate::notifier::template::{Fault, Medium, Template, Templates};

pub(super) const EMAIL_KEYS: &[&str] = &["subject", "text", "html"];
pub(super) const SLACK_KEYS: &[&str] = &["text"];

/// A larger file is no template of a mail.
const MOST: u64 = 100_000;
const PATHS: &str = "paths are relative to the daemon's file";
const NAMES: &str = "docs/notices.md lists the names that there are; those that may be missing are empty";

/// A mail's subject stands in the configuration; its parts are files.
pub(super) fn email(section: &Section<'_>) -> Templates {
    let Some(own) = open(section, EMAIL_KEYS) else { return Templates::default() };
    let file = |key, medium| own.get(key).and_then(|node| from_file(&own, node, key, medium));
    let subject = own.get("subject").and_then(|node| inline(&own, node, "subject"));
    Templates { subject, text: file("text", Medium::Text), html: file("html", Medium::Html) }
}

/// A Slack message's headline.
pub(super) fn slack(section: &Section<'_>) -> Templates {
    let Some(own) = open(section, SLACK_KEYS) else { return Templates::default() };
    Templates { text: own.get("text").and_then(|node| inline(&own, node, "text")), ..Templates::default() }
}

fn open<'a>(section: &Section<'a>, known: &[&'static str]) -> Option<Section<'a>> {
    Section::open(section.context, section.get("template")?, "template", known)
}

fn inline(section: &Section<'_>, node: &Node, key: &str) -> Option<Template> {
    let text = section.context.text(node, key)?;
    let complain = |fault: Fault| {
        section.context.add(Problem::error(&node.place, format!("`{key}` is no template: {fault}")).hint(NAMES));
    };
    Template::parse(text, Medium::Text).map_err(complain).ok()
}

fn from_file(section: &Section<'_>, node: &Node, key: &str, medium: Medium) -> Option<Template> {
    let context = section.context;
    let path = files::clean(&context.base.join(context.text(node, key)?));
    let size = std::fs::metadata(&path).map_or(0, |known| known.len());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) if size <= MOST => text,
        Ok(_) => {
            let problem = format!("the template of `{key}` has {size} bytes: mail clients cut at {MOST}");
            context.add(Problem::error(&node.place, problem));
            return None;
        }
        Err(error) => {
            let problem = format!("the template of `{key}` cannot be read: {}: {error}", path.display());
            context.add(Problem::error(&node.place, problem).hint(PATHS));
            return None;
        }
    };
    let complain = |fault: Fault| {
        let source = Source::new(&path.display().to_string(), &text, usize::MAX);
        let message = format!("the template of `{key}` would fail: {fault}");
        let problem = match fault.line {
            Some(line) => Problem::error(&place(&source, line), message).also(&node.place, "named here"),
            None => Problem::error(&node.place, message),
        };
        context.add(problem.hint(NAMES));
    };
    Template::parse(&text, medium).map_err(complain).ok()
}

/// The words on a line, from 1.
fn place(source: &std::sync::Arc<Source>, line: usize) -> Place {
    let start: usize = source.text().split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let text = source.text()[start..].lines().next().unwrap_or_default();
    let indent = text.len() - text.trim_start().len();
    Place::new(source, start + indent..start + text.trim_end().len())
}
