//! What changed since the last good run, from the system that changed to the people who are told.

use std::time::Duration;

use journeyman::journey::token::Token;
use serde_json::Value;

use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::fake_smtp::{Act, At, FakeSmtp, Offer, Rule};
use crate::support::{block_on, wait_for};

const BOUND: Duration = Duration::from_secs(25);
const PASSWORD: &str = "canary-5d1f0c7a9b3e4a62";

const PROBES: &str = r#"
[[journey]]
name   = "mail"
every  = "300ms"
notify = ["ops"]
alert  = { down_after = 2 }
step   = [
    { name = "submit", send = "gateway", text = "{{ token }}" },
    { name = "after", send = "gateway", text = "{{ token }}" },
]
"#;

#[test]
fn a_server_that_is_another_one_since_it_fails_is_told_with_what_is_well() {
    block_on(async {
        let gateway = FakeSmtp::start_with(Offer { auth: true, ..Offer::default() }).await;
        gateway.script([Rule::once(At::Connect, Act::Say("220 mx-a.example.net ESMTP 4.96"))]);
        let people = FakeSmtp::start().await;
        let setup = Setup::new("changed");
        setup.write("password", PASSWORD);
        let config = format!(
            r#"
            [channels.gateway]
            type     = "smtp"
            url      = "smtp://probe@localhost:{gateway}"
            password = {{ file = "password" }}
            from     = "probe@example.net"
            to       = ["inbox@example.net"]

            [notifiers.ops]
            type = "email"
            smtp = "smtp://127.0.0.1:{people}"
            from = "journeyman@example.net"
            to   = ["ops@example.net"]
            "#,
            gateway = gateway.port(),
            people = people.port(),
        );
        let daemon = setup.start(&config, PROBES).await;
        let good = [("journey", "mail"), ("outcome", "good")];
        wait_for("a good run", BOUND, async || {
            daemon.metric("journeyman_runs_total", &good).await.filter(|runs| *runs >= 2.0)
        })
        .await;

        // Behind the same name another one answers, which repeats a secret and takes nothing.
        gateway.script([
            Rule::always(At::Connect, Act::Say("220 mx-b.example.net knows canary-5d1f0c7a9b3e4a62")),
            Rule::always(At::Rcpt, Act::Say("550 5.1.1 nobody here")),
        ]);
        let notice =
            people.wait_for_mail("a notice", |taken| taken.mail.part("text/plain").text().contains("DOWN mail")).await;
        let text = notice.mail.part("text/plain").text();
        let fact = |name: &str| {
            let begin = format!("{name}: ");
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&begin));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
        };
        let changed = fact("Changed");
        assert!(changed.starts_with("banner of submit: "), "{changed}");
        assert!(changed.ends_with(" → mx-b.example.net knows •••"), "{changed}");
        let checked = "submit: name resolved, TCP connected, greeted, authenticated; never reached: after";
        assert_eq!(fact("Checked"), checked);
        assert!(!notice.raw.contains(PASSWORD), "{}", notice.raw);

        // So does a run by hand, which has the daemon's store to look in.
        let once = async |format: &str| {
            let arguments = ["once", "mail", "--config", "journeyman.toml", "--format", format];
            journeyman(daemon.directory(), &arguments).await.stdout
        };
        let text = once("text").await;
        let (_, told) = text.split_once("changed since the last good run, ").unwrap_or_else(|| panic!("{text}"));
        let told = told.lines().nth(1).unwrap_or_default();
        assert!(told.starts_with("  banner of submit: ") && told.ends_with(" → mx-b.example.net knows •••"), "{text}");
        let json: Value = serde_json::from_str(&once("json").await).unwrap();
        assert_eq!((&json["changed"][0]["what"], json["changed"].as_array().unwrap().len()), (&"banner".into(), 1));
        assert!(json["last_good"].is_string() && json["outcome"]["outcome"] == "failed", "{json}");

        // The run's page and the API say the same.
        let token = Token::find_all(fact("Run").as_bytes()).next().expect("the run is named");
        let (status, body) = daemon.get(&format!("/api/v1/runs/{token}")).await;
        assert_eq!(status, 200, "{body}");
        let run: Value = serde_json::from_str(&body).expect("it is JSON");
        let change = &run["run"]["changes"][0];
        assert_eq!((&change["what"], &change["step"]), (&"banner".into(), &"submit".into()), "{body}");
        assert_eq!(run["run"]["changes"].as_array().map(Vec::len), Some(1), "{body}");
        assert_eq!(run["run"]["healthy"][1], "never reached: after");
        assert_eq!(run["run"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(run["run"]["configuration"].as_str().map(str::len), Some(12));
        let (status, page) = daemon.get(&format!("/runs/{token}")).await;
        assert_eq!(status, 200);
        for words in ["Changed since the good run", "mx-b.example.net knows •••", "never reached: after", "greeted"]
        {
            assert!(page.contains(words), "no {words:?} in {page}");
        }
        assert!(!page.contains(PASSWORD) && !body.contains(PASSWORD) && !daemon.log().contains(PASSWORD));
    });
}
