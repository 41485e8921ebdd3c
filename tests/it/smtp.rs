//! The `smtp` channel against a real Postfix, and against servers that do as they are told.

use std::path::PathBuf;
use std::time::Duration;

use journeyman::channel::mail::{Login, MailServer, Security};
use journeyman::channel::smtp::{self, Smtp, SmtpSettings};
use journeyman::channel::{Channel, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::report::Phase;
use journeyman::journey::run::{Fault, Reply};
use journeyman::journey::token::{Mint, Token};
use journeyman::secret::{Redactor, Secret};

use crate::support::certificate::Certificate;
use crate::support::dovecot::{Dovecot, PASSWORD};
use crate::support::fake_smtp::{Act, At, FakeSmtp, Offer, Rule, certificate};
use crate::support::met::met;
use crate::support::postfix::Postfix;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::{Scratch, block_on, free_port, wait_for};

const BOUND: Duration = Duration::from_secs(20);

fn server(port: u16, security: Security) -> MailServer {
    MailServer { host: "127.0.0.1".to_owned(), port, security, ca_file: None, login: None }
}

fn login(user: &str, password: &str) -> Option<Login> {
    Some(Login { user: user.to_owned(), password: Secret::new(password.to_owned(), &Redactor::new()) })
}

fn channel(server: MailServer) -> Smtp {
    channel_to(server, &["inbox@example.test"])
}

fn channel_to(server: MailServer, to: &[&str]) -> Smtp {
    journeyman::tls::init();
    let to = to.iter().map(|to| (*to).to_owned()).collect();
    let settings = SmtpSettings { server, from: "Probe <probe@example.test>".to_owned(), to };
    smtp::open(settings, Clock::system()).expect("the settings are sound")
}

fn token() -> Token {
    static MINT: std::sync::LazyLock<Mint> = std::sync::LazyLock::new(|| Mint::new([7; 32], 0));
    MINT.issue(Clock::system().now().wall)
}

fn mail(token: Token) -> Outgoing {
    Outgoing {
        token,
        headers: vec![("X-Tier".to_owned(), "gold".to_owned())],
        body: format!("Grüße\n.\n{token}\n").into_bytes(),
        content_type: Some("text/plain; charset=utf-8"),
        fields: [("subject".to_owned(), format!("probe {token}"))].into(),
        ..Outgoing::empty(Duration::from_secs(10))
    }
}

fn within(timeout: Duration) -> Outgoing {
    Outgoing { timeout, ..mail(token()) }
}

fn phases(phases: &[Phase]) -> Vec<&str> {
    phases.iter().map(|phase| phase.name.as_str()).collect()
}

fn fault(answer: Result<Reply, Fault>) -> Fault {
    answer.expect_err("it should have failed")
}

/// Dovecot behind Postfix, with a certificate for `localhost` and 127.0.0.1.
struct Servers {
    dovecot: Dovecot,
    postfix: Postfix,
    certificate: Certificate,
    _scratch: Scratch,
}

impl Servers {
    async fn start() -> Option<Servers> {
        let scratch = Scratch::new("smtp");
        let certificate = Certificate::new(&scratch, &["localhost", "127.0.0.1"]);
        let dovecot = Dovecot::start().await?;
        let postfix = Postfix::start_before(&dovecot, &certificate).await?;
        Some(Servers { dovecot, postfix, certificate, _scratch: scratch })
    }
}

#[test]
fn a_mail_is_handed_over_with_its_token_and_acknowledged_in_the_servers_words() {
    block_on(async {
        let fake = FakeSmtp::start().await;
        let token = token();
        let channel = channel(server(fake.port(), Security::Plain));
        let (reply, seen) = met(channel.send(&mail(token))).await;
        let reply = reply.unwrap();
        assert_eq!(reply.ack, "250 2.0.0 queued as FAKE1");
        assert_eq!(seen["peer"], format!("127.0.0.1:{}", fake.port()));
        assert!(!seen.contains_key("tls") && !seen["banner"].is_empty(), "{seen:?}");
        fake.script([
            Rule::once(At::Connect, Act::Say("220 mx-2.example.net\tESMTP")),
            Rule::once(At::Mail, Act::Say("550 5.7.1 no")),
        ]);
        let (refused, other) = met(channel.send(&mail(token))).await;
        assert_eq!(fault(refused).cause, Cause::Refused);
        assert_eq!(other["banner"], "mx-2.example.net ESMTP", "also where it then refused us");
        assert_eq!(phases(&reply.phases), ["dns", "connect", "greeting", "envelope", "content"]);
        let spent: Duration = reply.phases[3..].iter().map(|phase| phase.took).sum();
        assert!(reply.finished.mono.since(reply.started.mono) >= spent, "connecting does not count");

        let taken = fake.mails().remove(0);
        assert_eq!((taken.from.as_str(), taken.to), ("probe@example.test", vec!["inbox@example.test".to_owned()]));
        let header = |name: &str| taken.mail.header(name);
        assert_eq!(header("Message-ID"), Some(format!("<{token}@example.test>")));
        assert_eq!(header("X-Journeyman-Token"), Some(token.to_string()));
        assert_eq!(header("traceparent"), Some(token.traceparent()));
        assert_eq!(header("Auto-Submitted").as_deref(), Some("auto-generated"));
        assert_eq!(header("X-Tier").as_deref(), Some("gold"));
        assert_eq!(header("Subject"), Some(format!("probe {token}")));
        assert_eq!(header("From").as_deref(), Some("Probe <probe@example.test>"));
        assert_eq!(taken.mail.text(), format!("Grüße\n.\n{token}\n\n"), "its last line has an end");
        assert_eq!(fake.commands().last().map(String::as_str), Some("QUIT"));
    });
}

#[test]
fn postfix_takes_mail_under_tls_from_those_who_sign_in() {
    block_on(async {
        let Some(servers) = Servers::start().await else { return };
        let ca_file = Some(servers.certificate.certificate.clone());
        let to = |port, security, password: &str| MailServer {
            ca_file: ca_file.clone(),
            login: login("probe@example.test", password),
            ..server(port, security)
        };
        let (start_tls, tls) = (servers.postfix.port(), servers.postfix.tls_port());
        for (port, security, expected) in [
            (
                start_tls,
                Security::StartTls,
                vec!["dns", "connect", "greeting", "starttls", "login", "envelope", "content"],
            ),
            (tls, Security::Tls, vec!["dns", "connect", "tls", "greeting", "login", "envelope", "content"]),
        ] {
            let channel = channel(to(port, security, PASSWORD));
            let told = channel.prove(BOUND).await.unwrap();
            assert_eq!(told, format!("127.0.0.1:{port} takes our credentials"));
            let reply = channel.send(&mail(token())).await.unwrap();
            assert!(reply.ack.starts_with("250 2.0.0 Ok: queued as "), "{}", reply.ack);
            assert_eq!(phases(&reply.phases), expected);
        }
        let refused = fault(channel(to(start_tls, Security::StartTls, "wr0ng-passw0rd")).send(&mail(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
        assert!(refused.detail.contains("user `probe@example.test` in: 535 5.7.8"), "{}", refused.detail);
        assert!(!format!("{refused:?}").contains("wr0ng"), "{refused:?}");

        // In the clear it does not even offer to.
        let refused = fault(channel(to(start_tls, Security::Plain, PASSWORD)).send(&mail(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
        assert!(refused.detail.contains("offers no way to sign in"), "{}", refused.detail);

        let nobody = Outgoing { fields: [("to".to_owned(), "nobody@example.test".to_owned())].into(), ..mail(token()) };
        let plain = channel(server(start_tls, Security::Plain));
        let refused = fault(plain.send(&nobody).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Refused, false), "{refused:?}");
        assert!(refused.detail.contains("nobody@example.test: 550 5.1.1"), "{}", refused.detail);
        assert_eq!(phases(&refused.phases), ["dns", "connect", "greeting", "envelope"]);
        drop(servers.dovecot);
    });
}

#[test]
fn a_certificate_that_is_not_to_be_trusted_is_a_tls_fault_and_nothing_is_told() {
    block_on(async {
        let scratch = Scratch::new("smtp-tls");
        let Some(dovecot) = Dovecot::start().await else { return };
        let other = Certificate::new(&scratch, &["elsewhere.example.test"]);
        let old = Certificate::expired(&scratch, &["127.0.0.1"]);
        for (certificate, trusted, words) in [
            (&other, true, "is for another name"),
            (&old, true, "has expired"),
            (&other, false, "issuer that is not trusted; `ca_file` can name it"),
        ] {
            let Some(postfix) = Postfix::start_before(&dovecot, certificate).await else { return };
            let ca_file = trusted.then(|| certificate.certificate.clone());
            for (port, security) in [(postfix.port(), Security::StartTls), (postfix.tls_port(), Security::Tls)] {
                let server = MailServer { ca_file: ca_file.clone(), ..server(port, security) };
                let fault = fault(channel(server).send(&mail(token())).await);
                assert_eq!((fault.cause, fault.uncertain), (Cause::Tls, false), "{fault:?}");
                assert!(fault.detail.contains(words), "{words}: {}", fault.detail);
            }
        }
    });
}

#[test]
fn a_connection_without_the_tls_that_is_wanted_is_told_nothing() {
    block_on(async {
        // Stripped from what the server offers.
        let fake = FakeSmtp::start().await;
        let settings = MailServer { login: login("probe", "s3cr3t-word"), ..server(fake.port(), Security::StartTls) };
        let stripped = fault(channel(settings).send(&mail(token())).await);
        assert_eq!((stripped.cause, stripped.uncertain), (Cause::Tls, false), "{stripped:?}");
        assert!(stripped.detail.contains("does not offer STARTTLS"), "{}", stripped.detail);
        assert!(fake.commands().iter().all(|command| !command.starts_with("AUTH")), "{:?}", fake.commands());

        // Answers appended in the clear, to pass for the server's own under TLS.
        let (config, pem) = certificate();
        let scratch = Scratch::new("smtp-injected");
        let fake = FakeSmtp::start_with(Offer { start_tls: Some(config), ..Offer::default() }).await;
        fake.script([Rule::once(At::StartTls, Act::Say("220 ready\r\n250-fake\r\n250 ok\r\n250 ok\r\n250 ok"))]);
        let ca_file = Some(scratch.write("ca.pem", &pem));
        let injected = MailServer { ca_file: ca_file.clone(), ..server(fake.port(), Security::StartTls) };
        let injected = channel(injected);
        let fault = fault(injected.send(&mail(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Tls, false), "{fault:?}");
        assert!(fake.mails().is_empty());
        // Without them, the same server takes the mail.
        injected.send(&mail(token())).await.unwrap();
        assert!(fake.mails()[0].is_encrypted);
    });
}

#[test]
fn every_no_has_its_cause_at_the_point_where_it_came() {
    block_on(async {
        let fake = FakeSmtp::start().await;
        let channel = channel(server(fake.port(), Security::Plain));
        for (at, answer, cause, words) in [
            (At::Connect, "554 5.7.1 not from you", Cause::Refused, "why this machine is not welcome"),
            (At::Connect, "421 4.7.0 too many connections", Cause::Throttled, "421"),
            (At::Ehlo, "550 5.5.2 what?", Cause::Refused, "does not greet us"),
            (At::Mail, "550 5.7.1 not as this sender", Cause::Refused, "check `from`"),
            (At::Mail, "530 5.7.0 sign in first", Cause::Auth, "sign-in first"),
            (At::Rcpt, "450 4.2.0 Greylisted, see http://grey.example.net", Cause::Throttled, "greylisted: "),
            (At::Rcpt, "451 4.3.0 try again", Cause::Refused, "for now"),
            (At::Rcpt, "550 5.1.1 no such user", Cause::Refused, "550 5.1.1 no such user"),
            (At::Rcpt, "552 5.2.2 mailbox full", Cause::Refused, "552"),
            (At::Data, "554 5.5.1 no", Cause::Refused, "before its content"),
            (At::Dot, "554 5.7.1 spam", Cause::Rejected, "after its content"),
            (At::Dot, "451-4.7.1 graylisted\r\n451 4.7.1 come back", Cause::Throttled, "graylisted 4.7.1 come back"),
        ] {
            fake.script([Rule::once(at, Act::Say(answer))]);
            let fault = fault(channel.send(&mail(token())).await);
            assert_eq!((fault.cause, fault.uncertain), (cause, false), "{answer}: {fault:?}");
            assert!(fault.detail.contains(words), "{answer}: {}", fault.detail);
        }
        assert!(fake.mails().is_empty());
    });
}

#[test]
fn one_recipient_refused_is_a_refusal_in_words_and_nobody_is_sent_anything() {
    block_on(async {
        let fake = FakeSmtp::start().await;
        fake.script([Rule::always(At::Rcpt, Act::Say("550 5.1.1 no such user")).to("gone@example.test")]);
        let to = ["inbox@example.test", "gone@example.test", "two@example.test"];
        let refused = fault(channel_to(server(fake.port(), Security::Plain), &to).send(&mail(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Refused, false), "{refused:?}");
        let expected = "1 of 3 recipients refused, so nobody was sent anything: ";
        assert!(refused.detail.starts_with(expected), "{}", refused.detail);
        assert!(refused.detail.contains("gone@example.test: 550 5.1.1 no such user"), "{}", refused.detail);
        assert!(fake.mails().is_empty() && !fake.commands().contains(&"DATA".to_owned()));

        // All of them taken: one mail for all.
        let to = ["inbox@example.test", "two@example.test"];
        channel_to(server(fake.port(), Security::Plain), &to).send(&mail(token())).await.unwrap();
        assert_eq!(fake.mails().len(), 1);
        assert_eq!(fake.mails()[0].to, to);
    });
}

#[test]
fn a_server_that_dies_before_the_final_dot_cannot_have_the_mail() {
    block_on(async {
        for at in [At::Connect, At::Ehlo, At::Mail, At::Rcpt, At::Data] {
            let fake = FakeSmtp::start().await;
            fake.script([Rule::once(at, Act::Close)]);
            let channel = channel(server(fake.port(), Security::Plain));
            let lost = fault(channel.send(&mail(token())).await);
            assert_eq!((lost.cause, lost.uncertain), (Cause::Unreachable, false), "{at:?}: {lost:?}");
            assert!(lost.detail.starts_with("lost the connection to 127.0.0.1:"), "{at:?}: {}", lost.detail);
            fake.script([Rule::once(at, Act::Hang)]);
            let silent = fault(channel.send(&within(Duration::from_millis(200))).await);
            assert_eq!((silent.cause, silent.uncertain), (Cause::Unreachable, false), "{at:?}: {silent:?}");
            assert!(silent.detail.contains("within 200ms while"), "{at:?}: {}", silent.detail);
            assert!(fake.mails().is_empty());
        }
    });
}

#[test]
fn a_server_that_dies_after_the_final_dot_may_have_the_mail_and_it_is_sent_once() {
    block_on(async {
        for (act, timeout) in
            [(Act::TakeAndClose, Duration::from_secs(10)), (Act::TakeAndHang, Duration::from_millis(300))]
        {
            let fake = FakeSmtp::start().await;
            fake.script([Rule::once(At::Dot, act.clone())]);
            let fault = fault(channel(server(fake.port(), Security::Plain)).send(&within(timeout)).await);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Uncertain, true), "{act:?}: {fault:?}");
            assert!(fault.detail.contains("waiting for its word on the mail"), "{}", fault.detail);
            assert_eq!((fake.mails().len(), fake.connected().len()), (1, 1));
        }
    });
}

#[test]
fn a_real_server_cut_off_while_it_takes_the_mail_is_uncertain() {
    block_on(async {
        let Some(servers) = Servers::start().await else { return };
        let proxy = Proxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], servers.postfix.port()))).await;
        let channel = channel(server(proxy.address().port(), Security::Plain));
        channel.send(&mail(token())).await.unwrap();
        // Every answer takes its time: when the mail is in the queue, the word on it is still under way.
        proxy.set(Direction::ToClient, Flow::Delay(Duration::from_millis(300)));
        let message = mail(token());
        let id = format!("message-id=<{}@example.test>", message.token);
        let cut_when_queued = async {
            wait_for("the mail to be queued", BOUND, async || servers.postfix.log().contains(&id).then_some(())).await;
            proxy.cut();
        };
        let (answer, ()) = tokio::join!(channel.send(&message), cut_when_queued);
        let fault = fault(answer);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Uncertain, true), "{fault:?}");
    });
}

#[test]
fn nothing_listening_and_nothing_said_are_unreachable_for_certain() {
    block_on(async {
        let port = free_port();
        let refused = fault(channel(server(port, Security::Plain)).send(&mail(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Unreachable, false), "{refused:?}");
        assert!(refused.detail.starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{}", refused.detail);

        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for security in [Security::Plain, Security::StartTls, Security::Tls] {
            let silent = fault(channel(server(port, security)).send(&within(Duration::from_millis(200))).await);
            assert_eq!((silent.cause, silent.uncertain), (Cause::Unreachable, false), "{silent:?}");
            assert!(
                silent.detail.contains(&format!("no answer from 127.0.0.1:{port} within 200ms")),
                "{}",
                silent.detail
            );
        }
    });
}

#[test]
fn a_server_that_is_none_or_has_no_end_is_given_up() {
    use tokio::io::AsyncWriteExt as _;
    block_on(async {
        let endless = "250-x\r\n".repeat(1_000);
        let long = "2".repeat(100_000);
        for says in ["HTTP/1.1 400 Bad Request\r\n\r\n", "220\u{1b}[2J \r\n", &endless, &long] {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let channel = channel(server(listener.local_addr().unwrap().port(), Security::Plain));
            let message = mail(token());
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(says.as_bytes()).await;
                stream
            };
            let (answer, _stream) = tokio::join!(channel.send(&message), answering);
            let fault = fault(answer);
            assert_eq!((fault.cause, fault.uncertain), (Cause::Unreachable, false), "{fault:?}");
            assert!(fault.detail.len() < 500, "{}", fault.detail);
        }
    });
}

#[test]
fn a_proof_signs_in_names_nobody_and_keeps_the_password_to_itself() {
    block_on(async {
        let fake = FakeSmtp::start_with(Offer { auth: true, ..Offer::default() }).await;
        let settings = MailServer { login: login("probe", "s3cr3t-word"), ..server(fake.port(), Security::Plain) };
        let channel = channel(settings);
        let told = channel.prove(BOUND).await.unwrap();
        assert_eq!(told, format!("127.0.0.1:{} takes our credentials", fake.port()));
        let commands: Vec<_> = fake.commands().iter().map(|command| command[..4].to_owned()).collect();
        assert_eq!(commands, ["EHLO", "AUTH", "QUIT"]);

        // A server that repeats what it was given, in the clear and in base64.
        fake.script([Rule::once(At::Auth, Act::Say("535 5.7.8 s3cr3t-word AHByb2JlAHMzY3IzdC13b3Jk is wrong"))]);
        let refused = channel.prove(BOUND).await.unwrap_err();
        assert_eq!(refused.cause, Cause::Auth);
        assert!(refused.detail.contains("535 5.7.8 ••• ••• is wrong"), "{}", refused.detail);
        assert!(!format!("{refused:?}").contains("s3cr3t"), "{refused:?}");

        channel.send(&mail(token())).await.unwrap();
        assert_eq!(fake.mails()[0].credentials, Some(("probe".to_owned(), "s3cr3t-word".to_owned())));
    });
}

#[test]
fn what_it_cannot_do_it_says() {
    block_on(async {
        let channel = channel_to(server(1, Security::Plain), &[]);
        let fault = fault(channel.send(&mail(token())).await);
        assert_eq!(
            (fault.cause, fault.detail.as_str()),
            (Cause::Refused, "`to` names nobody: give it in the channel, or in the step")
        );
        assert!(channel.check(&mail(token())).await.is_err());
        let (ready, readiness) = tokio::sync::watch::channel(Readiness::Starting);
        let stop = tokio_util::sync::CancellationToken::new();
        let listener = journeyman::channel::Listener {
            channel: "mail-out".into(),
            clock: Clock::system(),
            arrivals: tokio::sync::mpsc::channel(1).0,
            journal: Default::default(),
            since: None,
            readiness: ready,
            mint: std::sync::Arc::new(Mint::new([1; 32], 0)),
            nudge: Default::default(),
            awaited: Default::default(),
            stop: stop.clone(),
        };
        stop.cancel();
        channel.listen(listener).await;
        assert!(matches!(&*readiness.borrow(), Readiness::Down { why } if why.contains("`imap` channel")));
        let settings = SmtpSettings {
            server: MailServer { ca_file: Some(PathBuf::from("/gone.pem")), ..server(1, Security::Tls) },
            from: "probe@example.test".to_owned(),
            to: Vec::new(),
        };
        assert!(smtp::open(settings, Clock::system()).err().unwrap().contains("/gone.pem"));
    });
}
