//! The email notifier against a scripted SMTP server, and against Postfix.

use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::incident::NotifyReason;
use journeyman::notifier::email::{Email, EmailSettings, Security, open};
use journeyman::notifier::{Delivery, Notifier as _, NotifyError, Receipt};
use journeyman::secret::{Redactor, Secret};

use crate::support::fake_smtp::{Act, At, FakeSmtp, Offer, Rule, Taken, certificate};
use crate::support::mail::Mail;
use crate::support::notices::{delivery, noon};
use crate::support::postfix::Postfix;
use crate::support::{Scratch, block_on, free_port};

const OPS: &str = "ops@example.test";
const DUTY: &str = "duty@example.test";

fn settings(port: u16, to: &[&str]) -> EmailSettings {
    EmailSettings {
        host: "127.0.0.1".to_owned(),
        port,
        security: Security::Plain,
        credentials: None,
        from: "Journeyman <journeyman@example.net>".to_owned(),
        to: to.iter().map(|to| (*to).to_owned()).collect(),
    }
}

fn email(smtp: &FakeSmtp, to: &[&str]) -> Email {
    open(settings(smtp.port(), to), Redactor::new(), Clock::derived(noon())).expect("sound settings")
}

fn first() -> Delivery {
    delivery(NotifyReason::First, 1)
}

fn backoff(answer: Result<Receipt, NotifyError>) -> String {
    match answer {
        Err(NotifyError::Backoff(text)) => text,
        other => panic!("expected to try again later: {other:?}"),
    }
}

fn never(answer: Result<Receipt, NotifyError>) -> String {
    match answer {
        Err(NotifyError::Never(text)) => text,
        other => panic!("expected a permanent refusal: {other:?}"),
    }
}

fn ambiguous(answer: Result<Receipt, NotifyError>) -> String {
    match answer {
        Err(NotifyError::Ambiguous(text)) => text,
        other => panic!("expected doubt: {other:?}"),
    }
}

/// Message-ID by recipient.
fn id_for(mails: &[Taken], to: &str) -> String {
    let taken = mails.iter().find(|taken| taken.to == [to]).unwrap_or_else(|| panic!("no mail to {to}"));
    taken.mail.header("Message-ID").expect("a Message-ID")
}

#[test]
fn each_recipient_gets_a_mail_with_both_parts_and_the_receipt_is_the_servers_word() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let receipt = email(&smtp, &[OPS, DUTY]).notify(&first()).await.unwrap();
        let mails = smtp.mails();
        assert_eq!(mails.len(), 2);
        assert!(mails.iter().all(|taken| taken.to.len() == 1 && taken.from == "journeyman@example.net"));
        assert_ne!(id_for(&mails, OPS), id_for(&mails, DUTY));
        assert_eq!(receipt.id, id_for(&mails, OPS));
        assert_eq!(receipt.place, "127.0.0.1");
        for (at, taken) in mails.iter().enumerate() {
            assert!(
                receipt.said.contains(&format!("{}: 250 2.0.0 queued as FAKE{}", taken.to[0], at + 1)),
                "{}",
                receipt.said
            );
        }

        let Taken { mail, raw, .. } = mails.into_iter().find(|taken| taken.to == [OPS]).unwrap();
        assert!(raw.is_ascii() && raw.len() < 100_000 && raw.lines().all(|line| line.len() <= 998));
        let header = |name: &str| mail.header(name).unwrap_or_default();
        assert_eq!(header("Subject"), "[journeyman] sms-round-trip: incident 7f3a2c01d2e4");
        assert_eq!(header("From"), "Journeyman <journeyman@example.net>");
        assert_eq!(header("To"), OPS);
        assert_eq!(header("Date"), "Sat, 14 Mar 2026 12:00:00 +0000");
        assert_eq!(header("Auto-Submitted"), "auto-generated");
        assert_eq!(header("X-Auto-Response-Suppress"), "All");
        assert_eq!(header("List-Id"), "<sms-round-trip.journeyman.example.net>");
        assert_eq!(header("X-Journeyman-Incident"), "7f3a2c01d2e4");
        assert_eq!(header("X-Journeyman-State"), "DOWN");
        assert_eq!(header("X-Journeyman-Reason"), "first");
        assert_eq!(header("X-Journeyman-Delivery"), "7f3a2c01d2e4.1.ops-mail");
        assert_eq!(header("Importance"), "high");
        assert_eq!(mail.header("References"), None);

        let kinds: Vec<_> = mail.parts().iter().map(|part| part.header("Content-Type").unwrap()).collect();
        assert_eq!(kinds, ["text/plain; charset=utf-8", "text/html; charset=utf-8"]);
        let text = mail.part("text/plain").text();
        assert!(text.starts_with(&first().notification.text()), "{text}");
        let html = mail.part("text/html").text();
        for (name, value) in first().notification.facts() {
            assert!(html.contains(name) && html.contains(&value.replace('&', "&amp;")), "{name} {value}: {html}");
        }
        assert!(html.contains("DOWN sms-round-trip · failed (not_received) at step `arrive`"));
        assert!(html.contains("<a href=\"https://wiki.example.net/sms?a=1&amp;b=2\">"));
        assert!(!html.contains("<img") && !html.contains("src="));
        // One scale for both runs: the failed receive fills it, the last good one took 4 % of it.
        assert!(
            html.contains("width=\"200\" bgcolor=\"#b3261e\"") && html.contains("width=\"8\" bgcolor=\"#767676\""),
            "{html}"
        );
    });
}

#[test]
fn an_incident_is_one_thread() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let email = email(&smtp, &[OPS, DUTY]);
        email.notify(&first()).await.unwrap();
        email.notify(&delivery(NotifyReason::Repeat, 2)).await.unwrap();
        email.notify(&delivery(NotifyReason::Resolved, 3)).await.unwrap();
        for to in [OPS, DUTY] {
            let thread: Vec<Mail> =
                smtp.mails().into_iter().filter(|taken| taken.to == [to]).map(|taken| taken.mail).collect();
            let [first, repeat, resolved] = thread.as_slice() else { panic!("three mails, not {}", thread.len()) };
            let root = first.header("Message-ID");
            for later in [repeat, resolved] {
                assert_eq!(later.header("Subject"), first.header("Subject"));
                assert_eq!(later.header("In-Reply-To"), root);
                assert_eq!(later.header("References"), root);
                assert_ne!(later.header("Message-ID"), root);
            }
            assert_eq!(resolved.header("X-Journeyman-State").as_deref(), Some("WELL AGAIN"));
            assert_eq!(resolved.header("Importance"), None);
            assert!(resolved.part("text/plain").text().starts_with("WELL AGAIN sms-round-trip · after"));
        }
    });
}

#[test]
fn greylisting_is_waited_out() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        smtp.script([Rule::once(At::Dot, Act::Say("451 4.7.1 Greylisted, please come back"))]);
        let email = email(&smtp, &[OPS]);
        let text = backoff(email.notify(&first()).await);
        assert!(text.contains("451 4.7.1 Greylisted, please come back") && text.contains("greylisting"), "{text}");
        assert_eq!(smtp.mails().len(), 0);
        email.notify(&Delivery { attempt: 2, ..first() }).await.unwrap();
        assert_eq!(smtp.mails().len(), 1);
    });
}

#[test]
fn who_took_it_is_not_sent_to_again_and_the_others_are() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        smtp.script([Rule::once(At::Rcpt, Act::Say("450 4.2.1 busy")).to(DUTY)]);
        let email = email(&smtp, &[OPS, DUTY]);
        let text = backoff(email.notify(&first()).await);
        assert!(text.contains("450 4.2.1 busy") && text.contains("ops@example.test: 250"), "{text}");
        let receipt = email.notify(&Delivery { attempt: 2, ..first() }).await.unwrap();
        assert_eq!(smtp.mails().iter().map(|taken| taken.to[0].as_str()).collect::<Vec<_>>(), [OPS, DUTY]);
        assert!(receipt.said.contains("FAKE1") && receipt.said.contains("FAKE2"), "{}", receipt.said);
        // The store failed and asks again: nobody is told twice.
        email.notify(&Delivery { attempt: 3, ..first() }).await.unwrap();
        assert_eq!(smtp.mails().len(), 2);
        // Another delivery is another.
        email.notify(&delivery(NotifyReason::Repeat, 2)).await.unwrap();
        assert_eq!(smtp.mails().len(), 4);
    });
}

#[test]
fn a_recipient_refused_for_good_does_not_keep_the_others_from_being_told() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        smtp.script([Rule::always(At::Rcpt, Act::Say("550 5.1.1 No such user")).to(DUTY)]);
        let receipt = email(&smtp, &[OPS, DUTY]).notify(&first()).await.unwrap();
        assert_eq!(smtp.mails().len(), 1);
        assert!(
            receipt.said.contains("duty@example.test") && receipt.said.contains("550 5.1.1 No such user"),
            "{}",
            receipt.said
        );
        let text = never(email(&smtp, &[DUTY]).notify(&first()).await);
        assert!(text.contains("550 5.1.1 No such user; check the address in `to`"), "{text}");
    });
}

#[test]
fn what_the_server_says_decides_at_every_point() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let email = email(&smtp, &[OPS]);
        let later = [
            (At::Connect, "421 4.3.2 closing down"),
            (At::Ehlo, "421 4.3.2 closing down"),
            (At::Mail, "452 4.3.1 disk full"),
            (At::Rcpt, "450 4.2.1 busy"),
            (At::Data, "421 4.3.2 closing down"),
            (At::Dot, "450-4.2.1 busy\r\n450 4.2.1 very busy"),
        ];
        for (at, words) in later {
            smtp.script([Rule::once(at, Act::Say(words))]);
            let text = backoff(email.notify(&first()).await);
            assert!(text.contains(&words[..3]), "{at:?}: {text}");
        }
        let refused = [
            (At::Connect, "554 5.7.1 go away"),
            (At::Mail, "550 5.7.1 not your address"),
            (At::Rcpt, "553 5.1.3 no address"),
            (At::Data, "554 5.5.1 no valid recipients"),
            (At::Dot, "554 5.7.1 spam"),
        ];
        for (at, words) in refused {
            smtp.script([Rule::once(at, Act::Say(words))]);
            let text = never(email.notify(&first()).await);
            assert!(text.contains(&words[4..]), "{at:?}: {text}");
        }
        assert_eq!(smtp.mails().len(), 0);
    });
}

#[test]
fn a_connection_lost_before_the_content_is_harmless_and_after_it_is_doubt() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let email = email(&smtp, &[OPS]);
        for at in [At::Connect, At::Ehlo, At::Mail, At::Rcpt, At::Data] {
            smtp.script([Rule::once(at, Act::Close)]);
            backoff(email.notify(&first()).await);
        }
        smtp.script([Rule::once(At::Dot, Act::TakeAndClose)]);
        let text = ambiguous(email.notify(&first()).await);
        assert!(text.contains("the connection was lost"), "{text}");
        // As after a crash: nothing is remembered but the delivery.
        let email = self::email(&smtp, &[OPS]);
        email.notify(&Delivery { attempt: 2, is_ambiguous: true, ..first() }).await.unwrap();
        let ids: Vec<_> = smtp.mails().iter().map(|taken| taken.mail.header("Message-ID").unwrap()).collect();
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[0], ids[1], "a mailbox that has it can tell");
    });
}

#[test]
fn nobody_listening_is_tried_again_later() {
    block_on(async {
        let email = open(settings(free_port(), &[OPS, DUTY]), Redactor::new(), Clock::derived(noon())).unwrap();
        let text = backoff(email.notify(&first()).await);
        assert!(text.starts_with("connecting to the mail server 127.0.0.1:"), "{text}");
        assert_eq!(text.matches("refused").count(), 1, "said once, not once a recipient: {text}");
    });
}

/// The tests of time: as soon as the server stalls, the clock is tokio's and jumps from timer to timer.
async fn stalled(at: At, act: Act) -> (Result<Receipt, NotifyError>, Duration, usize) {
    journeyman::tls::init();
    let smtp = FakeSmtp::start().await;
    smtp.script([Rule::once(at, act)]);
    let clock = Clock::system();
    let email = open(settings(smtp.port(), &[OPS]), Redactor::new(), clock).expect("sound settings");
    let delivery = first();
    let pausing = async {
        smtp.wait_for_stall().await;
        tokio::time::pause();
    };
    let (answer, ()) = tokio::join!(email.notify(&delivery), pausing);
    (answer, clock.now().mono.0, smtp.mails().len())
}

#[tokio::test]
async fn a_server_that_never_greets_is_given_up_after_thirty_seconds() {
    let (answer, took, _) = stalled(At::Connect, Act::Hang).await;
    assert!(backoff(answer).contains("no answer within 30s"));
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_server_that_sends_a_byte_a_second_is_given_up_too() {
    let (answer, took, _) = stalled(At::Ehlo, Act::Drip).await;
    assert!(backoff(answer).contains("no answer within 30s"));
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_server_that_hangs_before_the_content_is_harmless() {
    let (answer, ..) = stalled(At::Data, Act::Hang).await;
    assert!(backoff(answer).contains("announcing the message"));
}

#[tokio::test]
async fn a_server_that_hangs_after_the_dot_is_doubt() {
    let (answer, took, mails) = stalled(At::Dot, Act::TakeAndHang).await;
    assert!(ambiguous(answer).contains("no answer within 30s"));
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
    assert_eq!(mails, 1);
}

#[test]
fn nothing_that_is_data_can_add_a_header_or_markup() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let mut delivery = first();
        let evil = "evil\r\nBcc: spy@example.test\r\n\r\n<script>alert('&')</script>";
        delivery.notification.subject = evil.to_owned();
        delivery.notification.incident.id = format!("1\n{evil}");
        delivery.notification.runbook = Some("javascript:alert(1)".to_owned());
        delivery.notification.link = Some("https://example.net/\"onclick=\"alert(1)".to_owned());
        delivery.id = format!("1.1.{evil}");
        delivery.notification.report.as_mut().unwrap().steps[1].detail =
            Some("</table><b>bold</b>\r\n.\r\nQUIT".to_owned());
        email(&smtp, &[OPS]).notify(&delivery).await.unwrap();
        let taken = smtp.mails().remove(0);
        assert_eq!(taken.to, [OPS]);
        assert!(!taken.mail.raw_head().lines().any(|line| line.to_lowercase().starts_with("bcc")), "{}", taken.raw);
        assert!(taken.mail.header("Subject").unwrap().starts_with("[journeyman] evil Bcc: spy@example.test <script>"));
        let id = taken.mail.header("Message-ID").unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_graphic()) && id.matches(['<', '>', '@']).count() == 3, "{id}");
        let html = taken.mail.part("text/html").text();
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script"), "{html}");
        assert!(!html.contains("<b>") && !html.contains("href=\"javascript") && !html.contains("\"onclick"), "{html}");
        assert!(taken.mail.part("text/plain").text().contains("\n.\nQUIT"), "dots are doubled and undone");
    });
}

#[test]
fn no_secret_leaves_with_a_mail_or_comes_back_with_an_error() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let redactor = Redactor::new();
        redactor.add("hunter2<&>hunter2");
        let mut delivery = first();
        delivery.notification.subject = "key hunter2<&>hunter2".to_owned();
        delivery.notification.report.as_mut().unwrap().steps[1].detail = Some("sent hunter2<&>hunter2".to_owned());
        delivery.instead_of = Some(("slack".to_owned(), "token hunter2<&>hunter2".to_owned()));
        let email = open(settings(smtp.port(), &[OPS]), redactor, Clock::derived(noon())).unwrap();
        smtp.script([Rule::once(At::Rcpt, Act::Say("550 5.1.1 hunter2<&>hunter2 is not welcome"))]);
        assert!(never(email.notify(&delivery).await).contains("550 5.1.1 ••• is not welcome"));
        email.notify(&delivery).await.unwrap();
        let Taken { mail, raw, .. } = smtp.mails().remove(0);
        let parts: String = mail.parts().iter().map(Mail::text).collect();
        for place in [&raw, &parts, &mail.header("Subject").unwrap()] {
            assert!(!place.contains("hunter2"), "{place}");
        }
        assert!(parts.contains("Told here because notifier `slack` did not take it: token •••"), "{parts}");
    });
}

#[test]
fn a_notice_that_comes_late_says_so_and_a_huge_one_stays_within_bounds() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let later = Clock::derived(journeyman::time::later(noon(), Duration::from_secs(4_000)));
        let email = open(settings(smtp.port(), &[OPS]), Redactor::new(), later).unwrap();
        let mut delivery = Delivery { attempt: 7, ..first() };
        let report = delivery.notification.report.as_mut().unwrap();
        report.steps[1].detail = Some("x<".repeat(200_000));
        report.steps = std::iter::repeat_with(|| report.steps[1].clone()).take(3).collect();
        email.notify(&delivery).await.unwrap();
        let Taken { mail, raw, .. } = smtp.mails().remove(0);
        assert_eq!(mail.header("Date").unwrap(), "Sat, 14 Mar 2026 12:00:00 +0000");
        assert!(
            mail.part("text/plain").text().contains("Told late: decided at 2026-03-14 12:00:00 UTC, handed over 1h6m")
        );
        assert!(mail.part("text/html").text().contains("at attempt 7"));
        assert!(mail.part("text/html").text().len() < 100_000);
        assert!(raw.len() < 300_000, "{}", raw.len());

        let report = delivery.notification.report.as_mut().unwrap();
        report.steps = std::iter::repeat_with(|| report.steps[1].clone()).take(500).collect();
        delivery.id.push('x');
        email.notify(&delivery).await.unwrap();
        let html = smtp.mails().remove(1).mail.part("text/html").text();
        assert!(html.len() < 100_000 && html.contains("more steps"), "{}", html.len());
    });
}

fn credentials(redactor: &Redactor) -> Option<(String, Secret)> {
    Some(("journeyman".to_owned(), Secret::new("correct horse".to_owned(), redactor)))
}

#[test]
fn credentials_are_presented_and_a_wrong_password_is_said_without_it() {
    block_on(async {
        let smtp = FakeSmtp::start_with(Offer { auth: true, ..Offer::default() }).await;
        let redactor = Redactor::new();
        let settings = EmailSettings { credentials: credentials(&redactor), ..settings(smtp.port(), &[OPS]) };
        let email = open(settings, redactor, Clock::derived(noon())).unwrap();
        smtp.script([
            Rule::once(At::Auth, Act::Say("535 5.7.8 correct horse is wrong")),
            Rule::once(At::Auth, Act::Say("454 4.7.0 Temporary authentication failure")),
        ]);
        let text = never(email.notify(&first()).await);
        assert!(text.contains("535 5.7.8 ••• is wrong; check the user name and the password"), "{text}");
        backoff(email.notify(&first()).await);
        email.notify(&first()).await.unwrap();
        let expected = Some(("journeyman".to_owned(), "correct horse".to_owned()));
        assert_eq!(smtp.mails()[0].credentials, expected);
    });
}

#[test]
fn without_a_way_to_sign_in_nothing_is_sent() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let redactor = Redactor::new();
        let settings = EmailSettings { credentials: credentials(&redactor), ..settings(smtp.port(), &[OPS]) };
        let text = never(open(settings, redactor, Clock::derived(noon())).unwrap().notify(&first()).await);
        assert!(text.contains("no way to sign in"), "{text}");
        assert!(!smtp.commands().iter().any(|command| command.starts_with("MAIL")), "{:?}", smtp.commands());
    });
}

fn secured(security: Security, port: u16) -> Email {
    let redactor = Redactor::new();
    let settings = EmailSettings { security, credentials: credentials(&redactor), ..settings(port, &[OPS]) };
    open(settings, redactor, Clock::derived(noon())).expect("sound settings")
}

#[test]
fn a_server_without_starttls_gets_nothing() {
    block_on(async {
        let smtp = FakeSmtp::start_with(Offer { auth: true, ..Offer::default() }).await;
        let text = never(secured(Security::StartTls, smtp.port()).notify(&first()).await);
        assert!(text.contains("does not offer STARTTLS, so nothing was sent"), "{text}");
        let commands = smtp.commands();
        assert!(commands.iter().all(|command| command.starts_with("EHLO") || command == "QUIT"), "{commands:?}");
    });
}

#[test]
fn a_certificate_of_nobody_we_trust_gets_nothing() {
    block_on(async {
        let (config, _) = certificate();
        let start_tls = Offer { start_tls: Some(config.clone()), auth: true, ..Offer::default() };
        let tls = Offer { tls: Some(config), auth: true, ..Offer::default() };
        for (security, offer) in [(Security::StartTls, start_tls), (Security::Tls, tls)] {
            let smtp = FakeSmtp::start_with(offer).await;
            let text = never(secured(security, smtp.port()).notify(&first()).await);
            assert!(text.contains("TLS failed") && text.contains("nothing was sent"), "{text}");
            assert!(text.to_lowercase().contains("issuer"), "it says what is wrong with it: {text}");
            let commands = smtp.commands();
            let secrets = commands.iter().filter(|command| command.starts_with("AUTH") || command.starts_with("MAIL"));
            assert_eq!(secrets.count(), 0, "{commands:?}");
        }
    });
}

#[test]
fn tls_where_there_is_none_is_said_and_gets_nothing() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let text = never(secured(Security::Tls, smtp.port()).notify(&first()).await);
        assert!(text.contains("TLS failed"), "{text}");
        assert_eq!(smtp.mails().len(), 0);
    });
}

/// Replies appended in the clear to the `220` of STARTTLS must not pass for the server's under TLS.
#[test]
fn replies_slipped_in_before_tls_are_not_believed() {
    with_trusted_certificate("replies_slipped_in_before_tls_are_not_believed", || {
        block_on(async {
            let smtp = FakeSmtp::start_with(trusted_offer(Security::StartTls)).await;
            let slipped =
                "220 go\r\n250 hello\r\n250 sender\r\n250 recipient\r\n354 go on\r\n250 2.0.0 queued as NEVER";
            smtp.script([Rule::always(At::StartTls, Act::Say(slipped))]);
            let settings = EmailSettings { security: Security::StartTls, ..settings(smtp.port(), &[OPS]) };
            let email = open(settings, Redactor::new(), Clock::derived(noon())).unwrap();
            let text = never(email.notify(&first()).await);
            assert!(text.contains("TLS failed"), "{text}");
        });
    });
}

#[test]
fn a_trusted_certificate_carries_mail_and_password() {
    with_trusted_certificate("a_trusted_certificate_carries_mail_and_password", || {
        block_on(async {
            for security in [Security::StartTls, Security::Tls] {
                let smtp = FakeSmtp::start_with(trusted_offer(security)).await;
                let receipt = secured(security, smtp.port()).notify(&first()).await.unwrap();
                assert!(receipt.said.contains("queued as FAKE1"), "{}", receipt.said);
                let taken = smtp.mails().remove(0);
                assert!(taken.is_encrypted);
                assert_eq!(taken.credentials.unwrap().1, "correct horse");
            }
        });
    });
}

const TRUSTED: &str = "JOURNEYMAN_TESTS_TRUSTED";

/// Which authorities a process trusts is read from its environment; so the test runs itself again with one of its own.
fn with_trusted_certificate(test: &str, body: impl FnOnce()) {
    if std::env::var_os(TRUSTED).is_some() {
        return body();
    }
    journeyman::tls::init();
    let scratch = Scratch::new("trusted");
    let names = vec!["127.0.0.1".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let trusted = scratch.write("certificate.pem", &cert.pem());
    scratch.write("key.pem", &signing_key.serialize_pem());
    let output = std::process::Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", &format!("email::{test}"), "--nocapture"])
        .env("SSL_CERT_FILE", &trusted)
        .env(TRUSTED, scratch.path())
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the test did not find itself: {said}");
}

fn trusted_offer(security: Security) -> Offer {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let place = std::path::PathBuf::from(std::env::var_os(TRUSTED).expect("set by the parent"));
    let certificate = CertificateDer::from_pem_file(place.join("certificate.pem")).expect("written by the parent");
    let key = PrivateKeyDer::from_pem_file(place.join("key.pem")).expect("written by the parent");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key fits the certificate");
    let config = Some(std::sync::Arc::new(config));
    match security {
        Security::StartTls => Offer { start_tls: config, auth: true, ..Offer::default() },
        Security::Tls => Offer { tls: config, auth: true, ..Offer::default() },
        Security::Plain => Offer::default(),
    }
}

#[test]
fn postfix_takes_it_and_delivers_it_whole() {
    block_on(async {
        let Some(postfix) = Postfix::start().await else { return };
        let to = [OPS, "Duty <duty@example.test>", "nobody@example.test"];
        let email = open(settings(postfix.port(), &to), Redactor::new(), Clock::derived(noon())).unwrap();
        let receipt = email.notify(&first()).await.unwrap();
        assert!(receipt.said.contains("ops@example.test: 250 2.0.0 Ok: queued as"), "{}", receipt.said);
        assert!(receipt.said.contains("duty@example.test: 250 2.0.0 Ok: queued as"), "{}", receipt.said);
        assert!(
            receipt.said.contains("recipient nobody@example.test") && receipt.said.contains("550 5.1.1"),
            "{}",
            receipt.said
        );
        email.notify(&delivery(NotifyReason::Resolved, 2)).await.unwrap();

        let is_for_ops = |mail: &Mail, reason: &str| {
            mail.header("Delivered-To").as_deref() == Some(OPS)
                && mail.header("X-Journeyman-Reason").as_deref() == Some(reason)
        };
        let first_mail = postfix.wait_for_mail("the first notice", |mail| is_for_ops(mail, "first")).await;
        let resolved = postfix.wait_for_mail("the resolution", |mail| is_for_ops(mail, "resolved")).await;
        assert_eq!(first_mail.header("Message-ID").unwrap(), receipt.id, "the relay kept our id");
        assert_eq!(first_mail.headers("Received").len(), 1);
        assert!(first_mail.header("Received").unwrap().contains("by mx.example.test (Postfix)"));
        assert_eq!(first_mail.header("Return-Path").as_deref(), Some("<journeyman@example.net>"));
        assert_eq!(first_mail.header("Date").as_deref(), Some("Sat, 14 Mar 2026 12:00:00 +0000"));
        assert!(first_mail.part("text/plain").text().starts_with(&first().notification.text()));
        assert!(first_mail.part("text/html").text().trim_end().ends_with("</html>"));
        assert_eq!(resolved.header("In-Reply-To").as_deref(), Some(receipt.id.as_str()));
        assert_eq!(resolved.header("References").as_deref(), Some(receipt.id.as_str()));
        assert_eq!(resolved.header("Subject"), first_mail.header("Subject"));
    });
}
