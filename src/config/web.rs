//! `web_config` of a listener: checked when everything else is, so that a daemon starts only with one that it can use.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::channel::Settings;
use crate::channel::webhook::{Verify, WebhookSettings};
use crate::config::channels::Channel;
use crate::config::document::{Node, Section};
use crate::config::files;
use crate::config::problem::Problem;
use crate::gate::Rules;

/// The file, and what is in it, if it is there and can be used.
pub(super) fn read(section: &Section<'_>) -> Option<(PathBuf, Rules)> {
    let context = section.context;
    let node = section.get("web_config")?;
    let path = files::clean(&context.base.join(context.text(node, "web_config")?));
    match Rules::load(&path) {
        Ok(rules) => Some((path, rules)),
        Err(why) => {
            context.add(Problem::error(&node.place, why).hint("paths in it are relative to it"));
            None
        }
    }
}

/// Says what goes over the network for everybody to read, and whom the rules shut out.
pub(super) fn check_http(section: &Section<'_>, listen: SocketAddr, rules: Option<&Rules>) {
    let context = section.context;
    let is_open = !listen.ip().is_loopback() && !rules.is_some_and(Rules::has_tls);
    if let (Some(node), true) = (section.get("admin_token"), is_open) {
        let problem = format!("whoever can listen to the network before {listen} can read the admin token");
        let hint = "a `web_config` with `tls_server_config` encrypts it; or listen on 127.0.0.1, behind a proxy that speaks TLS";
        context.add(Problem::warning(&node.place, problem).hint(hint));
    }
    let (Some(rules), Some(node)) = (rules, section.get("web_config")) else { return };
    if rules.has_users() && is_open {
        check_passwords(section, node, listen);
    }
    if rules.has_users() && section.get("admin_token").is_none() {
        let problem = "`journeyman health` and the other commands that ask the daemon need a password, and have none";
        context.add(Problem::warning(&node.place, problem).hint("an `admin_token` lets them in"));
    }
    if rules.wants_certificates() {
        let problem = "`journeyman health` and the other commands that ask the daemon have no certificate of their own";
        let hint = "they work with `client_auth_type: VerifyClientCertIfGiven`";
        context.add(Problem::warning(&node.place, problem).hint(hint));
    }
}

/// As [`check_http`], for the listener of webhooks.
pub(super) fn check_hooks<'a>(
    section: &Section<'_>,
    listen: SocketAddr,
    rules: &Rules,
    channels: impl Iterator<Item = &'a Channel>,
) {
    let (context, Some(node)) = (section.context, section.get("web_config")) else { return };
    if !rules.has_users() {
        return;
    }
    if !listen.ip().is_loopback() && !rules.has_tls() {
        check_passwords(section, node, listen);
    }
    for channel in channels {
        let settings = channel.plan.as_ref().map(|plan| &plan.settings);
        if let Some(Settings::Webhook(WebhookSettings { verify: Verify::Bearer { .. }, .. })) = settings {
            let problem = "callers cannot have a password and a bearer token: both are the header `Authorization`";
            let problem = Problem::error(&node.place, problem).also(&channel.place, "asks for a bearer token");
            context.add(problem.hint("leave `basic_auth_users` to the listener of [http]"));
        }
    }
}

fn check_passwords(section: &Section<'_>, node: &Node, listen: SocketAddr) {
    let problem =
        format!("whoever can listen to the network before {listen} can read the passwords of `basic_auth_users`");
    section.context.add(Problem::warning(&node.place, problem).hint("`tls_server_config` encrypts them"));
}
