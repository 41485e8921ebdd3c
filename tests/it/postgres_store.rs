//! State in PostgreSQL: daemons that are killed, stopped and started again, and servers that go away under them.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

use std::collections::BTreeMap;
use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::journey::spend::Spent;
use journeyman::secret::{Redactor, Secret};
use journeyman::store::postgres::{Endpoint, Postgres as PostgresStore};
use journeyman::store::{Change, Store};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::StatusCode;
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::command::journeyman;
use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::postgres::Postgres as Server;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

/// What waits for a daemon, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(40);
const EVERY: Duration = Duration::from_millis(500);

fn configuration(target: &Target, slack: &FakeSlack) -> (String, String) {
    let main = format!(
        "[alerting]\ngroup_by = []\ndigest_after = 1000\nnotify = []\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
         [notifiers.chat]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\napi_url = \"{}\"\n",
        target.url(),
        slack.url()
    );
    let journey = |part: usize| {
        let objective = if part == 0 { "objective = { delivered = \"90%\", window = \"3d\" }\n" } else { "" };
        format!(
            "[[journey]]\nname = \"part-{part}\"\nevery = \"{}ms\"\ndeadline = \"400ms\"\nnotify = [\"chat\"]\n\
             {objective}\
             alert = {{ down_after = 1, recover_after = 1, remind = \"never\", flapping = false }}\n\
             step = [{{ request = \"web\", path = \"/{part}\" }}]\n",
            EVERY.as_millis()
        )
    };
    (main, [0, 1].map(journey).concat())
}

fn setup(name: &str, url: &str) -> Setup {
    let setup = Setup::new(name).store_url(url);
    setup.write("token", TOKEN);
    setup
}

/// The names of journeys that people were told about, as often as they were.
fn told(slack: &FakeSlack, subject: &str) -> usize {
    slack.messages(CHANNEL).iter().filter(|message| message.text.contains(subject)).count()
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// Every slot between a journey's first and its last is counted, and once; gives how many that are.
async fn check_slots(client: &Client) -> usize {
    let sql = "select name, start, step, count from span join journey on journey.id = journey order by name, start";
    let mut slots: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let (name, start, step, count): (String, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        slots.entry(name).or_default().extend((0..count).map(|n| start + n * step));
    }
    assert_eq!(slots.len(), 2);
    for (name, slots) in &slots {
        for pair in slots.windows(2) {
            assert_eq!(pair[1] - pair[0], EVERY.as_millis() as i64, "{name}: a slot is missing, or there twice");
        }
    }
    slots.values().map(Vec::len).sum()
}

/// Waits until so many runs of a journey that came to this are in the database.
async fn wait_for_runs(client: &Client, more: i64) -> i64 {
    let count = async || number(client, "select count(*) from run").await;
    let before = count().await;
    wait_for(&format!("{more} more runs"), SOON, async || (count().await >= before + more).then_some(())).await;
    before
}

async fn ready(daemon: &Daemon) -> Option<(StatusCode, Value)> {
    let (status, text) = daemon.try_get("/ready").await.ok()?;
    Some((status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))))
}

/// What the command says of the daemons around a store, once there are so many.
async fn cluster(daemon: &Daemon, count: usize) -> Value {
    wait_for("the daemons to be seen", SOON, async || {
        let ended =
            journeyman(daemon.directory(), &["cluster", "--config", "journeyman.toml", "--format", "json"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        let around: Value = serde_json::from_str(&ended.stdout).unwrap();
        let seen = around["daemons"].as_array()?.iter().filter(|daemon| !daemon["seen_seconds"].is_null()).count();
        (seen == count).then_some(around)
    })
    .await
}

#[test]
fn a_daemon_that_is_killed_goes_on_and_the_command_line_reads_beside_it() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let (target, slack) = (Target::start(2).await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &slack);
        let mut daemon = setup("pg-kill", &database.url()).start(&main, &probes).await;
        target.set(1, Mode::Fails);
        wait_for("people to be told", SOON, async || (told(&slack, "part-1") > 0).then_some(())).await;
        for _ in 0..3 {
            wait_for_runs(&database.client, 4).await;
            daemon.kill().await;
            daemon.start_again().await;
        }
        target.set(1, Mode::Well);
        wait_for("the end to be told", SOON, async || (told(&slack, "part-1") > 1).then_some(())).await;

        let ask = async |arguments: &[&str]| {
            let ended = journeyman(daemon.directory(), &[arguments, &["--config", "journeyman.toml"]].concat()).await;
            assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
            ended.stdout
        };
        let runs = ask(&["runs", "part-1", "--outcome", "failed", "--format", "json"]).await;
        let runs: Value = serde_json::from_str(&runs).unwrap();
        assert!(runs.to_string().contains("\"failed\""), "{runs}");
        let slo: Value = serde_json::from_str(&ask(&["slo", "--format", "json"]).await).unwrap();
        assert!(slo.to_string().contains("part-0"), "{slo}");
        let story = ask(&["explain", "part-1"]).await;
        assert!(story.contains("part-1"), "{story}");
        let replayed = ask(&["replay", "--from", "10m"]).await;
        assert!(replayed.contains("part-1"), "{replayed}");
        let once = ask(&["once", "part-0"]).await;
        assert!(once.contains("part-0"), "{once}");

        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        let log = daemon.log();
        assert!(log.contains("the lease was given back"), "{log}");
        assert_eq!(told(&slack, "part-1"), 2, "told once, and once that it is over");
        let slots = check_slots(&database.client).await;
        let (runs, boots) = (
            number(&database.client, "select count(*) from run").await,
            number(&database.client, "select count(*) from boot").await,
        );
        assert!(runs as usize <= slots && boots == 4, "{runs} runs in {slots} slots, {boots} starts");
    });
}

#[test]
fn a_daemon_that_does_not_decide_says_who_does() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let (target, slack) = (Target::start(2).await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &slack);
        let mut first = setup("pg-first", &database.url()).start(&main, &probes).await;
        let mut second = setup("pg-second", &database.url()).start(&main, &probes).await;
        let said = wait_for(&format!("a daemon that does not decide\n{}", second.log()), SOON, async || {
            let (status, answer) = ready(&second).await?;
            (status == StatusCode::OK).then_some(answer["decides"].as_str()?.to_owned())
        })
        .await;
        assert!(said.contains(&format!("process {}-", first.pid())) && said.ends_with("decides and tells"), "{said}");
        assert_eq!(second.get("/live").await.0, StatusCode::OK);
        let (status, text) = second.get("/api/v1/journeys").await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains(&said), "{status} {text}");
        assert!(second.get("/health").await.1.contains("\"standby\""));
        let ended = journeyman(second.directory(), &["health", "--config", "journeyman.toml"]).await;
        assert_eq!(ended.code, 0, "it runs its part, and takes what comes in: {ended:?}");
        let ended = journeyman(second.directory(), &["status", "--config", "journeyman.toml"]).await;
        assert!(ended.code != 0 && ended.stderr.contains(&said), "{ended:?}");
        assert!(second.get("/").await.1.contains(&said));
        let around = cluster(&second, 2).await;
        let roles = |role: &str| {
            let daemons = around["daemons"].as_array().unwrap().iter();
            daemons.filter(|daemon| daemon["role"] == role).cloned().collect::<Vec<_>>()
        };
        let (leads, runs) = (roles("leads"), roles("runs"));
        assert!(leads.len() == 1 && runs.len() <= 1 && around["same_configuration"] == true, "{around:#}");
        assert!(said.contains(leads[0]["name"].as_str().unwrap()), "{around:#}");
        assert_eq!(leads[0]["listens"], first.http_address().to_string());
        for daemon in [&mut second, &mut first] {
            assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        }
        assert!(number(&database.client, "select count(*) from member").await == 0, "both have said goodbye");
    });
}

#[test]
fn a_server_that_is_away_for_a_while_stops_neither_probing_nor_telling() {
    block_on(async {
        let Some(mut server) = Server::private().await else { return };
        let (url, name) = {
            let database = server.database().await;
            (database.url(), database.name.clone())
        };
        let (target, slack) = (Target::start(2).await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &slack);
        let mut daemon = setup("pg-away", &url).start(&main, &probes).await;
        {
            let (client, _driver) = server.session(&name).await;
            wait_for_runs(&client, 4).await;
        }
        server.kill();
        wait_for("it to say that its store is away", SOON, async || {
            let (status, answer) = ready(&daemon).await?;
            (status == StatusCode::SERVICE_UNAVAILABLE && answer.to_string().contains("PostgreSQL at")).then_some(())
        })
        .await;
        target.set(1, Mode::Fails);
        wait_for("people to be told without the store", SOON, async || (told(&slack, "part-1") > 0).then_some(()))
            .await;
        server.start().await;
        daemon.wait_until_ready().await;
        let (client, _driver) = server.session(&name).await;
        wait_for("the incident to be in the store", SOON, async || {
            let known = "select count(*) from incident where subject = 'part-1'";
            (number(&client, known).await == 1).then_some(())
        })
        .await;
        target.set(1, Mode::Well);
        wait_for("the end to be told", SOON, async || (told(&slack, "part-1") > 1).then_some(())).await;
        wait_for_runs(&client, 4).await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        check_slots(&client).await;
        assert!(!daemon.log().contains("postgres://"), "{}", daemon.log());
    });
}

/// The primary has a standby that it waits for with each commit. It is killed, and the standby promoted.
#[test]
fn what_was_confirmed_outlives_the_primary() {
    block_on(async {
        let Some(mut primary) = Server::private().await else { return };
        let name = primary.database().await.name.clone();
        let standby = primary.standby().await;
        primary.run("postgres", "alter system set synchronous_standby_names = '*'").await;
        primary.run("postgres", "select pg_reload_conf()").await;
        {
            let (client, _driver) = primary.session("postgres").await;
            wait_for("the standby to be waited for", SOON, async || {
                let sql = "select count(*) from pg_stat_replication where sync_state = 'sync'";
                (number(&client, sql).await == 1).then_some(())
            })
            .await;
        }
        let url = format!("postgres://postgres@{},{}/{name}?sslmode=disable", primary.address(), standby.address());
        let (target, slack) = (Target::start(2).await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &slack);
        let mut daemon = setup("pg-failover", &url).start(&main, &probes).await;
        let endpoint = Endpoint::new(&Secret::new(url.clone(), &Redactor::new())).unwrap();
        // Beside the daemon's, without a lease: what each of its calls was told is known here.
        let store = PostgresStore::open_resting(endpoint, None, None, Clock::system(), Duration::ZERO).await.unwrap();
        let (mut confirmed, mut unknown) = (0u64, 0u64);
        let mut spend = async |store: &PostgresStore| {
            let (channel, journey) = ("sms".into(), "sms".into());
            let spent = Spent { channel, day: "2026-09-21".parse().unwrap(), journey, messages: 1 };
            match store.apply(vec![Change::Spend { spent }]).await {
                Ok(()) => confirmed += 1,
                Err(_) => unknown += 1,
            }
        };
        for nth in 0..300 {
            if nth == 150 {
                primary.kill();
                standby.run("postgres", "select pg_promote()").await;
            }
            spend(&store).await;
        }
        let found = wait_for("the promoted server", SOON, async || store.spent().await.ok()).await;
        let kept = found.iter().find(|spent| &*spent.channel == "sms").map_or(0, |spent| spent.messages);
        assert!(confirmed > 150, "{confirmed} confirmed, {unknown} unknown");
        assert!((confirmed..=confirmed + unknown).contains(&kept), "{kept} of {confirmed}, and {unknown} unknown");

        daemon.wait_until_ready().await;
        let (client, _driver) = standby.session(&name).await;
        wait_for_runs(&client, 4).await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        let slots = check_slots(&client).await;
        eprintln!("{confirmed} confirmed, {unknown} unknown, {kept} kept; {slots} slots, each once");
    });
}

/// With a password by SCRAM, from a file, over TLS by a certificate of an authority of one's own.
#[test]
fn a_password_and_a_certificate_are_asked_for_and_neither_is_shown() {
    block_on(async {
        let Some(mut server) = Server::private().await else { return };
        let name = server.database().await.name.clone();
        let right = "right-horse";
        server
            .run(
                "postgres",
                &format!("create role probe login password '{right}'; grant all on database {name} to probe"),
            )
            .await;
        server.run(&name, "grant all on schema public to probe").await;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        let shown = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        server.kill();
        server.show(shown.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem());
        server.start().await;

        let (target, slack) = (Target::start(2).await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &slack);
        let port = server.address().port();
        let setup = setup("pg-tls", "");
        let authority = setup.write("authority.pem", &certificate);
        let url = |password: &str, more: &str| format!("postgres://probe:{password}@localhost:{port}/{name}{more}");
        let trusting = format!("?sslrootcert={}", authority.display());
        let opened = async |url: String| {
            let endpoint = Endpoint::new(&Secret::new(url, &Redactor::new())).unwrap();
            PostgresStore::open_resting(endpoint, None, None, Clock::system(), Duration::ZERO).await.map(drop)
        };
        for (url, words) in [
            (url("wrong-horse", &trusting), "password authentication failed"),
            (url(right, ""), "is from an issuer that is not trusted"),
            (url(right, &trusting).replace("localhost", "127.0.0.1"), "is for another name"),
            (url(right, "?sslmode=disable").replace(&port.to_string(), "1"), "refused"),
        ] {
            let refused = opened(url).await.unwrap_err().to_string();
            assert!(refused.contains(words) && !refused.contains("horse"), "{refused}");
        }
        setup.write("store-url", &url(right, &trusting));
        let mut daemon = setup.store_value("{ file = \"store-url\" }").start(&main, &probes).await;
        let (client, _driver) = server.session(&name).await;
        wait_for_runs(&client, 4).await;
        let tls = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid)
            where ssl and usename = 'probe' and application_name like 'journeyman %'";
        assert!(number(&client, tls).await > 1);
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        assert!(!daemon.log().contains("horse"), "{}", daemon.log());
    });
}
