//! `type = "alertmanager"`.

use std::time::Duration;

use crate::config::channels::host;
use crate::config::document::{Node, Section};
use crate::config::notifiers::Notifier;
use crate::config::problem::Problem;
use crate::notifier::alertmanager::AlertmanagerSettings;
use crate::secret::Secret;
use crate::time::Human;

pub(in crate::config) const KEYS: &[&str] = &["url", "urls", "headers", "resend_every", "expires_after"];

/// As often as Prometheus does.
const RESEND_EVERY: Duration = Duration::from_secs(60);
/// More often says nothing new.
const LEAST_RESEND: Duration = Duration::from_secs(1);
/// Long enough to be updated, restarted, or repaired by hand.
const EXPIRES_AFTER: Duration = Duration::from_secs(3_600);
/// An alert lives for so many posts at least, as with Prometheus: one that is lost is no resolution.
const POSTS: u32 = 4;

pub(super) fn read(section: &Section<'_>, notifier: &mut Notifier) -> Option<AlertmanagerSettings> {
    let context = section.context;
    let headers = section.get("headers").map(|node| context.headers(node, "headers")).unwrap_or_default();
    let resend_every = section.duration("resend_every").unwrap_or(RESEND_EVERY);
    if resend_every < LEAST_RESEND {
        let problem = format!("`resend_every` is less than {}", Human(LEAST_RESEND));
        context.add(Problem::error(section.place_of("resend_every"), problem));
    }
    let expires_after = section.duration("expires_after").unwrap_or(EXPIRES_AFTER);
    if expires_after < resend_every * POSTS {
        let key = if section.get("expires_after").is_some() { "expires_after" } else { "resend_every" };
        let problem = format!(
            "what fires expires after {}, and is posted every {}: one lost post would make Alertmanager tell a resolution",
            Human(expires_after),
            Human(resend_every)
        );
        let hint = format!("`expires_after` is at least {POSTS} times `resend_every`");
        context.add(Problem::error(section.place_of(key), problem).hint(hint));
    }
    let hint =
        "where its API begins, as in \"http://alertmanager.example.net:9093\"; `urls` for every instance of a cluster";
    let (key, node) = section.only_one(&["url", "urls"], true, hint)?;
    let nodes = if key == "url" { vec![node] } else { list(section, node)? };
    let read: Vec<_> = nodes.iter().map(|node| instance(section, node, key)).collect();
    let urls: Vec<_> = read.into_iter().collect::<Option<_>>()?;
    notifier.host = urls.first().and_then(|(_, host)| host.clone());
    let urls = urls.into_iter().map(|(url, _)| url).collect();
    Some(AlertmanagerSettings { urls, headers, resend_every, expires_after })
}

fn list<'a>(section: &Section<'a>, node: &'a Node) -> Option<Vec<&'a Node>> {
    let items = section.context.list(node, "urls", "a list of URLs")?;
    if items.is_empty() {
        section.context.add(Problem::error(&node.place, "`urls` has no URL"));
        return None;
    }
    Some(items.iter().collect())
}

fn instance(section: &Section<'_>, node: &Node, key: &str) -> Option<(Secret, Option<(String, u16)>)> {
    let context = section.context;
    let (url, parsed) = context.secret_url(node, key, &["https", "http"], false)?;
    if parsed.path().trim_end_matches('/').ends_with("/api/v2/alerts") || parsed.path().contains("/api/v1") {
        let problem = format!("`{key}` names the API; it must end where the API begins");
        context.add(Problem::error(&node.place, problem).hint("leave out `/api/…`: it is added"));
        return None;
    }
    Some((url, host(&parsed)))
}
