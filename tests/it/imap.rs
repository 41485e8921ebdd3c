//! The `imap` channel against a real Dovecot, filled by hand, by LMTP and through a real Postfix.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use journeyman::channel::Channel;
use journeyman::channel::imap::{self, Imap, ImapSettings};
use journeyman::channel::mail::{Login, MailServer, Security};
use journeyman::channel::smtp::{self, SmtpSettings};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::message::Arrival;
use journeyman::journey::outcome::Cause;
use journeyman::journey::token::{Mint, Token};
use journeyman::journey::value::Value;
use journeyman::secret::{Redactor, Secret};

use crate::support::certificate::Certificate;
use crate::support::dovecot::{Dovecot, PASSWORD, RawImap};
use crate::support::listening::{BOUND, Receiver, clock, mint, secret, token};
use crate::support::met::by_name;
use crate::support::postfix::Postfix;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::{Scratch, block_on, free_port, wait_for};

const INBOX: &str = "inbox@example.test";

fn settings(port: u16) -> ImapSettings {
    let login = Login { user: INBOX.to_owned(), password: secret(PASSWORD) };
    ImapSettings {
        server: MailServer {
            host: "127.0.0.1".to_owned(),
            port,
            security: Security::Plain,
            ca_file: None,
            login: Some(login),
        },
        folder: "INBOX".to_owned(),
        junk: None,
        poll: Duration::from_secs(1),
        keep: false,
    }
}

fn open(settings: ImapSettings) -> Arc<Imap> {
    journeyman::tls::init();
    Arc::new(imap::open(settings, clock()).expect("the settings are sound"))
}

fn now() -> Timestamp {
    clock().now().wall
}

/// A mail of ours as it lies on the wire.
fn ours(token: Token) -> String {
    format!(
        "From: probe@example.test\nTo: {INBOX}\nSubject: probe\nMessage-ID: <{token}@example.test>\nX-Journeyman-Token: {token}\n\nprobe {token}\n"
    )
}

/// A mail of nobody we know.
fn strangers(subject: &str) -> String {
    format!(
        "From: someone@example.test\nTo: {INBOX}\nSubject: {subject}\nMessage-ID: <{subject}@example.test>\n\nnothing to do with us\n"
    )
}

fn body(arrival: &Arrival) -> String {
    arrival.message.text().into_owned()
}

/// Waits until a folder has exactly these subjects, in whichever order its server made them visible.
async fn wait_for_subjects(client: &mut RawImap, folder: &str, expected: &[&str]) -> Vec<(String, String)> {
    let what = format!("{folder} to have {expected:?}");
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    wait_for(&what, BOUND, async || {
        let mails = client.mails(folder).await;
        let mut subjects: Vec<_> = mails.iter().map(|(subject, _)| subject.as_str()).collect();
        subjects.sort_unstable();
        (subjects == expected).then_some(mails)
    })
    .await
}

/// Postfix that passes on to Dovecot, and a channel that sends through it as `probe@example.test`.
async fn mail_system() -> Option<(Dovecot, Postfix, smtp::Smtp, Scratch)> {
    let scratch = Scratch::new("mail");
    let certificate = Certificate::new(&scratch, &["127.0.0.1"]);
    let dovecot = Dovecot::start().await?;
    let postfix = Postfix::start_before(&dovecot, &certificate).await?;
    let server = MailServer {
        host: "127.0.0.1".to_owned(),
        port: postfix.port(),
        security: Security::StartTls,
        ca_file: Some(certificate.certificate),
        login: None,
    };
    journeyman::tls::init();
    let settings = SmtpSettings { server, from: INBOX.to_owned(), to: vec![INBOX.to_owned()] };
    let sender = smtp::open(settings, Clock::system()).expect("the settings are sound");
    Some((dovecot, postfix, sender, scratch))
}

fn mail(token: Token, body: &str) -> Outgoing {
    Outgoing {
        token,
        body: body.as_bytes().to_vec(),
        content_type: Some("text/plain; charset=utf-8"),
        headers: vec![("X-Tier".to_owned(), "Größe 1".to_owned())],
        ..Outgoing::empty(Duration::from_secs(10))
    }
}

#[test]
fn a_mail_goes_through_postfix_into_dovecot_and_is_seen_told_and_deleted() {
    block_on(async {
        let Some((dovecot, _postfix, sender, _scratch)) = mail_system().await else { return };
        // Polls so seldom that only IDLE can be what tells.
        let channel = open(ImapSettings { poll: Duration::from_secs(600), ..settings(dovecot.imap) });
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let seen = by_name(&receiver.notes.seen());
        assert!(
            seen["banner"].contains("Dovecot") && seen["peer"] == format!("127.0.0.1:{}", dovecot.imap),
            "{seen:?}"
        );
        let mut took = Vec::new();
        for payload in
            ["one line", "Grüße\r\n".trim_end(), "two\nlines\n", "", ".\n..\n", "{\"id\": 1}", &"long ä ".repeat(300)]
        {
            let token = token();
            let reply = sender.send(&mail(token, payload)).await.unwrap();
            let arrival = receiver.next().await;
            took.push(arrival.at.mono.since(reply.started.mono).as_millis());
            let message = &arrival.message;
            assert_eq!(body(&arrival), payload, "as it was sent");
            assert_eq!(message.header("Message-ID"), Some(format!("<{token}@example.test>").as_str()));
            assert_eq!(message.header("X-Journeyman-Token"), Some(token.to_string().as_str()));
            assert_eq!(message.header("traceparent"), Some(token.traceparent().as_str()));
            assert_eq!(message.header("X-Tier"), Some("Größe 1"));
            assert_eq!(message.facts["folder"], Value::from("INBOX"));
            assert_eq!(message.trouble, None);
            let hops: Vec<_> = message.hops.iter().map(|hop| hop.name.as_str()).collect();
            assert_eq!(hops, ["mx.example.test", "imap.example.test"]);
            assert!(message.hops.iter().all(|hop| hop.took < BOUND), "{:?}", message.hops);
            let delivered: Timestamp = message.header("delivered-at").unwrap().parse().unwrap();
            assert!(delivered.duration_since(reply.started.wall).unsigned_abs() < BOUND);
            assert!(arrival.at.mono > reply.started.mono);
        }
        eprintln!("from MAIL FROM to the stamp, in ms: {took:?}");
        let mut client = dovecot.client(INBOX).await;
        wait_for_subjects(&mut client, "INBOX", &[]).await;
        receiver.stop().await;
        assert!(dovecot.log().contains("Logged out"), "it says goodbye: {}", dovecot.log());
    });
}

#[test]
fn a_mail_that_somebody_waits_for_is_asked_for() {
    block_on(async {
        // A server that tells nobody of mails, and a channel that never looks by itself.
        let silent = "imap_capability = IMAP4rev1 UIDPLUS SPECIAL-USE";
        let Some(dovecot) = Dovecot::start_saying(None, silent).await else { return };
        let seldom = |port| ImapSettings { poll: Duration::from_secs(600), ..settings(port) };
        let mut receiver = Receiver::on(&open(seldom(dovecot.imap)));
        receiver.ready().await;
        let (first, second) = (token(), token());
        let waiting = receiver.awaits.begin(clock().now().mono);
        dovecot.deliver(INBOX, &ours(first)).await;
        assert_eq!(body(&receiver.next().await), format!("probe {first}"));
        drop(waiting);
        dovecot.deliver(INBOX, &ours(second)).await;
        let _waiting = receiver.awaits.begin(clock().now().mono);
        assert_eq!(body(&receiver.next().await), format!("probe {second}"));
    });
}

#[test]
fn a_mail_is_asked_for_however_many_runs_begin_to_wait() {
    block_on(async {
        let silent = "imap_capability = IMAP4rev1 UIDPLUS SPECIAL-USE";
        let Some(dovecot) = Dovecot::start_saying(None, silent).await else { return };
        let channel = open(ImapSettings { poll: Duration::from_secs(600), ..settings(dovecot.imap) });
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let (token, awaits) = (token(), receiver.awaits.clone());
        dovecot.deliver(INBOX, &ours(token)).await;
        let runs = async {
            loop {
                let _waiting = awaits.begin(clock().now().mono);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            arrival = receiver.next() => assert_eq!(body(&arrival), format!("probe {token}")),
            () = runs => {}
        }
    });
}

#[test]
fn whoever_was_asked_while_a_mail_was_awaited_is_listened_to_after_that() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let channel = open(ImapSettings { poll: Duration::from_secs(600), ..settings(dovecot.imap) });
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        for is_awaited in [true, false, true, false] {
            let _waiting = is_awaited.then(|| receiver.awaits.begin(clock().now().mono));
            let token = token();
            dovecot.deliver(INBOX, &ours(token)).await;
            assert_eq!(body(&receiver.next().await), format!("probe {token}"));
        }
        receiver.stop().await;
    });
}

#[test]
fn a_mail_in_the_spam_folder_is_misrouted_and_says_so() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let mut client = dovecot.client(INBOX).await;
        client.append("Junk", "", &strangers("old-spam")).await;
        let mut receiver = Receiver::on(&open(settings(dovecot.imap)));
        receiver.ready().await;
        let token = token();
        client.append("Junk", "", &ours(token)).await;
        client.append("Junk", "", &strangers("new-spam")).await;
        let arrival = receiver.next().await;
        let trouble = arrival.message.trouble.clone().unwrap();
        assert_eq!(trouble.cause, Cause::Misrouted);
        assert_eq!(trouble.detail, "delivered to the spam folder `Junk`");
        assert_eq!(arrival.message.facts["folder"], Value::from("Junk"));
        assert_eq!(arrival.message.header("X-Journeyman-Token"), Some(token.to_string().as_str()));
        assert_eq!(receiver.next().await.message.header("Subject"), Some("new-spam"));
        wait_for_subjects(&mut client, "Junk", &["old-spam", "new-spam"]).await;
        // And the inbox is watched again.
        let second = self::token();
        dovecot.deliver(INBOX, &ours(second)).await;
        assert_eq!(body(&receiver.next().await), format!("probe {second}"));
    });
}

#[test]
fn a_spam_folder_can_be_named_and_its_name_may_be_foreign() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let mut client = dovecot.client(INBOX).await;
        client.command("CREATE \"Ind&AOk-sirable\"").await;
        let named = ImapSettings { junk: Some("Indésirable".to_owned()), ..settings(dovecot.imap) };
        let mut receiver = Receiver::on(&open(named));
        receiver.ready().await;
        client.append("\"Ind&AOk-sirable\"", "", &ours(token())).await;
        let trouble = receiver.next().await.message.trouble.unwrap();
        assert_eq!(trouble.detail, "delivered to the spam folder `Indésirable`");
        // One that is not there is no reason to be blind.
        let missing = ImapSettings { junk: Some("Gone".to_owned()), ..settings(dovecot.imap) };
        Receiver::on(&open(missing)).ready().await;
    });
}

#[test]
fn a_mail_that_bounces_is_rejected_in_the_words_of_the_server_that_gave_up() {
    block_on(async {
        let Some((dovecot, _postfix, sender, _scratch)) = mail_system().await else { return };
        let mut receiver = Receiver::on(&open(settings(dovecot.imap)));
        receiver.ready().await;
        let token = token();
        let mut outgoing = mail(token, "hello");
        outgoing.fields.insert("to".to_owned(), "gone@example.test".to_owned());
        sender.send(&outgoing).await.unwrap();
        let message = receiver.next().await.message;
        let trouble = message.trouble.clone().unwrap();
        assert_eq!(trouble.cause, Cause::Rejected);
        assert!(trouble.detail.starts_with("not delivered: 5.0.0"), "{}", trouble.detail);
        assert!(trouble.detail.contains("this Postfix passes nothing on"), "{}", trouble.detail);
        assert!(trouble.detail.ends_with("(to someone@elsewhere.invalid)"), "{}", trouble.detail);
        assert_eq!(message.token, Some(token));
        assert_eq!(message.header("original-token"), Some(token.to_string().as_str()));
        let mut client = dovecot.client(INBOX).await;
        wait_for_subjects(&mut client, "INBOX", &[]).await;
    });
}

#[test]
fn a_notice_of_delay_stands_for_nothing_and_the_mail_may_still_come() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let mut receiver = Receiver::on(&open(settings(dovecot.imap)));
        receiver.ready().await;
        let token = token();
        let notice = format!(
            "From: MAILER-DAEMON@mx.example.test\nSubject: Delayed Mail\nAuto-Submitted: auto-replied\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nnot yet\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.test\n\nFinal-Recipient: rfc822; {INBOX}\nAction: delayed\nStatus: 4.4.1\n\n--b\nContent-Type: message/rfc822\n\n{}\n--b--\n",
            ours(token)
        );
        dovecot.deliver(INBOX, &notice).await;
        dovecot.deliver(INBOX, &ours(token)).await;
        let arrival = receiver.next().await;
        assert_eq!((body(&arrival), arrival.message.trouble), (format!("probe {token}"), None));
        let mut client = dovecot.client(INBOX).await;
        wait_for_subjects(&mut client, "INBOX", &[]).await;
        assert!(receiver.arrivals.try_recv().is_err());
    });
}

#[test]
fn what_is_not_ours_is_never_touched() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let mut client = dovecot.client(INBOX).await;
        let foreign = Mint::new([9; 32], 0).issue(now());
        let quoted = token();
        let answer = format!(
            "From: someone@example.test\nSubject: Re-probe\nIn-Reply-To: <{quoted}@example.test>\n\n> probe {quoted}\nwhat is this?\n"
        );
        client.append("INBOX", "", &strangers("before")).await;
        // Another client's business, which a plain EXPUNGE would take along.
        client.append("INBOX", "\\Deleted \\Seen", &strangers("marked-by-another")).await;
        client.append("INBOX", "", &ours(foreign).replace("Subject: probe", "Subject: foreign-before")).await;
        let mut receiver = Receiver::on(&open(settings(dovecot.imap)));
        receiver.ready().await;
        dovecot.deliver(INBOX, &strangers("after")).await;
        dovecot.deliver(INBOX, &ours(foreign).replace("Subject: probe", "Subject: foreign-after")).await;
        dovecot.deliver(INBOX, &answer).await;
        let mut expected = BTreeMap::new();
        for _ in 0..3 {
            let token = token();
            dovecot.deliver(INBOX, &ours(token)).await;
            expected.insert(token, ());
        }
        let mut seen = Vec::new();
        for _ in 0..6 {
            let arrival = receiver.next().await;
            expected.retain(|token, ()| !body(&arrival).contains(&token.to_string()));
            seen.push(arrival.message.header("Subject").unwrap().to_owned());
        }
        // In which order a server's deliveries become visible is its own affair.
        seen.sort();
        assert_eq!(
            seen,
            ["Re-probe", "after", "foreign-after", "probe", "probe", "probe"],
            "each once, and none from before"
        );
        assert!(expected.is_empty());
        let all = ["before", "marked-by-another", "foreign-before", "after", "foreign-after", "Re-probe"];
        let left = wait_for_subjects(&mut client, "INBOX", &all).await;
        for (subject, flags) in &left {
            let expected = if subject == "marked-by-another" { "\\Deleted \\Seen" } else { "" };
            assert_eq!(flags, expected, "{subject}: none is seen, none is marked");
        }
        receiver.stop().await;
        wait_for_subjects(&mut client, "INBOX", &all).await;
    });
}

#[test]
fn what_an_earlier_life_left_behind_is_deleted_and_what_may_still_be_waited_for_is_not() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let mut client = dovecot.client(INBOX).await;
        let day = Duration::from_secs(86_400);
        let ago = |age: Duration| mint().issue(now() - age);
        let named = |token: Token, subject: &str| ours(token).replace("Subject: probe", &format!("Subject: {subject}"));
        let foreign = Mint::new([9; 32], 0).issue(now() - day * 9);
        for (mail, age) in [
            (named(ago(day * 2), "old"), day * 2),
            (named(foreign, "old-foreign"), day * 9),
            (strangers("jm-in-the-subject"), day * 9),
            (named(ago(day * 23 / 24), "yesterday"), day * 2),
            (named(token(), "young"), Duration::ZERO),
        ] {
            client.append_at("INBOX", now() - age, &mail).await;
        }
        let left = ["old-foreign", "jm-in-the-subject", "yesterday", "young"];
        let keeping = ImapSettings { keep: true, ..settings(dovecot.imap) };
        let mut receiver = Receiver::on(&open(keeping));
        receiver.ready().await;
        let token = token();
        dovecot.deliver(INBOX, &named(token, "new")).await;
        receiver.next().await;
        receiver.stop().await;
        let all = ["old", "old-foreign", "jm-in-the-subject", "yesterday", "young", "new"];
        let mails = wait_for_subjects(&mut client, "INBOX", &all).await;
        assert!(mails.iter().all(|(_, flags)| flags.is_empty()), "with `keep` nothing is touched: {mails:?}");

        let mut receiver = Receiver::on(&open(settings(dovecot.imap)));
        receiver.ready().await;
        wait_for_subjects(&mut client, "INBOX", &[&left[..], &["new"]].concat()).await;
        assert!(receiver.arrivals.try_recv().is_err(), "what was there before is nobody's arrival");
    });
}

#[test]
fn a_reader_that_is_not_let_in_says_why_and_keeps_the_password_to_itself() {
    block_on(async {
        let scratch = Scratch::new("imap-tls");
        let other = Certificate::new(&scratch, &["elsewhere.example.test"]);
        let old = Certificate::expired(&scratch, &["127.0.0.1"]);
        let Some(dovecot) = Dovecot::start_with(Some(&other)).await else { return };
        let Some(expired) = Dovecot::start_with(Some(&old)).await else { return };
        let Some(without) = Dovecot::start().await else { return };
        let with = |change: &dyn Fn(&mut ImapSettings)| {
            let mut settings = settings(dovecot.imap);
            change(&mut settings);
            settings
        };
        let tls = |port: u16, security, trusted: &Certificate| {
            with(&|settings| {
                settings.server.port = port;
                settings.server.security = security;
                settings.server.ca_file = Some(trusted.certificate.clone());
            })
        };
        let wrong = with(&|settings| {
            let password = Secret::new("wr0ng \"pass\\word".to_owned(), &Redactor::new());
            settings.server.login = Some(Login { user: INBOX.to_owned(), password });
        });
        let foreign = with(&|settings| {
            let password = Secret::new("wr0ng-pässword".to_owned(), &Redactor::new());
            settings.server.login = Some(Login { user: INBOX.to_owned(), password });
        });
        let nobody = with(&|settings| settings.server.login = None);
        let folder = with(&|settings| settings.folder = "Gone".to_owned());
        let nothing = with(&|settings| settings.server.port = free_port());
        let start_tls = Security::StartTls;
        for (settings, cause, words) in [
            (wrong, Cause::Auth, "user `inbox@example.test` in: [AUTHENTICATIONFAILED] Authentication failed."),
            (foreign, Cause::Auth, "[AUTHENTICATIONFAILED]"),
            (nobody, Cause::Auth, "no `username` and `password`"),
            (folder, Cause::Refused, "while opening folder `Gone`: Mailbox doesn't exist: Gone"),
            (nothing, Cause::Unreachable, "cannot connect to 127.0.0.1:"),
            (tls(without.imap, start_tls, &other), Cause::Tls, "does not offer STARTTLS"),
            (tls(dovecot.imap, start_tls, &other), Cause::Tls, "is for another name"),
            (tls(dovecot.imaps, Security::Tls, &other), Cause::Tls, "is for another name"),
            (tls(expired.imap, start_tls, &old), Cause::Tls, "has expired"),
            (tls(expired.imaps, Security::Tls, &old), Cause::Tls, "has expired"),
            (tls(expired.imaps, Security::Tls, &other), Cause::Tls, "certificate"),
        ] {
            let channel = open(settings);
            let fault = channel.prove(BOUND).await.unwrap_err();
            assert_eq!((fault.cause, fault.uncertain), (cause, false), "{words}: {fault:?}");
            let why = Receiver::on(&channel).down().await;
            for told in [&fault.detail, &why] {
                assert!(told.contains(words), "{words}: {told}");
                assert!(!told.contains("wr0ng") && !told.contains("assword\""), "{told}");
            }
        }
    });
}

#[test]
fn under_tls_it_is_let_in_and_a_proof_leaves_no_trace() {
    block_on(async {
        let scratch = Scratch::new("imap-tls-good");
        let certificate = Certificate::new(&scratch, &["127.0.0.1"]);
        let Some(dovecot) = Dovecot::start_with(Some(&certificate)).await else { return };
        let mut client = dovecot.client(INBOX).await;
        client.append("INBOX", "", &strangers("here")).await;
        for (port, security) in [(dovecot.imap, Security::StartTls), (dovecot.imaps, Security::Tls)] {
            let mut settings = settings(port);
            settings.server.security = security;
            settings.server.ca_file = Some(certificate.certificate.clone());
            let channel = open(settings);
            let told = channel.prove(BOUND).await.unwrap();
            assert_eq!(told, format!("127.0.0.1:{port} lets us in; folder `INBOX` has 1 mails"));
            let mut receiver = Receiver::on(&channel);
            receiver.ready().await;
            let token = token();
            dovecot.deliver(INBOX, &ours(token)).await;
            assert_eq!(body(&receiver.next().await), format!("probe {token}"));
            receiver.stop().await;
            let mails = wait_for_subjects(&mut client, "INBOX", &["here"]).await;
            assert_eq!(mails[0].1, "");
        }
    });
}

#[test]
fn a_server_that_says_nothing_costs_a_bounded_time() {
    block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for security in [Security::Plain, Security::StartTls, Security::Tls] {
            let mut settings = settings(port);
            settings.server.security = security;
            let fault = open(settings).prove(Duration::from_millis(200)).await.unwrap_err();
            assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");
            assert!(fault.detail.contains(&format!("127.0.0.1:{port} within 200ms")), "{}", fault.detail);
        }
    });
}

#[test]
fn what_came_while_it_was_cut_off_is_seen_once_afterwards() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let proxy = Proxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], dovecot.imap))).await;
        let mut receiver = Receiver::on(&open(settings(proxy.address().port())));
        receiver.ready().await;
        let first = token();
        dovecot.deliver(INBOX, &ours(first)).await;
        assert_eq!(body(&receiver.next().await), format!("probe {first}"));

        // Handed over a moment ago: deleted, being deleted, or not yet.
        proxy.refuse(true);
        proxy.cut();
        let why = receiver.down().await;
        assert!(why.contains("lost the connection to 127.0.0.1:"), "{why}");
        let second = token();
        dovecot.deliver(INBOX, &ours(second)).await;
        proxy.refuse(false);
        receiver.ready().await;
        assert_eq!(body(&receiver.next().await), format!("probe {second}"), "and not the first again");
        let mut client = dovecot.client(INBOX).await;
        wait_for_subjects(&mut client, "INBOX", &[]).await;
        assert!(receiver.arrivals.try_recv().is_err());
    });
}

#[test]
fn what_was_fetched_and_not_handed_over_when_the_connection_ended_is_not_lost() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let proxy = Proxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], dovecot.imap))).await;
        let mut receiver = Receiver::with_room(&open(settings(proxy.address().port())), 1);
        receiver.ready().await;
        let tokens: Vec<_> = (0..3).map(|_| token()).collect();
        let seen = proxy.seen(Direction::ToClient);
        for token in &tokens {
            dovecot.deliver(INBOX, &ours(*token)).await;
        }
        wait_for("all three to be fetched", BOUND, async || {
            (proxy.seen(Direction::ToClient) > seen + 3 * ours(tokens[0]).len() as u64).then_some(())
        })
        .await;
        proxy.cut();
        receiver.down().await;
        for token in tokens {
            assert_eq!(body(&receiver.next().await), format!("probe {token}"), "in order, each once");
        }
        let mut client = dovecot.client(INBOX).await;
        wait_for_subjects(&mut client, "INBOX", &[]).await;
        assert!(receiver.arrivals.try_recv().is_err());
    });
}

#[test]
fn a_killed_server_is_told_and_the_reader_comes_back_by_itself() {
    block_on(async {
        let Some(mut dovecot) = Dovecot::start().await else { return };
        let mut receiver = Receiver::on(&open(settings(dovecot.imap)));
        receiver.ready().await;
        dovecot.kill();
        let why = receiver.down().await;
        assert!(why.contains(&format!("127.0.0.1:{}", dovecot.imap)), "{why}");
        dovecot.run().await;
        let token = token();
        dovecot.deliver(INBOX, &ours(token)).await;
        receiver.ready().await;
        assert_eq!(body(&receiver.next().await), format!("probe {token}"));
    });
}

#[test]
fn a_connection_that_hangs_is_noticed_at_the_next_poll() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let proxy = Proxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], dovecot.imap))).await;
        let mut receiver = Receiver::on(&open(settings(proxy.address().port())));
        receiver.ready().await;
        proxy.set(Direction::ToClient, Flow::Hold);
        let why = receiver.down().await;
        assert!(why.contains("no answer from 127.0.0.1:") && why.contains("within 10s while"), "{why}");
        proxy.set(Direction::ToClient, Flow::Pass);
        receiver.ready().await;
    });
}

#[test]
fn an_arrival_is_stamped_when_it_is_here_even_if_nobody_takes_it() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let channel = open(settings(dovecot.imap));
        let mut receiver = Receiver::with_room(&channel, 1);
        receiver.ready().await;
        let clock = Clock::system();
        let tokens: Vec<_> = (0..5).map(|_| token()).collect();
        for token in &tokens {
            dovecot.deliver(INBOX, &ours(*token)).await;
        }
        let drained_from = now() + Duration::from_secs(3);
        wait_for("time to pass", BOUND, async || (clock.now().wall > drained_from).then_some(())).await;
        for token in tokens {
            let arrival = receiver.next().await;
            assert_eq!(body(&arrival), format!("probe {token}"), "in order");
            assert!(arrival.at.wall < drained_from, "it was stamped when it was taken, not when it came");
        }
    });
}

#[test]
fn more_mails_than_there_is_room_for_all_come_in_order() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let mut client = dovecot.client(INBOX).await;
        let mut receiver = Receiver::with_room(&open(settings(dovecot.imap)), 1);
        receiver.ready().await;
        let tokens: Vec<_> = (0..80).map(|_| token()).collect();
        for token in &tokens {
            client.append("INBOX", "", &ours(*token)).await;
        }
        // A stranger's, and large: of it only the beginning is read.
        client.append("INBOX", "", &format!("{}{}", strangers("large"), "0123456789abcdef\n".repeat(100_000))).await;
        for token in tokens {
            assert_eq!(body(&receiver.next().await), format!("probe {token}"));
        }
        let large = receiver.next().await.message;
        assert!(large.header("cut-off").unwrap().starts_with("1048576 of 18"), "{:?}", large.header("cut-off"));
        assert!(large.body.len() <= 1 << 20);
        wait_for_subjects(&mut client, "INBOX", &["large"]).await;
    });
}

#[test]
fn a_gap_in_the_numbers_hides_nothing() {
    block_on(async {
        let Some(dovecot) = Dovecot::start().await else { return };
        let mut client = dovecot.client(INBOX).await;
        let proxy = Proxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], dovecot.imap))).await;
        let mut receiver = Receiver::on(&open(settings(proxy.address().port())));
        receiver.ready().await;
        proxy.refuse(true);
        proxy.cut();
        receiver.down().await;
        for _ in 0..50 {
            client.append("INBOX", "\\Deleted", &strangers("short-lived")).await;
        }
        client.command("SELECT INBOX").await;
        client.command("EXPUNGE").await;
        let token = token();
        client.append("INBOX", "", &ours(token)).await;
        proxy.refuse(false);
        receiver.ready().await;
        assert_eq!(body(&receiver.next().await), format!("probe {token}"));
    });
}

#[test]
fn what_it_cannot_do_it_says() {
    block_on(async {
        let channel = open(settings(1));
        let fault = channel.send(&mail(token(), "x")).await.unwrap_err();
        assert_eq!((fault.cause, fault.uncertain), (Cause::Refused, false));
        assert!(fault.detail.contains("`smtp` channel"), "{}", fault.detail);
        assert!(channel.check(&mail(token(), "x")).await.is_err());
    });
}

#[test]
fn what_the_pages_and_the_examples_show_loads() {
    use crate::support::document::toml_blocks;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = |name: &str| std::fs::read_to_string(root.join("probes/examples").join(name)).expect("it is there");
    // The channels of an example stand in its comment.
    let channels = |text: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix("#   ").or((line == "#").then_some("")));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let (sends, receives) = (toml_blocks("docs/channels/smtp.md"), toml_blocks("docs/channels/imap.md"));
    let page =
        format!("{}{}[[journey]]\nname = \"page\"\nevery = \"1m\"\n{}{}", sends[0], receives[0], sends[1], receives[1]);
    let (relay, round) = (example("smtp.toml"), example("imap.toml"));
    for (text, steps) in
        [(page, 2), (format!("{}{relay}", channels(&relay)), 1), (format!("{}{round}", channels(&round)), 2)]
    {
        let loaded = journeyman::config::load_text("page.toml", &text, &[], &root.join("config"));
        let (plan, _) =
            loaded.unwrap_or_else(|problems| panic!("{text}\n{}", journeyman::config::render(&problems, false)));
        assert_eq!(plan.journeys.len(), 1);
        assert_eq!((plan.journeys[0].steps.len(), plan.journeys[0].unavailable.as_ref()), (steps, None));
    }
}
