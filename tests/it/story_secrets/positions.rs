//! Every place where a configuration can have a secret, each with one of its own, in a daemon that logs all it can: of those that are
//! channels, none works, so that each fails with what it knows in its hands.

use std::collections::BTreeMap;

use journeyman::config::{load, render};
use journeyman::http::table;
use reqwest::Method;

use super::{BOUND, Parrot, TELLING};
use crate::support::certificate::Certificate;
use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::{block_on, free_port, wait_for};

/// Writes a configuration whose secrets are each told apart by its number.
struct Writer {
    /// What each is for.
    secrets: BTreeMap<String, String>,
    chance: fastrand::Rng,
}

impl Writer {
    fn new() -> Writer {
        Writer { secrets: BTreeMap::new(), chance: fastrand::Rng::with_seed(4_711) }
    }

    /// A secret of this length for this place.
    fn secret(&mut self, place: &str, length: usize) -> String {
        let secret: String = (0..length).map(|_| self.chance.lowercase()).collect();
        assert!(self.secrets.insert(place.to_owned(), secret.clone()).is_none(), "{place} twice");
        secret
    }
}

/// The channels and notifiers, each with all the secrets that it can have; `files` gets those that are kept in files.
fn configuration(writer: &mut Writer, parrot: &str, files: &mut BTreeMap<String, String>) -> String {
    let nobody = format!("127.0.0.1:{}", free_port());
    let mut file = |writer: &mut Writer, place: &str, length: usize, around: (&str, &str)| {
        let name = place.replace(['.', ' '], "-");
        let secret = writer.secret(place, length);
        files.insert(name.clone(), format!("{}{secret}{}", around.0, around.1));
        format!("{{ file = \"{name}\" }}")
    };
    let bare = ("", "");
    let mut text = format!(
        "\nallow_exec = true\n\n[http]\nadmin_token = {}\nweb_config = \"web.yml\"\n\n[hooks]\npublic_url = \"https://hooks.example.net\"\n\n[log]\nlevel = \"trace\"\n",
        file(writer, "http.admin_token", 24, bare)
    );
    let mut channel =
        |kind: &str, name: &str, keys: String| text += &format!("\n[channels.{name}]\ntype = \"{kind}\"\n{keys}");
    let user_at = |writer: &mut Writer, place: &str| format!("monitor:{}@{nobody}", writer.secret(place, 24));
    let (url, header) = (user_at(writer, "http.url"), file(writer, "http.headers", 24, bare));
    channel("http", "http", format!("url = \"http://{url}/\"\nheaders = {{ x-key = {header} }}\n"));
    for (scheme, more) in [
        ("bearer", ""),
        ("hmac", ""),
        ("github", ""),
        ("slack", ""),
        ("twilio", ""),
        ("vonage", ""),
        ("vonage-sig", ", method = \"sha256\""),
    ] {
        let secret = file(writer, &format!("webhook.{scheme}"), 24, bare);
        let real = scheme.trim_end_matches("-sig");
        channel(
            "webhook",
            &format!("hook-{scheme}"),
            format!("path = \"/{scheme}\"\nverify = {{ scheme = \"{real}\", secret = {secret}{more} }}\n"),
        );
    }
    let (url, management) = (user_at(writer, "amqp.url"), user_at(writer, "amqp.management"));
    channel(
        "amqp",
        "amqp",
        format!(
            "url = \"amqp://{url}/\"\nmanagement = \"http://{management}\"\nexchange = \"x\"\nqueue = {{ name = \"q\" }}\n"
        ),
    );
    let url = user_at(writer, "nats.url");
    channel("nats", "nats", format!("url = \"nats://{url}\"\nsubject = \"a\"\nsubscribe = \"b\"\n"));
    for key in ["password", "token"] {
        let (place, user) = (format!("nats.{key}"), if key == "password" { "user = \"monitor\"\n" } else { "" });
        let secret = file(writer, &place, 24, bare);
        channel(
            "nats",
            &format!("nats-{key}"),
            format!("url = \"nats://{nobody}\"\n{user}{key} = {secret}\nsubject = \"a\"\nsubscribe = \"b\"\n"),
        );
    }
    let (url, header) = (
        file(writer, "websocket.url", 24, (&format!("ws://{nobody}/?token="), "")),
        file(writer, "websocket.headers", 24, bare),
    );
    let (hello, subscribe) = (file(writer, "websocket.hello", 24, bare), file(writer, "websocket.subscribe", 24, bare));
    channel(
        "websocket",
        "websocket",
        format!(
            "url = {url}\nheaders = {{ authorization = {header} }}\nhello = [{hello}]\nsubscribe = [{subscribe}]\n"
        ),
    );
    let secret = file(writer, "imap.password", 24, bare);
    channel("imap", "imap", format!("url = \"imap://{nobody}\"\nusername = \"monitor\"\npassword = {secret}\n"));
    let secret = file(writer, "smtp.password", 24, bare);
    channel(
        "smtp",
        "smtp",
        format!(
            "url = \"smtp://{nobody}\"\nusername = \"monitor\"\npassword = {secret}\nfrom = \"a@example.net\"\nto = [\"b@example.net\"]\n"
        ),
    );
    let url = user_at(writer, "redis.url");
    channel("redis", "redis", format!("url = \"redis://{url}/0\"\nstream = \"a\"\nreceive = {{ stream = \"b\" }}\n"));
    let url = user_at(writer, "postgres.url");
    channel(
        "postgres",
        "postgres",
        format!(
            "url = \"postgres://{url}/db?sslmode=disable\"\nquery = \"select $1, $2\"\npoll = {{ query = \"select 1\", every = \"1s\" }}\n"
        ),
    );
    let url = user_at(writer, "mqtt.url");
    channel("mqtt", "mqtt", format!("url = \"mqtt://{url}\"\ntopic = \"a\"\nsubscribe = \"b\"\n"));
    let secret = file(writer, "mqtt.password", 24, bare);
    channel(
        "mqtt",
        "mqtt-password",
        format!(
            "url = \"mqtt://{nobody}\"\nuser = \"monitor\"\npassword = {secret}\ntopic = \"a\"\nsubscribe = \"b\"\n"
        ),
    );
    // No account of SMPP may have more.
    let secret = file(writer, "smpp.password", 8, bare);
    channel(
        "smpp",
        "smpp",
        format!("url = \"smpp://probe@{nobody}\"\npassword = {secret}\nfrom = \"Shop\"\nto = \"+4915112345678\"\n"),
    );
    let secret = file(writer, "kafka.password", 24, bare);
    channel(
        "kafka",
        "kafka",
        format!(
            "brokers = [\"{nobody}\"]\ntopic = \"a\"\nsasl = {{ mechanism = \"PLAIN\", user = \"monitor\", password = {secret} }}\n"
        ),
    );
    for kind in ["sqs", "sns"] {
        let keys = ["access_key_id", "secret_access_key", "session_token"];
        let secrets =
            keys.map(|key| format!("{key} = {}\n", file(writer, &format!("{kind}.{key}"), 24, bare))).concat();
        let target = match kind {
            "sqs" => format!("queue = \"http://{nobody}/123456789012/orders\"\nregion = \"eu-west-1\"\n"),
            _ => format!("topic = \"arn:aws:sns:eu-west-1:123456789012:orders\"\nendpoint = \"http://{nobody}\"\n"),
        };
        channel(kind, kind, format!("{target}{secrets}"));
    }
    let (token, user) =
        (file(writer, "slack.token", 24, ("xoxb-", "")), file(writer, "slack.user_token", 24, ("xoxp-", "")));
    let app = file(writer, "slack.app_token", 24, ("xapp-", ""));
    channel(
        "slack",
        "slack",
        format!(
            "token = {token}\nuser_token = {user}\nchannel = \"C0123456789\"\napi_url = \"http://{parrot}/slack/api/\"\n"
        ),
    );
    channel(
        "slack",
        "slack-app",
        format!(
            "token = {token}\napp_token = {app}\nchannel = \"C0123456789\"\napi_url = \"http://{parrot}/slack/api/\"\n"
        ),
    );
    let secret = file(writer, "exec.env", 24, bare);
    channel("exec", "exec", format!("env = {{ PROBE_KEY = {secret} }}\n"));

    let mut notifier =
        |kind: &str, name: &str, keys: String| text += &format!("\n[notifiers.{name}]\ntype = \"{kind}\"\n{keys}");
    let [token, signing, app] = [("token", "xoxb-"), ("signing_secret", ""), ("app_token", "xapp-")]
        .map(|(key, before)| file(writer, &format!("notifier.slack.{key}"), 24, (before, "")));
    notifier(
        "slack",
        "slack",
        format!(
            "token = {token}\nchannel = \"C0123456789\"\napi_url = \"http://{parrot}/slack/api/\"\nsigning_secret = {signing}\napp_token = {app}\n"
        ),
    );
    let hook = file(writer, "notifier.slack.webhook_url", 24, (&format!("http://{parrot}/services/T0/B0/"), ""));
    notifier("slack", "slack-hook", format!("webhook_url = {hook}\n"));
    let secret = file(writer, "notifier.email.password", 24, bare);
    notifier(
        "email",
        "email",
        format!(
            "smtp = \"smtp://monitor@{nobody}\"\npassword = {secret}\nfrom = \"a@example.net\"\nto = [\"b@example.net\"]\n"
        ),
    );
    let url = file(writer, "notifier.webhook.url", 24, (&format!("http://{parrot}/"), "/notices"));
    let [header, signing] =
        ["headers", "signing_key"].map(|key| file(writer, &format!("notifier.webhook.{key}"), 24, bare));
    notifier("webhook", "webhook", format!("url = {url}\nheaders = {{ x-key = {header} }}\nsigning_key = {signing}\n"));
    let key = file(writer, "notifier.pagerduty.routing_key", 32, bare);
    notifier("pagerduty", "pagerduty", format!("routing_key = {key}\nurl = \"http://{parrot}/v2/enqueue\"\n"));
    let (url, header) =
        (user_at(writer, "notifier.alertmanager.url"), file(writer, "notifier.alertmanager.headers", 24, bare));
    notifier(
        "alertmanager",
        "alertmanager",
        format!("url = \"http://{url}\"\nheaders = {{ authorization = {header} }}\n"),
    );
    text + "\n[defaults]\nevery = \"1s\"\nnotify = [\"slack\", \"slack-hook\", \"email\", \"webhook\", \"pagerduty\", \"alertmanager\"]\nalert = { down_after = 1 }\n"
}

/// Each channel is sent through, and received on where that can be.
const PROBES: &str = r#"
[[journey]]
name = "hooks"
step = [{ send = "http", text = "{{ token }}" }, { receive = "hook-bearer" }, { receive = "hook-hmac" }, { receive = "hook-github" }, { receive = "hook-slack" }, { receive = "hook-twilio" }, { receive = "hook-vonage" }, { receive = "hook-vonage-sig" }]
"#;

/// Of what a secret is, in base64, hexadecimal and percent-encoding, as far as it is told apart.
fn disguises(secret: &str) -> Vec<String> {
    let base64 = |bytes: &[u8]| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    vec![secret.to_owned(), hex, base64(secret.as_bytes()), base64(format!("monitor:{secret}").as_bytes())]
}

#[test]
fn no_secret_of_any_position_gets_out_by_any_way() {
    block_on(async {
        let parrot = Parrot::listen().await;
        let (mut writer, mut files) = (Writer::new(), BTreeMap::new());
        let config = configuration(&mut writer, &parrot.address.to_string(), &mut files);
        let setup = Setup::new("positions");
        for (name, content) in &files {
            setup.write(name, content);
        }
        let hashed = writer.secret("web_config.password", 24);
        let hash = bcrypt::hash(&hashed, 4).expect("it can be hashed");
        let tls = crate::support::Scratch::new("positions-tls");
        let pair = Certificate::new(&tls, &["127.0.0.1"]);
        let indented =
            |path: &std::path::Path| std::fs::read_to_string(path).expect("it is there").replace('\n', "\n    ");
        let key = indented(&pair.key);
        let middle = key.lines().nth(2).expect("a key has lines").trim().to_owned();
        writer.secrets.insert("web_config.key".to_owned(), middle);
        writer.secrets.insert("web_config.hash".to_owned(), hash[7..].to_owned());
        setup.write(
            "web.yml",
            &format!(
                "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {key}\nbasic_auth_users:\n  ada: {hash}\n",
                indented(&pair.certificate)
            ),
        );
        let mut probes = PROBES.to_owned();
        let sending = [
            "http",
            "amqp",
            "nats",
            "nats-password",
            "nats-token",
            "websocket",
            "smtp",
            "redis",
            "postgres",
            "mqtt",
            "mqtt-password",
            "smpp",
            "kafka",
            "sqs",
            "sns",
            "slack",
            "slack-app",
        ];
        for name in sending {
            probes += &format!(
                "\n[[journey]]\nname = \"{name}\"\nstep = [{{ send = \"{name}\", text = \"{{{{ token }}}}\" }}]\n"
            );
        }
        for name in [
            "amqp",
            "nats",
            "websocket",
            "imap",
            "redis",
            "postgres",
            "mqtt",
            "sqs",
            "kafka",
            "slack",
            "slack-app",
            "smpp",
        ] {
            probes += &format!(
                "\n[[journey]]\nname = \"from-{name}\"\nstep = [{{ send = \"http\", text = \"{{{{ token }}}}\" }}, {{ receive = \"{name}\" }}]\n"
            );
        }
        probes += "\n[[journey]]\nname = \"program\"\nstep = [{ exec = [\"/bin/sh\", \"-c\", \"echo no; env >&2; exit 2\"] }]\n";
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(journeyman::tls::client(Some(&pair.certificate)).expect("it is a certificate"))
            .default_headers(
                [(
                    reqwest::header::AUTHORIZATION,
                    format!("Bearer {}", writer.secrets["http.admin_token"]).parse().expect("a header"),
                )]
                .into_iter()
                .collect(),
            )
            .build()
            .expect("a client can be built");
        let mut daemon = setup.behind_tls(client).start(&config, &probes).await;

        for name in sending {
            wait_for(&format!("a run of {name}"), BOUND, async || {
                let runs = daemon.metric("journeyman_runs_total", &[("journey", name)]).await?;
                (runs >= 1.0).then_some(())
            })
            .await;
        }
        for notifier in ["slack", "slack-hook", "email", "webhook", "pagerduty", "alertmanager"] {
            wait_for(&format!("{notifier} to be tried"), BOUND, async || {
                let tried = daemon.metric("journeyman_notifications_total", &[("notifier", notifier)]).await?;
                (tried >= 1.0).then_some(())
            })
            .await;
        }

        let mut said: Vec<(String, Vec<u8>)> = Vec::new();
        let mut add = |place: &str, bytes: Vec<u8>| said.push((place.to_owned(), bytes));
        for route in table().into_iter().filter(|route| route.method == Method::GET && route.path != "/events") {
            for name in sending.iter().copied().chain(["hooks", "program"]) {
                let path = route.path.replace("{name}", name).replace("{file}", "style.css");
                add(&path, daemon.get(&path).await.1.into_bytes());
                if !route.path.contains("{name}") {
                    break;
                }
            }
        }
        for call in parrot.calls("/services").into_iter().chain(parrot.calls("/notices")) {
            add("a posted notice", call.body);
        }
        let directory = daemon.directory().to_owned();
        for arguments in [
            vec!["check"],
            vec!["check", "--connect"],
            vec!["once", "program"],
            vec!["once", "smtp", "--format", "json"],
            vec!["notify", "test", "slack"],
            vec!["notify", "test", "webhook"],
            vec!["notify", "test", "email"],
            vec!["notify", "preview", "--notifier", "webhook", "--out", "out"],
            vec!["incidents"],
            vec!["health"],
        ] {
            let ended = journeyman(&directory, &[&arguments[..], &["--config", "journeyman.toml"]].concat()).await;
            add(&format!("`{}`", arguments.join(" ")), format!("{}{}", ended.stdout, ended.stderr).into_bytes());
        }
        // What a panic would print of the plan.
        match load(&directory.join("journeyman.toml")) {
            Ok((plan, problems)) => {
                add("the plan", format!("{plan:?} {plan:#?}").into_bytes());
                add("its problems", format!("{problems:?} {}", render(&problems, true)).into_bytes());
            }
            Err(problems) => panic!("{}", render(&problems, false)),
        }
        for entry in std::fs::read_dir(directory.join("out")).expect("previews were written") {
            let path = entry.expect("a directory can be read").path();
            add("a preview", std::fs::read(path).expect("it can be read"));
        }
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
        add("the log", daemon.log().into_bytes());
        for end in ["", "-wal"] {
            add("the store", std::fs::read(format!("{}{end}", daemon.store_path().display())).unwrap_or_default());
        }
        assert!(daemon.log().contains("TRACE") && daemon.log().len() > 10_000, "it logs all that it can");

        assert!(writer.secrets.len() >= 45, "{}", writer.secrets.len());
        let mut leaks = String::new();
        for (place, bytes) in &said {
            let text = String::from_utf8_lossy(bytes);
            for (what, secret) in &writer.secrets {
                let length = TELLING.min(secret.len());
                let windows = |secret: &str| -> Option<usize> {
                    (0..=secret.len().checked_sub(length)?).find_map(|at| text.find(&secret[at..at + length]))
                };
                if let Some(at) = disguises(secret).iter().find_map(|disguise| windows(disguise)) {
                    let (from, to) =
                        (text.floor_char_boundary(at.saturating_sub(80)), text.ceil_char_boundary(at + 100));
                    leaks += &format!("{what} in {place}: …{}…\n", &text[from..to]);
                    break;
                }
            }
        }
        assert!(leaks.is_empty(), "secrets got out:\n{leaks}");
    });
}
