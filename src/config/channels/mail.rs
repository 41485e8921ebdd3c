//! What the kinds of mail channel have in common: the server, and who we are there.

use crate::channel::mail::{Login, MailServer, Security};
use crate::config::channels::{Channel, ca_file, host};
use crate::config::document::{Node, Section};
use crate::config::notifiers::is_loopback;
use crate::config::problem::Problem;
use crate::config::secrets::decoded;
use crate::secret::Secret;

/// The server behind `url`, which has one of the schemes for in the clear, STARTTLS and TLS, in this order.
pub(super) fn server(section: &Section<'_>, channel: &mut Channel, schemes: [&str; 3]) -> Option<MailServer> {
    let context = section.context;
    let ca_file = ca_file(section);
    let may_be_plain = section.bool("plain_password", false);
    let username = section.get("username").and_then(|node| Some((context.text(node, "username")?.to_owned(), node)));
    let password = section.get("password").map(|node| (context.secret(node, "password"), node));
    let [plain, start_tls, tls] = schemes;
    let hint = format!("the server's address: `{plain}://host`, `{start_tls}://host` or `{tls}://host`");
    let node = section.require("url", &hint)?;
    let url = context.url(node, "url", &schemes)?;
    let security = match url.scheme() {
        scheme if scheme == tls => Security::Tls,
        scheme if scheme == start_tls => Security::StartTls,
        _ => Security::Plain,
    };
    channel.host = host(&url);
    let (host, port) = channel.host.clone()?;
    // An IPv6 address in a URL stands in brackets.
    let host = host.trim_matches(['[', ']']).to_owned();
    if ca_file.is_some() && security == Security::Plain {
        let problem = Problem::warning(section.place_of("ca_file"), "`ca_file` does nothing without TLS");
        context.add(problem.hint(format!("use `{start_tls}://` or `{tls}://`")));
    }
    if !matches!(url.path(), "" | "/") {
        let problem = Problem::error(&node.place, "`url` has a path, which means nothing here");
        context.add(problem.hint("it ends with the host, or with the port"));
    }
    let in_url = Some(decoded(url.username())).filter(|user| !user.is_empty());
    let literal = url.password().map(|password| Secret::new(decoded(password), &context.redactor));
    let login = login(section, node, username, in_url, password, literal);
    if login.is_some() && security == Security::Plain && !may_be_plain && !is_loopback(&host) {
        let problem =
            Problem::error(&node.place, format!("the password would cross the network to {host} in the clear"));
        let hint =
            format!("use `{start_tls}://` or `{tls}://`; `plain_password = true` if nobody can listen on the way");
        context.add(problem.hint(hint));
    }
    Some(MailServer { host, port, security, ca_file, login })
}

/// The user in `username` or in `url`, with the password in `password` or, as a last resort, in `url`.
fn login(
    section: &Section<'_>,
    url: &Node,
    username: Option<(String, &Node)>,
    in_url: Option<String>,
    password: Option<(Option<Secret>, &Node)>,
    literal: Option<Secret>,
) -> Option<Login> {
    let context = section.context;
    if let (Some((_, node)), true) = (&username, in_url.is_some()) {
        context.add(Problem::error(&node.place, "there are two users: this one and one in `url`"));
        return None;
    }
    if let (Some((_, node)), true) = (&password, literal.is_some()) {
        context.add(Problem::error(&node.place, "there are two passwords: this one and one in `url`"));
        return None;
    }
    let has_password = password.is_some() || literal.is_some();
    let place = password.as_ref().map_or(&url.place, |(_, node)| &node.place);
    match username.map(|(user, _)| user).or(in_url) {
        None if has_password => {
            let problem = Problem::error(place, "there is a password and no user");
            context.add(problem.hint("add `username = \"…\"`"));
            None
        }
        None => None,
        Some(_) if !has_password => {
            let problem = Problem::error(&section.node.place, "the server is told a user and no password");
            context.add(problem.hint("add `password = { file = \"…\" }`, or leave the user out"));
            None
        }
        Some(user) => Some(Login { user, password: password.and_then(|(secret, _)| secret).or(literal)? }),
    }
}
