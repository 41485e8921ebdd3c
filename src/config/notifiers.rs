//! `[notifiers.NAME]`: where people are told, and who is told instead.

mod alertmanager;
mod pagerduty;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::channels::{Channel, host, type_of};
use crate::config::document::{Context, Entry, Node, Section};
use crate::config::fingerprint::Identity;
use crate::config::problem::{Place, Problem};
use crate::config::secrets::decoded;
use crate::config::{NotifierPlan, values, wording};
use crate::journey::Name;
use crate::notifier::Settings;
use crate::notifier::email::{EmailSettings, Security};
use crate::notifier::slack::{Interactions, SlackSettings};
use crate::notifier::template::Templates;
use crate::notifier::webhook::WebhookSettings;
use crate::secret::Secret;

pub(super) const COMMON_KEYS: &[&str] = &["type", "fallback", "fallback_after", "required"];
pub(super) const SLACK_KEYS: &[&str] =
    &["token", "channel", "api_url", "webhook_url", "signing_secret", "app_token", "template"];
pub(super) const EMAIL_KEYS: &[&str] = &["smtp", "password", "from", "to", "template"];
pub(super) const WEBHOOK_KEYS: &[&str] = &["url", "headers", "signing_key"];
pub(super) use alertmanager::KEYS as ALERTMANAGER_KEYS;
pub(super) use pagerduty::KEYS as PAGERDUTY_KEYS;
const KINDS: &[&str] = &["slack", "email", "webhook", "pagerduty", "alertmanager"];

/// How long a notifier may take before its fallback is asked, unless it says otherwise.
const FALLBACK_AFTER: Duration = Duration::from_secs(120);

/// A notifier as journeys need to know it, also when it is not in order.
pub(super) struct Notifier {
    /// Where its name is.
    pub(super) place: Place,
    /// Who is told instead.
    pub(super) fallback: Option<(Name, Place)>,
    /// `None` if it has a problem that was told.
    pub(super) plan: Option<NotifierPlan>,
    /// The host and port that notices go through.
    pub(super) host: Option<(String, u16)>,
}

/// Reads every notifier.
pub(super) fn read(context: &Context, node: Option<&Node>) -> BTreeMap<Name, Notifier> {
    let mut notifiers = BTreeMap::new();
    for entry in node.and_then(|node| context.table(node, "notifiers")).unwrap_or_default() {
        context.check_name(&entry.key, &entry.key_place);
        context.check_own(&entry.key, &entry.key_place);
        notifiers.insert(Name::from(entry.key.as_str()), notifier(context, entry));
    }
    check_fallbacks(context, &notifiers);
    notifiers
}

fn notifier(context: &Context, entry: &Entry) -> Notifier {
    let mut notifier = Notifier { place: entry.key_place.clone(), fallback: None, plan: None, host: None };
    let Some(node) = type_of(context, entry, "notifier") else { return notifier };
    let Some(kind) = context.text(node, "type") else { return notifier };
    let own = match kind {
        "slack" => SLACK_KEYS,
        "email" => EMAIL_KEYS,
        "webhook" => WEBHOOK_KEYS,
        "pagerduty" => PAGERDUTY_KEYS,
        "alertmanager" => ALERTMANAGER_KEYS,
        _ => {
            let problem = Problem::error(&node.place, format!("no notifier is of type `{kind}`"));
            context.add(problem.maybe_hint(values::suggestion(kind, KINDS.iter().copied())));
            return notifier;
        }
    };
    let known = [own, COMMON_KEYS].concat();
    let Some(section) = Section::open(context, &entry.value, &entry.key, &known) else { return notifier };
    let fallback = section.get("fallback");
    notifier.fallback =
        fallback.and_then(|node| Some((Name::from(context.text(node, "fallback")?), node.place.clone())));
    if let (None, Some(after)) = (fallback, section.get("fallback_after")) {
        context.add(Problem::warning(&after.place, "`fallback_after` does nothing without a `fallback`"));
    }
    let fallback_after = section.duration("fallback_after").unwrap_or(FALLBACK_AFTER);
    let templates = match kind {
        "slack" => wording::slack(&section),
        "email" => wording::email(&section),
        _ => Templates::default(),
    };
    let settings = match kind {
        "slack" => slack(&section, &mut notifier).map(Settings::Slack),
        "email" => email(&section, &mut notifier).map(Settings::Email),
        "pagerduty" => pagerduty::read(&section, &mut notifier).map(Settings::Pagerduty),
        "alertmanager" => alertmanager::read(&section, &mut notifier).map(Settings::Alertmanager),
        _ => webhook(&section, &mut notifier).map(Settings::Webhook),
    };
    let fallback = notifier.fallback.as_ref().map(|(name, _)| name.clone());
    let identity = Identity::of([&entry.value]);
    let required = section.flag("required");
    notifier.plan =
        settings.map(|settings| NotifierPlan { settings, templates, fallback, fallback_after, required, identity });
    notifier
}

fn slack(section: &Section<'_>, notifier: &mut Notifier) -> Option<SlackSettings> {
    let context = section.context;
    notifier.host = Some(("slack.com".to_owned(), 443));
    let hint = "`token` (of a bot) with `channel` can edit and thread its messages; `webhook_url` cannot";
    let (key, node) = section.only_one(&["token", "webhook_url"], true, hint)?;
    if key == "webhook_url" {
        for useless in ["channel", "api_url", "signing_secret", "app_token"] {
            if section.get(useless).is_some() {
                let problem = format!("`{useless}` does nothing beside `webhook_url`");
                context.add(Problem::error(section.place_of(useless), problem).hint(hint));
            }
        }
        let (url, parsed) = context.secret_url(node, key, &["https", "http"], true)?;
        notifier.host = host(&parsed);
        return Some(SlackSettings::Webhook { url });
    }
    let token = context.secret(node, key);
    let api_url = section.get("api_url").and_then(|node| context.url(node, "api_url", &["https", "http"]));
    if let Some(url) = &api_url {
        notifier.host = host(url);
    }
    let secret = |key: &str| section.get(key).and_then(|node| context.secret(node, key));
    let interactions = Interactions { signing_secret: secret("signing_secret"), app_token: secret("app_token") };
    if interactions.app_token.is_some() && !cfg!(feature = "slack") {
        let problem = "this build has no Socket Mode: it was made without the feature `slack`";
        let problem = Problem::error(section.place_of("app_token"), problem);
        context.add(problem.hint("use `signing_secret`, or a build with that feature"));
    }
    section.require("channel", "the channel's id, as in \"C0123456789\"")?;
    let channel = section.text("channel")?.to_owned();
    if channel.is_empty() {
        context.add(Problem::error(section.place_of("channel"), "`channel` is empty"));
    }
    Some(SlackSettings::Bot { token: token?, channel, api_url, interactions })
}

fn email(section: &Section<'_>, notifier: &mut Notifier) -> Option<EmailSettings> {
    let context = section.context;
    let from = section.require("from", "the sender, as in \"Journeyman <journeyman@example.net>\"");
    let from = from.and_then(|node| address(context, node, "from"));
    section.require("to", "the recipients, as in `[\"ops@example.net\"]`");
    let to: Option<Vec<_>> = section
        .strings("to")
        .map(|items| items.into_iter().filter_map(|(_, node)| address(context, node, "to")).collect());
    if let (Some([]), Some(node)) = (to.as_deref(), section.get("to"))
        && node.kind() == "a list"
    {
        context.add(Problem::error(&node.place, "`to` has no recipient"));
    }
    let password = section.get("password").and_then(|node| Some((context.secret(node, "password")?, &node.place)));
    let hint = "`smtp://host:25`, `smtp+starttls://user@host:587` or `smtps://user@host:465`";
    let node = section.require("smtp", hint)?;
    let url = context.url(node, "smtp", &["smtp", "smtp+starttls", "smtps"])?;
    let security = match url.scheme() {
        "smtps" => Security::Tls,
        "smtp+starttls" => Security::StartTls,
        _ => Security::Plain,
    };
    notifier.host = host(&url);
    let (host, port) = notifier.host.clone()?;
    let user = Some(decoded(url.username())).filter(|user| !user.is_empty());
    let literal = url.password().map(|password| Secret::new(decoded(password), &context.redactor));
    let credentials = match (user, password, literal) {
        (Some(user), Some((password, _)), None) | (Some(user), None, Some(password)) => Some((user, password)),
        (None, None, None) => None,
        (Some(_), None, None) => {
            let problem = Problem::error(&node.place, "the server is told a user and no password");
            context.add(problem.hint("add `password = { file = \"…\" }`, or take the user out of `smtp`"));
            None
        }
        (None, Some((_, place)), _) => {
            let problem = Problem::error(place, "there is a password and no user");
            context.add(problem.hint("the user stands in the address: `smtps://user@host`"));
            None
        }
        (_, Some((_, place)), Some(_)) => {
            context.add(Problem::error(place, "there are two passwords: this one and one in `smtp`"));
            None
        }
        (None, None, Some(_)) => {
            context.add(Problem::error(&node.place, "there is a password and no user"));
            None
        }
    };
    if credentials.is_some() && security == Security::Plain && !is_loopback(&host) {
        let problem = Problem::warning(&node.place, format!("the password goes to {host} unprotected"));
        context.add(problem.hint("use `smtp+starttls://` or `smtps://`"));
    }
    Some(EmailSettings { host, port, security, credentials, from: from?, to: to? })
}

pub(super) fn address(context: &Context, node: &Node, key: &str) -> Option<String> {
    let text = context.text(node, key)?;
    if text.parse::<lettre::message::Mailbox>().is_err() {
        let problem = Problem::error(&node.place, format!("`{text}` is not a mail address"));
        context.add(problem.hint("write \"ops@example.net\" or \"Name <ops@example.net>\""));
        return None;
    }
    Some(text.to_owned())
}

fn webhook(section: &Section<'_>, notifier: &mut Notifier) -> Option<WebhookSettings> {
    let context = section.context;
    let headers = section.get("headers").map(|node| context.headers(node, "headers")).unwrap_or_default();
    let signing_key = section.get("signing_key").map(|node| context.secret(node, "signing_key"));
    let url = section.require("url", "where notices are posted to")?;
    let (url, parsed) = context.secret_url(url, "url", &["https", "http"], false)?;
    notifier.host = host(&parsed);
    Some(WebhookSettings { url, headers, signing_key: signing_key.flatten() })
}

/// Whether the host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Every fallback exists, and no chain of them comes back to where it began.
fn check_fallbacks(context: &Context, notifiers: &BTreeMap<Name, Notifier>) {
    let mut in_cycles: BTreeSet<&Name> = BTreeSet::new();
    for (name, notifier) in notifiers {
        let Some((fallback, place)) = &notifier.fallback else { continue };
        if !notifiers.contains_key(fallback) {
            let problem = Problem::error(place, format!("no notifier is named `{fallback}`"));
            context.add(problem.maybe_hint(values::suggestion(fallback, notifiers.keys().map(|name| &**name))));
            continue;
        }
        let chain = chain(notifiers, name);
        let last = chain.last().and_then(|last| notifiers.get(*last)).and_then(|last| last.fallback.as_ref());
        if last.is_some_and(|(next, _)| next == name) && chain.iter().all(|link| !in_cycles.contains(link)) {
            let links: Vec<_> = chain.iter().copied().chain([name]).map(|link| format!("`{link}`")).collect();
            let problem = format!("fallbacks go in a circle: {}", links.join(" → "));
            context.add(Problem::error(place, problem).hint("the last one has no `fallback`"));
            in_cycles.extend(chain);
        }
    }
}

/// Whoever a channel of type `notifier` rings is there.
pub(super) fn check_rung(
    context: &Context,
    node: Option<&Node>,
    channels: &BTreeMap<Name, Channel>,
    notifiers: &BTreeMap<Name, Notifier>,
) {
    for (name, rung) in channels.iter().filter_map(|(name, channel)| Some((name, channel.rings()?))) {
        if !notifiers.contains_key(rung) {
            let written = node.and_then(|node| node.get(name)?.get("notifier"));
            let place = written.map_or(&channels[name].place, |node| &node.place);
            let problem = Problem::error(place, format!("no notifier is named `{rung}`"));
            context.add(problem.maybe_hint(values::suggestion(rung, notifiers.keys().map(|name| &**name))));
        }
    }
}

/// The notifier and those that stand in for it, each once.
pub(super) fn chain<'a>(notifiers: &'a BTreeMap<Name, Notifier>, first: &'a Name) -> Vec<&'a Name> {
    let mut chain = vec![first];
    while let Some((next, _)) = notifiers.get(chain[chain.len() - 1]).and_then(|last| last.fallback.as_ref())
        && !chain.contains(&next)
    {
        chain.push(next);
    }
    chain
}
