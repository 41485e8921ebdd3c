//! The `smpp` channel against an SMS centre on real sockets, behind networks that misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use journeyman::channel::Channel;
use journeyman::channel::smpp::{self, Account, Alphabet, Long, NumberKind, Smpp, SmppSettings, Version};
use journeyman::journey::Outgoing;
use journeyman::journey::message::{Arrival, Part};
use journeyman::journey::outcome::Cause;
use journeyman::journey::token::{Mint, Token};
use rusmpp::{CommandId, CommandStatus};

use crate::support::daemon::Setup;
use crate::support::document::{adapt, toml_blocks};
use crate::support::listening::{BOUND, Receiver, clock, fault, phases, secret, token, within};
use crate::support::met::met;
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::smsc::{Answer, Bind, Naming, Smsc, mobile_originated, receipt};
use crate::support::tls_front::{Shown, TlsFront};
use crate::support::{Scratch, block_on, free_port, wait_for};

fn account(address: SocketAddr, system_id: &str, password: &str) -> Account {
    Account {
        host: address.ip().to_string(),
        port: address.port(),
        tls: false,
        system_id: system_id.to_owned(),
        password: Some(secret(password)),
    }
}

fn settings(address: SocketAddr) -> SmppSettings {
    SmppSettings {
        account: account(address, Smsc::SYSTEM_ID, Smsc::PASSWORD),
        receiver: None,
        version: Version::V34,
        system_type: String::new(),
        from: "Shop".to_owned(),
        to: "+4915112345678".to_owned(),
        from_kind: NumberKind::default(),
        to_kind: NumberKind::default(),
        alphabet: Alphabet::Gsm,
        long: Long::Payload,
        ca_file: None,
    }
}

fn open(settings: SmppSettings) -> Arc<Smpp> {
    Arc::new(smpp::open(settings, clock()).expect("nothing to read"))
}

fn code(token: Token) -> Outgoing {
    Outgoing { token, body: format!("Your code is {token}").into_bytes(), ..Outgoing::empty(Duration::from_secs(10)) }
}

/// The next arrivals, receipts first.
async fn arrivals(receiver: &mut Receiver, count: usize) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for _ in 0..count {
        arrivals.push(receiver.next().await);
    }
    arrivals.sort_by_key(|arrival| arrival.message.header("message-type") != Some("receipt"));
    arrivals
}

/// An SMS centre, a channel to it that is received on, and its reader, ready.
async fn bound() -> (Smsc, Arc<Smpp>, Receiver) {
    let smsc = Smsc::start().await;
    let channel = open(settings(smsc.address()));
    let mut receiver = Receiver::on(&channel);
    receiver.ready().await;
    (smsc, channel, receiver)
}

#[test]
fn a_message_comes_back_as_a_receipt_and_as_the_handsets_answer_over_one_bind() {
    block_on(async {
        let (smsc, channel, mut receiver) = bound().await;
        let expected = Bind { role: CommandId::BindTransceiver, system_id: "probe".to_owned(), version: 0x34 };
        assert_eq!(smsc.binds(), [expected]);

        let first = token();
        let (reply, seen) = met(channel.send(&code(first))).await;
        let reply = reply.unwrap();
        assert_eq!(seen["server"], "smsc SMPP 3.4", "as it said when it took the bind");
        assert_eq!(reply.ack, "message id 1A2B0001");
        assert_eq!(phases(&reply.phases), ["submit"], "the bind is the reader's");
        assert!(reply.finished.mono > reply.started.mono);
        let [receipt, answer] = &arrivals(&mut receiver, 2).await[..] else { panic!("two") };
        assert_eq!((receipt.message.token, receipt.message.part), (Some(first), None));
        assert_eq!(receipt.message.trouble, None);
        assert_eq!(receipt.message.hops[0].took, Duration::from_secs(2));
        for (name, value) in [("message-id", "1A2B0001"), ("stat", "DELIVRD"), ("from", "4915112345678")] {
            assert_eq!(receipt.message.header(name), Some(value), "{name}");
        }
        assert!(receipt.at.mono > reply.started.mono);
        assert_eq!(answer.message.text(), format!("Your code is {first}"));
        assert_eq!((answer.message.token, answer.message.header("message-type")), (None, Some("message")));

        let submit = &smsc.submits()[0];
        assert_eq!(u8::from(submit.esm_class), 0, "a plain message");
        assert_eq!(u8::from(submit.registered_delivery), 1, "a receipt is asked for");
        assert_eq!(submit.validity_period.as_str(), "000000010000000R", "what is not delivered expires");
        smsc.wait("both are acknowledged", |smsc| smsc.undelivered() == 0).await;

        // Sends at the same time each get the answer that is theirs.
        let tokens: Vec<_> = (0..20).map(|_| token()).collect();
        smsc.conduct(|conduct| conduct.echo = false);
        let codes: Vec<_> = tokens.iter().map(|token| code(*token)).collect();
        let replies = futures_util::future::join_all(codes.iter().map(|code| channel.send(code))).await;
        let mut told = std::collections::BTreeMap::new();
        for _ in &tokens {
            let message = receiver.next().await.message;
            told.insert(format!("message id {}", message.header("message-id").unwrap()), message.token.unwrap());
        }
        for (reply, token) in replies.into_iter().zip(&tokens) {
            assert_eq!(told.get(&reply.unwrap().ack), Some(token));
        }

        receiver.stop().await;
        smsc.wait("a goodbye", |smsc| smsc.unbinds() == 1 && smsc.bound().is_empty()).await;
    });
}

#[test]
fn receipts_are_matched_however_they_name_the_message_and_whenever_they_come() {
    block_on(async {
        let (smsc, channel, mut receiver) = bound().await;
        smsc.conduct(|conduct| conduct.echo = false);
        for (naming, receipt_first) in [
            (Naming::Text, false),
            (Naming::Decimal, false),
            (Naming::Parameter, false),
            (Naming::Text, true),
            (Naming::Decimal, true),
        ] {
            smsc.conduct(|conduct| (conduct.naming, conduct.receipt_first) = (naming, receipt_first));
            let token = token();
            channel.send(&code(token)).await.unwrap();
            let arrival = receiver.next().await;
            assert_eq!(arrival.message.token, Some(token), "{naming:?} {receipt_first} {arrival:?}");
        }
        smsc.wait("all are acknowledged", |smsc| smsc.undelivered() == 0).await;
        assert!(smsc.answers().iter().all(|status| *status == CommandStatus::EsmeRok));
    });
}

#[test]
fn only_the_last_state_is_told_and_a_failure_is_trouble() {
    block_on(async {
        let (smsc, channel, mut receiver) = bound().await;
        smsc.conduct(|conduct| {
            conduct.echo = false;
            conduct.states = vec!["ENROUTE", "UNDELIV"];
        });
        let token = token();
        channel.send(&code(token)).await.unwrap();
        let message = receiver.next().await.message;
        assert_eq!((message.token, message.header("stat")), (Some(token), Some("UNDELIV")));
        let trouble = message.trouble.expect("a failure");
        assert_eq!(trouble.cause, Cause::Rejected);
        assert_eq!(trouble.detail, "the message could not be delivered (UNDELIV)");
        smsc.wait("the one under way is acknowledged too", |smsc| smsc.answers().len() == 2).await;
        assert!(receiver.arrivals.is_empty());
    });
}

#[test]
fn what_is_not_ours_is_handed_over_with_nothing_claimed() {
    block_on(async {
        let (smsc, channel, mut receiver) = bound().await;
        smsc.conduct(|conduct| (conduct.echo, conduct.states) = (false, Vec::new()));
        channel.send(&code(token())).await.unwrap();
        // Ours was 1A2B0001, which is 439025665 in decimal: the same id to another number is another's.
        smsc.deliver(receipt(439_025_665, "4917999", "UNDELIV", Naming::Decimal));
        smsc.deliver(receipt(77, "4917999", "DELIVRD", Naming::Text));
        smsc.deliver(mobile_originated("Größe".as_bytes(), 4));
        for kind in ["receipt", "receipt", "message"] {
            let message = receiver.next().await.message;
            assert_eq!((message.token, message.header("message-type")), (None, Some(kind)), "{message:?}");
        }
        // Yesterday's message, delivered again: it carries its own token, and is nobody's business here.
        let yesterday = Mint::new([7; 32], 0).issue("2026-11-20T09:30:00Z".parse().unwrap());
        smsc.deliver(mobile_originated(format!("Your code is {yesterday}").as_bytes(), 0));
        let message = receiver.next().await.message;
        assert_eq!(Token::find_all(&message.body).next(), Some(yesterday));
        smsc.wait("all are acknowledged", |smsc| smsc.undelivered() == 0).await;
    });
}

#[test]
fn texts_go_out_in_the_alphabet_that_they_need_and_come_back_whole() {
    block_on(async {
        let (smsc, channel, mut receiver) = bound().await;
        smsc.conduct(|conduct| conduct.states.clear());
        for (text, data_coding) in [("äöü {1} €", 0), ("Привет, 世界", 8)] {
            let mut outgoing = code(token());
            outgoing.body = text.as_bytes().to_vec();
            channel.send(&outgoing).await.unwrap();
            let message = receiver.next().await.message;
            assert_eq!(
                (message.text().as_ref(), message.header("data-coding")),
                (text, Some(data_coding.to_string().as_str()))
            );
        }
        let mut to_another = code(token());
        to_another.fields.extend([("to", "72728"), ("from", "+491700")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        channel.send(&to_another).await.unwrap();
        let submit = smsc.submits().pop().unwrap();
        assert_eq!((submit.destination_addr.as_str(), submit.source_addr.as_str()), ("72728", "491700"));
    });
}

#[test]
fn a_long_text_goes_whole_or_in_parts_whose_receipts_are_parts() {
    block_on(async {
        let smsc = Smsc::start().await;
        smsc.account(Smsc::SYSTEM_ID, Smsc::PASSWORD, 2);
        smsc.conduct(|conduct| conduct.echo = false);
        let long = |token| {
            let mut outgoing = code(token);
            outgoing.body.extend(b" x".repeat(100));
            outgoing
        };
        let whole = open(settings(smsc.address()));
        let mut receiver = Receiver::on(&whole);
        receiver.ready().await;
        let first = token();
        assert_eq!(whole.send(&long(first)).await.unwrap().ack, "message id 1A2B0001");
        let submit = smsc.submits().pop().unwrap();
        assert_eq!((submit.sm_length(), submit.tlvs().len()), (0, 1));
        assert_eq!(receiver.next().await.message.token, Some(first));
        smsc.wait("it is acknowledged", |smsc| smsc.undelivered() == 0).await;
        receiver.stop().await;
        drop(whole);
        // What is still bound would be given what the next one waits for.
        smsc.wait("nobody is bound", |smsc| smsc.bound().is_empty()).await;

        let split = open(SmppSettings { long: Long::Split, ..settings(smsc.address()) });
        let mut receiver = Receiver::on(&split);
        receiver.ready().await;
        let second = token();
        assert_eq!(split.send(&long(second)).await.unwrap().ack, "message ids 1A2B0002, 1A2B0003");
        let mut parts = Vec::new();
        for _ in 0..2 {
            let message = receiver.next().await.message;
            parts.push((message.token, message.part));
        }
        assert_eq!(parts, [0, 1].map(|index| (Some(second), Some(Part { index, of: 2 }))));
    });
}

#[test]
fn every_no_is_told_with_its_cause_and_nothing_is_uncertain() {
    block_on(async {
        let (smsc, channel, _receiver) = bound().await;
        for (status, cause, words) in [
            (CommandStatus::EsmeRthrottled, Cause::Throttled, "ESME_RTHROTTLED"),
            (CommandStatus::EsmeRmsgqful, Cause::Throttled, "ESME_RMSGQFUL"),
            (CommandStatus::EsmeRinvdstadr, Cause::Refused, "ESME_RINVDSTADR"),
            (CommandStatus::EsmeRsyserr, Cause::Rejected, "ESME_RSYSERR"),
            (CommandStatus::Other(0x41f), Cause::Rejected, "0x41F"),
        ] {
            smsc.conduct(|conduct| conduct.answer = Answer::Says(status));
            let fault = fault(channel.send(&code(token())).await);
            assert_eq!((fault.cause, fault.uncertain), (cause, false), "{fault:?}");
            assert!(fault.detail.contains(words) && fault.detail.contains("127.0.0.1:"), "{}", fault.detail);
        }
        smsc.conduct(|conduct| conduct.answer = Answer::Takes);
        channel.send(&code(token())).await.unwrap();
        assert_eq!(smsc.binds().len(), 1, "no answer costs the bind");

        let mut without_number = settings(smsc.address());
        without_number.to.clear();
        let fault = fault(open(without_number).send(&code(token())).await);
        assert_eq!((fault.cause, fault.uncertain), (Cause::Refused, false));
        assert_eq!(smsc.submits().len(), 6, "that one was never sent");
    });
}

#[test]
fn a_bind_that_is_refused_is_auth_and_says_no_password() {
    block_on(async {
        let smsc = Smsc::start().await;
        for (system_id, password, words) in
            [("probe", "wr0ng-pw", "ESME_RBINDFAIL"), ("nobody", "wr0ng-pw", "ESME_RINVSYSID")]
        {
            let account = account(smsc.address(), system_id, password);
            let channel = open(SmppSettings { account, ..settings(smsc.address()) });
            let refused = fault(channel.send(&code(token())).await);
            assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false), "{refused:?}");
            assert!(refused.detail.contains(words), "{}", refused.detail);
            let unproven = channel.prove(BOUND).await.expect_err("it is refused");
            assert_eq!(unproven.cause, Cause::Auth);
            let why = Receiver::on(&channel).down().await;
            assert!(why.contains(words), "{why}");
            assert!(
                !format!("{refused:?} {unproven:?} {why} {channel:?}", channel = settings(smsc.address()))
                    .contains("wr0ng")
            );
        }
        // An account with one bind to give, which another has.
        let channel = open(settings(smsc.address()));
        let _holder = channel.send(&code(token())).await.unwrap();
        let why = Receiver::on(&open(settings(smsc.address()))).down().await;
        assert!(why.contains("ESME_RALYBND"), "{why}");

        let mut long = settings(smsc.address());
        long.account = account(smsc.address(), "probe", "longer-than-eight");
        let refused = fault(open(long).send(&code(token())).await);
        assert_eq!(refused.cause, Cause::Refused);
        assert!(refused.detail.contains("password") && !refused.detail.contains("longer"), "{}", refused.detail);
    });
}

#[test]
fn one_bind_is_enough_whoever_needs_it_first() {
    block_on(async {
        let smsc = Smsc::start().await;
        let channel = open(settings(smsc.address()));
        // Nobody receives: a transmitter, which takes no receipts from others.
        let reply = channel.send(&code(token())).await.unwrap();
        assert_eq!(phases(&reply.phases), ["dns", "connect", "bind", "submit"]);
        assert_eq!(smsc.bound(), [(CommandId::BindTransmitter, "probe".to_owned())]);
        assert_eq!(smsc.undelivered(), 2, "nothing is taken that nobody wants");

        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        assert_eq!(smsc.bound(), [(CommandId::BindTransceiver, "probe".to_owned())]);
        let [receipt, _] = &arrivals(&mut receiver, 2).await[..] else { panic!("two") };
        assert!(receipt.message.token.is_some(), "known from the send before");
        assert_eq!(phases(&channel.send(&code(token())).await.unwrap().phases), ["submit"]);
        receiver.stop().await;
    });
}

#[test]
fn separate_binds_each_have_their_own_account() {
    block_on(async {
        let smsc = Smsc::start().await;
        smsc.account("probe-rx", "s3cr3t-9", 1);
        let receiver = Some(account(smsc.address(), "probe-rx", "s3cr3t-9"));
        let channel = open(SmppSettings { receiver, version: Version::V50, ..settings(smsc.address()) });
        let told = channel.prove(BOUND).await.unwrap();
        let peer = smsc.address();
        assert_eq!(told, format!("{peer} lets us bind as `probe`; {peer} lets us bind as `probe-rx`"));
        smsc.wait("no trace", |smsc| smsc.bound().is_empty() && smsc.unbinds() == 2).await;

        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        for receipt_first in [false, true] {
            smsc.conduct(|conduct| conduct.receipt_first = receipt_first);
            let token = token();
            channel.send(&code(token)).await.unwrap();
            let [receipt, answer] = &arrivals(&mut receiver, 2).await[..] else { panic!("two") };
            assert_eq!(receipt.message.token, Some(token), "{receipt_first}");
            assert_eq!(Token::find_all(&answer.message.body).next(), Some(token));
        }
        let bound =
            smsc.binds()[2..].iter().map(|bind| (bind.role, bind.system_id.clone(), bind.version)).collect::<Vec<_>>();
        let expected = [(CommandId::BindReceiver, "probe-rx", 0x50), (CommandId::BindTransmitter, "probe", 0x50)];
        assert_eq!(bound, expected.map(|(role, system_id, version)| (role, system_id.to_owned(), version)));
    });
}

#[test]
fn nothing_listening_is_unreachable_for_certain_and_so_is_no_smpp() {
    block_on(async {
        let channel = open(settings(([127, 0, 0, 1], free_port()).into()));
        let refused = fault(channel.send(&code(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Unreachable, false), "{refused:?}");
        assert!(refused.detail.starts_with("cannot connect to 127.0.0.1:"), "{}", refused.detail);
        let why = Receiver::on(&channel).down().await;
        assert!(why.starts_with("cannot connect to 127.0.0.1:"), "{why}");

        // One that takes the connection and says nothing, and one that speaks another protocol.
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let channel = open(settings(listener.local_addr().unwrap()));
        let silent = fault(channel.send(&within(code(token()), Duration::from_millis(200))).await);
        assert_eq!((silent.cause, silent.uncertain), (Cause::Unreachable, false), "{silent:?}");
        assert!(silent.detail.contains("while binding"), "{}", silent.detail);
        let (mut client, _) = listener.accept().await.unwrap();
        assert_eq!(tokio::io::copy(&mut client, &mut tokio::io::sink()).await.unwrap(), 36, "it asked, and hung up");
        let answering = async {
            let (mut other, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut other, b"220 mail.example.net ESMTP\r\n").await.unwrap();
            other
        };
        let message = code(token());
        let (answer, _other) = tokio::join!(channel.send(&message), answering);
        let other = fault(answer);
        assert_eq!((other.cause, other.uncertain), (Cause::Unreachable, false), "{other:?}");
        assert!(other.detail.contains("no SMPP"), "{}", other.detail);
    });
}

#[test]
fn over_tls_the_certificate_must_be_right() {
    block_on(async {
        let (smsc, scratch) = (Smsc::start().await, Scratch::new("smpp-tls"));
        for (shown, trusts, words) in [
            (Shown::Good, true, None),
            (Shown::Good, false, Some("from an issuer that is not trusted")),
            (Shown::Unknown, true, Some("from an issuer that is not trusted")),
            (Shown::WrongHost, true, Some("is for another name")),
            (Shown::Expired, true, Some("has expired")),
        ] {
            let front = TlsFront::start(smsc.address(), shown, scratch.path()).await;
            let mut settings = settings(front.address());
            (settings.account.host, settings.account.tls) = ("localhost".to_owned(), true);
            settings.ca_file = trusts.then(|| front.ca_file().to_owned());
            let channel = open(settings);
            match (channel.send(&code(token())).await, words) {
                (Ok(reply), None) => assert_eq!(phases(&reply.phases), ["dns", "connect", "tls", "bind", "submit"]),
                (Err(fault), Some(words)) => {
                    assert_eq!((fault.cause, fault.uncertain), (Cause::Tls, false), "{fault:?}");
                    assert!(fault.detail.contains(words), "{}", fault.detail);
                }
                other => panic!("{shown:?} {trusts}: {other:?}"),
            }
        }
        // TLS to one that does not speak it.
        let mut settings = settings(smsc.address());
        settings.account.tls = true;
        let fault = fault(open(settings).send(&within(code(token()), Duration::from_millis(500))).await);
        assert!(matches!(fault.cause, Cause::Tls | Cause::Unreachable) && !fault.uncertain, "{fault:?}");
    });
}

#[test]
fn an_sms_centre_that_goes_away_after_the_submit_leaves_it_uncertain() {
    block_on(async {
        let (smsc, channel, mut receiver) = bound().await;
        smsc.conduct(|conduct| conduct.answer = Answer::HangsUp);
        let token = token();
        let lost = fault(channel.send(&code(token)).await);
        assert_eq!((lost.cause, lost.uncertain), (Cause::Unreachable, true), "{lost:?}");
        assert!(lost.detail.contains("the connection"), "{}", lost.detail);
        // It was taken, though: the handset's answer is there after the next bind, and says so.
        let [_, answer] = &arrivals(&mut receiver, 2).await[..] else { panic!("two") };
        assert_eq!(Token::find_all(&answer.message.body).next(), Some(token));
        assert_eq!(smsc.submits().len(), 1, "nothing is sent twice");
    });
}

#[test]
fn an_answer_that_does_not_come_is_uncertain_and_makes_us_ask() {
    block_on(async {
        let (smsc, channel, mut receiver) = bound().await;
        smsc.conduct(|conduct| (conduct.answer, conduct.echo) = (Answer::Nothing, false));
        let silent = fault(channel.send(&within(code(token()), Duration::from_millis(150))).await);
        assert_eq!((silent.cause, silent.uncertain), (Cause::Uncertain, true), "{silent:?}");
        assert!(silent.detail.starts_with("no answer to submit_sm from 127.0.0.1:"), "{}", silent.detail);
        smsc.wait("it is asked whether it is there", |smsc| smsc.enquiries() == 1).await;
        // It is, so the bind stays; and a receipt that is nobody's waits no longer than it must.
        smsc.conduct(|conduct| conduct.answer = Answer::Takes);
        channel.send(&code(token())).await.unwrap();
        let message = receiver.next().await.message;
        assert!(message.token.is_some() && message.header("link-round-trip").is_some(), "{message:?}");
        assert_eq!(smsc.binds().len(), 1);
    });
}

#[test]
fn an_answer_that_comes_late_still_tells_whose_the_receipt_is() {
    block_on(async {
        let smsc = Smsc::start().await;
        smsc.conduct(|conduct| conduct.echo = false);
        let proxy = Proxy::start(smsc.address()).await;
        let channel = open(settings(proxy.address()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        proxy.set(Direction::ToClient, Flow::Hold);
        let token = token();
        let silent = fault(channel.send(&within(code(token), Duration::from_millis(150))).await);
        assert!(silent.uncertain, "{silent:?}");
        proxy.set(Direction::ToClient, Flow::Pass);
        assert_eq!(receiver.next().await.message.token, Some(token));
    });
}

#[test]
fn a_connection_that_is_cut_between_submit_and_answer_is_uncertain_and_made_anew() {
    block_on(async {
        let smsc = Smsc::start().await;
        let proxy = Proxy::start(smsc.address()).await;
        let channel = open(settings(proxy.address()));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        proxy.set(Direction::ToServer, Flow::Hold);
        let (before, message) = (proxy.seen(Direction::ToServer), code(token()));
        let cutting = async {
            wait_for("the submit is on its way", BOUND, async || {
                (proxy.seen(Direction::ToServer) > before).then_some(())
            })
            .await;
            proxy.cut();
        };
        let (answer, ()) = tokio::join!(channel.send(&message), cutting);
        let lost = fault(answer);
        assert_eq!((lost.cause, lost.uncertain), (Cause::Unreachable, true), "{lost:?}");
        proxy.set(Direction::ToServer, Flow::Pass);
        receiver.down().await;
        receiver.ready().await;
        channel.send(&code(token())).await.unwrap();
        assert_eq!(arrivals(&mut receiver, 2).await.len(), 2);
        assert_eq!(smsc.submits().len(), 1, "the one that was cut never came");
    });
}

#[test]
fn what_is_not_acknowledged_comes_again_after_a_restart() {
    block_on(async {
        let (mut smsc, channel, receiver) = bound().await;
        receiver.stop().await;
        // Room for one arrival, which nobody takes: one is handed over and acknowledged, the others wait.
        let mut receiver = Receiver::with_room(&channel, 1);
        receiver.ready().await;
        for number in 0..3 {
            smsc.deliver(mobile_originated(format!("text {number}").as_bytes(), 0));
        }
        smsc.wait("one is acknowledged", |smsc| smsc.undelivered() == 2).await;
        smsc.kill().await;
        let why = receiver.down().await;
        assert!(why.contains("connection"), "{why}");
        let unreachable = fault(channel.send(&code(token())).await);
        assert_eq!((unreachable.cause, unreachable.uncertain), (Cause::Unreachable, false), "{unreachable:?}");
        smsc.restart();
        receiver.ready().await;
        let mut texts = Vec::new();
        for _ in 0..3 {
            texts.push(receiver.next().await.message.text().into_owned());
        }
        assert_eq!(texts, ["text 0", "text 1", "text 2"]);
        smsc.wait("all are acknowledged", |smsc| smsc.undelivered() == 0).await;
        smsc.say(rusmpp::Pdu::Unbind);
        let why = receiver.down().await;
        assert!(why.contains("(unbind)"), "{why}");
        receiver.ready().await;
        channel.send(&code(token())).await.unwrap();
    });
}

#[test]
fn a_flood_is_sent_back_for_another_time_and_the_answers_still_come_through() {
    block_on(async {
        let smsc = Smsc::start().await;
        let channel = open(settings(smsc.address()));
        let mut receiver = Receiver::with_room(&channel, 1);
        receiver.ready().await;
        for number in 0..400 {
            smsc.deliver(mobile_originated(format!("text {number}").as_bytes(), 0));
        }
        smsc.wait("some are sent back", |smsc| smsc.answers().contains(&CommandStatus::EsmeRxTAppn)).await;
        smsc.conduct(|conduct| (conduct.echo, conduct.states) = (false, Vec::new()));
        channel.send(&within(code(token()), Duration::from_secs(5))).await.unwrap();
        let taken = smsc.answers().iter().filter(|status| **status == CommandStatus::EsmeRok).count();
        assert_eq!(taken, 1, "only what was handed over is acknowledged");
        assert_eq!(receiver.next().await.message.text(), "text 0");
    });
}

#[test]
fn a_delivery_that_breaks_the_protocol_is_refused_once_and_costs_nothing_else() {
    block_on(async {
        let (smsc, channel, mut receiver) = bound().await;
        let broken = rusmpp::Pdu::Other {
            command_id: CommandId::DeliverSm,
            body: rusmpp::types::AnyOctetString::from_static_slice(b"no delivery"),
        };
        smsc.say(broken);
        smsc.wait("it is refused for good", |smsc| smsc.answers() == [CommandStatus::EsmeRxRAppn]).await;
        smsc.say(rusmpp::pdus::DataSm::default());
        channel.send(&code(token())).await.unwrap();
        assert_eq!(arrivals(&mut receiver, 2).await.len(), 2);
        assert_eq!(smsc.binds().len(), 1);
    });
}

/// What the page shows, on this test's address and at its pace.
#[test]
fn a_journey_tells_the_receipt_from_the_answer_and_each_can_fail_by_itself() {
    block_on(async {
        let smsc = Smsc::start().await;
        let blocks = toml_blocks("docs/channels/smpp.md");
        let [channel, journey] = &blocks[..] else { panic!("the page has {} TOML blocks", blocks.len()) };
        let example = std::fs::read_to_string("probes/examples/smpp.toml").unwrap();
        let adapted = adapt(
            channel,
            &[
                ("smsc.example.net:2775", &smsc.address().to_string()),
                ("rate     = \"1/s\"", ""),
                ("spend    = { cost = 0.045, per_day = 20.00 }", ""),
            ],
        );
        let pace = [("\"5m\"", "\"500ms\""), ("\"2m\"", "\"2s\""), ("\"15s\"", "\"1s\"")];
        let renamed = [&pace[..], &[("sms-code", "from-the-example")]].concat();
        let example = adapt(&example, &renamed).replace("\"10s\"", "\"1s\"");
        let setup = Setup::new("smpp-journey");
        setup.write("secrets/smsc-password", Smsc::PASSWORD);
        let daemon = setup.start(&adapted, &format!("{}\n{example}", adapt(journey, &pace))).await;

        let wait = async |journey: &str, outcome: &str, cause: &str| {
            let before = daemon.runs(journey, outcome, cause).await;
            wait_for(&format!("{journey} to be {outcome} {cause}"), BOUND, async || {
                (daemon.runs(journey, outcome, cause).await >= before + 1.0).then_some(())
            })
            .await;
        };
        wait("sms-code", "good", "").await;
        wait("from-the-example", "good", "").await;
        let first = smsc.submits()[0].short_message().as_ref().to_vec();

        smsc.conduct(|conduct| conduct.states = vec!["ENROUTE", "EXPIRED"]);
        wait("sms-code", "failed", "rejected").await;
        smsc.conduct(|conduct| conduct.states = vec!["DELIVRD"]);
        wait("sms-code", "good", "").await;
        smsc.conduct(|conduct| conduct.echo = false);
        wait("sms-code", "failed", "not_received").await;
        smsc.conduct(|conduct| conduct.echo = true);
        wait("sms-code", "good", "").await;

        // The first run's message again, as an SMS centre sends it that never saw our acknowledgement.
        smsc.deliver(mobile_originated(&first, 0));
        let copies = [("kind", "duplicate")];
        wait_for("the old message is known", BOUND, async || {
            daemon.metric("journeyman_arrivals_total", &copies).await.filter(|copies| *copies >= 1.0)
        })
        .await;
        wait("sms-code", "good", "").await;
        assert_eq!(smsc.binds().len(), 1, "both journeys share one bind");
    });
}
