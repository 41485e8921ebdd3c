//! `type = "slack"`.

use std::time::Duration;

use url::Url;

use crate::channel::Settings;
use crate::channel::slack::SlackSettings;
use crate::config::channels::{Channel, Grammar, ca_file, host};
use crate::config::document::Section;
use crate::config::problem::Problem;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "slack",
    keys: &["token", "channel", "app_token", "user_token", "api_url", "poll", "keep", "ca_file"],
    tables: &[],
    read,
};

/// Twelve a minute: a quarter of what Slack lets an app ask for, so that others of its conversations can be read too.
const POLL: Duration = Duration::from_secs(5);
/// More often, and Slack refuses.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
const API: &str = "https://slack.com/api/";

fn read(section: &Section<'_>, channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let ca_file = ca_file(section);
    let optional = |key: &str| match section.get(key) {
        Some(node) => context.secret(node, key).map(Some),
        None => Some(None),
    };
    let token = section.require("token", "the bot's token, `xoxb-…`").and_then(|node| context.secret(node, "token"));
    let (app_token, user_token) = (optional("app_token"), optional("user_token"));
    let hint = "the conversation's id, as in \"C0123456789\": at the bottom of its details in Slack";
    let id = section.require("channel", hint).and_then(|node| {
        let id = context.text(node, "channel")?;
        let is_id = id.len() > 1
            && id.starts_with(['C', 'D', 'G'])
            && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if !is_id {
            let problem =
                Problem::error(&node.place, "`channel` is not an id, and only by its id can a conversation be read");
            context.add(problem.hint(hint));
        }
        is_id.then(|| id.to_owned())
    });
    let api_url = match section.get("api_url") {
        Some(node) => context.url(node, "api_url", &["https", "http"]),
        None => Url::parse(API).ok(),
    };
    channel.host = api_url.as_ref().and_then(host);
    let poll = section.duration("poll").unwrap_or(POLL);
    if poll < SHORTEST_POLL {
        let problem =
            Problem::error(section.place_of("poll"), "`poll` is at least \"1s\": Slack refuses who asks more often");
        context.add(problem);
    }
    for useless in ["poll", "user_token"] {
        if section.get("app_token").is_some() && section.get(useless).is_some() {
            let problem = format!("`{useless}` does nothing beside `app_token`: nobody asks for the history");
            context.add(Problem::error(section.place_of(useless), problem));
        }
    }
    Some(Settings::Slack(SlackSettings {
        token: token?,
        channel: id?,
        app_token: app_token?,
        user_token: user_token?,
        api_url: api_url?,
        poll,
        keep: section.bool("keep", false),
        ca_file,
    }))
}
