//! What is wrong with a channel, on the real binary: told once, over kills, and its end once.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_smtp::FakeSmtp;
use crate::support::target::{Mode, Target};
use crate::support::tls_front::{Shown, TlsFront};
use crate::support::{block_on, wait_for};

const SOON: Duration = Duration::from_secs(40);
/// A minute's worth of evidence, on a machine that is busy with other tests.
const LATER: Duration = Duration::from_secs(120);

fn notifier(smtp: &FakeSmtp) -> String {
    format!(
        "[notifiers.ops]\ntype = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"jm@example.net\"\nto = [\"ops@example.net\"]\n",
        smtp.port()
    )
}

/// What `ops` were told so far: the word for it and what it is about.
fn told(smtp: &FakeSmtp) -> Vec<String> {
    let said = |taken: crate::support::fake_smtp::Taken| {
        let header = |name| taken.mail.header(name).unwrap_or_default();
        let subject = header("Subject");
        let (about, _) = subject.rsplit_once(": incident").expect("it names its incident");
        format!("{} {}", header("X-Journeyman-State"), about.trim_start_matches("[journeyman] "))
    };
    smtp.mails().into_iter().map(said).collect()
}

async fn wait_until_told(smtp: &FakeSmtp, expected: &[&str], bound: Duration) {
    wait_for(&format!("{expected:?}"), bound, async || (told(smtp).len() >= expected.len()).then_some(())).await;
    assert_eq!(told(smtp), expected);
}

/// Kills it once it knows that what it told was taken: a crash repeats what is in hand.
async fn kill(daemon: &mut Daemon) {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(daemon.store_path(), flags).expect("the store opens");
    wait_for("every notice to be taken", SOON, async || {
        let sql = "SELECT count(*) FROM outbox WHERE status <> 'sent'";
        let left: i64 = store.query_row(sql, [], |row| row.get(0)).expect("a count");
        (left == 0).then_some(())
    })
    .await;
    daemon.kill().await;
}

/// Waits for so many more runs of this outcome.
async fn wait_for_runs(daemon: &Daemon, outcome: &str, more: f64) {
    let runs = async || daemon.metric("journeyman_runs_total", &[("outcome", outcome)]).await.unwrap_or(0.0);
    let before = runs().await;
    wait_for(&format!("{more} more {outcome} runs"), LATER, async || (runs().await >= before + more).then_some(()))
        .await;
}

/// The incidents that are open: what each is about and how many members it has or had.
async fn open(daemon: &Daemon) -> Vec<(String, u64)> {
    let (status, text) = daemon.get("/api/v1/incidents").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let answer: Value = serde_json::from_str(&text).expect("the API answers in JSON");
    let incidents = answer["incidents"].as_array().expect("a list").iter().filter(|one| one["resolved"].is_null());
    let mut open: Vec<_> = incidents
        .map(|one| (one["subject"].as_str().unwrap_or_default().to_owned(), one["members"].as_u64().unwrap_or(0)))
        .collect();
    open.sort();
    open
}

fn journey(name: &str, part: usize, down_after: u32) -> String {
    format!(
        "[[journey]]\nname = \"{name}\"\nevery = \"500ms\"\ndeadline = \"10s\"\nnotify = [\"ops\"]\n\
         alert = {{ down_after = {down_after}, recover_after = 2, partial = false, remind = \"never\" }}\n\
         step = [{{ request = \"web\", path = \"/{part}\" }}]\n"
    )
}

#[test]
fn a_certificate_near_its_end_is_told_once_over_kills_and_so_is_its_renewal() {
    block_on(async {
        let setup = Setup::new("certificate-end");
        let (target, smtp) = (Target::start(5).await, FakeSmtp::start().await);
        let upstream = target.url().trim_start_matches("http://").parse().expect("an address");
        let front = TlsFront::start(upstream, Shown::Ending, setup.directory()).await;
        let web = format!(
            "[channels.web]\ntype = \"http\"\nurl = \"https://{}\"\nca_file = \"{}\"\nnew_connection = true\n",
            front.address(),
            front.ca_file().display()
        );
        let probes: String = (0..5).map(|n| journey(&format!("j{n}"), n, 2)).collect();
        let mut daemon = setup.start(&format!("{web}{}", notifier(&smtp)), &probes).await;

        let warning = smtp.wait_for_mail("the warning", |_| true).await.mail.parts()[0].text();
        let said = format!("the certificate of {} expires in 6 days (20", front.address());
        assert!(warning.contains(&said) && warning.contains("from ca-Ending"), "{warning}");
        assert!(warning.contains("EXPIRING"), "{warning}");
        let until = async |daemon: &Daemon| {
            let name = "journeyman_channel_certificate_expiry_timestamp_seconds";
            daemon.metric(name, &[("channel", "web")]).await.expect("it was seen")
        };
        let ends = until(&daemon).await;

        // Who fails while it has days left fails of something else.
        target.set(0, Mode::Fails);
        wait_until_told(&smtp, &["EXPIRING channel: web", "DOWN j0"], SOON).await;
        assert_eq!(open(&daemon).await, [("channel: web".to_owned(), 1), ("j0".to_owned(), 1)]);
        target.set(0, Mode::Well);
        let mut all = vec!["EXPIRING channel: web", "DOWN j0", "WELL AGAIN j0"];
        wait_until_told(&smtp, &all, SOON).await;

        kill(&mut daemon).await;
        daemon.start_again().await;
        wait_for_runs(&daemon, "good", 10.0).await;
        assert_eq!(until(&daemon).await, ends);
        wait_until_told(&smtp, &all, SOON).await;
        assert_eq!(open(&daemon).await.len(), 1);

        kill(&mut daemon).await;
        front.show(Shown::Good);
        daemon.start_again().await;
        all.push("WELL AGAIN channel: web");
        wait_until_told(&smtp, &all, SOON).await;
        wait_for_runs(&daemon, "good", 10.0).await;
        wait_until_told(&smtp, &all, SOON).await;
        assert!(until(&daemon).await > ends + 86_400.0 * 365.0);
        assert_eq!(open(&daemon).await, []);
    });
}

#[test]
fn a_channel_that_makes_us_slow_down_is_one_ticket_and_takes_its_journeys_along() {
    block_on(async {
        let (target, smtp) = (Target::start(2).await, FakeSmtp::start().await);
        target.set(0, Mode::Throttles);
        let web = format!("[channels.web]\ntype = \"http\"\nurl = \"{}\"\n", target.url());
        // One that is never down, so that the channel is what people hear of.
        let probes = journey("patient", 0, 1_000) + &journey("other", 1, 2);
        let mut daemon = Setup::new("throttled").start(&format!("{web}{}", notifier(&smtp)), &probes).await;
        wait_until_told(&smtp, &["THROTTLED channel web"], LATER).await;
        let text = smtp.mails()[0].mail.parts()[0].text();
        assert!(text.contains("made to slow down 3 times") && text.contains("429"), "{text}");

        target.set(1, Mode::Throttles);
        wait_for("the journey to join", SOON, async || {
            (open(&daemon).await == [("channel web".to_owned(), 2)]).then_some(())
        })
        .await;
        kill(&mut daemon).await;
        daemon.start_again().await;
        wait_for_runs(&daemon, "failed", 10.0).await;
        assert_eq!(open(&daemon).await, [("channel web".to_owned(), 2)]);
        assert_eq!(told(&smtp).iter().filter(|told| told.starts_with("THROTTLED")).count(), 1, "{:?}", told(&smtp));
    });
}

#[cfg(feature = "websocket")]
#[test]
fn a_receiver_that_is_away_is_told_once_over_kills_and_its_return_once() {
    use crate::support::rooms::{CREDENTIALS, Rooms, SUBSCRIBE};

    block_on(async {
        let (mut rooms, smtp) = (Rooms::start().await, FakeSmtp::start().await);
        rooms.kill().await;
        let channel = format!(
            "[channels.push]\ntype = \"websocket\"\nurl = \"{}\"\nheaders = {{ authorization = {{ file = \"authorization\" }} }}\n\
             subscribe = ['{SUBSCRIBE}']\nready_when = '\"status\": *\"subscribed\"'\n",
            rooms.url("orders")
        );
        // With this deadline it is not stale before the channel is down.
        let probes = "[[journey]]\nname = \"order\"\nevery = \"500ms\"\ndeadline = \"3m\"\nnotify = [\"ops\"]\n\
                      alert = { down_after = 2, recover_after = 2, partial = false, remind = \"never\" }\n\
                      step = [{ name = \"out\", send = \"push\", text = \"{{ token }}\" }, { name = \"in\", receive = \"push\" }]\n";
        let setup = Setup::new("away");
        setup.write("authorization", CREDENTIALS);
        let mut daemon = setup.start(&format!("{channel}{}", notifier(&smtp)), probes).await;
        wait_until_told(&smtp, &["DOWN channel push"], LATER).await;

        kill(&mut daemon).await;
        daemon.start_again().await;
        // Blocked are its runs only once this daemon has found it down as well.
        wait_for_runs(&daemon, "failed", 2.0).await;
        wait_until_told(&smtp, &["DOWN channel push"], SOON).await;

        kill(&mut daemon).await;
        rooms.open().await;
        daemon.start_again().await;
        wait_until_told(&smtp, &["DOWN channel push", "WELL AGAIN channel push"], SOON).await;
        wait_for_runs(&daemon, "good", 5.0).await;
        wait_until_told(&smtp, &["DOWN channel push", "WELL AGAIN channel push"], SOON).await;
        assert_eq!(open(&daemon).await, []);
    });
}
