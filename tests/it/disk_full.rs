//! The disk under the store fills up while the daemon runs: it goes on probing and telling, says what is wrong with it, and heals
//! without a restart when there is room again.

#![expect(clippy::unwrap_used, reason = "what the oracle cannot read is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use journeyman::clock::Clock;
use reqwest::StatusCode;

use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{Answer, CHANNEL, FakeSlack, TOKEN};
use crate::support::fake_smtp::FakeSmtp;
use crate::support::table::Table;
use crate::support::target::{Mode, Target};
use crate::support::{Scratch, block_on, is_long, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// What the product promises.
const HEALED: Duration = Duration::from_secs(60);
const POST: &str = "chat.postMessage";

/// A file system of 4 MiB, unmounted when its owner goes.
struct SmallDisk {
    mount: PathBuf,
    _scratch: Scratch,
}

impl SmallDisk {
    /// `None`, with a loud line, where we may not mount.
    fn mount() -> Option<SmallDisk> {
        let scratch = Scratch::new("small-disk");
        let mount = scratch.path().join("disk");
        std::fs::create_dir(&mount).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=4m", "journeyman-test"]).arg(&mount);
        if command.output().is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk { mount, _scratch: scratch });
        }
        let frame = "!".repeat(80);
        eprintln!("\n{frame}\nNOT TESTED: a full disk; mounting a small file system takes root\n{frame}\n");
        None
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut file = std::fs::File::options().create(true).append(true).open(self.ballast()).unwrap();
        while file.write(&[0; 4_096]).is_ok_and(|written| written > 0) {}
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.mount);
    }
}

fn unmount(mount: &Path) {
    // Lazily: after a failed assertion the daemon may still have its files open.
    let _ = Command::new("umount").arg("-l").arg(mount).status();
}

const STEADY: usize = 0;
const VICTIM: usize = 1;
const EARLY: usize = 2;

fn slack_notifier(name: &str, slack: &FakeSlack) -> String {
    format!(
        "[notifiers.{name}]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\napi_url = \"{}\"\n",
        slack.url()
    )
}

fn configuration(target: &Target, chat: &FakeSlack, early: &FakeSlack, smtp: &FakeSmtp) -> (String, String) {
    let main = format!(
        "[alerting]\ngroup_by = []\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n[channels.loop]\ntype = \"memory\"\n{}{}\
         [notifiers.mail]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"jm@example.net\"\nto = [\"ops@example.net\"]\n",
        target.url(),
        slack_notifier("chat", chat),
        slack_notifier("early-chat", early),
        smtp.port(),
    );
    let journey = |name: &str, notify: &[&str], step: &str| {
        format!(
            "[[journey]]\nname = \"{name}\"\nevery = \"500ms\"\ndeadline = \"10s\"\nnotify = {notify:?}\n\
             alert = {{ down_after = 1, recover_after = 1, remind = \"never\", flapping = false }}\nstep = [{step}]\n"
        )
    };
    let ask = |part: usize| format!("{{ request = \"web\", path = \"/{part}\" }}");
    let round_trip =
        "{ name = \"out\", send = \"loop\", text = \"{{ token }}\" }, { name = \"in\", receive = \"loop\" }";
    let both = ["chat", "mail"];
    let probes = [
        journey("steady", &both, &ask(STEADY)),
        journey("victim", &both, &ask(VICTIM)),
        journey("early", &["early-chat"], &ask(EARLY)),
        journey("ledger", &both, round_trip),
    ];
    (main, probes.concat())
}

/// The deliveries in Slack that are about `subject`.
fn about(slack: &FakeSlack, subject: &str) -> Vec<String> {
    let messages = slack.messages(CHANNEL).into_iter().filter(|message| message.text.contains(subject));
    messages.map(|message| message.delivery().unwrap().to_owned()).collect()
}

/// How often Slack and mail were told about `subject`.
fn told(chat: &FakeSlack, smtp: &FakeSmtp, subject: &str) -> [usize; 2] {
    let subjects = smtp.mails().into_iter().filter_map(|taken| taken.mail.header("Subject"));
    [about(chat, subject).len(), subjects.filter(|line| line.contains(subject)).count()]
}

#[test]
fn a_full_disk_stops_neither_probing_nor_telling_and_heals_without_a_restart() {
    let Some(disk) = SmallDisk::mount() else { return };
    block_on(async {
        let (target, smtp) = (Target::start(3).await, FakeSmtp::start().await);
        let (chat, early) = (FakeSlack::start().await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &chat, &early, &smtp);
        let setup = Setup::new("disk-full").store(&disk.mount.join("journeyman.db"));
        setup.write("token", TOKEN);
        let mut daemon = setup.start(&main, &probes).await;
        let started = daemon.metric("process_start_time_seconds", &[]).await;
        let runs = async |outcome: &str| {
            daemon.metric("journeyman_runs_total", &[("journey", "ledger"), ("outcome", outcome)]).await
        };
        wait_for("a round trip", SOON, async || runs("good").await.filter(|runs| *runs >= 1.0)).await;

        // One notice is on disk, and not told yet, when the disk fills up.
        early.script(POST, [Answer::RateLimited(Some("5"))]);
        target.set(EARLY, Mode::Fails);
        wait_for("the early notice to be owed", SOON, async || {
            daemon.log().contains("wants fewer messages").then_some(())
        })
        .await;
        disk.fill();
        wait_for("the store to be down", SOON, async || {
            (daemon.metric("journeyman_store_up", &[]).await? == 0.0).then_some(())
        })
        .await;

        let (status, health) = daemon.get("/health").await;
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        assert_eq!(
            (status, &health["components"]["store"]["ok"]),
            (StatusCode::SERVICE_UNAVAILABLE, &false.into()),
            "{health}"
        );
        assert_eq!(daemon.get("/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(daemon.get("/live").await.0, StatusCode::OK);
        assert!(daemon.log().contains("the store does not take commits"), "{}", daemon.log());
        wait_for("both to hear of the storage", SOON, async || {
            (told(&chat, &smtp, "journeyman: storage") == [1, 1]).then_some(())
        })
        .await;
        wait_for("what was owed before", SOON, async || (about(&early, "early").len() == 1).then_some(())).await;

        let (asked, unknown) = (target.requests(STEADY), runs("unknown").await.unwrap());
        wait_for("probing to go on", SOON, async || (target.requests(STEADY) >= asked + 5).then_some(())).await;
        wait_for("runs that need the ledger to be unknown", SOON, async || {
            runs("unknown").await.filter(|runs| *runs > unknown)
        })
        .await;
        target.set(VICTIM, Mode::Fails);
        wait_for("both to hear of the victim", SOON, async || (told(&chat, &smtp, "victim") == [1, 1]).then_some(()))
            .await;
        target.set(VICTIM, Mode::Well);
        wait_for("both to hear that it is well again", SOON, async || {
            (told(&chat, &smtp, "victim") == [2, 2]).then_some(())
        })
        .await;

        disk.free();
        wait_for("it to heal", HEALED, async || {
            let (status, _) = daemon.get("/health").await;
            let up = daemon.metric("journeyman_store_up", &[]).await?;
            (status == StatusCode::OK && up == 1.0).then_some(())
        })
        .await;
        assert_eq!(daemon.metric("process_start_time_seconds", &[]).await, started, "without a restart");
        let good = runs("good").await.unwrap();
        wait_for("round trips", SOON, async || runs("good").await.filter(|runs| *runs > good)).await;
        target.set(EARLY, Mode::Well);
        wait_for("the early one to be over", SOON, async || (about(&early, "early").len() == 2).then_some(())).await;
        calm(&daemon).await;
        check_told_once(&chat, &early, &smtp);
        let before = (chat.messages(CHANNEL).len(), early.messages(CHANNEL).len(), smtp.mails().len());

        // What was told without the store is not told again by the next start, which knows of it from the store.
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        daemon.start_again().await;
        calm(&daemon).await;
        target.set(EARLY, Mode::Fails);
        wait_for("a fresh alert", SOON, async || (early.messages(CHANNEL).len() > before.1).then_some(())).await;
        assert_eq!((chat.messages(CHANNEL).len(), smtp.mails().len()), (before.0, before.2));
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        check_incidents(&daemon);
    });
}

/// Waits until nothing fires and nothing is owed.
async fn calm(daemon: &Daemon) {
    wait_for("everything to be over and told", SOON, async || {
        let firing = daemon.metric("journeyman_alert_state", &[]).await?;
        let owed = daemon.metric("journeyman_outbox_pending", &[]).await?;
        (firing == 0.0 && owed == 0.0).then_some(())
    })
    .await;
}

fn check_told_once(chat: &FakeSlack, early: &FakeSlack, smtp: &FakeSmtp) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for message in chat.messages(CHANNEL).into_iter().chain(early.messages(CHANNEL)) {
        *counts.entry(message.delivery().unwrap().to_owned()).or_default() += 1;
    }
    for taken in smtp.mails() {
        *counts.entry(taken.mail.header("Message-ID").unwrap()).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 1), "told twice: {counts:#?}");
    assert_eq!(about(early, "early").len(), 2, "first and resolved");
    assert_eq!(told(chat, smtp, "journeyman: storage"), [1, 1], "every notifier once");
    assert_eq!(told(chat, smtp, "victim"), [2, 2], "first and resolved");
}

/// It fills up at moments that nobody chose, for as long as nobody chose, while a journey fails and recovers all the time.
#[test]
fn a_disk_that_is_full_again_and_again_is_one_story_and_no_alert_is_lost() {
    let Some(disk) = SmallDisk::mount() else { return };
    block_on(async {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut table = Table::new("robustness", "t9", &["test", "tried", "held"]);
        let (target, smtp) = (Target::start(3).await, FakeSmtp::start().await);
        let (chat, early) = (FakeSlack::start().await, FakeSlack::start().await);
        let (main, probes) = configuration(&target, &chat, &early, &smtp);
        let setup = Setup::new("disk-full-often").store(&disk.mount.join("journeyman.db"));
        setup.write("token", TOKEN);
        let mut daemon = setup.start(&main, &probes).await;
        let started = daemon.metric("process_start_time_seconds", &[]).await;
        let lasts = if is_long() { Duration::from_secs(3_600) } else { Duration::from_secs(12) };
        let clock = Clock::system();
        let (mut times, mut flips, mut slowest) = (0u32, 0usize, Duration::ZERO);
        while clock.now().mono.0 < lasts {
            disk.fill();
            times += 1;
            let asked = target.requests(STEADY);
            // Told one by one: what is not told yet would be told with the next.
            for mode in [Mode::Fails, Mode::Well] {
                target.set(VICTIM, mode);
                flips += 1;
                wait_for("both to hear of the victim", SOON, async || {
                    (told(&chat, &smtp, "victim") == [flips; 2]).then_some(())
                })
                .await;
            }
            let longer = Duration::from_millis(random.u64(..1_500));
            let since = clock.now().mono;
            wait_for("probing to go on", SOON, async || {
                (target.requests(STEADY) > asked && clock.now().mono.since(since) >= longer).then_some(())
            })
            .await;
            disk.free();
            let freed = clock.now().mono;
            wait_for("it to heal", HEALED, async || {
                (daemon.metric("journeyman_store_up", &[]).await? == 1.0).then_some(())
            })
            .await;
            slowest = slowest.max(clock.now().mono.since(freed));
        }
        assert_eq!(daemon.metric("process_start_time_seconds", &[]).await, started, "without a restart");
        calm(&daemon).await;
        let storage = told(&chat, &smtp, "journeyman: storage");
        // Once an hour at most, if that comes and goes.
        let most = 1 + lasts.as_secs() as usize / 3_600;
        assert!(storage.iter().all(|count| (1..=most).contains(count)), "{storage:?}");
        let deliveries = about(&chat, "victim");
        assert_eq!(deliveries.iter().collect::<BTreeSet<_>>().len(), flips, "each once: {deliveries:?}");
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        table.row(&[
            &"T9 disk full",
            &format!("{times} times within {} s, {flips} alerts of a journey meanwhile (seed {seed})", lasts.as_secs()),
            &format!(
                "probing and telling went on, each alert once, {} storage alert, healed within {} ms, no restart",
                storage[0],
                slowest.as_millis()
            ),
        ]);
    });
}

/// What happened while the disk was full is in the store all the same.
fn check_incidents(daemon: &Daemon) {
    let store = rusqlite::Connection::open(daemon.store_path()).unwrap();
    let sql = "SELECT resolved IS NOT NULL FROM incident WHERE subject = 'victim'";
    let resolved: Vec<bool> =
        store.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(resolved, [true]);
}
