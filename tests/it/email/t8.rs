//! Table T8 of the fault matrix at the notifier, a test a row (at the daemon: `delivery::t8`): what an SMTP server may do to us, and what must follow. 4xx is tried again, 5xx goes to
//! the fallback at once, who took it is not sent to again, a repeat has the same Message-ID, TLS fails closed.

use std::time::Duration;

use super::*;
use crate::support::table::Table;

#[test]
fn greylisting_451_then_250() {
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
fn one_of_two_recipients_450_the_other_has_it_once() {
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
fn one_of_two_recipients_550_the_other_has_it_once() {
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
fn reply_4xx_or_5xx_at_every_point() {
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
fn drop_before_the_content_and_after_the_final_dot() {
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
async fn one_byte_a_second() {
    let (answer, took, _) = stalled(At::Ehlo, Act::Drip).await;
    assert!(backoff(answer).contains("no answer within 30s"));
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn no_greeting() {
    let (answer, took, _) = stalled(At::Connect, Act::Hang).await;
    assert!(backoff(answer).contains("no answer within 30s"));
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn silence_before_the_content() {
    let (answer, ..) = stalled(At::Data, Act::Hang).await;
    assert!(backoff(answer).contains("announcing the message"));
}

#[tokio::test]
async fn silence_after_the_final_dot() {
    let (answer, took, mails) = stalled(At::Dot, Act::TakeAndHang).await;
    assert!(ambiguous(answer).contains("no answer within 30s"));
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
    assert_eq!(mails, 1);
}

#[test]
fn starttls_stripped() {
    block_on(async {
        let smtp = FakeSmtp::start_with(Offer { auth: true, ..Offer::default() }).await;
        let text = never(secured(Security::StartTls, smtp.port()).notify(&first()).await);
        assert!(text.contains("does not offer STARTTLS, so nothing was sent"), "{text}");
        let commands = smtp.commands();
        assert!(commands.iter().all(|command| command.starts_with("EHLO") || command == "QUIT"), "{commands:?}");
    });
}

#[test]
fn crlf_in_the_subject_is_no_second_header() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let template = Template::parse("{{ subject }}\r\nBcc: spy@example.test\r\n\r\nbody", Medium::Text).unwrap();
        let templates = Templates { subject: Some(template), ..Templates::default() };
        let mut delivery = first();
        delivery.notification.subject = "sms\r\nBcc: spy@example.test".to_owned();
        email(&smtp, &[OPS]).with_templates(templates).notify(&delivery).await.unwrap();
        let taken = smtp.mails().remove(0);
        let subject = taken.mail.header("Subject").unwrap();
        assert_eq!(subject, "sms Bcc: spy@example.test Bcc: spy@example.test body");
        assert_eq!(taken.to, [OPS]);
        assert_eq!(taken.mail.header("Bcc"), None);
        let hidden = taken.mail.headers("Bcc").len() + taken.to.len() - 1;
        let mut table = Table::new("smtp", "3-crlf", &["figure", "found", "goal"]);
        table.row(&[&"recipients added by CRLF in the subject", &hidden, &0]);
    });
}

#[test]
fn garbage_instead_of_replies() {
    const GARBAGE: &str = "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n\u{0}\u{7f}2500 what\r\n25";
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let email = email(&smtp, &[OPS]);
        for at in [At::Connect, At::Ehlo, At::Mail, At::Rcpt, At::Data] {
            smtp.script([Rule::once(at, Act::Say(GARBAGE))]);
            backoff(email.notify(&first()).await);
        }
        smtp.script([Rule::once(At::Dot, Act::Say(GARBAGE))]);
        ambiguous(email.notify(&first()).await);
        assert_eq!(smtp.mails().len(), 0);
        email.notify(&first()).await.unwrap();
    });
}

#[test]
fn reply_without_end() {
    block_on(async {
        let smtp = FakeSmtp::start().await;
        let email = email(&smtp, &[OPS]);
        for at in [At::Connect, At::Ehlo, At::Mail, At::Rcpt] {
            smtp.script([Rule::once(at, Act::Flood)]);
            let text = backoff(email.notify(&first()).await);
            assert!(text.len() < 1_000, "only the beginning is kept: {} bytes", text.len());
        }
        smtp.script([Rule::once(At::Dot, Act::Flood)]);
        ambiguous(email.notify(&first()).await);
    });
}
