//! Daemons that share a store: its books, by which each slot is counted once, and who has what.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

use std::collections::BTreeMap;
use std::time::Duration;

use journeyman::clock::Clock;
use reqwest::StatusCode;
use tokio_postgres::Client;

use super::daemon::Daemon;
use super::wait_for;

/// What waits for a daemon, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(40);

/// The number that a query comes to.
pub(crate) async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// The slots of each journey, in order.
pub(crate) async fn slots(client: &Client) -> BTreeMap<String, Vec<i64>> {
    slots_where(client, "true").await
}

/// Those of them that lie in spans for which this is so.
pub(crate) async fn slots_where(client: &Client, is_so: &str) -> BTreeMap<String, Vec<i64>> {
    let sql = format!(
        "select name, start, step, count from span join journey on journey.id = journey where {is_so} order by name, start"
    );
    let mut slots: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in client.query(&sql, &[]).await.unwrap() {
        let (name, start, step, count): (String, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        slots.entry(name).or_default().extend((0..count).map(|n| start + n * step));
    }
    slots
}

/// Every slot between a journey's first and its last is counted, and once; gives how many that are, and how many of them nobody
/// knows anything of.
pub(crate) async fn check_slots(client: &Client, journeys: usize, every: Duration) -> (usize, i64) {
    let slots = slots(client).await;
    assert_eq!(slots.len(), journeys);
    for (name, slots) in &slots {
        for pair in slots.windows(2) {
            assert_eq!(pair[1] - pair[0], every.as_millis() as i64, "{name}: a slot is missing, or there twice");
        }
    }
    (slots.values().map(Vec::len).sum(), unknown(client).await)
}

/// Slots that nobody knows anything of.
pub(crate) async fn unknown(client: &Client) -> i64 {
    number(client, "select coalesce(sum(count), 0)::bigint from span where verdict = 4").await
}

/// How many shards each daemon has whose lease lasts, by its process.
pub(crate) async fn shares(client: &Client) -> BTreeMap<u32, usize> {
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
pub(crate) async fn settled(client: &Client, daemons: &[&Daemon]) -> Duration {
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
pub(crate) async fn leads(daemon: &Daemon) -> bool {
    daemon.try_get("/api/v1/journeys").await.is_ok_and(|(status, _)| status == StatusCode::OK)
}
