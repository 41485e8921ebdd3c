//! The email notifier against a scripted SMTP server, and against Postfix.

mod t8;

use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::incident::NotifyReason;
use journeyman::notifier::email::{Email, EmailSettings, Security, open};
use journeyman::notifier::template::{Medium, Template, Templates};
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
        assert_eq!(header("X-Journeyman-Severity"), "critical");
        assert_eq!(header("X-Journeyman-Run"), first().notification.report.unwrap().token.to_string());
        assert_eq!(header("Importance"), "high");
        assert_eq!(mail.header("References"), None);

        let kinds: Vec<_> = mail.parts().iter().map(|part| part.header("Content-Type").unwrap()).collect();
        assert!(kinds[0] == "text/plain; charset=utf-8" && kinds[1].starts_with("multipart/related"), "{kinds:?}");
        let text = mail.part("text/plain").text();
        assert!(text.starts_with(&first().notification.text()), "{text}");
        let html = mail.part("text/html").text();
        for (name, value) in first().notification.facts() {
            assert!(html.contains(name) && html.contains(&value.replace('&', "&amp;")), "{name} {value}: {html}");
        }
        assert!(html.contains("DOWN sms-round-trip · failed (not_received) at step `arrive`"));
        assert!(html.contains("<a href=\"https://wiki.example.net/sms?a=1&amp;b=2\">"));
        let image = mail.part("image/png");
        let id = image.header("Content-ID").unwrap();
        let source = format!("src=\"cid:{}\"", id.trim_matches(['<', '>']));
        assert!(
            html.matches("src=").count() == 1 && html.contains(&source),
            "nothing is loaded from elsewhere: {html}"
        );
        assert!(
            image.bytes().starts_with(b"\x89PNG") && image.header("Content-Disposition").unwrap().contains("inline")
        );
        assert!(html.contains("1m <span style=\"opacity:.65\">last good 2.4s</span>"), "{html}");
    });
}

#[test]
fn an_incident_is_one_thread() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let email = email(&smtp, &[OPS, DUTY]);
        let root = email.notify(&delivery(NotifyReason::First, 4)).await.ok();
        email.notify(&Delivery { root: root.clone(), ..delivery(NotifyReason::Repeat, 5) }).await.unwrap();
        email.notify(&Delivery { root, ..delivery(NotifyReason::Resolved, 6) }).await.unwrap();
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
                assert_eq!(later.header("Thread-Topic"), first.header("Subject"));
                assert_eq!(later.header("Thread-Index").unwrap()[..28], first.header("Thread-Index").unwrap()[..28]);
            }
            assert_eq!(resolved.header("X-Journeyman-State").as_deref(), Some("WELL AGAIN"));
            assert_eq!(resolved.header("Importance"), None);
            assert!(resolved.part("text/plain").text().starts_with("WELL AGAIN sms-round-trip · after"));
        }
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

#[test]
fn texts_of_peoples_own_take_the_place_of_ours_and_give_way_if_they_cannot_be_sent() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let text = Template::parse("{{ state }}: {{ subject }} & co", Medium::Text).unwrap();
        let source = "<p>{{ owner }}</p>{% if picture %}<img src=\"{{ picture }}\" alt=\"\">{% endif %}\
                      {% if owner == 'huge' %}{% for n in range(60000) %}xx{% endfor %}{% endif %}";
        let html = Template::parse(source, Medium::Html).unwrap();
        let templates = Templates { subject: None, text: Some(text), html: Some(html) };
        let email = email(&smtp, &[OPS]).with_templates(templates);
        let mut delivery = first();
        delivery.notification.owner = Some("<b>us</b>".to_owned());
        email.notify(&delivery).await.unwrap();
        delivery.notification.owner = Some("huge".to_owned());
        delivery.id.push('2');
        email.notify(&delivery).await.unwrap();
        let mails = smtp.mails();
        assert_eq!(mails[0].mail.part("text/plain").text().trim_end(), "DOWN: sms-round-trip & co");
        let html = mails[0].mail.part("text/html").text();
        assert!(html.starts_with("<p>&lt;b&gt;us&lt;") && html.contains("src=\"cid:waterfall."), "{html}");
        assert!(mails[1].mail.part("text/html").text().starts_with("<!DOCTYPE html>"), "the built-in page");
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
        let root = Some(receipt.clone());
        email.notify(&Delivery { root, ..delivery(NotifyReason::Resolved, 2) }).await.unwrap();

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
