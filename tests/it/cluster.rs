//! Several daemons on one store: each runs its part, one decides and tells, and whoever goes is followed.

use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::cluster::shard_of;
use reqwest::StatusCode;

use crate::support::cluster::{check_slots, leads, number, settled, unknown};
use crate::support::command::journeyman;
use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::postgres::Postgres as Server;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

/// What waits for a daemon, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(40);
/// What the product promises: who is gone is followed within this.
const TAKEN_OVER: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);
const JOURNEYS: usize = 24;
/// The part that fails.
const BROKEN: usize = 5;

fn configuration(target: &Target, slack: &FakeSlack) -> (String, String) {
    let main = format!(
        "[alerting]\ngroup_by = []\ndigest_after = 1000\nnotify = []\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
         [notifiers.chat]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\napi_url = \"{}\"\n",
        target.url(),
        slack.url()
    );
    let journey = |part: usize| {
        format!(
            "[[journey]]\nname = \"part-{part}\"\nevery = \"{}ms\"\ndeadline = \"800ms\"\nnotify = [\"chat\"]\n\
             alert = {{ down_after = 2, recover_after = 1, remind = \"never\", flapping = false }}\n\
             step = [{{ request = \"web\", path = \"/{part}\" }}]\n",
            EVERY.as_millis()
        )
    };
    (main, (0..JOURNEYS).map(journey).collect())
}

pub(crate) fn setup(name: &str, url: &str) -> Setup {
    let setup = Setup::new(name).store_url(url);
    setup.write("token", TOKEN);
    setup
}

pub(crate) fn told(slack: &FakeSlack) -> Vec<String> {
    slack.messages(CHANNEL).into_iter().map(|message| message.text).collect()
}

#[test]
fn whoever_goes_is_followed_and_no_slot_is_lost_or_counted_twice() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let client = &database.client;
        let (target, slack) = (Target::start(JOURNEYS).await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &slack);
        let start = async |name: &str| setup(name, &database.url()).start(&main, &probes).await;
        let mut first = start("cluster-first").await;
        let (mut second, third) = (start("cluster-second").await, start("cluster-third").await);
        let joined = settled(client, &[&first, &second, &third]).await;
        assert!(leads(&first).await && !leads(&second).await && !leads(&third).await);
        let (status, said) = second.get("/ready").await;
        assert!(status == StatusCode::OK && said.contains(&format!("process {}-", first.pid())), "{status} {said}");
        assert_eq!(second.metric("journeyman_cluster_daemons", &[]).await, Some(3.0));
        assert_eq!(second.metric("journeyman_cluster_leads", &[]).await, Some(0.0));
        assert_eq!(unknown(client).await, 0, "who joins costs nobody a slot");

        // One that only runs is killed.
        second.kill().await;
        let without_second = settled(client, &[&first, &third]).await;
        second.start_again().await;
        settled(client, &[&first, &second, &third]).await;

        // People hear of it, whoever sees it and whoever decides.
        target.set(BROKEN, Mode::Fails);
        wait_for("people to be told", SOON, async || (!told(&slack).is_empty()).then_some(())).await;

        // The one that decides is killed.
        first.kill().await;
        let clock = Clock::system();
        let killed = clock.now().mono;
        let leader = wait_for("another to decide", SOON, async || match (leads(&second).await, leads(&third).await) {
            (true, false) => Some(2),
            (false, true) => Some(3),
            _ => None,
        })
        .await;
        let without_first = clock.now().mono.since(killed);
        settled(client, &[&second, &third]).await;
        first.start_again().await;
        settled(client, &[&first, &second, &third]).await;
        let (mut lead, other) = if leader == 2 { (second, third) } else { (third, second) };

        // One that only runs is stopped for longer than its leases last, and does not know it.
        other.signal("STOP");
        let without_other = settled(client, &[&first, &lead]).await;
        other.signal("CONT");
        settled(client, &[&first, &lead, &other]).await;

        // One ends in order: nobody misses anything.
        let before = unknown(client).await;
        assert_eq!(first.terminate().await, 0, "{}", first.log());
        settled(client, &[&lead, &other]).await;
        first.start_again().await;
        settled(client, &[&first, &lead, &other]).await;
        // What the one that was stopped saw is said by now, and known where nobody knew.
        assert!(unknown(client).await <= before, "who ends in order costs nobody a slot");

        // The one that decides is stopped, and comes back.
        lead.signal("STOP");
        let stopped = clock.now().mono;
        wait_for("another to decide", SOON, async || (leads(&first).await || leads(&other).await).then_some(())).await;
        let without_lead = clock.now().mono.since(stopped);
        lead.signal("CONT");
        assert_eq!(lead.wait_for_exit().await, 75, "{}", lead.log());
        lead.start_again().await;
        settled(client, &[&first, &lead, &other]).await;

        target.set(BROKEN, Mode::Well);
        wait_for("the end to be told", SOON, async || (told(&slack).len() > 1).then_some(())).await;
        // Who decides goes last, and has heard of all that the others saw.
        let mut daemons = [first, lead, other];
        for daemon in &mut daemons {
            if !leads(daemon).await {
                assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
            }
        }
        wait_for("all that was seen to be heard", SOON, async || {
            (number(client, "select count(*) from relay").await == 0).then_some(())
        })
        .await;
        for daemon in &mut daemons {
            if leads(daemon).await {
                assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
            }
        }
        let told = told(&slack);
        assert!(told.len() == 2 && told.iter().all(|text| text.contains("part-5")), "{told:#?}");
        let (slots, unknown) = check_slots(client, JOURNEYS, EVERY).await;
        let twice = "select count(*) from (select 1 from run group by journey, slot having count(*) > 1) as twice";
        assert_eq!(number(client, twice).await, 0);
        for (what, took) in [
            ("a runner killed", without_second),
            ("the leader killed", without_first),
            ("a runner stopped", without_other),
            ("the leader stopped", without_lead),
        ] {
            assert!(took < TAKEN_OVER, "{what}: followed after {took:?}");
        }
        eprintln!(
            "joined in {joined:.1?}; followed {without_second:.1?} after a runner's kill, {without_first:.1?} after the \
             leader's, {without_other:.1?} and {without_lead:.1?} after they were stopped; {slots} slots, each once, \
             {unknown} of them unknown"
        );
    });
}

#[test]
fn a_webhook_may_come_to_any_daemon() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let client = &database.client;
        let first = setup("hook-first", &database.url());
        let target = Target::start_with(8, first.hook_url("/in")).await;
        let main = format!(
            "[alerting]\nnotify = []\n[channels.out]\ntype = \"http\"\nurl = \"{}\"\n\
             [channels.in]\ntype = \"webhook\"\npath = \"/in\"\nverify = {{ scheme = \"none\" }}\n",
            target.url(),
        );
        let journey = |part: usize| {
            format!(
                "[[journey]]\nname = \"part-{part}\"\nevery = \"1s\"\ndeadline = \"900ms\"\nmuted = true\n\
                 step = [{{ send = \"out\", path = \"/{part}\", text = \"{{{{ token }}}}\" }}, {{ receive = \"in\" }}]\n"
            )
        };
        let probes: String = (0..8).map(journey).collect();
        let mut first = first.start(&main, &probes).await;
        let mut second = setup("hook-second", &database.url()).start(&main, &probes).await;
        settled(client, &[&first, &second]).await;
        let elsewhere = format!(
            "select count(*) from run join journey on journey.id = run.journey join lease using (shard)
                where verdict = 0 and holder like '%process {}-%'",
            second.pid()
        );
        let before = number(client, &elsewhere).await;
        wait_for("runs whose messages came to the other daemon", SOON, async || {
            (number(client, &elsewhere).await >= before + 40).then_some(())
        })
        .await;
        let of =
            async |verdicts: &str| number(client, &format!("select count(*) from run where verdict {verdicts}")).await;
        let (good, bad) = (of("= 0").await, of("in (1, 2, 3)").await);
        assert!(good > 40 && bad == 0, "{good} good, {bad} bad");
        // Who ends last hears no more of what comes to the other.
        for daemon in [&mut second, &mut first] {
            assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        }
        let used = "select count(*) from arrival join ledger using (token) where settled is not null";
        assert_eq!(number(client, used).await, 0, "nothing is kept that was used");
    });
}

#[test]
fn daemons_go_on_while_a_newer_build_is_among_them() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let client = &database.client;
        let (target, slack) = (Target::start(JOURNEYS).await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &slack);
        let start = async |name: &str| setup(name, &database.url()).start(&main, &probes).await;
        let (first, second) = (start("newer-first").await, start("newer-second").await);
        settled(client, &[&first, &second]).await;

        // What a version that comes after this one may do, as long as it says that we may go on.
        let newer = "begin; update meta set number = number + 1 where key = 'schema';
            alter table run add column more text; alter table member add column more text;
            create table further (id bigint primary key);
            insert into relay (writer, number, at, journey, document) select 'a newer one', 0, 0, min(id), '{\"Foretold\":{}}'
                from journey; commit";
        client.batch_execute(newer).await.unwrap();
        let third = start("newer-third").await;
        settled(client, &[&first, &second, &third]).await;
        wait_for("what nobody understands to be laid aside", SOON, async || {
            (number(client, "select count(*) from relay where writer = 'a newer one'").await == 0).then_some(())
        })
        .await;
        assert!(first.log().contains("is it of another version?"), "{}", first.log());
        target.set(BROKEN, Mode::Fails);
        wait_for("people to be told", SOON, async || (!told(&slack).is_empty()).then_some(())).await;
        let mut daemons = [third, second, first];
        for daemon in &mut daemons {
            assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        }
        check_slots(client, JOURNEYS, EVERY).await;

        // One that says that we may not is left alone.
        client.batch_execute("update meta set number = 99 where key in ('schema', 'readable_from')").await.unwrap();
        let mut late = setup("newer-late", &database.url()).begin(&main, &probes);
        assert_ne!(late.wait_for_exit().await, 0);
        assert!(late.log().contains("run the newer build"), "{}", late.log());
    });
}

#[test]
fn a_run_that_is_asked_for_is_made_by_whoever_has_the_journey() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let client = &database.client;
        let target = Target::start(16).await;
        // But for a minute of New Year, whatever runs was asked for.
        let journey = |part: usize| {
            format!(
                "[[journey]]\nname = \"part-{part}\"\ncron = \"0 0 1 1 *\"\ndeadline = \"2s\"\nmuted = true\n\
                 step = [{{ request = \"web\", path = \"/{part}\" }}]\n"
            )
        };
        let main = format!(
            "[http]\nadmin_token = {{ file = \"token\" }}\n[alerting]\nnotify = []\n\
             [channels.web]\ntype = \"http\"\nurl = \"{}\"\n",
            target.url()
        );
        let probes: String = (0..16).map(journey).collect();
        let start = async |name: &str| setup(name, &database.url()).start(&main, &probes).await;
        let first = start("errand-first").await;
        let mut second = start("errand-second").await;
        settled(client, &[&first, &second]).await;
        let ask = async |part: usize| {
            let url = format!("{}/api/v1/journeys/part-{part}/run", first.http_url());
            let answer = reqwest::Client::new().post(url).bearer_auth(TOKEN).body("{\"by\": \"ada\"}").send().await;
            let answer = answer.expect("an answer");
            (answer.status(), answer.text().await.expect("a text"))
        };
        let of = async |daemon: &Daemon| {
            let sql = format!("select shard from lease where holder like '%process {}-%'", daemon.pid());
            let held: Vec<i32> = client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
            let is_its = |part: &usize| held.contains(&shard_of(&format!("part-{part}")));
            (0..16usize).find(is_its).expect("one of sixteen")
        };
        let (ours, theirs) = (of(&first).await, of(&second).await);
        for part in [ours, theirs] {
            let (status, said) = ask(part).await;
            assert_eq!(status, StatusCode::ACCEPTED, "{said}");
            let run: serde_json::Value = serde_json::from_str(&said).expect("JSON");
            let token = run["asked"]["token"].as_str().expect("a token").to_owned();
            let path = format!("/api/v1/runs/{token}");
            let ended = wait_for("the run to have ended", SOON, async || {
                let (status, said) = first.get(&path).await;
                (status == StatusCode::OK).then_some(said)
            })
            .await;
            assert!(ended.contains("\"verdict\":\"good\""), "{ended}");
        }
        // The rules of whoever has it hold: not twice within ten seconds.
        let (status, said) = ask(theirs).await;
        assert!(status == StatusCode::TOO_MANY_REQUESTS && said.contains("was run on request"), "{status} {said}");
        assert!(target.answered().iter().all(|answered| [ours, theirs].contains(&answered.part)));
        // Of one that is stopped nobody waits long for an answer.
        second.signal("STOP");
        let (status, said) = ask(theirs).await;
        second.signal("CONT");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
        assert!(said.contains("has not answered within 5 s") || said.contains("taken"), "{said}");
        assert_eq!(number(client, "select count(*) from errand").await, 0, "what is answered is forgotten");
        assert_eq!(second.terminate().await, 0, "{}", second.log());
    });
}

#[test]
fn it_is_said_in_what_the_configurations_of_two_differ() {
    const ORDERS: &str = "[channels.orders]\ntype = \"memory\"\n";
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let client = &database.client;
        let target = Target::start(2).await;
        let main = |secret: &str| {
            format!(
                "[alerting]\nnotify = []\n{ORDERS}[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
                 headers = {{ x-api-key = \"{secret}\" }}\n",
                target.url().replace("://", &format!("://robot:{secret}@")),
            )
        };
        let journey = |name: &str, path: &str| {
            format!(
                "[[journey]]\nname = \"{name}\"\ncron = \"0 0 1 1 *\"\nmuted = true\n\
                 step = [{{ request = \"web\", path = \"{path}\" }}]\n"
            )
        };
        let (ours, same) = (journey("checkout", "/0"), journey("same", "/1"));
        let theirs = [&same, &*journey("checkout", "/1"), &journey("sms", "/1")].concat();
        let first = setup("differ-first", &database.url()).start(&main("hunter22"), &[&*ours, &same].concat()).await;
        let other = main("12345678").replace(ORDERS, "");
        let mut second = setup("differ-second", &database.url()).start(&other, &theirs).await;
        settled(client, &[&first, &second]).await;
        assert!(leads(&first).await);

        let ask = async |format: &str| {
            let arguments = ["cluster", "--config", "journeyman.toml", "--format", format];
            let ended = journeyman(second.directory(), &arguments).await;
            assert_eq!(ended.code, 0, "{ended:?}");
            ended.stdout
        };
        let differences = async || {
            let around: serde_json::Value = serde_json::from_str(&ask("json").await).unwrap();
            assert_eq!(around["same_configuration"], around["differences"].as_array().unwrap().is_empty());
            around["differences"].clone()
        };
        let found = wait_for("both to have said what they consist of", SOON, async || {
            Some(differences().await).filter(|found| found[0]["other"].is_array())
        })
        .await;
        let (who, theirs) = (found[0]["daemons"][0].as_str().unwrap(), found[0]["configuration"].as_str().unwrap());
        let expected = serde_json::json!([{
            "configuration": theirs, "daemons": [who], "other": ["journey checkout"],
            "only_there": ["journey sms"], "missing_there": ["channel orders"],
        }]);
        assert_eq!(found, expected);
        assert!(who.contains(&format!("process {}-", second.pid())), "{who}");
        let text = ask("text").await;
        // What waits for the leader at this moment is a paragraph of its own, after it.
        let said = text.split("\n\n").nth(1).unwrap_or_else(|| panic!("{text}")).trim_end();
        let row = text.lines().find(|line| line.contains(&format!("process {}-", first.pid()))).unwrap();
        let decides =
            row.split_whitespace().find(|word| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit()));
        let expected = format!(
            "their configurations differ: which journeys there are depends on who runs them\n\
             {who} has another configuration ({theirs}) than the daemon that decides ({}):\n  \
               other: journey checkout\n  only there: journey sms\n  missing there: channel orders",
            decides.unwrap()
        );
        assert_eq!(said, expected);
        for daemon in [&first, &second] {
            assert_eq!(daemon.metric("journeyman_cluster_configurations", &[]).await, Some(2.0));
            let (_, health) = daemon.get("/health").await;
            assert!(health.contains("their configurations differ"), "{health}");
        }

        // Once the second has the first one's files, but for its secrets, they are one.
        std::fs::write(second.directory().join("probes.toml"), [&*same, &ours].concat()).unwrap();
        let path = second.directory().join("journeyman.toml");
        let written = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, written.replace("[channels.web]", &format!("{ORDERS}[channels.web]"))).unwrap();
        second.signal("HUP");
        wait_for("one configuration", SOON, async || (differences().await == serde_json::json!([])).then_some(()))
            .await;
        assert!(!ask("text").await.contains("differ"));
        wait_for("one by its own numbers", SOON, async || {
            (first.metric("journeyman_cluster_configurations", &[]).await == Some(1.0)).then_some(())
        })
        .await;
        assert_eq!(number(client, "select count(*) from configuration").await, 2, "the one before is forgotten later");
        let secret = "select count(*) from configuration where parts similar to '%(hunter22|12345678|robot)%'";
        assert_eq!(number(client, secret).await, 0);

        // What is put away runs nowhere, and is written all the same.
        std::fs::write(
            second.directory().join("probes.toml"),
            [&*same, &ours, &journey("away", "/0"), "enabled = false\n"].concat(),
        )
        .unwrap();
        second.signal("HUP");
        wait_for("what is put away to be seen", SOON, async || {
            (differences().await[0]["only_there"] == serde_json::json!(["journey away"])).then_some(())
        })
        .await;
        assert_eq!(second.terminate().await, 0, "{}", second.log());
    });
}
