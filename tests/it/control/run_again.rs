//! Running a journey again, beside its schedule: by the API, on the command line, by the link of a mail, by a button in Slack.

use journeyman::control::grant::{Deed, Grant};
use journeyman::time::later;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use super::*;
use crate::support::fake_slack::{APP_TOKEN, CHANNEL, FakeSlack, TOKEN as BOT_TOKEN};

/// A journey that runs when it is asked for, and, but for a minute of New Year, at no other time.
const RARE: &str = "[[journey]]\nname = \"rare\"\ncron = \"0 0 1 1 *\"\ndeadline = \"2s\"\nnotify = [\"ops\"]\n\
                    step = [{ request = \"web\", path = \"/1\" }]\n";

fn client() -> Client {
    Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client")
}

impl Stage {
    /// Asks for a run by the API, with this token.
    async fn run(&self, journey: &str, token: &str, body: &str) -> (StatusCode, Value) {
        let url = format!("{}/api/v1/journeys/{journey}/run", self.daemon.http_url());
        let answer = client().post(url).bearer_auth(token).body(body.to_owned()).send().await.expect("an answer");
        (answer.status(), serde_json::from_str(&answer.text().await.expect("text")).expect("JSON"))
    }

    /// The evidence of a run, once it has ended.
    async fn evidence(&self, token: &str) -> Value {
        wait_for("the run to end", SOON, async || {
            let (status, text) = self.daemon.get(&format!("/api/v1/runs/{token}")).await;
            assert!([StatusCode::OK, StatusCode::ACCEPTED].contains(&status), "{status}: {text}");
            let found: Value = serde_json::from_str(&text).expect("JSON");
            (status == StatusCode::OK).then(|| found["run"].clone())
        })
        .await
    }

    async fn runs(&self, journey: &str) -> Vec<Value> {
        let found = self.json(&format!("/api/v1/journeys/{journey}/runs")).await;
        found["runs"].as_array().expect("a list").clone()
    }

    /// A permission that this installation signed.
    fn granted(&self, deed: Deed, incident: &str, until: Timestamp) -> String {
        let store = Connection::open_with_flags(self.daemon.store_path(), OpenFlags::SQLITE_OPEN_READ_ONLY);
        let store = store.expect("a store");
        let key: [u8; 32] =
            store.query_row("SELECT value FROM meta WHERE key = 'key'", [], |row| row.get(0)).expect("a key");
        Grant { deed, incident: incident.to_owned(), until }.sign(&key)
    }
}

#[test]
fn a_run_that_was_asked_for_is_no_slot_and_leaves_its_evidence() {
    block_on(async {
        let mut stage = Stage::start("rerun", RARE).await;
        let ended = stage.cli(&["rerun", "rare", "--wait", "--by", "ada"]).await;
        assert!(ended.code == 0 && ended.stdout.starts_with("rare  good in "), "{ended:?}");
        let token = ended.stdout.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).expect("a token");
        assert_eq!(stage.evidence(token).await["verdict"], "good");
        let (status, page) = stage.daemon.get(&format!("/runs/{token}")).await;
        assert!(status == StatusCode::OK && page.contains(token), "{page}");
        assert_eq!((stage.target.requests(1), stage.runs("rare").await.len()), (1, 0), "it ran, and no slot has it");

        let soon = stage.cli(&["rerun", "rare", "--by", "ada"]).await;
        assert!(soon.code == 75 && soon.stderr.contains("ask again in"), "{soon:?}");
        let (status, said) = stage.run("rare", TOKEN, "").await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{said}");
        let unknown = stage.cli(&["rerun", "nothing"]).await;
        assert!(unknown.code == 64 && unknown.stderr.contains("no journey is named `nothing`"), "{unknown:?}");
        for (body, said) in
            [("[", "this is not the JSON"), (r#"{"by": "a\nb"}"#, "one line"), (r#"{"x": 1}"#, "unknown")]
        {
            let (status, answer) = stage.run("rare", TOKEN, body).await;
            assert!(status == StatusCode::BAD_REQUEST && answer.to_string().contains(said), "{body}: {answer}");
        }
        for token in ["", "another", &TOKEN[1..]] {
            assert_eq!(stage.run("rare", token, "").await.0, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(stage.target.requests(1), 1, "nothing else was sent");
        // A restart forgets none of it, and counts nothing.
        stage.daemon.kill().await;
        stage.daemon.start_again().await;
        assert_eq!(stage.evidence(token).await["verdict"], "good");
        assert_eq!(stage.runs("rare").await.len(), 0);
    });
}

#[test]
fn who_asks_twice_gets_one_run_and_who_asks_of_a_well_journey_opens_no_incident() {
    block_on(async {
        let stage = Stage::start("rerun-twice", RARE).await;
        stage.target.set(1, Mode::Hangs);
        let (first, second) =
            tokio::join!(stage.run("rare", TOKEN, r#"{"by": "ada"}"#), stage.run("rare", TOKEN, r#"{"by": "bob"}"#));
        assert_eq!((first.0, second.0), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
        assert_eq!(first.1, second.1, "both hear of the same run, and who asked first");
        let run = &first.1["asked"];
        let token = run["token"].as_str().expect("a token");
        assert!(run["page"].as_str().is_some_and(|page| page.ends_with(token)), "{run}");
        let (status, page) = stage.daemon.get(&format!("/runs/{token}")).await;
        let by = run["by"].as_str().expect("who");
        assert!(status == StatusCode::ACCEPTED && page.contains(by) && page.contains("has not ended"), "{page}");
        let evidence = stage.evidence(token).await;
        assert_eq!(evidence["verdict"], "failed", "{evidence}");
        let journey = stage.json("/api/v1/journeys/rare").await["journey"].clone();
        assert!(journey["incident"].is_null() && journey["state"] != "suspect", "{journey}");
        assert_eq!(stage.target.requests(1), 1, "one run");
    });
}

#[test]
fn a_good_run_that_was_asked_for_speaks_for_the_end_and_no_slot_has_it() {
    block_on(async {
        let journey = "[[journey]]\nname = \"slowly\"\nevery = \"20s\"\ndeadline = \"2s\"\nnotify = [\"ops\"]\n\
                       alert = { down_after = 1, recover_after = 1 }\nstep = [{ request = \"web\", path = \"/1\" }]\n";
        let stage = Stage::start("rerun-well", journey).await;
        stage.target.set(1, Mode::Fails);
        let incident = async || {
            let journey = stage.json("/api/v1/journeys/slowly").await["journey"].clone();
            journey["incident"]["id"].as_str().map(str::to_owned)
        };
        wait_for("an incident", SOON, incident).await;
        stage.target.set(1, Mode::Well);
        let ended = stage.cli(&["rerun", "slowly", "--wait"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        wait_for("it to be over", SOON, async || incident().await.is_none().then_some(())).await;
        let runs = stage.runs("slowly").await;
        assert_eq!(runs.iter().filter(|run| run["verdict"] != "good").count(), 1, "{runs:?}");
        assert_eq!(runs[0]["verdict"], "failed", "the last slot: {runs:?}");
    });
}

#[test]
fn a_link_in_a_mail_runs_the_journey_again_once_and_a_forged_one_nothing() {
    block_on(async {
        let stage = Stage::start("rerun-link", "").await;
        stage.target.set_all(Mode::Fails);
        let mail = stage.mail("ops", 0).await;
        let (link, client) = (run_link(&mail), client());
        for _ in 0..2 {
            let page = client.get(&link).send().await.expect("an answer");
            assert_eq!(page.status(), StatusCode::OK);
            let page = page.text().await.expect("a page");
            assert!(page.contains("sms") && page.matches("<button").count() == 1, "{page}");
        }
        let (base, grant) = link.rsplit_once('/').expect("a path");
        let id = stage.incident("an incident", |_| true).await["id"].as_str().expect("an id").to_owned();
        let soon = later(now(), Duration::from_secs(60));
        let past = journeyman::time::earlier(now(), Duration::from_secs(1));
        let mut refused: Vec<(String, &[u16])> = (0..grant.len())
            .map(|at| {
                let mut bytes = grant.as_bytes().to_vec();
                bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
                (String::from_utf8(bytes).expect("ASCII"), &[403u16][..])
            })
            .collect();
        refused.extend([
            (stage.granted(Deed::Acknowledge, &id, soon), &[403u16][..]),
            (stage.granted(Deed::Silence, &id, soon), &[403]),
            (stage.granted(Deed::RunAgain, &id, past), &[410]),
            (stage.granted(Deed::RunAgain, "000000000000", soon), &[410]),
            (String::from("..."), &[403]),
            ("x".repeat(4_000), &[403]),
            ("%ff%fe".to_owned(), &[400, 403]),
        ]);
        for (vector, codes) in &refused {
            for request in [client.get(format!("{base}/{vector}")), client.post(format!("{base}/{vector}"))] {
                let status = request.send().await.expect("an answer").status().as_u16();
                assert!(codes.contains(&status), "{vector}: {status}");
            }
        }
        assert!(!stage.daemon.log().contains("link from a notice"), "nothing was asked for: {}", stage.daemon.log());

        let (first, second) = tokio::join!(client.post(&link).send(), client.post(&link).send());
        let mut runs = Vec::new();
        for answer in [first, second].map(|answer| answer.expect("an answer")) {
            // The second either joins the first, or comes after its end, which is too soon.
            match answer.status() {
                StatusCode::SEE_OTHER => runs.push(answer.headers()["location"].to_str().expect("text").to_owned()),
                status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
            }
        }
        runs.dedup();
        let [page] = &runs[..] else { panic!("one run: {runs:?}") };
        let token = page.strip_prefix("/runs/").expect("a run's page");
        let evidence = stage.evidence(token).await;
        assert_eq!((&evidence["journey"], &evidence["verdict"]), (&"sms".into(), &"failed".into()), "{evidence}");
        assert!(stage.daemon.log().contains("link from a notice"), "who asked is in the log");
        stage.well_again().await;
        assert_eq!(client.post(&link).send().await.expect("an answer").status(), StatusCode::GONE);
    });
}

#[test]
fn a_button_in_slack_runs_the_journey_again_and_the_thread_says_what_it_came_to() {
    block_on(async {
        let fake = FakeSlack::start().await;
        let chat = format!(
            "[notifiers.chat]\ntype = \"slack\"\ntoken = \"{BOT_TOKEN}\"\nchannel = \"{CHANNEL}\"\napp_token = \"{APP_TOKEN}\"\n\
             api_url = \"{}\"\n[[route]]\nmatch = [\"journey=sms\"]\nnotify = [\"chat\"]\n",
            fake.url()
        );
        let stage = Stage::start("rerun-slack", &chat).await;
        stage.target.set_all(Mode::Fails);
        let message = fake.wait_for_message(CHANNEL, |message| message.shown().contains("journeyman_run")).await;
        let button = find(&message.blocks, "journeyman_run").expect("the button");
        wait_for("a connection", SOON, async || (fake.sockets_opened() > 0).then_some(())).await;
        let press = |envelope: &str, value: &str| {
            json!({
                "envelope_id": envelope, "type": "interactive",
                "payload": {
                    "type": "block_actions", "team": { "id": "T0FAKE" },
                    "user": { "id": "U1", "username": "ada", "team_id": "T0FAKE" },
                    "container": { "type": "message", "channel_id": CHANNEL, "message_ts": "1.2" },
                    "actions": [{ "action_id": "journeyman_run", "type": "button", "value": value }],
                },
            })
        };
        fake.tell_socket(press("e1", &format!("{button}0")));
        fake.wait_for_requests("chat.postEphemeral", 1).await;
        fake.tell_socket(press("e2", &button));
        fake.wait_for_requests("chat.postEphemeral", 2).await;
        let told: Vec<_> =
            fake.requests().into_iter().filter(|request| request.method == "chat.postEphemeral").collect();
        let text = |at: usize| told[at].arguments["text"].as_str().expect("text").to_owned();
        assert!(text(0).contains("not a button that this Journeyman made"), "{}", text(0));
        assert!(text(1).starts_with("Running sms again, asked by @ada (Slack): run jm"), "{}", text(1));
        fake.wait_for_message(CHANNEL, |message| {
            message.shown().contains("run again, asked by @ada (Slack): failed (rejected)")
        })
        .await;
    });
}

/// The value of the button of this `action_id`.
fn find(value: &Value, action: &str) -> Option<String> {
    match value {
        Value::Object(fields) if fields.get("action_id").is_some_and(|id| id == action) => {
            fields["value"].as_str().map(str::to_owned)
        }
        Value::Object(fields) => fields.values().find_map(|field| find(field, action)),
        Value::Array(list) => list.iter().find_map(|item| find(item, action)),
        _ => None,
    }
}
