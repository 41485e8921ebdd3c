//! Pauses on the command line: what is paused is not run, over a kill, until it is resumed; and what is not meant is left alone.

use super::*;

const OTHERS: &str = "[[journey]]\nname = \"sms-receipts\"\nevery = \"200ms\"\nlabels = { tier = \"gold\" }\nmuted = true\n\
                      step = [{ request = \"web\", path = \"/1\" }]\n\
                      [[journey]]\nname = \"mail\"\nevery = \"1h\"\nmuted = true\nstep = [{ request = \"web\", path = \"/1\" }]\n";

impl Stage {
    async fn runs_of(&self, journey: &str) -> f64 {
        self.daemon
            .metric("journeyman_runs_total", &[("journey", journey), ("outcome", "good")])
            .await
            .expect("born at zero")
    }

    /// While slots are skipped it does not run.
    async fn is_skipped(&self, journey: &str) {
        let more = async || {
            let before = self.skipped().await;
            wait_for("skipped slots", SOON, async || (self.skipped().await >= before + 3.0).then_some(())).await;
            self.runs_of(journey).await
        };
        // The run that was under way has ended after the first of them.
        assert_eq!(more().await, more().await, "{journey} is run");
    }

    async fn is_run(&self, journey: &str) {
        let before = self.runs_of(journey).await;
        wait_for("runs", SOON, async || (self.runs_of(journey).await >= before + 2.0).then_some(())).await;
    }
}

#[test]
fn what_is_paused_is_not_run_over_a_kill_until_it_is_resumed() {
    block_on(async {
        let mut stage = Stage::start("pause-verb", OTHERS).await;
        for wrong in [&["pause", "smss"][..], &["pause", "sms", "smss"], &["resume", "sms", "smss"]] {
            let ended = stage.cli(wrong).await;
            assert!(ended.code == 64 && ended.stderr.contains("`smss`; did you mean `sms`?"), "{ended:?}");
        }
        let vague = stage.cli(&["pause", "rec"]).await;
        assert!(vague.code == 64 && vague.stderr.contains("did you mean `sms-receipts`?"), "{vague:?}");
        let often = stage.cli(&["pause", "sms", "--for", "often"]).await;
        assert!(often.code == 64 && often.stderr.contains("as in"), "{often:?}");
        assert_eq!(stage.done(&["silences"]).await, "nothing is silenced\n", "nothing of that was done");

        let said =
            stage.done(&["pause", "sms", "sms-receipts", "sms", "--by", "ada", "--reason", "the gateway moves"]).await;
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(
            lines[0].starts_with("sms is not run until ") && lines[1].starts_with("sms-receipts is not run until ")
        );
        assert_eq!(lines[2], "runs again earlier with `journeyman resume sms sms-receipts`");
        let silences = stage.json("/api/v1/silences").await["silences"].clone();
        let silences = silences.as_array().expect("a list");
        assert_eq!(silences.len(), 2, "{silences:?}");
        for pause in silences {
            let lasts = time(&pause["until"]).duration_since(time(&pause["from"])).as_secs();
            assert_eq!((pause["pauses"].clone(), lasts), (true.into(), 7_200), "{pause}");
            assert_eq!((&pause["author"], &pause["reason"]), (&"ada".into(), &"the gateway moves".into()));
        }
        let listed = stage.done(&["silences"]).await;
        assert_eq!(listed.matches("(not run: a pause)").count(), 2, "{listed}");
        let shown = stage.done(&["status", "sms"]).await;
        assert_eq!(shown.matches("paused until ").count(), 2, "{shown}");
        stage.is_skipped("sms").await;
        stage.daemon.kill().await;
        stage.daemon.start_again().await;
        stage.is_skipped("sms").await;

        let said = stage.done(&["resume", "sms", "mail"]).await;
        assert_eq!(said, "sms is run again; it was paused by ada: the gateway moves\nmail was not paused\n");
        stage.is_run("sms").await;
        stage.is_skipped("sms-receipts").await;
    });
}

#[test]
fn a_pause_that_is_longer_or_wider_than_what_is_asked_is_told_of() {
    block_on(async {
        let stage = Stage::start("pause-others", OTHERS).await;
        let wide =
            r#"{"matchers": ["tier=gold"], "for": "4h", "reason": "the carrier", "author": "bob", "pauses": true}"#;
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client");
        let url = format!("{}/api/v1/silences", stage.daemon.http_url());
        let answer = client.post(url).bearer_auth(TOKEN).header("content-type", "application/json").body(wide);
        assert_eq!(answer.send().await.expect("an answer").status(), StatusCode::OK);
        stage.done(&["silence", "sms", "--for", "1h", "--reason", "not about runs"]).await;

        let said = stage.done(&["pause", "sms", "--for", "30m"]).await;
        assert!(said.lines().next().is_some_and(|line| line.ends_with(", as somebody wanted before")), "{said}");
        let document = stage.done(&["pause", "mail", "--for", "30m", "--format", "json"]).await;
        let document: Value = serde_json::from_str(&document).expect("one object");
        assert_eq!(document["paused"][0]["journeys"], serde_json::json!(["mail"]), "{document}");

        let document = stage.done(&["resume", "mail", "--format", "json"]).await;
        let document: Value = serde_json::from_str(&document).expect("one object");
        assert_eq!(document["ended"][0]["journeys"], serde_json::json!(["mail"]), "{document}");
        let said = stage.done(&["resume", "sms"]).await;
        assert!(said.contains("paused by bob: the carrier, and by "), "{said}");
        assert!(said.ends_with("so are others that the same pause was about: sms-receipts\n"), "{said}");
        stage.is_run("sms").await;
        stage.is_run("sms-receipts").await;
        let silences = stage.done(&["silences"]).await;
        assert!(silences.contains("not about runs") && silences.lines().count() == 1, "{silences}");
        assert_eq!(stage.done(&["resume", "sms"]).await, "sms was not paused\n");
    });
}
