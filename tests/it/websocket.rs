//! The `websocket` channel against a server with rooms, and against servers and networks that misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use journeyman::channel::websocket::{self, Frames, WebSocket, WebSocketSettings};
use journeyman::channel::{Channel, Readiness};
use journeyman::clock::Clock;
use journeyman::journey::Outgoing;
use journeyman::journey::outcome::Cause;
use journeyman::journey::token::Token;
use journeyman::secret::HeaderText;
use tokio_tungstenite::tungstenite::Message;

use crate::support::listening::{BOUND, Receiver, clock, fault, phases, secret, token};
use crate::support::proxy::{Direction, Flow, Proxy};
use crate::support::rooms::{CREDENTIALS, Manners, Order, Rooms, SUBSCRIBE};
use crate::support::tls_front::{Shown, TlsFront};
use crate::support::{Scratch, block_on, free_port, wait_for};

/// A channel that sends to a room and subscribes to its pushes.
fn settings(url: &str) -> WebSocketSettings {
    WebSocketSettings {
        url: secret(url),
        headers: vec![("authorization".to_owned(), HeaderText::Secret(secret(CREDENTIALS)))],
        subprotocol: None,
        ca_file: None,
        hello: Vec::new(),
        subscribe: vec![HeaderText::Plain(SUBSCRIBE.to_owned())],
        ready_when: Some(regex::Regex::new(r#""status": *"subscribed""#).unwrap()),
        frames: Frames::Text,
    }
}

/// One that waits for no word of the server's.
fn unconfirmed(url: &str) -> WebSocketSettings {
    WebSocketSettings { subscribe: Vec::new(), ready_when: None, ..settings(url) }
}

fn open(settings: WebSocketSettings) -> Arc<WebSocket> {
    Arc::new(websocket::open(settings, clock()).unwrap())
}

fn order(token: Token) -> Outgoing {
    Outgoing { token, body: format!("{{\"id\":\"{token}\"}}").into_bytes(), ..Outgoing::empty(BOUND) }
}

#[test]
fn a_message_makes_the_round_trip_on_two_connections() {
    block_on(async {
        let rooms = Rooms::start().await;
        let settings =
            WebSocketSettings { subprotocol: Some("orders.v1".to_owned()), ..settings(&rooms.url("orders?x=1")) };
        let channel = open(settings);
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let first = token();
        let reply = channel.send(&order(first)).await.unwrap();
        assert_eq!((reply.ack.as_str(), phases(&reply.phases)), ("socket", vec!["dns", "connect", "upgrade", "write"]));
        let arrival = receiver.next().await;
        assert_eq!(Token::find_all(&arrival.message.body).next(), Some(first));
        assert_eq!(arrival.message.header("frame"), Some("text"));
        assert!(arrival.at.mono > reply.started.mono && reply.finished.mono >= reply.started.mono);
        assert!(!channel.keeps(), "what is pushed while we are away is gone");

        // The connection is kept.
        let second = token();
        assert_eq!(phases(&channel.send(&order(second)).await.unwrap().phases), ["write"]);
        assert_eq!(Token::find_all(&receiver.next().await.message.body).next(), Some(second));
        assert_eq!(rooms.calls().len(), 2);
        for call in rooms.calls() {
            assert_eq!(call.path, "/orders?x=1");
            assert_eq!(call.header("host"), Some(rooms.address().to_string().as_str()));
            assert_eq!(call.header("authorization"), Some(CREDENTIALS));
            assert_eq!(call.header("sec-websocket-protocol"), Some("orders.v1"));
            assert!(call.header("user-agent").unwrap().starts_with("journeyman/"));
        }
        let told = channel.prove(BOUND).await.unwrap();
        assert_eq!(told, format!("{} speaks WebSocket and lets us in", rooms.address()));
        receiver.stop().await;
        assert_eq!(rooms.goodbyes(), [Some(1_000), Some(1_000)], "of the proof, and of the reader");
        assert_eq!(rooms.heard().len(), 2, "a proof sends no message");
    });
}

#[test]
fn binary_frames_carry_any_bytes_and_text_frames_only_text() {
    block_on(async {
        let rooms = Rooms::start().await;
        let channel = open(WebSocketSettings { frames: Frames::Binary, ..settings(&rooms.url("b")) });
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        let bytes = Outgoing { body: vec![0, 0xff, 0xfe, 0x81], ..order(token()) };
        channel.send(&bytes).await.unwrap();
        let message = receiver.next().await.message;
        assert_eq!((message.body.as_slice(), message.header("frame")), (&bytes.body[..], Some("binary")));
        let refused = fault(open(settings(&rooms.url("b"))).send(&bytes).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Refused, false));
        assert!(refused.detail.contains("`frames = \"binary\"`"), "{}", refused.detail);
    });
}

#[test]
fn it_is_ready_when_the_server_says_so_and_misses_nothing_before() {
    block_on(async {
        let rooms = Rooms::start().await;
        rooms.tell_subscribed(false);
        let hello = vec![HeaderText::Secret(secret(r#"{"op":"auth","key":"k3y"}"#))];
        let channel = open(WebSocketSettings { hello, ..settings(&rooms.url("r")) });
        let mut receiver = Receiver::on(&channel);
        wait_for("the hello", BOUND, async || (!rooms.heard().is_empty()).then_some(())).await;
        assert_eq!(rooms.heard(), [Message::text(r#"{"op":"auth","key":"k3y"}"#)]);
        // Subscribed, and not told so yet: what comes now is kept.
        rooms.order(Order::Say(Message::text("early")));
        rooms.order(Order::Say(Message::Ping("?".into())));
        let clock = Clock::system();
        let until = clock.now().mono + Duration::from_millis(200);
        wait_for("time to pass", BOUND, async || (clock.now().mono > until).then_some(())).await;
        assert_eq!(*receiver.readiness.borrow(), Readiness::Starting);
        assert!(receiver.arrivals.try_recv().is_err());
        rooms.tell_subscribed(true);
        receiver.ready().await;
        rooms.order(Order::Say(Message::text("on time")));
        // What says that we are subscribed is not for journeys.
        assert_eq!(receiver.payloads(2).await, ["early", "on time"]);

        // One that says everything else.
        rooms.set(Manners { greeting: vec![Message::text("no"); 64], ..Manners::default() });
        let why = Receiver::on(&open(settings(&rooms.url("r")))).down().await;
        assert_eq!(why, format!("{} sent 64 messages, and none that `ready_when` matches", rooms.address()));
    });
}

#[test]
fn an_answer_that_is_no_welcome_is_told_with_its_cause() {
    block_on(async {
        let rooms = Rooms::start().await;
        for (answer, cause, words) in [
            ("HTTP/1.1 401 Unauthorized\r\n\r\nwho?", Cause::Auth, "answered the handshake with 401 Unauthorized"),
            ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", Cause::Auth, "403 Forbidden"),
            ("HTTP/1.1 429 Slow\r\nretry-after: 7\r\n\r\n", Cause::Throttled, "and asks to wait (7)"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Cause::Refused, "404 Not Found"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", Cause::Refused, "it is there, and no WebSocket"),
            ("HTTP/1.1 301 Moved\r\nlocation: /\r\n\r\n", Cause::Refused, "redirects are not followed"),
            ("HTTP/1.1 503 Busy\r\n\r\n", Cause::Rejected, "503 Service Unavailable"),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Cause::Refused, "does not answer as a WebSocket"),
            (
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                Cause::Refused,
                "Key mismatch",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", Cause::Refused, "does not answer as a WebSocket"),
        ] {
            rooms.set(Manners { answer: Some(answer.to_owned()), ..Manners::default() });
            let channel = open(settings(&rooms.url("x?key=s3cret-key")));
            let refused = fault(channel.send(&order(token())).await);
            assert_eq!((refused.cause, refused.uncertain), (cause, false), "{answer} {refused:?}");
            assert!(refused.detail.contains(words), "{}", refused.detail);
            let why = Receiver::on(&channel).down().await;
            let unproven = fault(channel.prove(BOUND).await.map(|_| unreachable!("it must fail")));
            assert!(why.contains(words) && unproven.detail.contains(words), "{why} {unproven:?}");
            let said = format!("{refused:?} {why} {unproven:?}");
            assert!(!said.contains("s3cret-key") && !said.contains("let-me-in"), "{said}");
        }
        // Credentials that it does not take.
        rooms.set(Manners::default());
        let wrong = vec![("authorization".to_owned(), HeaderText::Secret(secret("Bearer wr0ng-one")))];
        let refused =
            fault(open(WebSocketSettings { headers: wrong, ..settings(&rooms.url("x")) }).send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Auth, false));
        assert!(!format!("{refused:?}").contains("wr0ng"), "{refused:?}");
        assert!(rooms.heard().is_empty(), "nothing was sent");
    });
}

#[test]
fn ways_that_lead_nowhere_are_unreachable_for_certain() {
    block_on(async {
        let port = free_port();
        let nobody = open(settings(&format!("ws://127.0.0.1:{port}/x")));
        let refused = fault(nobody.send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Unreachable, false), "{refused:?}");
        assert!(refused.detail.starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{}", refused.detail);

        // It takes the connection and says nothing; or it ends it.
        let rooms = Rooms::start().await;
        rooms.set(Manners { answer: Some(String::new()), ..Manners::default() });
        let short = Outgoing { timeout: Duration::from_millis(300), ..order(token()) };
        let refused = fault(open(settings(&rooms.url("x"))).send(&short).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Unreachable, false), "{refused:?}");
        let expected = format!("no answer from {} within 300ms while making the handshake", rooms.address());
        assert_eq!(refused.detail, expected);
        rooms.set(Manners { answer: Some("HTTP/1.1 101 Sw".to_owned()), ..Manners::default() });
        let refused = fault(open(settings(&rooms.url("x"))).send(&order(token())).await);
        assert_eq!((refused.cause, refused.uncertain), (Cause::Unreachable, false), "{refused:?}");
        assert!(refused.detail.ends_with("ended the connection in the handshake"), "{}", refused.detail);
    });
}

#[test]
fn tls_is_spoken_and_certificates_are_judged() {
    block_on(async {
        let rooms = Rooms::start().await;
        let scratch = Scratch::new("websocket-tls");
        for (shown, words) in [
            (Shown::Good, ""),
            (Shown::WrongHost, "is for another name"),
            (Shown::Expired, "has expired"),
            (Shown::Unknown, "from an issuer that is not trusted"),
        ] {
            let front = TlsFront::start(rooms.address(), shown, scratch.path()).await;
            let url = format!("wss://localhost:{}/t", front.address().port());
            let channel = open(WebSocketSettings { ca_file: Some(front.ca_file().to_owned()), ..settings(&url) });
            let answer = channel.send(&order(token())).await;
            if shown == Shown::Good {
                assert_eq!(phases(&answer.unwrap().phases), ["dns", "connect", "tls", "upgrade", "write"]);
                let mut receiver = Receiver::on(&channel);
                receiver.ready().await;
                receiver.stop().await;
                continue;
            }
            let refused = fault(answer);
            assert_eq!((refused.cause, refused.uncertain), (Cause::Tls, false), "{refused:?}");
            assert!(refused.detail.contains(words), "{}", refused.detail);
            let why = Receiver::on(&channel).down().await;
            assert!(why.contains(words), "{why}");
        }
        // A server that speaks none; a file that is not there.
        let url = format!("wss://localhost:{}/t", rooms.address().port());
        let short = Outgoing { timeout: Duration::from_secs(1), ..order(token()) };
        let refused = fault(open(settings(&url)).send(&short).await);
        assert!(!refused.uncertain && matches!(refused.cause, Cause::Tls | Cause::Unreachable), "{refused:?}");
        let gone = Some(Path::new("/nowhere/ca.pem").to_owned());
        let problem = websocket::open(WebSocketSettings { ca_file: gone, ..settings(&url) }, Clock::system());
        assert!(problem.err().unwrap().contains("`ca_file` /nowhere/ca.pem"));
    });
}

#[test]
fn a_goodbye_is_told_in_words_and_the_connection_made_anew() {
    block_on(async {
        let rooms = Rooms::start().await;
        let channel = open(settings(&rooms.url("g")));
        let mut receiver = Receiver::on(&channel);
        for (code, words) in [
            (1_001, "it is going away (1001): deploy"),
            (1_008, "against its policy (1008): deploy"),
            (1_011, "it failed inside (1011): deploy"),
            (1_012, "it restarts (1012): deploy"),
            (4_009, "for a reason of its own (4009): deploy"),
        ] {
            receiver.ready().await;
            rooms.order(Order::Close(code, "deploy"));
            let why = receiver.down().await;
            assert_eq!(why, format!("{} closed the connection: {words}", rooms.address()));
            // What is pushed now is lost, and the readiness says that it may be.
            receiver.stop().await;
            receiver = Receiver::on(&channel);
        }
        receiver.ready().await;
        let ours = token();
        channel.send(&order(ours)).await.unwrap();
        while Token::find_all(&receiver.next().await.message.body).next() != Some(ours) {}
    });
}

#[test]
fn it_comes_back_by_itself_after_a_cut_a_reset_and_a_server_that_was_killed() {
    block_on(async {
        let mut rooms = Rooms::start().await;
        let proxy = Proxy::start(rooms.address()).await;
        let channel = open(settings(&format!("ws://{}/c", proxy.address())));
        let mut receiver = Receiver::on(&channel);
        receiver.ready().await;
        proxy.cut();
        let why = receiver.down().await;
        assert!(why.contains("lost the connection") && why.contains("(1006)"), "{why}");
        receiver.ready().await;
        proxy.reset();
        let why = receiver.down().await;
        assert!(why.contains("lost the connection"), "{why}");
        receiver.ready().await;
        channel.send(&order(token())).await.unwrap();
        rooms.kill().await;
        receiver.down().await;
        rooms.open().await;
        receiver.ready().await;
        let ours = token();
        let reply = channel.send(&order(ours)).await.unwrap();
        assert_eq!(
            phases(&reply.phases),
            ["dns", "connect", "upgrade", "write"],
            "the old connection is known to be gone"
        );
        while Token::find_all(&receiver.next().await.message.body).next() != Some(ours) {}
    });
}

#[test]
fn a_connection_that_has_ended_is_replaced_before_anything_is_sent_and_nothing_is_sent_twice() {
    block_on(async {
        let rooms = Rooms::start().await;
        let channel = open(unconfirmed(&rooms.url("s")));
        for round in 1..=5 {
            let reply = channel.send(&order(token())).await.unwrap();
            assert!(phases(&reply.phases).contains(&"upgrade"), "round {round}");
            rooms.until_connected(1).await;
            rooms.order(Order::Close(1_001, ""));
            rooms.until_connected(0).await;
        }
        let heard = async || (rooms.heard().len() == 5).then_some(());
        wait_for("five messages", BOUND, heard).await;
        assert_eq!(rooms.calls().len(), 5);
    });
}

#[test]
fn many_at_once_are_each_sent_once_over_one_connection() {
    block_on(async {
        let rooms = Rooms::start().await;
        let channel = open(unconfirmed(&rooms.url("m")));
        let tokens: Vec<_> = (0..200).map(|_| token()).collect();
        let orders: Vec<_> = tokens.iter().map(|token| order(*token)).collect();
        let answers = join_all(orders.iter().map(|order| channel.send(order))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|reply| reply.ack == "socket")));
        wait_for("all of them", BOUND, async || (rooms.heard().len() == 200).then_some(())).await;
        let mut heard: Vec<_> = rooms
            .heard()
            .iter()
            .flat_map(|message| Token::find_all(&message.clone().into_data()).collect::<Vec<_>>())
            .collect();
        let mut sent = tokens;
        heard.sort_unstable();
        sent.sort_unstable();
        assert_eq!(heard, sent);
        assert_eq!(rooms.calls().len(), 1);
    });
}

#[test]
fn what_is_half_written_is_uncertain_what_waits_behind_it_is_not_and_the_next_gets_a_new_connection() {
    block_on(async {
        let rooms = Rooms::start().await;
        let proxy = Proxy::start(rooms.address()).await;
        let channel = open(unconfirmed(&format!("ws://{}/h", proxy.address())));
        channel.send(&order(token())).await.unwrap();
        wait_for("the first message", BOUND, async || (rooms.heard().len() == 1).then_some(())).await;
        // More than the buffers between us and the server hold.
        proxy.set(Direction::ToServer, Flow::Hold);
        let large = Outgoing { body: vec![b'x'; 16 << 20], timeout: Duration::from_secs(4), ..order(token()) };
        let small = Outgoing { timeout: Duration::from_millis(300), ..order(token()) };
        let before = proxy.seen(Direction::ToServer);
        let (large, small) = tokio::join!(channel.send(&large), async {
            let begun = async || (proxy.seen(Direction::ToServer) > before).then_some(());
            wait_for("the first bytes", BOUND, begun).await;
            channel.send(&small).await
        });
        let (large, small) = (fault(large), fault(small));
        assert_eq!((large.cause, large.uncertain), (Cause::Uncertain, true), "{large:?}");
        assert!(large.detail.contains("took only a part of the message within"), "{}", large.detail);
        assert_eq!((small.cause, small.uncertain), (Cause::Unreachable, false), "{small:?}");
        assert!(small.detail.ends_with("while waiting to send"), "{}", small.detail);
        proxy.set(Direction::ToServer, Flow::Pass);
        let ours = token();
        let reply = channel.send(&order(ours)).await.unwrap();
        assert!(phases(&reply.phases).contains(&"upgrade"));
        let heard =
            async || rooms.heard().iter().any(|message| message.to_string().contains(&ours.to_string())).then_some(());
        wait_for("the message", BOUND, heard).await;
        assert!(rooms.heard().iter().all(|message| message.len() < 1_000), "no part of the large one is a message");
    });
}

#[test]
fn a_server_that_breaks_the_protocol_is_left_and_told() {
    block_on(async {
        let rooms = Rooms::start().await;
        for (bytes, words) in [
            (vec![0xf1, 0x01, b'x'], "Reserved bits are non-zero"),
            (vec![0x81, 0x81, 1, 2, 3, 4, 5], "masked frame from server"),
            (vec![0x81, 0x02, 0xff, 0xfe], "broke the protocol"),
            (vec![0x83, 0x00], "broke the protocol"),
            // A message of 2 MiB is announced.
            (vec![0x81, 0x7f, 0, 0, 0, 0, 0, 0x20, 0, 0], "sent a message of 2097152 bytes; at most 1048576 are read"),
        ] {
            let mut receiver = Receiver::on(&open(unconfirmed(&rooms.url("p"))));
            receiver.ready().await;
            rooms.until_connected(1).await;
            rooms.order(Order::Write(bytes));
            let why = receiver.down().await;
            assert!(why.contains(words), "{why}");
            receiver.stop().await;
            rooms.until_connected(0).await;
        }
        // Messages in fragments, with a ping between them, are messages.
        let mut receiver = Receiver::on(&open(unconfirmed(&rooms.url("p"))));
        receiver.ready().await;
        rooms.until_connected(1).await;
        rooms.order(Order::Write([&[0x01, 2][..], b"pr", &[0x89, 0], &[0x80, 3], b"obe"].concat()));
        assert_eq!(receiver.payloads(1).await, ["probe"]);
    });
}

#[test]
fn an_arrival_is_stamped_when_it_is_here_even_if_nobody_takes_it() {
    block_on(async {
        let rooms = Rooms::start().await;
        let channel = open(unconfirmed(&rooms.url("a")));
        let mut receiver = Receiver::with_room(&channel, 1);
        receiver.ready().await;
        rooms.until_connected(1).await;
        for n in 0..40 {
            rooms.order(Order::Say(Message::text(n.to_string())));
        }
        let until = clock().now().mono + Duration::from_secs(1);
        wait_for("time to pass", BOUND, async || (clock().now().mono > until).then_some(())).await;
        let mut stamps = Vec::new();
        for n in 0..40 {
            let arrival = receiver.next().await;
            assert_eq!(arrival.message.text(), n.to_string(), "in order, and none is lost");
            stamps.push(arrival.at.mono);
        }
        // Those that fitted were stamped while nobody took them; the others waited with the server.
        let early = stamps.iter().filter(|at| **at < until).count();
        assert!((16..=20).contains(&early), "{early}");
        receiver.stop().await;
    });
}

/// The blocks of a page that are configuration.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_page_and_the_example_load_as_they_are() {
    use journeyman::config::{load_text, render};
    let scratch = Scratch::new("websocket-docs");
    for name in ["push-authorization", "chat-authorization"] {
        scratch.write(&format!("secrets/{name}"), "Bearer x");
    }
    let page = std::fs::read_to_string("docs/channels/websocket.md").unwrap();
    let blocks = blocks(&page);
    assert_eq!(blocks.len(), 2);
    let example = std::fs::read_to_string("probes/examples/websocket.toml").unwrap();
    // The channel stands in a comment, from the first table on.
    let lines = example.lines().filter_map(|line| line.strip_prefix("# ")).skip_while(|line| !line.starts_with('['));
    let channel = lines.collect::<Vec<_>>().join("\n");
    for (daemon, probes, journey) in [(blocks.concat(), "", "order-push"), (channel, example.as_str(), "chat-push")] {
        let loaded = load_text("journeyman.toml", &daemon, &[("probe.toml", probes)], scratch.path());
        let (plan, problems) = loaded.unwrap_or_else(|problems| panic!("{}", render(&problems, false)));
        assert!(plan.journeys.iter().any(|found| &*found.name == journey), "{journey}");
        let told = render(&problems, false);
        assert!(!told.contains("channel") && !told.contains("error"), "{told}");
    }
}

#[test]
fn a_daemon_hears_what_it_says_in_a_room() {
    block_on(async {
        let rooms = Rooms::start().await;
        let setup = crate::support::daemon::Setup::new("websocket");
        setup.write("chat-authorization", CREDENTIALS);
        let config = format!(
            "[channels.room]\ntype = \"websocket\"\nurl = \"{}\"\nheaders = {{ authorization = {{ file = \"chat-authorization\" }} }}\nsubscribe = ['{SUBSCRIBE}']\nready_when = '\"status\": *\"subscribed\"'\n[log]\nlevel = \"trace\"\n",
            rooms.url("probe")
        );
        let probe = std::fs::read_to_string("probes/examples/websocket.toml").unwrap();
        let probe = probe.replace("every     = \"30s\"", "every = \"200ms\"").replace("objective", "# objective");
        let mut daemon = setup.start(&config, &probe.replace("budget    = \"300ms\"", "budget = \"10s\"")).await;
        let good = [("journey", "chat-push"), ("outcome", "good")];
        wait_for("runs that are good", BOUND, async || {
            daemon.metric("journeyman_runs_total", &good).await.filter(|runs| *runs >= 3.0)
        })
        .await;
        // The library tells the whole handshake at this level.
        assert!(daemon.log().contains("Sec-WebSocket-Key"), "it says all it can");
        assert!(!daemon.log().contains("let-me-in"), "and no secret");
        assert_eq!(daemon.terminate().await, 0);
    });
}
