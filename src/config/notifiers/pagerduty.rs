//! `type = "pagerduty"`.

use crate::config::channels::host;
use crate::config::document::Section;
use crate::config::notifiers::Notifier;
use crate::config::problem::Problem;
use crate::notifier::pagerduty::{ENQUEUE, PagerdutySettings, ROUTING_KEY};
use crate::secret::{Redactor, Secret};

pub(in crate::config) const KEYS: &[&str] = &["routing_key", "url"];

pub(super) fn read(section: &Section<'_>, notifier: &mut Notifier) -> Option<PagerdutySettings> {
    let context = section.context;
    notifier.host = Some(("events.pagerduty.com".to_owned(), 443));
    let mut is_pagerduty = true;
    let url = match section.get("url") {
        None => Some(Secret::new(ENQUEUE.to_owned(), &Redactor::new())),
        Some(node) => context.secret_url(node, "url", &["https", "http"], false).map(|(url, parsed)| {
            notifier.host = host(&parsed);
            is_pagerduty =
                parsed.host_str().is_some_and(|host| host == "pagerduty.com" || host.ends_with(".pagerduty.com"));
            if parsed.path() != "/v2/enqueue" && is_pagerduty {
                let problem =
                    Problem::error(&node.place, "PagerDuty takes events at `/v2/enqueue`, and `url` leads elsewhere");
                context.add(
                    problem.hint(format!("{ENQUEUE:?}, or \"https://events.eu.pagerduty.com/v2/enqueue\" in Europe")),
                );
            }
            url
        }),
    };
    let hint = "the integration key of an \"Events API v2\" integration: `routing_key = { file = \"…\" }`";
    let node = section.require("routing_key", hint)?;
    let routing_key = context.secret(node, "routing_key")?;
    let length = routing_key.reveal().chars().count();
    // What only speaks PagerDuty's language may have keys of its own.
    if is_pagerduty && length != ROUTING_KEY {
        let problem = format!("`routing_key` has {length} characters, and PagerDuty's have {ROUTING_KEY}");
        context.add(Problem::error(&node.place, problem).hint(hint));
    }
    Some(PagerdutySettings { routing_key, url: url? })
}
