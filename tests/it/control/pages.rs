//! The same by the forms of the pages: whoever puts the admin token in, and nobody else.

use reqwest::header::LOCATION;

use super::*;

impl Stage {
    /// Sends a form, as a browser does; gives the status and where it leads.
    async fn send(&self, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client");
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = client.post(format!("{}{path}", self.daemon.http_url())).body(body);
        let answer =
            request.header("content-type", "application/x-www-form-urlencoded").send().await.expect("an answer");
        let place = answer.headers().get(LOCATION).map(|place| place.to_str().expect("text").to_owned());
        (answer.status().as_u16(), place.unwrap_or_default())
    }

    pub(super) async fn skipped(&self) -> f64 {
        let paused = [("reason", "paused")];
        self.daemon.metric("journeyman_runs_skipped_total", &paused).await.expect("born at zero")
    }
}

#[test]
fn a_pause_stops_the_runs_over_a_restart_until_it_is_taken_back() {
    block_on(async {
        let mut stage = Stage::start("pause", "").await;
        assert_eq!(stage.skipped().await, 0.0);
        let form = [("by", "ada"), ("token", TOKEN), ("for", "2h"), ("reason", "moving house")];
        for (wrong, expected) in [
            (&form[..1], 403),
            (&[("by", "ada"), ("token", "another"), ("for", "2h"), ("reason", "x")], 403),
            (&[("token", TOKEN), ("for", "2h"), ("reason", "x")], 400),
            (&[("by", "ada"), ("token", TOKEN), ("reason", "x")], 400),
            (&[("by", "ada"), ("token", TOKEN), ("for", "2h")], 400),
        ] {
            assert_eq!(stage.send("/journeys/sms/pause", wrong).await, (expected, String::new()), "{wrong:?}");
        }
        assert_eq!(stage.send("/journeys/nobody/pause", &form).await.0, 404);
        assert_eq!(stage.skipped().await, 0.0, "nothing of that was done");

        assert_eq!(stage.send("/journeys/sms/pause", &form).await, (303, "/journeys/sms".to_owned()));
        wait_for("skipped slots", SOON, async || (stage.skipped().await >= 3.0).then_some(())).await;
        // The run that was under way has ended by now.
        let asked = stage.target.requests(0);
        let (_, page) = stage.daemon.get("/journeys/sms").await;
        assert!(page.contains("It is not run until") && page.contains("moving house"), "{page}");
        let (_, page) = stage.daemon.get("/").await;
        assert!(page.contains("<i>paused</i>"), "{page}");
        stage.daemon.kill().await;
        stage.target.set_all(Mode::Fails);
        stage.daemon.start_again().await;
        // Long enough for the journey to be stale, or down.
        wait_for("skipped slots", SOON, async || (stage.skipped().await >= 15.0).then_some(())).await;
        assert_eq!(stage.target.requests(0), asked, "nothing is run");
        let journey = stage.json("/api/v1/journeys/sms").await["journey"].clone();
        assert!(journey["incident"].is_null() && journey["paused"].is_string(), "{journey}");
        assert!(stage.mails("ops").is_empty());

        let run = stage.send("/journeys/sms/run", &[("by", "ada"), ("token", TOKEN)]).await;
        assert!(run.0 == 303 && run.1.starts_with("/runs/jm"), "somebody may still ask for one: {run:?}");
        wait_for("the run", SOON, async || (stage.target.requests(0) == asked + 1).then_some(())).await;

        let id = stage.json("/api/v1/silences").await["silences"][0]["id"].as_str().expect("an id").to_owned();
        let end = format!("/silences/{id}/end");
        assert_eq!(stage.send(&end, &[("by", "ada"), ("token", "")]).await.0, 403);
        assert_eq!(stage.send(&end, &[("by", "ada"), ("token", TOKEN)]).await, (303, "/incidents".to_owned()));
        stage.mail("ops", 0).await;
        let counts = stage.json("/api/v1/journeys/sms").await["journey"]["last_24_hours"].clone();
        let excluded: u64 =
            counts.as_array().expect("cells").iter().map(|cell| cell["excluded"].as_u64().unwrap()).sum();
        assert!(excluded >= 18, "they count for nothing: {counts}");
    });
}

#[test]
fn an_incident_is_acknowledged_on_its_page_with_a_note() {
    block_on(async {
        let stage = Stage::start("ack-page", "").await;
        stage.target.set_all(Mode::Fails);
        let id = stage.incident("an incident", |_| true).await["id"].as_str().expect("an id").to_owned();
        let path = format!("/incidents/{id}");
        let (_, page) = stage.daemon.get(&path).await;
        assert!(page.contains(&format!("action=\"/incidents/{id}/ack\"")), "{page}");
        let form = [("by", "ada"), ("token", TOKEN), ("note", "the disk is being changed"), ("for", "")];
        assert_eq!(stage.send(&format!("{path}/ack"), &form).await, (303, path.clone()));
        let acked = stage.incident("an acknowledged incident", |incident| incident["acked"].is_object()).await;
        assert_eq!((&acked["acked"]["by"], &acked["acked"]["until"]), (&"ada".into(), &Value::Null));
        assert_eq!(acked["acked"]["note"], "the disk is being changed");
        let (_, page) = stage.daemon.get(&path).await;
        assert!(page.contains("ada looks after it: the disk is being changed"), "{page}");
        assert_eq!(stage.send("/incidents/none/ack", &form).await.0, 404);
        let (_, page) = stage.daemon.get("/channels").await;
        assert!(page.contains("Used by <a href=\"/journeys/sms\">"), "{page}");
    });
}

#[test]
fn a_silence_of_a_page_lets_runs_go_on() {
    block_on(async {
        let stage = Stage::start("silence-page", "").await;
        let form = [("by", "ada"), ("token", TOKEN), ("for", "30m"), ("reason", "new gateway")];
        assert_eq!(stage.send("/journeys/sms/silence", &form).await, (303, "/journeys/sms".to_owned()));
        stage.target.set_all(Mode::Fails);
        stage.incident("a silenced incident", |incident| incident["quiet"].is_string()).await;
        assert_eq!(stage.skipped().await, 0.0);
    });
}
