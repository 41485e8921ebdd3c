//! People's controls, on the real binary: what is asked on its command line or by a link is done, is told, and outlives a kill.

mod pages;
mod pause;
mod preview;
mod run_again;

use std::time::Duration;

use jiff::Timestamp;
use journeyman::clock::Clock;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::support::command::{Ended, journeyman};
use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_smtp::{FakeSmtp, Taken};
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

const SOON: Duration = Duration::from_secs(40);
const TOKEN: &str = "the-admin-token";

/// A daemon whose first journey, `sms`, fails when the target does; `ops` and `boss` have mail.
struct Stage {
    daemon: Daemon,
    target: Target,
    smtp: FakeSmtp,
}

impl Stage {
    async fn start(name: &str, extra: &str) -> Stage {
        Stage::start_with(name, extra, "").await
    }

    /// The same, with more keys of the journey.
    async fn start_with(name: &str, extra: &str, keys: &str) -> Stage {
        let setup = Setup::new(name);
        let (target, smtp) = (Target::start(2).await, FakeSmtp::start().await);
        setup.write("admin", TOKEN);
        let mut config = format!(
            "[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\n[http]\nadmin_token = {{ file = \"admin\" }}\npublic_url = \"http://{}\"\n",
            target.url(),
            setup.http_address()
        );
        for who in ["ops", "boss"] {
            config += &format!(
                "[notifiers.{who}]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"jm@example.net\"\nto = [\"{who}@example.net\"]\n",
                smtp.port()
            );
        }
        let probes = format!(
            "[[journey]]\n{keys}\nname = \"sms\"\nevery = \"200ms\"\ndeadline = \"2s\"\nnotify = [\"ops\"]\nlabels = {{ tier = \"gold\" }}\n\
                      alert = {{ down_after = 2, recover_after = 2, remind = \"1s\" }}\nstep = [{{ request = \"web\", path = \"/0\" }}]\n"
        );
        let daemon = setup.start(&format!("{config}{extra}"), &probes).await;
        Stage { daemon, target, smtp }
    }

    async fn cli(&self, arguments: &[&str]) -> Ended {
        journeyman(self.daemon.directory(), &[arguments, &["--config", "journeyman.toml"]].concat()).await
    }

    /// What it prints; it must work.
    async fn done(&self, arguments: &[&str]) -> String {
        let ended = self.cli(arguments).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        ended.stdout
    }

    async fn json(&self, path: &str) -> Value {
        let (status, text) = self.daemon.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).expect("the API answers in JSON")
    }

    /// The incident of the journey, once there is one like that.
    async fn incident(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, SOON, async || {
            let incident = self.json("/api/v1/journeys/sms").await["journey"]["incident"].clone();
            (incident.is_object() && is_it(&incident)).then_some(incident)
        })
        .await
    }

    async fn bad_runs_after(&self, more: u64) {
        let now = self.incident("an incident", |_| true).await["bad_runs"].as_u64().unwrap_or(0);
        self.incident("more bad runs", |incident| incident["bad_runs"].as_u64() >= Some(now + more)).await;
    }

    async fn well_again(&self) {
        self.target.set_all(Mode::Well);
        wait_for("it to be over", SOON, async || {
            self.json("/api/v1/journeys/sms").await["journey"]["incident"].is_null().then_some(())
        })
        .await;
    }

    /// The mails to somebody so far.
    fn mails(&self, who: &str) -> Vec<Taken> {
        let to = format!("{who}@example.net");
        self.smtp.mails().into_iter().filter(|mail| mail.to.contains(&to)).collect()
    }

    async fn mail(&self, who: &str, nth: usize) -> String {
        let what = format!("mail {nth} to {who}");
        let mail = wait_for(&what, SOON, async || self.mails(who).into_iter().nth(nth)).await;
        mail.mail.parts()[0].text()
    }
}

/// The link in a mail that runs the journey again.
fn run_link(mail: &str) -> String {
    mail.split("Run again: ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link").to_owned()
}

fn now() -> Timestamp {
    Clock::system().now().wall
}

fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no time"))
}

#[test]
fn a_silence_by_command_line_keeps_quiet_over_a_kill_and_its_end_tells_at_once() {
    block_on(async {
        let mut stage = Stage::start("silence", "").await;
        assert_eq!(stage.done(&["silences"]).await, "nothing is silenced\n");
        let arguments = ["silence", "tier=gold", "--for", "20s", "--reason", "new gateway", "--by", "ann"];
        let said = stage.done(&arguments).await;
        assert!(
            said.contains("tier=\"gold\"") && said.contains("this is about sms") && said.contains(" UTC"),
            "{said}"
        );
        let silence = stage.json("/api/v1/silences").await["silences"][0].clone();
        let until = time(&silence["until"]);
        stage.target.set_all(Mode::Fails);
        let quiet = stage.incident("a silenced incident", |incident| incident["quiet"].is_string()).await;
        assert!(
            quiet["quiet"].as_str().is_some_and(|why| why.contains("ann") && why.contains("new gateway")),
            "{quiet}"
        );
        for page in ["/", "/journeys/sms", "/incidents"] {
            let (_, html) = stage.daemon.get(page).await;
            assert!(html.contains("new gateway") && html.contains("ann"), "{page}: {html}");
        }
        let listed = stage.done(&["incidents"]).await;
        assert!(listed.contains("sms") && listed.contains("silenced by ann until"), "{listed}");

        stage.daemon.kill().await;
        // It comes back when the silence is over: whoever waited must hear of it all the same.
        wait_for("the silence to be over", SOON, async || (now() > until).then_some(())).await;
        assert_eq!(stage.mails("ops").len(), 0, "nobody is told in a silence");
        stage.daemon.start_again().await;
        let told = stage.mail("ops", 0).await;
        assert!(told.contains("DOWN sms"), "{told}");
        assert_eq!(stage.done(&["silences"]).await, "nothing is silenced\n");
        stage.well_again().await;
    });
}

#[test]
fn a_silence_survives_a_kill_and_can_be_ended_early() {
    block_on(async {
        let mut stage = Stage::start("unsilence", "").await;
        let said = stage.done(&["silence", "sm*", "--for", "1h", "--reason", "quiet", "--format", "json"]).await;
        let silence: Value = serde_json::from_str(&said).expect("JSON");
        let id = silence["silence"]["id"].as_str().expect("an id").to_owned();
        stage.target.set_all(Mode::Fails);
        stage.incident("a silenced incident", |incident| incident["quiet"].is_string()).await;
        stage.daemon.kill().await;
        stage.daemon.start_again().await;
        assert!(stage.done(&["silences"]).await.starts_with(&id));
        stage.bad_runs_after(10).await;
        assert_eq!(stage.mails("ops").len(), 0);
        let said = stage.done(&["unsilence", &id]).await;
        assert!(said.contains("has ended"), "{said}");
        stage.mail("ops", 0).await;
        let again = stage.cli(&["unsilence", &id]).await;
        assert_eq!((again.code, again.stderr.contains("there is no silence")), (64, true), "{again:?}");
    });
}

#[test]
fn who_acknowledges_is_not_reminded_over_a_kill_until_it_is_taken_back() {
    block_on(async {
        let mut stage = Stage::start("ack", "").await;
        stage.target.set_all(Mode::Fails);
        stage.mail("ops", 1).await;
        let said = stage.done(&["ack", "sms", "--for", "1h", "--by", "ada"]).await;
        assert!(said.contains("ada looks after sms (incident ") && said.contains("UTC"), "{said}");
        let incident = stage.incident("an acknowledged incident", |incident| incident["acked"].is_object()).await;
        assert_eq!(incident["acked"]["by"], "ada");
        let id = incident["id"].as_str().expect("an id").to_owned();
        assert!(stage.done(&["incidents"]).await.contains("acknowledged by ada until"));
        for page in ["/", "/journeys/sms", "/incidents", &format!("/incidents/{id}")] {
            let (_, html) = stage.daemon.get(page).await;
            assert!(html.contains("ada"), "{page}: {html}");
        }
        // What was owed before may still be on its way.
        stage.bad_runs_after(5).await;
        let told = stage.mails("ops").len();
        stage.daemon.kill().await;
        stage.daemon.start_again().await;
        stage.bad_runs_after(10).await;
        assert_eq!(stage.mails("ops").len(), told, "a reminder is due every second");
        let detail = stage.json(&format!("/api/v1/incidents/{id}")).await["incident"].clone();
        assert_eq!((&detail["acked"]["by"], &detail["open"]), (&"ada".into(), &true.into()));
        assert_eq!(detail["member_list"][0]["journey"], "sms");
        assert!(detail["notices"].as_array().is_some_and(|notices| notices.len() >= told), "{detail}");
        let said = stage.done(&["unack", &id, "--by", "ada"]).await;
        assert!(said.contains("reminded again"), "{said}");
        stage.mail("ops", told).await;
        stage.well_again().await;
        let over = stage.cli(&["ack", &id]).await;
        assert_eq!((over.code, over.stderr.contains("is over")), (64, true), "{over:?}");
        let none = stage.cli(&["ack", "sms"]).await;
        assert!(none.code == 64 && none.stderr.contains("`sms` has no open incident"), "{none:?}");
        let (_, html) = stage.daemon.get(&format!("/incidents/{id}")).await;
        assert!(html.contains("Who was told what") && html.contains("ops"), "{html}");
    });
}

#[test]
fn a_journeys_name_means_its_health_first_and_else_its_budget() {
    block_on(async {
        let stage = Stage::start_with("ack-budget", "", "objective = { delivered = \"99%\" }").await;
        stage.target.set_all(Mode::Fails);
        let budget = wait_for("both to fire", SOON, async || {
            let journey = stage.json("/api/v1/journeys/sms").await["journey"].clone();
            journey["incident"]["id"].as_str()?;
            Some(journey["budget_incident"].as_str()?.to_owned())
        })
        .await;
        let health = stage.incident("an incident", |_| true).await["id"].as_str().unwrap().to_owned();
        assert_ne!(health, budget);
        let said = stage.done(&["ack", "sms", "--by", "ada"]).await;
        assert!(said.starts_with(&format!("ada looks after sms (incident {health})")), "{said}");
        assert!(said.ends_with(&format!("its error budget fires as well, and is incident {budget}\n")), "{said}");

        stage.well_again().await;
        let said = stage.done(&["ack", "sms", "--by", "ada"]).await;
        assert!(said.starts_with(&format!("ada looks after sms: error budget (incident {budget})")), "{said}");
        assert!(!said.contains("as well"), "{said}");
        let said = stage.done(&["unack", "sms", "--by", "ada"]).await;
        assert!(said.starts_with(&format!("nobody looks after sms: error budget (incident {budget})")), "{said}");
    });
}

#[test]
fn nobody_is_called_after_an_acknowledgement_and_somebody_without_one() {
    block_on(async {
        let route = "[[route]]\nmatch = [\"severity=critical\"]\nnotify = [\"ops\"]\nescalate = [{ after = \"6s\", notify = [\"boss\"] }]\n";
        let stage = Stage::start("escalate", route).await;
        stage.target.set_all(Mode::Fails);
        stage.mail("boss", 0).await;
        let id = stage.incident("an incident", |_| true).await["id"].as_str().expect("an id").to_owned();
        let notices = stage.json(&format!("/api/v1/incidents/{id}")).await["incident"]["notices"].clone();
        let first_to = |who: &str| {
            let to_them = notices.as_array().expect("a list").iter().filter(|notice| notice["notifier"] == who);
            to_them.map(|notice| time(&notice["created"])).min().expect("a notice")
        };
        assert!(first_to("boss").duration_since(first_to("ops")).as_secs() >= 6, "{notices}");
        stage.well_again().await;
        let over = stage.mail("boss", 1).await;
        assert!(over.contains("WELL AGAIN"), "who was called hears the end: {over}");

        stage.target.set_all(Mode::Fails);
        stage.incident("another incident", |incident| incident["told"].is_string()).await;
        stage.done(&["ack", "sms", "--by", "ada"]).await;
        stage.bad_runs_after(40).await;
        assert_eq!(stage.mails("boss").len(), 2, "ada looks after it");
    });
}

#[test]
fn one_click_acknowledges_and_programs_that_follow_links_do_not() {
    block_on(async {
        let stage = Stage::start("link", "").await;
        stage.target.set_all(Mode::Fails);
        let mail = stage.mail("ops", 0).await;
        let link = mail.split("Acknowledge: ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link");
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client");
        for _ in 0..3 {
            let answer = client.get(link).send().await.expect("an answer");
            let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
            assert_eq!((answer.status(), header("cache-control").as_str()), (StatusCode::OK, "no-store"));
            assert_eq!(
                (header("referrer-policy").as_str(), header("x-robots-tag").as_str()),
                ("no-referrer", "noindex, nofollow")
            );
            assert!(header("content-security-policy").contains("form-action 'self'"));
            let page = answer.text().await.expect("a page");
            assert!(page.contains("sms") && page.matches("<button").count() == 1, "{page}");
        }
        let head = client.head(link).send().await.expect("an answer");
        assert_eq!(head.status(), StatusCode::OK);
        assert!(stage.incident("an incident", |_| true).await["acked"].is_null(), "a GET changes nothing");

        let (base, grant) = link.rsplit_once('/').expect("a path");
        let parts: Vec<&str> = grant.split('.').collect();
        let [deed, incident, until, signature] = parts[..] else { panic!("{grant}") };
        let mut forged: Vec<String> = (0..grant.len())
            .map(|at| {
                let mut bytes = grant.as_bytes().to_vec();
                bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
                String::from_utf8(bytes).expect("ASCII")
            })
            .collect();
        forged.extend([
            format!("silence.{incident}.{until}.{signature}"),
            format!("run.{incident}.{until}.{signature}"),
            run_link(&mail).rsplit_once('/').expect("a path").1.to_owned(),
            format!("{deed}.000000000000.{until}.{signature}"),
            format!("{deed}.{incident}.9999999999.{signature}"),
            format!("{deed}.{incident}.{until}."),
            format!("{deed}.{incident}.{until}"),
            format!("{deed}.{incident}.{until}.{signature}0"),
            format!("{deed}.{incident}.{until}.{}", &signature[1..]),
            format!("{deed}.{incident}.{until}.{}", "0".repeat(32)),
            format!("{deed}.{incident}.{until}.{}", signature.to_uppercase().replace(char::is_numeric, "A")),
            format!("{deed}.{incident}.{until}.0.{signature}"),
            format!("{deed}..{until}.{signature}"),
            format!(".{grant}"),
            "...".to_owned(),
            "x".repeat(4_000),
            format!("{grant}%00"),
            format!("{grant}%0d%0aSet-Cookie:a=b"),
            "%ff%fe".to_owned(),
            "%F0%9F%91%BB".to_owned(),
            "..%2f..%2fetc%2fpasswd".to_owned(),
        ]);
        assert!(forged.len() >= 40, "{}", forged.len());
        for vector in &forged {
            for request in [client.get(format!("{base}/{vector}")), client.post(format!("{base}/{vector}"))] {
                let answer = request.send().await.expect("an answer");
                let status = answer.status();
                let refused = [StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST].contains(&status);
                assert!(refused, "{vector}: {status}");
                assert!(!answer.text().await.expect("a page").contains(signature), "{vector} is given a signature");
            }
        }
        assert!(stage.incident("an incident", |_| true).await["acked"].is_null(), "no forgery changes anything");

        let answer = client.post(link).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let acked = stage.incident("an acknowledged incident", |incident| incident["acked"].is_object()).await;
        assert_eq!(acked["acked"]["by"], "link from a notice");
        let page = client.get(link).send().await.expect("an answer").text().await.expect("a page");
        assert!(page.contains("link from a notice") && !page.contains("<button"), "{page}");
        stage.well_again().await;
        for request in [client.get(link), client.post(link)] {
            let gone = request.send().await.expect("an answer");
            assert_eq!(gone.status(), StatusCode::GONE);
            assert!(gone.text().await.expect("a page").contains("This incident is over"));
        }
        // The next incident is another one, and this permission is not for it.
        stage.target.set_all(Mode::Fails);
        stage.incident("another incident", |incident| incident["told"].is_string()).await;
        assert_eq!(client.post(link).send().await.expect("an answer").status(), StatusCode::GONE);
        assert!(stage.incident("another incident", |_| true).await["acked"].is_null());
    });
}

#[test]
fn maintenance_by_command_line_does_not_count() {
    block_on(async {
        let stage = Stage::start("exclude", "").await;
        let arguments = ["silence", "sms", "--for", "1h", "--reason", "move", "--exclude-from-slo"];
        let said = stage.done(&arguments).await;
        assert!(said.contains("silenced until"), "{said}");
        stage.target.set_all(Mode::Fails);
        let excluded = async || {
            let runs = stage.json("/api/v1/journeys/sms/runs").await["runs"].clone();
            let newest: Vec<_> = runs.as_array()?.iter().take(5).cloned().collect();
            let is_excluded = |run: &Value| run["verdict"] == "excluded" && run["why"] == "maintenance";
            (newest.len() == 5 && newest.iter().all(is_excluded)).then_some(())
        };
        wait_for("excluded runs", SOON, excluded).await;
        assert!(stage.json("/api/v1/journeys/sms").await["journey"]["incident"].is_null());
        assert!(stage.done(&["silences"]).await.contains("not counted for objectives"));
    });
}

#[test]
fn a_silence_until_resolved_does_not_come_back_after_a_kill() {
    block_on(async {
        let mut stage = Stage::start("until-resolved", "").await;
        stage.target.set_all(Mode::Fails);
        stage.mail("ops", 0).await;
        stage.done(&["silence", "sms", "--for", "1h", "--reason", "known", "--until-resolved"]).await;
        stage.well_again().await;
        wait_for("the silence to end", SOON, async || {
            stage.json("/api/v1/silences").await["silences"].as_array()?.is_empty().then_some(())
        })
        .await;
        stage.daemon.kill().await;
        stage.daemon.start_again().await;
        assert_eq!(stage.done(&["silences"]).await, "nothing is silenced\n");
        stage.target.set_all(Mode::Fails);
        stage.incident("an incident that is told", |incident| incident["told"].is_string()).await;
    });
}

#[test]
fn what_cannot_be_done_is_said_in_words() {
    block_on(async {
        let mut stage = Stage::start("refused", "").await;
        let table: [(&[&str], i32, &str); 10] = [
            (&["ack", "nothing"], 64, "no incident and no journey is named `nothing`"),
            (&["unsilence", "nothing"], 64, "there is no silence nothing"),
            (&["silence", "tier!gold", "--for", "1h", "--reason", "x"], 64, "after the label stands"),
            (&["silence", "sms", "--for", "soon", "--reason", "x"], 64, "`soon` is not a duration"),
            (&["silence", "sms", "--for", "400d", "--reason", "x"], 64, "at most a year"),
            (&["silence", "sms", "--for", "1h", "--reason", " "], 64, "`reason` is missing"),
            (&["silence", "sms", "--for", "1h", "--reason", "a\nb"], 64, "one line of text"),
            (&["silence", "", "--for", "1h", "--reason", "x"], 64, "is missing"),
            (&["silence", "sms", "--reason", "x"], 64, "--for"),
            (&["silence", "--for", "1h", "--reason", "x"], 64, "MATCHER"),
        ];
        for (arguments, code, said) in table {
            let ended = stage.cli(arguments).await;
            assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
            assert!(ended.stderr.contains(said), "{arguments:?}: {ended:?}");
        }
        let client = Client::builder().no_proxy().build().expect("a client");
        let post = async |body: &str| {
            let url = format!("{}/api/v1/silences", stage.daemon.http_url());
            let answer = client.post(url).bearer_auth(TOKEN).body(body.to_owned()).send().await.expect("an answer");
            (answer.status().as_u16(), answer.text().await.expect("an answer"))
        };
        for (body, status, said) in [
            ("", 400, "`matchers` is empty"),
            ("[", 400, "this is not the JSON"),
            (r#"{"matcher": ["sms"]}"#, 400, "unknown field"),
            (r#"{"matchers": ["sms"], "reason": "x"}"#, 400, "how long?"),
            (r#"{"matchers": ["sms"], "reason": "x", "until": "2001-01-01T00:00:00Z"}"#, 400, "is over already"),
            (
                r#"{"matchers": ["sms"], "reason": "x", "for": "1h", "until": "2999-01-01T00:00:00Z"}"#,
                400,
                "exclude each other",
            ),
            (
                r#"{"matchers": ["sms"], "reason": "x", "for": "1h", "until_resolved": true, "exclude_from_slo": true}"#,
                400,
                "exclude each other",
            ),
            (r#"{"matchers": ["sms"], "reason": "x", "for": "0s"}"#, 400, "longer than nothing"),
        ] {
            let answer = post(body).await;
            assert!(answer.0 == status && answer.1.contains(said), "{body}: {answer:?}");
        }
        assert_eq!(post(&" ".repeat(20_000)).await.0, 413);
        assert!(stage.json("/api/v1/silences").await["silences"].as_array().is_some_and(Vec::is_empty));
        let directory = stage.daemon.directory();
        let config = std::fs::read_to_string(directory.join("journeyman.toml")).expect("the configuration");
        std::fs::write(directory.join("other.toml"), config.replace("\"admin\"", "\"other\"")).expect("a file");
        std::fs::write(directory.join("other"), "another token").expect("a file");
        let arguments = ["silence", "sms", "--for", "1h", "--reason", "x", "--config", "other.toml"];
        let refused = journeyman(directory, &arguments).await;
        assert!(refused.code == 77 && refused.stderr.contains("`admin_token`"), "{refused:?}");
        assert_eq!(stage.daemon.terminate().await, 0);
        let silent = stage.cli(&["silences"]).await;
        assert!(silent.code == 69 && silent.stderr.contains("does not answer"), "{silent:?}");
    });
}
