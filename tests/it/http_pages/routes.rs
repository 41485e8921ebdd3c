//! Every route by who calls it: nothing that is not in the table, and nothing for whoever cannot prove what the table asks for.

use std::sync::Arc;

use journeyman::clock::Clock;
use journeyman::gate::{Door, Web};
use journeyman::http::{RouteInfo, Visibility, table};
use reqwest::{Client, Method, RequestBuilder};

use super::stage::Stage;
use crate::support::{Scratch, block_on};

const TOKEN: &str = "the-admin-token";

/// What a caller shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shows {
    Nothing,
    WrongToken,
    NoTokenButItsName,
    Token,
    TokenTwice,
    WrongPassword,
    Password,
    PasswordAsToken,
}

impl Shows {
    const ALL: [Shows; 8] = [
        Shows::Nothing,
        Shows::WrongToken,
        Shows::NoTokenButItsName,
        Shows::Token,
        Shows::TokenTwice,
        Shows::WrongPassword,
        Shows::Password,
        Shows::PasswordAsToken,
    ];

    fn on(self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Shows::Nothing => request,
            Shows::WrongToken => request.bearer_auth("the-admin-tokem"),
            Shows::NoTokenButItsName => request.bearer_auth(""),
            Shows::Token => request.bearer_auth(TOKEN),
            Shows::TokenTwice => request.bearer_auth(TOKEN).bearer_auth(TOKEN),
            Shows::WrongPassword => request.basic_auth("ada", Some("wrong")),
            Shows::Password => request.basic_auth("ada", Some("lovelace")),
            Shows::PasswordAsToken => request.basic_auth("ada", Some(TOKEN)),
        }
    }
}

/// What is before the listener.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Setting {
    /// Nobody may change anything.
    NoToken,
    Token,
    /// And people need a password.
    TokenAndUsers,
}

/// The answers that are right for a route, whoever asks; nobody takes requests on this stage, so those that get through find that out.
fn expected(route: &RouteInfo, setting: Setting, shows: Shows) -> &'static [u16] {
    let has_token = setting != Setting::NoToken && shows == Shows::Token;
    let needs_password = setting == Setting::TokenAndUsers && route.visibility != Visibility::Called;
    if needs_password && !has_token && shows != Shows::Password {
        // Ten wrong passwords of an address are hashed, and no more for a while.
        return if matches!(shows, Shows::WrongPassword | Shows::PasswordAsToken) { &[401, 429] } else { &[401] };
    }
    match (route.visibility, setting) {
        (Visibility::Public, _) => &[200, 404],
        // None is configured here.
        (Visibility::Published, _) => &[404],
        (Visibility::Admin | Visibility::Form, Setting::NoToken) => &[404],
        (Visibility::Admin, _) if has_token => &[200, 400, 503],
        (Visibility::Admin, _) => &[401],
        // With the token and without a name.
        (Visibility::Form, _) if has_token => &[400],
        (Visibility::Form, _) => &[403],
        // Without a signature; and what Slack calls is for nobody unless it is set up.
        (Visibility::Signed, _) => &[403],
        (Visibility::Called, _) => &[404],
    }
}

#[test]
fn every_route_answers_only_whom_the_table_says() {
    block_on(async {
        let scratch = Scratch::new("routes");
        let hash = bcrypt::hash("lovelace", 4).unwrap();
        let file = scratch.write("web.yml", &format!("basic_auth_users:\n  ada: {hash}\n"));
        let web = Some(Arc::new(Web::open(&file, Clock::system()).unwrap()));
        let stages = [
            (Setting::NoToken, Stage::new(None).await),
            (Setting::Token, Stage::new(Some(TOKEN)).await),
            (Setting::TokenAndUsers, Stage::behind(Door { web, ..Door::default() }, Some(TOKEN)).await),
        ];
        let client = Client::builder().no_proxy().build().unwrap();
        let mut wrong = String::new();
        let (mut changing, mut cells) = (0, 0);
        for route in table() {
            assert!(
                route.method == Method::GET || route.visibility != Visibility::Public,
                "{} {} changes something, and everybody may call it",
                route.method,
                route.path
            );
            changing += u32::from(route.method != Method::GET);
            let path = route.path.replace("{token}", "jm00000000000000000000000000").replace("{file}", "style.css");
            let path = path.replace(['{', '}'], "");
            for (setting, stage) in &stages {
                for shows in Shows::ALL {
                    cells += 1;
                    let request = client.request(route.method.clone(), format!("{}{path}", stage.url));
                    let answer = shows.on(request).send().await.unwrap();
                    let status = answer.status().as_u16();
                    if !expected(&route, *setting, shows).contains(&status) {
                        wrong += &format!("{} {path} {setting:?} {shows:?}: {status}\n", route.method);
                    }
                    let challenge = answer.headers().get("www-authenticate").is_some();
                    assert_eq!(challenge, status == 401, "a refusal says what is asked for: {path}");
                }
                let other = client.patch(format!("{}{path}", stage.url)).bearer_auth(TOKEN).send().await.unwrap();
                assert!(matches!(other.status().as_u16(), 405), "{path}: {}", other.status());
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
        assert!(changing >= 8 && cells > 700, "{changing} {cells}");
        for path in ["/nowhere", "/journeys", "/api/v1/nothing", "/metrics/", "/.git/config", "/static/../Cargo.toml"] {
            for (setting, stage) in &stages {
                let status = client.get(format!("{}{path}", stage.url)).send().await.unwrap().status().as_u16();
                let expected = if *setting == Setting::TokenAndUsers { 401 } else { 404 };
                assert_eq!(status, expected, "{path} {setting:?}: what is not there is no secret's neighbour");
            }
        }
        for (_, stage) in stages {
            stage.stop().await;
        }
    });
}
