//! `[status_page]`: what everybody may know, and under which names.

use crate::config::document::{Context, Node, Section};
use crate::config::journeys::Loaded;
use crate::config::problem::Problem;
use crate::control::Matcher;
use crate::control::status_page::{Component, StatusPage};

pub(super) const KEYS: &[&str] = &["title", "about", "component"];
pub(super) const COMPONENT_KEYS: &[&str] = &["title", "group", "journeys"];

const HINT: &str = "as in `[[status_page.component]]` with `title = \"Text messages\"` and `journeys = [\"sms-*\"]`";
/// Every one costs a look into the history.
const MOST: usize = 100;

/// The page, if there is to be one. Parts of which no journey is one are told of.
pub(super) fn read(context: &Context, node: Option<&Node>, journeys: &[Loaded]) -> Option<StatusPage> {
    let section = Section::open(context, node?, "status_page", KEYS)?;
    section.require("title", "whose page it is, as in `title = \"Example status\"`");
    section.require("component", HINT);
    let nodes = section
        .get("component")
        .and_then(|node| context.list(node, "component", "a list of tables"))
        .unwrap_or_default();
    let mut components: Vec<Component> = Vec::new();
    for node in nodes {
        let Some(component) = component(context, node, journeys) else { continue };
        if components.iter().any(|before| before.title == component.title) {
            let problem = format!("there are two parts with the title `{}`", component.title);
            context.add(Problem::error(&node.place, problem).hint("badges find a part by its title"));
        }
        components.push(component);
    }
    if components.len() > MOST {
        context.add(Problem::error(section.place_of("component"), format!("there are more than {MOST} parts")));
    }
    if section.get("title").is_some_and(|node| node.as_text() == Some("")) {
        context.add(Problem::error(section.place_of("title"), "`title` is empty"));
    }
    let text = |key| section.text(key).map(str::to_owned);
    Some(StatusPage { title: text("title").unwrap_or_default(), about: text("about"), components })
}

fn component(context: &Context, node: &Node, journeys: &[Loaded]) -> Option<Component> {
    let section = Section::open(context, node, "status_page.component", COMPONENT_KEYS)?;
    section.require("title", HINT);
    section.require("journeys", HINT);
    let title = section.text("title").unwrap_or_default();
    if section.get("title").is_some() && (title.trim().is_empty() || title.chars().any(char::is_control)) {
        context.add(Problem::error(section.place_of("title"), "`title` is a line of text"));
    }
    let mut matchers = Vec::new();
    for (text, node) in section.strings("journeys").unwrap_or_default() {
        match Matcher::parse(text) {
            Ok(matcher) => {
                let holds = |loaded: &Loaded| matcher.holds(&loaded.journey.alert_labels(None));
                if !context.is_incomplete && !journeys.iter().any(holds) {
                    let problem = Problem::warning(&node.place, format!("no journey is like `{text}`"));
                    context.add(problem.hint("a word alone is a journey's name; `*` stands for anything"));
                }
                matchers.push(matcher);
            }
            Err(why) => {
                context.add(Problem::error(&node.place, why).hint("as in `journeys = [\"sms-*\", \"team=web\"]`"))
            }
        }
    }
    let group = section.text("group").map(str::to_owned);
    Some(Component { title: title.to_owned(), group, journeys: matchers })
}
