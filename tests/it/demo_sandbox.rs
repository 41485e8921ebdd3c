//! The demo's sandbox by itself, spoken to over real sockets: by HTTP clients, a mail library, a Slack library, and by hand.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use journeyman::clock::Clock;
use journeyman::demo::gateway::{Fault, SIGNATURE_HEADER, sign};
use journeyman::demo::{Sandbox, mail, workspace};
use lettre::message::MultiPart;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use slack_morphism::prelude::*;
use tokio::sync::mpsc;

use crate::support::{block_on, wait_for};

const BOUND: Duration = Duration::from_secs(30);

/// A call to the daemon's webhooks.
struct Call {
    path: &'static str,
    headers: HeaderMap,
    body: Bytes,
}

/// A sandbox, and what its configuration says about it.
struct Bench {
    sandbox: Sandbox,
    main: toml::Table,
    secrets: Vec<(String, String)>,
    http: Client,
    calls: mpsc::Receiver<Call>,
}

impl Bench {
    /// Starts a sandbox whose webhooks end here.
    async fn start() -> Bench {
        let (sender, calls) = mpsc::channel(100);
        let hook = |path: &'static str| {
            let sender = sender.clone();
            post(async move |headers: HeaderMap, body: Bytes| {
                sender.send(Call { path, headers, body }).await.expect("the test listens");
                StatusCode::NO_CONTENT
            })
        };
        let paths = ["/inbound-sms", "/orders-done", "/drill-mail"];
        let routes = paths.into_iter().fold(Router::new(), |routes, path| routes.route(path, hook(path)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
        let hook_url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let sandbox =
            Sandbox::start(&hook_url, Some("http://127.0.0.1:9/status"), Clock::system()).await.expect("it starts");
        let config = sandbox.configuration(Path::new("/nowhere"), 1, 2);
        Bench {
            sandbox,
            main: config.main.parse().expect("it is TOML"),
            secrets: config.secrets,
            http: Client::new(),
            calls,
        }
    }

    fn setting(&self, table: &str, name: &str, key: &str) -> String {
        self.main[table][name][key].as_str().expect("it is text").to_owned()
    }

    fn secret(&self, name: &str) -> &str {
        &self.secrets.iter().find(|(found, _)| found == name).expect("it is there").1
    }

    async fn call(&mut self) -> Call {
        tokio::time::timeout(BOUND, self.calls.recv()).await.expect("a call in time").expect("the webhooks are there")
    }

    /// Asks the gateway with the credentials that the configuration gives the daemon.
    async fn gateway(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = self.setting("channels", "gateway", "url") + path;
        let request = self
            .http
            .request(method.parse().expect("a method"), url)
            .header("authorization", self.secret("gateway-authorization"))
            .body(body.map(|body| body.to_string()).unwrap_or_default());
        read(request.send().await.expect("an answer")).await
    }

    /// Submits an SMS; its sid.
    async fn submit(&self, text: &str) -> String {
        let (status, body) = self.gateway("POST", "", Some(json!({ "to": "+447700900123", "text": text }))).await;
        assert_eq!((status, &body["status"]), (202, &json!("queued")), "{body}");
        body["sid"].as_str().expect("it is text").to_owned()
    }

    async fn page(&self) -> (HeaderMap, String) {
        let response = self.http.get(self.sandbox.inbox_url()).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        (response.headers().clone(), response.text().await.expect("text"))
    }

    fn mail_server(&self) -> SocketAddr {
        self.setting("notifiers", "ops-mail", "smtp")
            .strip_prefix("smtp://")
            .and_then(|at| at.parse().ok())
            .expect("an address")
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.expect("text")).unwrap_or_default())
}

/// The fields of an SMS that the gateway delivered, its signature verified with the key that the configuration gives the daemon.
fn delivered(bench: &Bench, call: &Call) -> Vec<(String, String)> {
    let expected = sign(bench.secret("gateway-signing-key"), &call.body);
    assert_eq!(call.headers[SIGNATURE_HEADER], expected.as_str());
    assert_eq!(call.headers["content-type"], "application/x-www-form-urlencoded");
    url::form_urlencoded::parse(&call.body).into_owned().collect()
}

fn body_of(fields: &[(String, String)]) -> &str {
    &fields.iter().find(|(name, _)| name == "Body").expect("a body").1
}

#[test]
fn an_sms_comes_back_signed_and_its_receipt_says_so() {
    block_on(async {
        let mut bench = Bench::start().await;
        let sid = bench.submit("probe 1 & ümlaut").await;
        let call = bench.call().await;
        assert_eq!(call.path, "/inbound-sms");
        let fields = delivered(&bench, &call);
        let expected = [
            ("From", "+447700900001"),
            ("To", "+447700900123"),
            ("Body", "probe 1 & ümlaut"),
            ("MessageSid", sid.as_str()),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

        let path = format!("/{sid}");
        wait_for("the receipt", BOUND, async || {
            let (status, body) = bench.gateway("GET", &path, None).await;
            (status == 200 && body["status"] == "delivered").then_some(())
        })
        .await;
        assert_eq!(bench.gateway("DELETE", &path, None).await.0, 204);
        assert_eq!(bench.gateway("DELETE", &path, None).await.0, 404);
        assert_eq!(bench.gateway("GET", &path, None).await.0, 404);

        let url = bench.setting("channels", "gateway", "url");
        for authorization in ["", "Bearer wrong", bench.secret("shop-token")] {
            let request = bench.http.post(&url).header("authorization", authorization).body("{}");
            assert_eq!(request.send().await.unwrap().status(), 401, "{authorization}");
        }
        assert_eq!(bench.gateway("POST", "", Some(json!({ "to": "x", "text": "y" }))).await.0, 422);
    });
}

#[test]
fn the_gateway_misbehaves_as_told() {
    block_on(async {
        let mut bench = Bench::start().await;
        bench.sandbox.gateway().set_fault(Fault::Drop);
        let dropped = bench.submit("dropped").await;
        // Slower than the slowest SMS of a healthy gateway, so that the next one overtakes it.
        bench.sandbox.gateway().set_fault(Fault::Slow(Duration::from_millis(1200)));
        bench.submit("slow").await;
        bench.sandbox.gateway().set_fault(Fault::Refuse);
        assert_eq!(bench.gateway("POST", "", Some(json!({ "to": "+447700900123", "text": "refused" }))).await.0, 503);
        bench.sandbox.gateway().set_fault(Fault::None);
        bench.submit("healthy").await;

        for expected in ["healthy", "slow"] {
            let call = bench.call().await;
            assert_eq!(body_of(&delivered(&bench, &call)), expected);
        }
        assert_eq!(bench.gateway("GET", &format!("/{dropped}"), None).await.1["status"], "sent");
        let counts = wait_for("both deliveries to be counted", BOUND, async || {
            let counts = bench.sandbox.gateway().counts();
            (counts.delivered == 2).then_some(counts)
        })
        .await;
        assert_eq!((counts.accepted, counts.dropped, counts.refused), (3, 1, 1));
    });
}

#[test]
fn an_order_is_announced_and_the_queue_is_bounded() {
    block_on(async {
        let mut bench = Bench::start().await;
        let shop = bench.setting("channels", "shop", "url");
        let order = async |id: &str| {
            let body = json!({ "id": id, "sku": "PROBE-1", "quantity": 1 }).to_string();
            bench.http.post(format!("{shop}/orders")).body(body).send().await.unwrap().status().as_u16()
        };
        assert_eq!(order("first").await, 202);
        assert_eq!(order("").await, 422);
        // Each order keeps the worker busy for 80 ms and more: eighty cannot be done while they are placed.
        let mut told = Vec::new();
        for serial in 0..80 {
            told.push(order(&serial.to_string()).await);
        }
        assert!(told.contains(&503) && told[0] == 202, "{told:?}");
        let health = read(bench.http.get(format!("{shop}/health/checkout")).send().await.unwrap()).await;
        let depth = health.1["queue"]["depth"].as_u64().unwrap();
        assert!((1..=64).contains(&depth), "{depth}");

        let call = bench.call().await;
        assert_eq!(call.path, "/orders-done");
        assert_eq!(call.headers["authorization"], format!("Bearer {}", bench.secret("shop-token")).as_str());
        assert_eq!(serde_json::from_slice::<Value>(&call.body).unwrap(), json!({ "id": "first", "status": "done" }));
    });
}

#[test]
fn a_mail_library_can_deliver() {
    block_on(async {
        let bench = Bench::start().await;
        let server = bench.mail_server();
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.ip().to_string())
            .port(server.port())
            .build();
        let text = "DOWN sms · ▇▇░░\n.\n..two dots\n<script>alert(1)</script>\n";
        for subject in ["DOWN sms · arrive: nothing came", "WELL AGAIN sms"] {
            let message = lettre::Message::builder()
                .from("Journeyman <journeyman@demo.invalid>".parse().unwrap())
                .to("ops@demo.invalid".parse().unwrap())
                .subject(subject)
                .multipart(MultiPart::alternative_plain_html(text.to_owned(), "<p>no</p>".to_owned()))
                .unwrap();
            let response = transport.send(message).await.unwrap();
            assert_eq!(response.message().collect::<Vec<_>>(), ["2.0.0 kept"]);
        }
        let mails = bench.sandbox.mailbox().mails();
        let subjects: Vec<_> = mails.iter().map(|mail| mail.letter.subject.as_str()).collect();
        assert_eq!(subjects, ["WELL AGAIN sms", "DOWN sms · arrive: nothing came"]);
        assert_eq!(mails[0].letter.text.trim_end(), text.trim_end());
        assert_eq!(mails[0].sender, "journeyman@demo.invalid");
        assert_eq!(mails[0].recipients, ["ops@demo.invalid"]);

        let (_, html) = bench.page().await;
        assert!(html.contains("DOWN sms · arrive: nothing came") && html.contains("&lt;script&gt;alert(1)"), "{html}");
        assert!(!html.contains("<script"));
    });
}

#[test]
fn mail_for_the_drills_is_announced_and_no_other() {
    block_on(async {
        let mut bench = Bench::start().await;
        let server = bench.mail_server();
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.ip().to_string())
            .port(server.port())
            .build();
        for (to, text) in [("ops@demo.invalid", "not this"), (mail::DRILLS, "token jm1")] {
            let message = lettre::Message::builder()
                .from("Journeyman <journeyman@demo.invalid>".parse().unwrap())
                .to(to.parse().unwrap())
                .subject("DRILL DOWN")
                .body(text.to_owned())
                .unwrap();
            transport.send(message).await.unwrap();
        }
        let call = bench.call().await;
        assert_eq!(call.path, "/drill-mail");
        assert_eq!(call.headers["authorization"], format!("Bearer {}", bench.secret("mail-token")).as_str());
        let told: Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!((&told["to"], &told["subject"]), (&json!(mail::DRILLS), &json!("DRILL DOWN")));
        assert_eq!(told["text"].as_str().unwrap().trim_end(), "token jm1");
    });
}

/// Says `lines` in one write, and gives the code of each of the `replies` that follow.
fn converse(stream: &TcpStream, lines: &[u8], replies: usize) -> Vec<String> {
    let mut writing = stream;
    writing.write_all(lines).expect("the server reads");
    let mut reading = BufReader::with_capacity(1, stream).lines();
    let mut codes = Vec::new();
    while codes.len() < replies {
        let line = reading.next().expect("another reply").expect("in time");
        if line.as_bytes()[3] == b' ' {
            codes.push(line[..3].to_owned());
        }
    }
    codes
}

#[test]
fn the_mailbox_is_bounded_and_a_mail_server_is_spoken_to_by_hand() {
    block_on(async {
        let bench = Bench::start().await;
        let server = bench.mail_server();
        let conversation = tokio::task::spawn_blocking(move || {
            let stream = TcpStream::connect(server).unwrap();
            stream.set_read_timeout(Some(BOUND)).unwrap();
            assert_eq!(converse(&stream, b"EHLO me\r\nNOOP\r\n", 3), ["220", "250", "250"]);
            // No CR, and far beyond the limit for a line: refused, and the session goes on.
            let long = [vec![b'x'; 100_000], b"\r\nNOOP\nRSET\r\n".to_vec()].concat();
            assert_eq!(converse(&stream, &long, 3), ["500", "500", "250"]);
            for serial in 0..mail::KEPT + 7 {
                let mail = format!("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nSubject: {serial}\r\n\r\n..\r\n.\r\n");
                assert_eq!(converse(&stream, mail.as_bytes(), 4), ["250", "250", "354", "250"]);
            }
            assert_eq!(converse(&stream, b"QUIT\r\n", 1), ["221"]);
            assert!(BufReader::new(&stream).lines().next().is_none(), "the server closes");
        });
        conversation.await.unwrap();
        let mails = bench.sandbox.mailbox().mails();
        assert_eq!(mails.len(), mail::KEPT);
        assert_eq!((mails[0].letter.subject.as_str(), mails[0].letter.text.as_str()), ("106", ".\n"));
        assert_eq!(mails[mail::KEPT - 1].letter.subject, "7");
    });
}

#[test]
fn a_slack_library_can_post_edit_and_look_up() {
    block_on(async {
        let bench = Bench::start().await;
        let connector =
            SlackClientHyperConnector::with_connector(hyper_util::client::legacy::connect::HttpConnector::new())
                .with_slack_api_url(&bench.setting("notifiers", "team-chat", "api_url"));
        let client = SlackClient::new(connector);
        let wrong = SlackApiToken::new("xoxb-wrong".into());
        assert!(client.open_session(&wrong).auth_test().await.is_err());
        let token = SlackApiToken::new(bench.secret("slack-bot-token").into());
        let session = client.open_session(&token);
        assert_eq!(session.auth_test().await.unwrap().team, "Sandbox");

        let channel: SlackChannelId = bench.setting("notifiers", "team-chat", "channel").into();
        assert_eq!(channel.to_string(), workspace::CHANNEL);
        let blocks: Vec<SlackBlock> = serde_json::from_value(json!([
            { "type": "header", "text": { "type": "plain_text", "text": "DOWN <b>sms</b>" } },
            { "type": "section", "text": { "type": "mrkdwn", "text": "*bold* `code`\n```\nsubmit  ▇▇  12ms\n```" } },
        ]))
        .unwrap();
        let metadata = SlackMessageMetadata::new("notice".to_owned())
            .with_event_payload([("id".to_owned(), "jm.1".to_owned())].into());
        let content =
            SlackMessageContent::new().with_text("DOWN".to_owned()).with_blocks(blocks).with_metadata(metadata);
        let request = SlackApiChatPostMessageRequest::new(channel.clone(), content);
        let root = session.chat_post_message(&request).await.unwrap();
        assert_eq!((root.channel, &root.message.origin.ts), (channel.clone(), &root.ts));

        let reply = SlackMessageContent::new().with_text("DOWN: nothing came".to_owned());
        let request = SlackApiChatPostMessageRequest::new(channel.clone(), reply).with_thread_ts(root.ts.clone());
        let reply = session.chat_post_message(&request).await.unwrap();
        assert_eq!(reply.message.origin.thread_ts, Some(root.ts.clone()));

        let content = SlackMessageContent::new().with_text("WELL AGAIN sms".to_owned()).with_blocks(vec![]);
        let request = SlackApiChatUpdateRequest::new(channel.clone(), content, root.ts.clone());
        assert_eq!(session.chat_update(&request).await.unwrap().ts, root.ts);

        let request =
            SlackApiConversationsHistoryRequest::new().with_channel(channel.clone()).with_include_all_metadata(true);
        let history = session.conversations_history(&request).await.unwrap();
        assert_eq!(history.messages.len(), 1, "a reply is not part of the history");
        assert_eq!(history.messages[0].content.text.as_deref(), Some("WELL AGAIN sms"));
        let payload = history.messages[0].content.metadata.as_ref().and_then(|found| found.event_payload.as_ref());
        assert_eq!(payload.unwrap()["id"], "jm.1");
        let request = SlackApiConversationsRepliesRequest::new(channel, root.ts);
        assert_eq!(session.conversations_replies(&request).await.unwrap().messages.len(), 2);

        let (_, html) = bench.page().await;
        for part in ["<article class=\"post good\">", "WELL AGAIN sms", "(edited ", "1 reply", "DOWN: nothing came"] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
    });
}

#[test]
fn the_page_needs_no_script_and_lets_nothing_in() {
    block_on(async {
        let bench = Bench::start().await;
        let (headers, html) = bench.page().await;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(html.contains("Nobody has been told anything.") && html.contains("<meta http-equiv=\"refresh\""));
        let style = bench.http.get(format!("{}inbox.css", bench.sandbox.inbox_url())).send().await.unwrap();
        assert_eq!(style.headers()["content-type"], "text/css; charset=utf-8");

        let api = bench.setting("notifiers", "team-chat", "api_url");
        // As a client of Slack escapes it: what comes out of unescaping is what must not run.
        let hostile = "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;";
        let body = json!({ "channel": workspace::CHANNEL, "text": hostile }).to_string();
        let request = bench.http.post(format!("{api}/chat.postMessage")).header("content-type", "application/json");
        let request = request.bearer_auth(bench.secret("slack-bot-token")).body(body);
        assert_eq!(read(request.send().await.unwrap()).await.1["ok"], true);
        let (_, html) = bench.page().await;
        assert!(html.contains("alert(1)") && !html.contains("<script") && !html.contains("<img"), "{html}");
    });
}

#[test]
fn a_stopped_sandbox_lets_go_of_everything() {
    block_on(async {
        let bench = Bench::start().await;
        let mail_server = bench.mail_server();
        // Idle connections and a message under way must not hold it up.
        let idle = TcpStream::connect(mail_server).unwrap();
        bench.sandbox.gateway().set_fault(Fault::Slow(Duration::from_secs(60)));
        bench.submit("under way").await;
        bench.page().await;
        let inbox = bench.sandbox.inbox_url();
        tokio::time::timeout(BOUND, bench.sandbox.stop()).await.expect("stops at once");
        assert!(TcpStream::connect(mail_server).is_err());
        assert!(bench.http.get(inbox).send().await.is_err());
        drop(idle);
    });
}
