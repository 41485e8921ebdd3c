//! `type = "http"`.

use url::Url;

use crate::channel::Settings;
use crate::channel::http::HttpSettings;
use crate::config::channels::{Channel, Grammar, ca_file};
use crate::config::document::{Context, Node, Section};
use crate::config::problem::Problem;

pub(super) const GRAMMAR: Grammar = Grammar {
    kind: "http",
    keys: &["url", "headers", "redirects", "redirect_hosts", "new_connection", "ca_file"],
    tables: &[],
    read,
};

/// More are a loop, or a maze.
const MOST_REDIRECTS: u64 = 3;

fn read(section: &Section<'_>, _channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let headers = section.get("headers").map(|node| context.headers(node, "headers")).unwrap_or_default();
    let ca_file = ca_file(section);
    let url = section.require("url", "the address that the paths of steps are appended to");
    Some(Settings::Http(HttpSettings {
        url: Some(context.url(url?, "url", &["http", "https"])?),
        headers,
        redirects: section.whole("redirects", 0..=MOST_REDIRECTS).unwrap_or(0) as usize,
        redirect_hosts: section.get("redirect_hosts").map(|node| hosts(context, node)).unwrap_or_default(),
        new_connection: section.bool("new_connection", false),
        ca_file,
    }))
}

/// Names of hosts, as URLs have them.
fn hosts(context: &Context, node: &Node) -> Vec<String> {
    let nodes = context.list(node, "redirect_hosts", "a list of host names").unwrap_or_default();
    let host = |node: &Node| {
        let text = context.text(node, "redirect_hosts")?;
        let url = Url::parse(&format!("http://{text}")).ok();
        let host = url.filter(|url| url.path() == "/" && url.port().is_none() && url.username().is_empty());
        let host = host.and_then(|url| url.host_str().map(str::to_owned));
        if host.is_none() {
            let problem = Problem::error(&node.place, format!("`{text}` is not the name of a host"));
            context.add(problem.hint("without scheme, port and path, as in \"sso.example.net\""));
        }
        host
    };
    nodes.iter().filter_map(host).collect()
}
