//! `type = "http"`.

use crate::channel::Settings;
use crate::channel::http::HttpSettings;
use crate::config::channels::{Channel, Grammar, ca_file};
use crate::config::document::Section;

pub(super) const GRAMMAR: Grammar =
    Grammar { kind: "http", keys: &["url", "headers", "redirects", "new_connection", "ca_file"], tables: &[], read };

fn read(section: &Section<'_>, _channel: &mut Channel) -> Option<Settings> {
    let context = section.context;
    let headers = section.get("headers").map(|node| context.headers(node, "headers")).unwrap_or_default();
    let ca_file = ca_file(section);
    let url = section.require("url", "the address that the paths of steps are appended to");
    Some(Settings::Http(HttpSettings {
        url: Some(context.url(url?, "url", &["http", "https"])?),
        headers,
        redirects: section.whole("redirects", 0..=20).unwrap_or(0) as usize,
        new_connection: section.bool("new_connection", false),
        ca_file,
    }))
}
