//! Journeys that are run from several places, by a daemon in each: people are told when enough of them agree, and of a place that
//! sees nothing but itself.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::{setup, told};
use crate::support::cluster::{leads, number, slots};
use crate::support::daemon::Daemon;
use crate::support::fake_slack::{CHANNEL, FakeSlack};
use crate::support::postgres::Postgres as Server;
use crate::support::target::{Mode, Target};
use crate::support::{block_on, wait_for};

const SOON: Duration = Duration::from_secs(60);
const PLACES: [&str; 3] = ["berlin", "london", "paris"];

/// Two journeys, each from all places; what a place sees is its own target.
fn configuration(target: &Target, slack: &FakeSlack) -> (String, String) {
    let main = format!(
        "location = {{ env = \"PLACE\" }}\n[alerting]\ngroup_by = []\nnotify = [\"chat\"]\n[channels.web]\ntype = \"http\"\n\
         url = \"{}\"\n[notifiers.chat]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\n\
         api_url = \"{}\"\n[defaults]\nevery = \"2s\"\ndeadline = \"800ms\"\nnotify = [\"chat\"]\n\
         locations = [\"berlin\", \"london\", \"paris\"]\nquorum = 2\n\
         alert = {{ down_after = 2, recover_after = 1, remind = \"never\", flapping = false, partial = false }}\n",
        target.url(),
        slack.url()
    );
    let journey = |(part, name): (usize, &str)| {
        format!("[[journey]]\nname = \"{name}\"\nstep = [{{ request = \"web\", path = \"/{part}\" }}]\n")
    };
    (main, ["buy", "pay"].into_iter().enumerate().map(journey).collect())
}

async fn journey(daemon: &Daemon, name: &str) -> Option<Value> {
    let (_, body) = daemon.try_get(&format!("/api/v1/journeys/{name}")).await.ok()?;
    let body: Value = serde_json::from_str(&body).ok()?;
    body.get("journey").cloned()
}

/// Waits until the places see the journey so, in their order.
async fn seen(daemon: &Daemon, name: &str, states: [&str; 3]) -> Value {
    wait_for(&format!("{name} to be seen as {states:?}"), SOON, async || {
        let shown = journey(daemon, name).await?;
        let places = shown["places"].as_array()?;
        let is_so = places.iter().map(|place| place["state"].as_str()).eq(states.map(Some));
        is_so.then_some(shown)
    })
    .await
}

async fn next(slack: &FakeSlack, count: usize) -> String {
    wait_for("people to be told", SOON, async || told(slack).into_iter().nth(count - 1)).await
}

#[test]
fn people_are_told_when_two_of_three_places_agree() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let database = server.database().await;
        let client = &database.client;
        let slack = FakeSlack::start().await;
        let mut targets = Vec::new();
        let mut daemons = Vec::new();
        for place in PLACES {
            let target = Target::start(2).await;
            let (main, probes) = configuration(&target, &slack);
            let setup = setup(&format!("places-{place}"), &database.url()).environment("PLACE", place);
            daemons.push(setup.start(&main, &probes).await);
            targets.push(target);
        }
        let [mut berlin, mut london, paris] = <[Daemon; 3]>::try_from(daemons).ok().unwrap();
        assert!(leads(&berlin).await, "the first decides");
        seen(&berlin, "buy", ["ok"; 3]).await;
        seen(&berlin, "pay", ["ok"; 3]).await;

        // One place sees it fail, and nobody is told.
        targets[1].set(0, Mode::Fails);
        let shown = seen(&berlin, "buy", ["ok", "down", "ok"]).await;
        assert_eq!((&shown["state"], &shown["quorum"]), (&"suspect".into(), &2.into()), "{shown:#}");
        assert!(told(&slack).is_empty(), "{:#?}", told(&slack));

        // So does a second one.
        targets[2].set(0, Mode::Fails);
        let down = next(&slack, 1).await;
        assert!(down.starts_with("DOWN buy · "), "{down}");
        let shown = slack.messages(CHANNEL)[0].shown();
        assert!(shown.contains("seen from 2 of 3 places (quorum 2): berlin: well; london: "), "{shown}");
        assert!(!shown.contains("Seen from"), "it is seen from no one place: {shown}");
        for target in &targets {
            target.set(0, Mode::Well);
        }
        let over = next(&slack, 2).await;
        assert!(over.starts_with("WELL AGAIN buy · "), "{over}");

        // A place that sees all fail is the incident.
        seen(&berlin, "buy", ["ok"; 3]).await;
        for part in 0..2 {
            targets[2].set(part, Mode::Fails);
        }
        let blind = next(&slack, 3).await;
        assert!(blind.starts_with("BLIND journeyman: place paris"), "{blind}");
        for part in 0..2 {
            targets[2].set(part, Mode::Well);
        }
        let seeing = next(&slack, 4).await;
        assert!(seeing.starts_with("WELL AGAIN journeyman: place paris"), "{seeing}");

        // So is one whose only daemon is gone, also if that one decided.
        berlin.kill().await;
        let blind = next(&slack, 5).await;
        assert!(blind.starts_with("BLIND journeyman: place berlin"), "{blind}");
        let leader = if leads(&london).await { &london } else { &paris };
        assert!(leads(leader).await);
        seen(leader, "buy", ["stale", "ok", "ok"]).await;
        berlin.start_again().await;
        let seeing = next(&slack, 6).await;
        assert!(seeing.starts_with("WELL AGAIN journeyman: place berlin"), "{seeing}");
        seen(leader, "pay", ["ok"; 3]).await;

        // Each place has its own shards, and no daemon runs what belongs to another place.
        let elsewhere = "select count(*) from lease join member on member.name = holder
            join journey using (shard) where journey.name like '%@%' and split_part(journey.name, '@', 2) <> location";
        assert_eq!(number(client, elsewhere).await, 0);
        assert_eq!(london.terminate().await, 0, "{}", london.log());
        let slots = slots(client).await;
        let names: Vec<_> = slots.keys().map(String::as_str).collect();
        let parts = ["buy", "buy@berlin", "buy@london", "buy@paris", "pay", "pay@berlin", "pay@london", "pay@paris"];
        assert_eq!(names, parts);
        for (name, slots) in &slots {
            assert!(
                slots.windows(2).all(|pair| pair[1] - pair[0] == 2_000),
                "{name}: a slot is missing, or there twice"
            );
        }
        let bad = "select count(*) from span join journey on journey.id = journey
            where name = 'pay' and verdict not in (0, 4)";
        assert_eq!(number(client, bad).await, 0, "what one place alone saw counts for nobody");
        assert_eq!(told(&slack).len(), 6, "{:#?}", told(&slack));
    });
}
