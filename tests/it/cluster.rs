//! Several daemons on one store: each runs its part, one decides and tells, and whoever goes is followed.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

use std::collections::BTreeMap;
use std::time::Duration;

use journeyman::clock::Clock;
use reqwest::StatusCode;
use tokio_postgres::Client;

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

fn setup(name: &str, url: &str) -> Setup {
    let setup = Setup::new(name).store_url(url);
    setup.write("token", TOKEN);
    setup
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// The slots of each journey, in order.
async fn slots(client: &Client) -> BTreeMap<String, Vec<i64>> {
    let sql = "select name, start, step, count from span join journey on journey.id = journey order by name, start";
    let mut slots: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let (name, start, step, count): (String, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        slots.entry(name).or_default().extend((0..count).map(|n| start + n * step));
    }
    slots
}

/// Every slot between a journey's first and its last is counted, and once; gives how many that are, and how many of them nobody
/// knows anything of.
async fn check_slots(client: &Client, journeys: usize) -> (usize, i64) {
    let slots = slots(client).await;
    assert_eq!(slots.len(), journeys);
    for (name, slots) in &slots {
        for pair in slots.windows(2) {
            assert_eq!(pair[1] - pair[0], EVERY.as_millis() as i64, "{name}: a slot is missing, or there twice");
        }
    }
    (slots.values().map(Vec::len).sum(), unknown(client).await)
}

/// Slots that nobody knows anything of.
async fn unknown(client: &Client) -> i64 {
    number(client, "select coalesce(sum(count), 0)::bigint from span where verdict = 4").await
}

/// How many shards each daemon has whose lease lasts, by its process.
async fn shares(client: &Client) -> BTreeMap<u32, usize> {
    let sql = "select holder from lease where shard > 0 and holder <> ''
        and until >= (extract(epoch from clock_timestamp()) * 1000)::bigint";
    let mut shares = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let holder: String = row.get(0);
        let process = holder.rsplit_once("process ").and_then(|(_, process)| process.split('-').next()?.parse().ok());
        *shares.entry(process.unwrap_or_else(|| panic!("{holder}"))).or_default() += 1;
    }
    shares
}

/// Waits until these daemons, and no others, have all shards between them, none more than one more than another; how long that took.
async fn settled(client: &Client, daemons: &[&Daemon]) -> Duration {
    let clock = Clock::system();
    let begun = clock.now().mono;
    let mut pids: Vec<_> = daemons.iter().map(|daemon| daemon.pid()).collect();
    pids.sort_unstable();
    wait_for("the shards to be shared out", SOON, async || {
        let shares = shares(client).await;
        let (least, most) = (shares.values().min()?, shares.values().max()?);
        let is_all = shares.values().sum::<usize>() == 32 && shares.keys().eq(pids.iter()) && most - least <= 1;
        is_all.then_some(())
    })
    .await;
    clock.now().mono.since(begun)
}

/// Whether the daemon decides: it answers questions of the API.
async fn leads(daemon: &Daemon) -> bool {
    daemon.try_get("/api/v1/journeys").await.is_ok_and(|(status, _)| status == StatusCode::OK)
}

fn told(slack: &FakeSlack) -> Vec<String> {
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
        let (slots, unknown) = check_slots(client, JOURNEYS).await;
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
