//! Slack: one message per incident, edited in place, each transition also a reply in its thread.

use url::Url;

use crate::secret::Secret;

/// Settings of a `slack` notifier.
#[derive(Clone, Debug)]
pub enum SlackSettings {
    /// With a bot token: messages can be edited, threaded and looked up.
    Bot {
        /// `xoxb-…`
        token: Secret,
        /// The channel's id.
        channel: String,
        /// Another API root than Slack's, for proxies and tests.
        api_url: Option<Url>,
    },
    /// With an incoming webhook: one message per notice, nothing can be edited or looked up.
    Webhook {
        /// The webhook's URL, which is its own credential.
        url: Secret,
    },
}
