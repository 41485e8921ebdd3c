//! Daemons that start while the server is away.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::support::cluster::slots_where;

/// As long as it may take to find that nobody answers, and a start on a machine that is busy.
const BEGINS: Duration = Duration::from_secs(15);

/// What a daemon keeps to begin without the server.
fn known(seat: &Seat) -> PathBuf {
    seat.daemon.directory().join("spool/known.json")
}

/// Waits until it is kept that the daemon has all shards.
async fn remembered(seat: &Seat) {
    wait_for("what a start takes to be kept", SOON, async || {
        let text = std::fs::read(known(seat)).ok()?;
        let known: serde_json::Value = serde_json::from_slice(&text).unwrap();
        (known["held"].as_object().unwrap().len() == 32).then_some(())
    })
    .await;
}

/// Kills the daemon and starts it again; gives when it may have run nothing, in milliseconds.
async fn killed_and_started(seat: &mut Seat) -> (i64, i64) {
    let clock = Clock::system();
    // What was under way has no verdict.
    let killed = clock.now().wall.as_millisecond() - 2_000;
    seat.daemon.kill().await;
    let begun = clock.now().mono;
    seat.daemon.start_again().await;
    let took = clock.now().mono.since(begun);
    assert!(took < BEGINS, "ready after {took:?}\n{}", seat.daemon.log());
    eprintln!("ready after {took:.1?}");
    (killed, clock.now().wall.as_millisecond() + 2_000)
}

#[test]
fn one_that_starts_without_the_server_tells_and_loses_nothing() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let mut seat = stage.daemon("cut-off-starts", true).await;
        stage.settled(&[&seat]).await;
        let part = stage.part_of(&seat).await;
        remembered(&seat).await;

        seat.way.shut().await;
        let first = killed_and_started(&mut seat).await;
        let (status, said) = seat.daemon.get("/ready").await;
        assert_eq!(status, StatusCode::OK, "{said}");
        stage.target.set(part, Mode::Fails);
        wait_for("the daemon to tell by itself", SOON, async || (!stage.told(part).is_empty()).then_some(())).await;
        // And a second time in the same outage: what was told goes on.
        let second = killed_and_started(&mut seat).await;
        let before = kept(&seat).len();
        wait_for("runs of the third process", SOON, async || (kept(&seat).len() > before + 5 * JOURNEYS).then_some(()))
            .await;
        assert_eq!(words(&stage.told(part)), [("DOWN".to_owned(), true)], "{}", seat.daemon.log());
        let seen = kept(&seat);
        assert!(seen.iter().any(|(_, slot, _)| *slot < second.0) && seen.iter().any(|(_, slot, _)| *slot > second.1));

        seat.way.reopen().await;
        stage.handed_over(part).await;
        stage.settled(&[&seat]).await;
        stage.heard(&seat).await;
        stage.target.set(part, Mode::Well);
        stage.ended(part).await;
        cut_off(&seat.daemon, false).await;
        stage.has(&seen).await;
        let lost = slots_where(&stage.database.client, "verdict = 4").await;
        let is_of_a_start = |slot: i64| [first, second].iter().any(|(from, to)| (*from..=*to).contains(&slot));
        let others: Vec<_> = lost.values().flatten().filter(|slot| !is_of_a_start(**slot)).collect();
        assert!(others.is_empty(), "{others:?} are unknown, beside {first:?} and {second:?}\n{}", seat.daemon.log());
        let log = seat.daemon.log();
        let (slots, unknown) = stage.end(vec![seat]).await;
        let told = words(&stage.told(part));
        assert_eq!(alone(&told), ["DOWN", "HANDED OVER"], "{told:?}\n{log}");
        assert_eq!(together(&told), ["DOWN", "WELL AGAIN"], "{told:?}");
        let others: Vec<_> = stage.told_at_all().into_iter().filter(|told| !told.text.contains("part-")).collect();
        let others: Vec<_> = others.iter().map(|told| told.text.as_str()).collect();
        let [cut, back] = others[..] else { panic!("{others:?}") };
        assert!(cut.starts_with("FAILING journeyman: store") && cut.contains("has begun without the store"), "{cut}");
        assert!(back.contains("journeyman: store"), "{back}");
        eprintln!(
            "{} runs of two processes, {slots} slots, each once, {unknown} unknown, all of the starts",
            seen.len()
        );
    });
}

#[test]
fn what_another_has_taken_meanwhile_is_its_and_nothing_is_counted_twice() {
    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let first = stage.daemon("cut-off-start-beside", true).await;
        let mut second = stage.daemon("cut-off-start-alone", true).await;
        stage.settled(&[&first, &second]).await;
        let part = stage.part_of(&second).await;
        wait_for("what a start takes to be kept", SOON, async || std::fs::metadata(known(&second)).ok().map(drop))
            .await;

        // Nothing is refused, and nothing comes back.
        for direction in [Direction::ToClient, Direction::ToServer] {
            second.way.set(direction, Flow::Hold);
        }
        killed_and_started(&mut second).await;
        stage.settled(&[&first]).await;
        stage.target.set(part, Mode::Fails);
        wait_for("both to tell", SOON, async || {
            let told = words(&stage.told(part));
            (!alone(&told).is_empty() && !together(&told).is_empty()).then_some(())
        })
        .await;
        for direction in [Direction::ToClient, Direction::ToServer] {
            second.way.set(direction, Flow::Pass);
        }
        stage.handed_over(part).await;
        stage.settled(&[&first, &second]).await;
        stage.target.set(part, Mode::Well);
        stage.ended(part).await;
        let (slots, unknown) = stage.end(vec![first, second]).await;
        let told = words(&stage.told(part));
        assert_eq!(alone(&told), ["DOWN", "HANDED OVER"], "{told:?}");
        assert_eq!(together(&told), ["DOWN", "WELL AGAIN"], "{told:?}");
        eprintln!("{slots} slots, each once, {unknown} unknown");
    });
}

#[test]
fn without_what_it_takes_or_with_a_server_that_says_no_nothing_is_started() {
    /// Starts it; gives what it says before it ends with 73.
    async fn refused(seat: &mut Seat) -> String {
        let before = seat.daemon.log().len();
        seat.daemon.spawn_again();
        assert_eq!(seat.daemon.wait_for_exit().await, 73, "{}", seat.daemon.log());
        seat.daemon.log().split_off(before)
    }
    fn edit(path: &Path, from: &str, to: &str) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    block_on(async {
        let Some(server) = Server::shared().await else { return };
        let stage = Stage::new(server).await;
        let mut seat = stage.daemon("cut-off-refused", true).await;
        stage.settled(&[&seat]).await;
        remembered(&seat).await;
        let path = known(&seat);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "the key is in it");
        seat.daemon.kill().await;
        let content = std::fs::read_to_string(&path).unwrap();

        seat.way.shut().await;
        std::fs::remove_file(&path).unwrap();
        let said = refused(&mut seat).await;
        assert!(said.contains("Connection refused") && said.contains("keeps nothing of such a run"), "{said}");
        for (wrong, words) in [
            ("{\"form\":1,\"key\":\"", "is not as we write it"),
            ("{\"form\":2}", "is of a newer version (2; this build knows 1)"),
            (&content.replace("127.0.0.1", "127.0.0.2"), "it is of another store"),
        ] {
            std::fs::write(&path, wrong).unwrap();
            let said = refused(&mut seat).await;
            assert!(said.contains(words) && !said.contains("panicked"), "{words}: {said}");
        }

        // It answers, and says no.
        seat.way.reopen().await;
        std::fs::write(&path, &content).unwrap();
        let main = seat.daemon.directory().join("journeyman.toml");
        edit(&main, "postgres://postgres@", "postgres://probe:wrong@");
        let said = refused(&mut seat).await;
        assert!(said.contains("password authentication failed"), "{said}");
        // What says whose shards these were is as good as it was.
        edit(&main, "postgres://probe:wrong@", "postgres://postgres@");
        seat.daemon.start_again().await;
        wait_for("it to decide", SOON, async || leads(&seat.daemon).await.then_some(())).await;
        stage.settled(&[&seat]).await;
        stage.end(vec![seat]).await;
    });
}
