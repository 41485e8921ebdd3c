//! Buttons in Slack: pressed over Socket Mode, by signed calls to a gate, and what is answered when somebody may not.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use journeyman::clock::Clock;
use journeyman::commands::{Callback, Command, Denial, Refusal, Request, Which, channel};
use journeyman::control::AskedRun;
use journeyman::control::grant::{Deed, Grant};
use journeyman::journey::Name;
use journeyman::journey::token::Token;
use journeyman::notifier::slack::{Buttons, Interactions, SlackSettings, buttons};
use journeyman::secret::{Redactor, Secret};
use journeyman::time::later;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::fake_slack::{APP_TOKEN, Answer, CHANNEL, FakeSlack, TOKEN};
use crate::support::{block_on, wait_for};

const SIGNING: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const KEY: &[u8] = b"the installation's key";
const EPHEMERAL: &str = "chat.postEphemeral";
const BOUND: Duration = Duration::from_secs(30);

/// What hears of buttons, running, and who is asked.
struct Bench {
    fake: FakeSlack,
    callback: Option<Arc<dyn Callback>>,
    commanded: mpsc::Receiver<Command>,
    _running: JoinSet<()>,
}

async fn bench(is_signed: bool, has_socket: bool) -> Bench {
    journeyman::tls::init();
    let fake = FakeSlack::start().await;
    let redactor = Redactor::new();
    let secret = |text: &str| Secret::new(text.to_owned(), &redactor);
    let interactions = Interactions {
        signing_secret: is_signed.then(|| secret(SIGNING)),
        app_token: has_socket.then(|| secret(APP_TOKEN)),
    };
    let api_url = Some(fake.url().parse().expect("a URL"));
    let settings = SlackSettings::Bot { token: secret(TOKEN), channel: CHANNEL.to_owned(), api_url, interactions };
    let (commands, commanded) = channel();
    let name = Name::from("chat");
    let notifiers = std::iter::once((&name, &settings));
    let made = buttons(notifiers, KEY.into(), commands, redactor.clone(), Clock::system()).expect("TLS is there");
    let mut made: Buttons = made.expect("there is a way to hear of them");
    let callback = made.callback.take();
    let mut running = JoinSet::new();
    running.spawn(made.run(CancellationToken::new()));
    if has_socket {
        wait_for("a connection", BOUND, async || (fake.sockets_opened() > 0).then_some(())).await;
    }
    Bench { fake, callback, commanded, _running: running }
}

fn value(deed: Deed, key: &[u8], lasts: Duration) -> String {
    let until = later(Clock::system().now().wall, lasts);
    Grant { deed, incident: "7f3a00c0ffee".to_owned(), until }.sign(key)
}

fn good() -> String {
    value(Deed::Acknowledge, KEY, Duration::from_secs(600))
}

fn pressed(value: &str) -> Value {
    json!({
        "type": "block_actions", "team": { "id": "T0FAKE" }, "user": { "id": "U1", "username": "ada", "team_id": "T0FAKE" },
        "container": { "type": "message", "channel_id": CHANNEL, "message_ts": "1.2" },
        "actions": [{ "action_id": "journeyman_ack", "type": "button", "value": value }],
    })
}

fn body(payload: &Value) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("payload", &payload.to_string()).finish()
}

fn sign(secret: &str, stamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
    mac.update(format!("v0:{stamp}:{body}").as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v0={hex}")
}

/// A call as Slack makes it, at `at`.
fn call(bench: &Bench, body: &str, at: Timestamp, secret: &str) -> Result<(), Denial> {
    let stamp = at.as_second().to_string();
    let signature = sign(secret, &stamp, body);
    let header = |name: &str| match name {
        "x-slack-request-timestamp" => Some(stamp.clone()),
        "x-slack-signature" => Some(signature.clone()),
        _ => None,
    };
    bench.callback.as_ref().expect("it is signed").called(&header, body.as_bytes())
}

/// What was asked, answered with this.
async fn asked(bench: &mut Bench, answer: Result<(), Refusal>) -> Request {
    let command = tokio::time::timeout(BOUND, bench.commanded.recv()).await.expect("somebody asks").expect("it runs");
    let Command::Change { request, answer: awaited } = command else { panic!("{command:?}") };
    awaited.send(answer).expect("the answer is awaited");
    request
}

/// The run that was asked for, and who asked, answered with this.
async fn asked_to_run(bench: &mut Bench, answer: Result<AskedRun, Refusal>) -> (Which, String) {
    let command = tokio::time::timeout(BOUND, bench.commanded.recv()).await.expect("somebody asks").expect("it runs");
    let Command::Run { which, by, answer: awaited } = command else { panic!("{command:?}") };
    awaited.send(answer).expect("the answer is awaited");
    (which, by)
}

fn run_again() -> String {
    value(Deed::RunAgain, KEY, Duration::from_secs(600))
}

fn a_run() -> AskedRun {
    AskedRun { journey: "sms".into(), token: Token::from_bits(7), by: "<!channel> & co".to_owned(), at: now() }
}

fn now() -> Timestamp {
    Clock::system().now().wall
}

#[test]
fn a_signed_call_acknowledges_once_and_says_who() {
    block_on(async {
        let mut bench = bench(true, false).await;
        let (body, at) = (body(&pressed(&good())), now());
        assert_eq!(call(&bench, &body, at, SIGNING), Ok(()));
        let Request::Acknowledge { incident, ack } = asked(&mut bench, Ok(())).await else { panic!("it is another") };
        assert_eq!((incident.as_str(), ack.by.as_str()), ("7f3a00c0ffee", "@ada (Slack)"));
        assert_eq!(call(&bench, &body, at, SIGNING), Err(Denial::Forged("played again")));
        let silence = pressed(&value(Deed::Silence, KEY, Duration::from_secs(600)));
        assert_eq!(call(&bench, &self::body(&silence), at, SIGNING), Ok(()));
        let Request::SilenceMembers { incident, silence } = asked(&mut bench, Ok(())).await else {
            panic!("it is another")
        };
        assert_eq!(incident, "7f3a00c0ffee");
        assert_eq!(silence.until.as_second() - silence.from.as_second(), 3_600);
        assert_eq!(bench.fake.count(EPHEMERAL), 0, "everybody is told by a reply");
        assert_eq!(bench.fake.count("auth.test"), 1, "the workspace does not change");
    });
}

#[test]
fn who_cannot_sign_asks_for_nothing() {
    block_on(async {
        let mut bench = bench(true, false).await;
        let body = body(&pressed(&good()));
        for secret in ["", "another", &SIGNING[1..]] {
            assert_eq!(call(&bench, &body, now(), secret), Err(Denial::Forged("wrong signature")));
        }
        for away in [301, 86_400] {
            let early = later(now(), Duration::from_secs(away));
            assert!(matches!(call(&bench, &body, early, SIGNING), Err(Denial::Forged(_))));
            let late = journeyman::time::earlier(now(), Duration::from_secs(away));
            assert!(matches!(call(&bench, &body, late, SIGNING), Err(Denial::Forged(_))));
        }
        let callback = bench.callback.clone().expect("it is signed");
        assert!(matches!(callback.called(&|_| None, body.as_bytes()), Err(Denial::Forged(_))));
        assert!(matches!(call(&bench, "payload=7%7B", now(), SIGNING), Err(Denial::Unreadable(_))));
        assert_eq!(call(&bench, "payload=%7B%7D", now(), SIGNING), Ok(()), "not a button of ours");
        assert!(bench.commanded.try_recv().is_err());
        assert_eq!(bench.fake.requests().len(), 0);
    });
}

#[test]
fn who_may_not_is_told_why_and_nobody_else() {
    block_on(async {
        let mut bench = bench(true, false).await;
        let mut stranger = pressed(&good());
        stranger["team"]["id"] = "T0OTHER".into();
        let mut guest = pressed(&good());
        guest["user"]["team_id"] = "T0OTHER".into();
        let table = [
            (stranger, "only people of the workspace"),
            (guest, "only people of the workspace"),
            (pressed(&value(Deed::Acknowledge, KEY, Duration::ZERO)), "this button has expired"),
            (
                pressed(&value(Deed::Acknowledge, b"another", Duration::from_secs(600))),
                "not a button that this Journeyman made",
            ),
            (pressed(&value(Deed::RunAgain, KEY, Duration::ZERO)), "this button has expired"),
            (
                pressed(&value(Deed::RunAgain, b"another", Duration::from_secs(600))),
                "not a button that this Journeyman made",
            ),
            (
                pressed(&value(Deed::Acknowledge, KEY, Duration::from_secs(600)).replacen("ack", "run", 1)),
                "not a button that this Journeyman made",
            ),
        ];
        for (at, (payload, why)) in table.iter().enumerate() {
            assert_eq!(call(&bench, &body(payload), now(), SIGNING), Ok(()), "it is Slack that calls");
            bench.fake.wait_for_requests(EPHEMERAL, at + 1).await;
            let told = bench.fake.requests().pop().expect("there is one").arguments;
            assert_eq!((told["channel"].as_str(), told["user"].as_str()), (Some(CHANNEL), Some("U1")));
            assert!(told["text"].as_str().is_some_and(|text| text.contains(why)), "{told}");
        }
        assert!(bench.commanded.try_recv().is_err());
        // It may, and it is over already.
        assert_eq!(call(&bench, &body(&pressed(&good())), now(), SIGNING), Ok(()));
        let _ = asked(&mut bench, Err(Refusal::Unknown("no incident 7f3a00c0ffee is open".to_owned()))).await;
        bench.fake.wait_for_requests(EPHEMERAL, table.len() + 1).await;
        assert!(bench.fake.requests().pop().is_some_and(|told| told.arguments.to_string().contains("is open")));
        assert_eq!(bench.fake.messages(CHANNEL).len(), 0);
    });
}

#[test]
fn a_workspace_that_cannot_be_asked_for_allows_nothing() {
    block_on(async {
        let mut bench = bench(true, false).await;
        bench.fake.script("auth.test", [Answer::Status(503, "")]);
        assert_eq!(call(&bench, &body(&pressed(&good())), now(), SIGNING), Ok(()));
        bench.fake.wait_for_requests(EPHEMERAL, 1).await;
        assert!(bench.commanded.try_recv().is_err());
        let other = pressed(&value(Deed::Acknowledge, KEY, Duration::from_secs(700)));
        assert_eq!(call(&bench, &body(&other), now(), SIGNING), Ok(()));
        let _ = asked(&mut bench, Ok(())).await;
    });
}

#[test]
fn who_runs_a_journey_again_hears_which_run_it_is_or_why_not() {
    block_on(async {
        let mut bench = bench(true, false).await;
        let (body, at) = (body(&pressed(&run_again())), now());
        assert_eq!(call(&bench, &body, at, SIGNING), Ok(()));
        let (which, by) = asked_to_run(&mut bench, Ok(a_run())).await;
        assert_eq!((which, by.as_str()), (Which::Incident("7f3a00c0ffee".to_owned()), "@ada (Slack)"));
        bench.fake.wait_for_requests(EPHEMERAL, 1).await;
        let told = bench.fake.requests().pop().expect("there is one").arguments;
        assert_eq!((told["channel"].as_str(), told["user"].as_str()), (Some(CHANNEL), Some("U1")));
        let text = told["text"].as_str().expect("there is text");
        assert!(text.starts_with("Running sms again, asked by &lt;!channel&gt; &amp; co: run jm0"), "{text}");
        assert_eq!(call(&bench, &body, at, SIGNING), Err(Denial::Forged("played again")));

        let again = pressed(&value(Deed::RunAgain, KEY, Duration::from_secs(700)));
        assert_eq!(call(&bench, &self::body(&again), now(), SIGNING), Ok(()));
        let why = Refusal::NotNow("`sms` was run on request 3s ago; ask again in 8s".to_owned());
        let _ = asked_to_run(&mut bench, Err(why)).await;
        bench.fake.wait_for_requests(EPHEMERAL, 2).await;
        let told = bench.fake.requests().pop().expect("there is one").arguments;
        assert!(told["text"].as_str().is_some_and(|text| text.contains("ask again in 8s")), "{told}");
        assert!(bench.commanded.try_recv().is_err());
    });
}

#[test]
fn over_socket_mode_a_journey_is_run_again_once() {
    block_on(async {
        let mut bench = bench(false, true).await;
        bench.fake.tell_socket(envelope("e1", &run_again()));
        bench.fake.tell_socket(envelope("e1", &run_again()));
        let (which, _) = asked_to_run(&mut bench, Ok(a_run())).await;
        assert_eq!(which, Which::Incident("7f3a00c0ffee".to_owned()));
        bench.fake.wait_for_requests(EPHEMERAL, 1).await;
        let acknowledged = async || (bench.fake.acknowledged() == ["e1", "e1"]).then_some(());
        wait_for("both to be acknowledged", BOUND, acknowledged).await;
        assert!(bench.commanded.try_recv().is_err(), "once is enough");
    });
}

fn envelope(id: &str, value: &str) -> Value {
    json!({ "envelope_id": id, "type": "interactive", "accepts_response_payload": true, "payload": pressed(value) })
}

#[test]
fn over_socket_mode_a_press_is_acknowledged_and_done_once() {
    block_on(async {
        let mut bench = bench(false, true).await;
        assert!(bench.callback.is_none());
        bench.fake.tell_socket(envelope("e1", &good()));
        let Request::Acknowledge { .. } = asked(&mut bench, Ok(())).await else { panic!("it is another") };
        bench.fake.tell_socket(envelope("e1", &good()));
        bench.fake.tell_socket(json!({ "envelope_id": "e2", "type": "events_api", "payload": {} }));
        bench.fake.tell_socket(envelope("e3", "forged"));
        bench.fake.wait_for_requests(EPHEMERAL, 1).await;
        let acknowledged = async || (bench.fake.acknowledged() == ["e1", "e1", "e3"]).then_some(());
        wait_for("every press, and no event, to be acknowledged", BOUND, acknowledged).await;
        assert!(bench.commanded.try_recv().is_err(), "once is enough");
    });
}

#[test]
fn a_connection_that_ends_is_made_anew() {
    block_on(async {
        let mut bench = bench(false, true).await;
        // Asked to reconnect, cut, and refused.
        bench.fake.tell_socket(json!({ "type": "disconnect", "reason": "refresh_requested" }));
        wait_for("a second connection", BOUND, async || (bench.fake.sockets_opened() > 1).then_some(())).await;
        bench.fake.script("apps.connections.open", [Answer::Status(500, "")]);
        bench.fake.drop_sockets();
        wait_for("a third connection", BOUND, async || (bench.fake.sockets_opened() > 2).then_some(())).await;
        bench.fake.tell_socket(envelope("e9", &good()));
        let _ = asked(&mut bench, Ok(())).await;
    });
}

#[test]
fn without_a_way_to_hear_of_them_there_are_none() {
    journeyman::tls::init();
    let redactor = Redactor::new();
    let token = Secret::new(TOKEN.to_owned(), &redactor);
    let (channel, interactions) = (CHANNEL.to_owned(), Interactions::default());
    let settings = SlackSettings::Bot { token, channel, api_url: None, interactions };
    let (commands, _commanded) = journeyman::commands::channel();
    let name = Name::from("chat");
    let made = buttons(std::iter::once((&name, &settings)), KEY.into(), commands, redactor, Clock::system());
    assert!(made.expect("TLS is there").is_none());
}
