//! `web_config` as Prometheus' exporters have it: which files are taken, and what a daemon does with one that changes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use journeyman::clock::Clock;
use journeyman::config::{load_text, render};
use journeyman::gate::{Door, Rules, Web};
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, StatusCode};

use crate::http_pages::stage::Stage;
use crate::support::certificate::Certificate;
use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::{Scratch, block_on, wait_for};

const BOUND: Duration = Duration::from_secs(20);
/// `lovelace`, at a cost that tests can bear.
fn hash() -> String {
    bcrypt::hash("lovelace", 4).unwrap()
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

fn door(file: &Path) -> Door {
    Door { web: Some(Arc::new(Web::open(file, Clock::system()).unwrap())), ..Door::default() }
}

/// What is taken and refused, as exporter-toolkit's own tests have it; where we are stricter, the comment says why.
#[test]
fn a_file_is_taken_whole_or_refused_with_words() {
    let scratch = Scratch::new("web-config");
    let pair = Certificate::new(&scratch, &["127.0.0.1"]);
    let other = Certificate::expired(&scratch, &["127.0.0.1"]);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let (cert, key, other_key) = (name(&pair.certificate), name(&pair.key), name(&other.key));
    scratch.write("empty.pem", "");
    let tls = format!("tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n");
    let inline = |path: &Path| std::fs::read_to_string(path).unwrap().replace('\n', "\n    ");
    let ca = format!("  client_ca_file: {cert}\n");
    let good = [
        String::new(),
        "# nothing\n\n".to_owned(),
        tls.clone(),
        format!("tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n", inline(&pair.certificate), inline(&pair.key)),
        format!("{tls}  min_version: TLS13\n"),
        format!("{tls}  min_version: TLS12\n  max_version: TLS12\n  prefer_server_cipher_suites: false\n"),
        format!("{tls}  client_auth_type: NoClientCert\n"),
        format!("{tls}{ca}  client_auth_type: VerifyClientCertIfGiven\n"),
        format!("{tls}{ca}  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [a.example]\n"),
        format!("basic_auth_users:\n  ada: {}\n  bob: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG\n", hash()),
        "http_server_config:\n  http2: false\n  headers:\n    Strict-Transport-Security: max-age=31536000\n    X-Frame-Options: deny\n".to_owned(),
        "rate_limit:\n  interval: 1s\n  burst: 5\n".to_owned(),
        "rate_limit:\n  interval: 0s\n".to_owned(),
    ];
    for text in &good {
        let file = scratch.write("web.yml", text);
        assert!(Rules::load(&file).is_ok(), "{text}\n{:?}", Rules::load(&file));
    }
    let bad = [
        ("foo: bar", "unknown field `foo`"),
        ("tls_server_config:\n  cert_fil: x", "unknown field `cert_fil`"),
        ("basic_auth_users: [", "line "),
        ("tls_server_config: {}", "needs `cert_file` and `key_file`"),
        (&format!("tls_server_config:\n  cert_file: {cert}"), "needs `cert_file` and `key_file`"),
        (&format!("tls_server_config:\n  key_file: {key}"), "needs `cert_file` and `key_file`"),
        (&format!("tls_server_config:\n  cert_file: gone.pem\n  key_file: {key}"), "`cert_file`: cannot read"),
        (&format!("tls_server_config:\n  cert_file: {cert}\n  key_file: gone.key"), "`key_file`: cannot read"),
        (&format!("tls_server_config:\n  cert_file: empty.pem\n  key_file: {key}"), "no certificate in it"),
        (&format!("tls_server_config:\n  cert_file: {cert}\n  key_file: empty.pem"), "no private key"),
        (&format!("tls_server_config:\n  cert_file: {cert}\n  key_file: {other_key}"), "do not go together"),
        (&format!("{tls}  cert: x\n"), "one of them is enough"),
        (&format!("{tls}  min_version: TLS111\n"), "`min_version` is TLS12 or TLS13"),
        (&format!("{tls}  max_version: TLS11\n"), "`max_version` is TLS12 or TLS13"),
        // Stricter: they are broken.
        (&format!("{tls}  min_version: TLS10\n"), "is broken"),
        (&format!("{tls}  min_version: TLS11\n"), "is broken"),
        (&format!("{tls}  min_version: TLS13\n  max_version: TLS12\n"), "above"),
        (&format!("{tls}  client_auth_type: RequireAndVerifyClientCert\n"), "needs `client_ca_file`"),
        (&format!("{tls}{ca}"), "without `client_auth_type`"),
        (&format!("{tls}{ca}  client_auth_type: Maybe\n"), "cannot be `Maybe`"),
        (&format!("{tls}  client_ca_file: gone.pem\n  client_auth_type: RequireAndVerifyClientCert\n"), "cannot read"),
        (
            &format!("{tls}  client_ca_file: empty.pem\n  client_auth_type: RequireAndVerifyClientCert\n"),
            "`client_ca_file`",
        ),
        (&format!("{tls}  client_allowed_sans: [a]\n"), "`client_allowed_sans` needs"),
        (
            &format!("{tls}{ca}  client_auth_type: VerifyClientCertIfGiven\n  client_allowed_sans: [a]\n"),
            "`client_allowed_sans` needs",
        ),
        // Stricter: a certificate that nobody verifies proves nothing.
        (&format!("{tls}  client_auth_type: RequireAnyClientCert\n"), "proves nothing"),
        (&format!("{tls}  client_auth_type: RequestClientCert\n"), "proves nothing"),
        // Stricter: the TLS library has no weak ones, so a choice would be heeded by nobody.
        (&format!("{tls}  cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n"), "cannot be chosen"),
        (&format!("{tls}  curve_preferences: [CurveP256]\n"), "cannot be chosen"),
        ("basic_auth_users:\n  ada: lovelace", "no bcrypt hash"),
        ("basic_auth_users:\n  ada: $2y$31$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG", "cost of 31"),
        (&format!("basic_auth_users:\n  'a:da': {}", hash()), "colon"),
        ("http_server_config:\n  headers:\n    X-Server: me", "`X-Server` cannot be set"),
        ("http_server_config:\n  headers:\n    X-Frame-Options: sometimes", "can be deny or sameorigin"),
        ("http_server_config:\n  headers:\n    X-Content-Type-Options: sniff", "can be nosniff"),
        ("http_server_config:\n  headers:\n    Content-Security-Policy: \"a\\nb\"", "no header may have"),
        ("rate_limit:\n  interval: soon\n  burst: 1", "`interval`"),
        ("rate_limit:\n  interval: 1s", "`burst`"),
    ];
    for (text, words) in bad {
        let told = Rules::load(&scratch.write("web.yml", text)).unwrap_err();
        assert!(told.contains(words) && told.contains("web.yml"), "{text}\n{told}");
    }
    assert!(Rules::load(&scratch.path().join("gone.yml")).unwrap_err().contains("cannot read"));
    for secret in [
        "basic_auth_users: hunter2-canary",
        "basic_auth_users:\n  ada: hunter2-canary",
        "basic_auth_users:\n  ada: [hunter2-canary]",
        "basic_auth_users:\n  ada: \"hunter2-canary",
        "tls_server_config:\n  key: [hunter2-canary]",
        "tls_server_config:\n  cert: x\n  key: hunter2-canary",
        "tls_server_config: hunter2-canary",
        "hunter2-canary",
        "- hunter2-canary",
    ] {
        let told = Rules::load(&scratch.write("web.yml", secret)).unwrap_err();
        assert!(!told.contains("hunter2"), "{told}");
    }
    let rules = format!("{:?}", Rules::load(&scratch.write("web.yml", &good[3])).unwrap());
    assert!(!rules.contains("PRIVATE KEY"), "{rules}");
}

#[test]
fn everything_is_behind_the_password_and_the_headers_are_on_every_answer() {
    block_on(async {
        let scratch = Scratch::new("users");
        let file = scratch.write(
            "web.yml",
            &format!(
                "basic_auth_users:\n  ada: {}\nhttp_server_config:\n  headers:\n    X-Frame-Options: deny\n    \
                 Content-Security-Policy: \"default-src https:\"\n",
                hash()
            ),
        );
        let stage = Stage::behind(door(&file), None).await;
        let get = async |path: &str, password: Option<&str>| {
            let request = client().get(format!("{}{path}", stage.url));
            let request = match password {
                Some(password) => request.basic_auth("ada", Some(password)),
                None => request,
            };
            request.send().await.unwrap()
        };
        // As exporter-toolkit has it: health and metrics too.
        for path in ["/", "/metrics", "/live", "/ready", "/health", "/events", "/static/style.css", "/nowhere"] {
            let refused = get(path, None).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(refused.headers()["www-authenticate"], "Basic realm=\"journeyman\", charset=\"UTF-8\"");
            assert_eq!(refused.headers()["x-frame-options"], "deny");
            assert!(refused.text().await.unwrap().contains("password"));
            assert_ne!(get(path, Some("lovelace")).await.status(), StatusCode::UNAUTHORIZED, "{path}");
        }
        assert_eq!(get("/live", Some("Lovelace")).await.status(), StatusCode::UNAUTHORIZED);
        let page = get("/", Some("lovelace")).await;
        let policies: Vec<_> = page.headers().get_all("content-security-policy").iter().collect();
        assert_eq!(policies.len(), 2, "browsers heed both, so that ours is not loosened: {policies:?}");
        stage.stop().await;
    });
}

#[test]
fn requests_above_the_rate_are_told_when_to_come_again() {
    block_on(async {
        let scratch = Scratch::new("rate");
        let stage =
            Stage::behind(door(&scratch.write("web.yml", "rate_limit:\n  interval: 60s\n  burst: 3\n")), None).await;
        let mut told = Vec::new();
        for _ in 0..5 {
            let answer = client().get(format!("{}/live", stage.url)).send().await.unwrap();
            let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().parse::<u64>().unwrap());
            told.push((answer.status().as_u16(), wait.is_some_and(|wait| (50..=60).contains(&wait))));
        }
        assert_eq!(told, [(200, false), (200, false), (200, false), (429, true), (429, true)]);
        stage.stop().await;
    });
}

#[test]
fn a_changed_file_is_heeded_and_a_bad_one_leaves_the_old_in_force() {
    block_on(async {
        let scratch = Scratch::new("changed-web");
        let users = |password: &str| {
            // By the header it is seen that the file is in force; a wrong password too often would be sent away unheard.
            let mark = format!("http_server_config:\n  headers:\n    X-XSS-Protection: {password}\n");
            format!("{mark}basic_auth_users:\n  ada: {}\n", bcrypt::hash(password, 4).unwrap())
        };
        let file = scratch.write("web.yml", &users("first"));
        let door = door(&file);
        let mut wrong = door.web.as_ref().unwrap().wrong();
        let stage = Stage::behind(door, None).await;
        let status = async |password: &str| {
            let request = client().get(format!("{}/live", stage.url)).basic_auth("ada", Some(password));
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!((status("first").await, status("second").await), (200, 401));
        scratch.write("web.yml", &users("second"));
        wait_for("the new password", BOUND, async || {
            let told = client().get(format!("{}/live", stage.url)).send().await.unwrap();
            (told.headers()["x-xss-protection"] == "second").then_some(())
        })
        .await;
        assert_eq!((status("second").await, status("first").await), (200, 401), "and the old one is none any more");

        scratch.write("web.yml", "basic_auth_users: {");
        let told =
            tokio::time::timeout(BOUND, wrong.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
        assert!(told.contains("web.yml"), "{told}");
        assert_eq!((status("second").await, status("first").await), (200, 401));
        std::fs::remove_file(&file).unwrap();
        tokio::time::timeout(BOUND, wrong.wait_for(|why| why.as_ref().is_some_and(|why| why.contains("cannot read"))))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((status("second").await, status("first").await), (200, 401), "a file that is gone opens nothing");

        scratch.write("web.yml", &users("third"));
        tokio::time::timeout(BOUND, wrong.wait_for(Option::is_none)).await.unwrap().unwrap();
        assert_eq!((status("third").await, status("second").await), (200, 401));
        stage.stop().await;
    });
}

#[test]
fn a_daemon_behind_its_door_says_how_it_stands_and_lets_its_own_commands_in() {
    block_on(async {
        let setup = Setup::new("door");
        let scratch = Scratch::new("door-files");
        let pair = Certificate::new(&scratch, &["127.0.0.1"]);
        let web = format!(
            "tls_server_config:\n  cert_file: {}\n  key_file: {}\nbasic_auth_users:\n  ada: {}\n",
            pair.certificate.display(),
            pair.key.display(),
            hash()
        );
        setup.write("web.yml", &web);
        setup.write("admin", "the-admin-token");
        let config = "\n[http]\nweb_config = \"web.yml\"\nadmin_token = { file = \"admin\" }\n\n[channels.box]\ntype = \"memory\"\n";
        let probes =
            "[[journey]]\nname = \"one\"\nevery = \"1h\"\nmuted = true\nstep = [{ send = \"box\", text = \"x\" }]\n";
        let client = Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(journeyman::tls::client(Some(&pair.certificate)).unwrap())
            .default_headers([(AUTHORIZATION, "Basic YWRhOmxvdmVsYWNl".parse().unwrap())].into_iter().collect())
            .build()
            .unwrap();
        let mut daemon = setup.behind_tls(client).start(config, probes).await;

        assert_eq!(daemon.metric("journeyman_web_config_valid", &[("listener", "http")]).await, Some(1.0));
        let (status, health) = daemon.get("/health").await;
        assert!(
            status == 200 && health.contains("\"web_config of http\":{\"critical\":false,\"detail\":\"in force\""),
            "{health}"
        );
        let said = journeyman(daemon.directory(), &["health", "--config", "journeyman.toml"]).await;
        assert_eq!(said.code, 0, "{}", said.stderr);
        let said = journeyman(daemon.directory(), &["incidents", "--config", "journeyman.toml"]).await;
        assert_eq!((said.code, said.stdout.as_str()), (0, "no incident is open\n"), "{}", said.stderr);
        let file = std::fs::read_to_string(daemon.directory().join("journeyman.toml")).unwrap();
        let without = file.replace("admin_token = { file = \"admin\" }", "");
        std::fs::write(daemon.directory().join("without.toml"), without).unwrap();
        let said = journeyman(daemon.directory(), &["incidents", "--config", "without.toml"]).await;
        assert!(said.code == 77 && said.stderr.contains("wants a password (`web_config`)\n  help: "), "{said:#?}");

        std::fs::write(daemon.directory().join("web.yml"), "basic_auth_users: {").unwrap();
        wait_for("the metric to say so", BOUND, async || {
            let valid = daemon.metric("journeyman_web_config_valid", &[("listener", "http")]).await;
            (valid == Some(0.0)).then_some(())
        })
        .await;
        let (status, health) = daemon.get("/health").await;
        assert!(status == 200 && health.contains("the last good one stays in force"), "{health}");
        assert!(daemon.log().contains("the changed web_config cannot be used"), "{}", daemon.log());
        std::fs::write(daemon.directory().join("web.yml"), &web).unwrap();
        wait_for("the metric to be well again", BOUND, async || {
            let valid = daemon.metric("journeyman_web_config_valid", &[("listener", "http")]).await;
            (valid == Some(1.0)).then_some(())
        })
        .await;
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
    });
}

#[test]
fn no_certificate_of_another_is_taken_for_the_daemons_own() {
    block_on(async {
        let scratch = Scratch::new("known");
        let (ours, theirs) = (Scratch::new("ours"), Scratch::new("theirs"));
        let [ours, theirs] = [&ours, &theirs].map(|scratch| Certificate::new(scratch, &["127.0.0.1"]));
        let web = |pair: &Certificate| {
            format!(
                "tls_server_config:\n  cert_file: {}\n  key_file: {}\n",
                pair.certificate.display(),
                pair.key.display()
            )
        };
        let stage = Stage::behind(door(&scratch.write("theirs.yml", &web(&theirs))), None).await;
        let listen = stage.url.trim_start_matches("http://").parse().unwrap();
        let asked = |file: &Path| journeyman::gate::Local::to(listen, Some(file), BOUND).unwrap();
        let known = asked(&scratch.write("same.yml", &web(&theirs)));
        assert_eq!(known.client.get(known.base.join("live").unwrap()).send().await.unwrap().status(), 200);
        let stranger = asked(&scratch.write("ours.yml", &web(&ours)));
        assert!(stranger.client.get(stranger.base.join("live").unwrap()).send().await.is_err());
        stage.stop().await;
    });
}

/// What a configuration with this in its `[http]` and after it is told.
fn told(scratch: &Scratch, text: &str) -> Result<String, String> {
    let rest = "\n[channels.box]\ntype = \"memory\"\n[[journey]]\nname = \"one\"\nevery = \"1h\"\nmuted = true\nstep = [{ send = \"box\", text = \"x\" }]\n";
    match load_text("journeyman.toml", &format!("{text}{rest}"), &[], scratch.path()) {
        Ok((_, problems)) => Ok(if problems.is_empty() { String::new() } else { render(&problems, false) }),
        Err(problems) => Err(render(&problems, false)),
    }
}

#[test]
fn the_admin_token_on_an_open_network_is_warned_of() {
    let scratch = Scratch::new("warned");
    let pair = Certificate::new(&scratch, &["127.0.0.1"]);
    scratch.write("admin", "the-admin-token");
    let tls = format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n",
        pair.certificate.display(),
        pair.key.display()
    );
    let users = format!("basic_auth_users:\n  ada: {}\n", hash());
    let certificates = format!(
        "{tls}  client_ca_file: {}\n  client_auth_type: RequireAndVerifyClientCert\n",
        pair.certificate.display()
    );
    for (name, text) in [
        ("tls.yml", &tls),
        ("users.yml", &users),
        ("both.yml", &format!("{tls}{users}")),
        ("callers.yml", &certificates),
    ] {
        scratch.write(name, text);
    }
    let token = "admin_token = { file = \"admin\" }\n";
    let open = "[http]\nlisten = \"0.0.0.0:9464\"\n";
    let here = "[http]\nlisten = \"127.0.0.1:9464\"\n";
    for (text, words) in [
        (format!("{here}{token}"), vec![]),
        (open.to_owned(), vec![]),
        (format!("{open}{token}"), vec!["can read the admin token"]),
        (format!("{open}{token}web_config = \"tls.yml\"\n"), vec![]),
        (
            format!("{open}{token}web_config = \"users.yml\"\n"),
            vec!["can read the admin token", "can read the passwords"],
        ),
        (format!("{here}{token}web_config = \"users.yml\"\n"), vec![]),
        (format!("{here}web_config = \"users.yml\"\n"), vec!["need a password, and have none"]),
        (format!("{open}{token}web_config = \"both.yml\"\n"), vec![]),
        (format!("{here}{token}web_config = \"callers.yml\"\n"), vec!["have no certificate of their own"]),
        ("[hooks]\nlisten = \"0.0.0.0:9465\"\nweb_config = \"users.yml\"\n".to_owned(), vec!["can read the passwords"]),
        ("[hooks]\nlisten = \"0.0.0.0:9465\"\nweb_config = \"both.yml\"\n".to_owned(), vec![]),
    ] {
        let said = told(&scratch, &text).unwrap();
        assert_eq!(said.matches("warning: ").count(), words.len(), "{text}\n{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{text}\n{said}");
    }
    let bearer = "[hooks]\nweb_config = \"both.yml\"\n[channels.hook]\ntype = \"webhook\"\npath = \"/x\"\n\
                  verify = { scheme = \"bearer\", secret = { file = \"admin\" } }\n";
    assert!(told(&scratch, bearer).unwrap_err().contains("both are the header `Authorization`"));
    for section in ["http", "hooks"] {
        let gone = told(&scratch, &format!("[{section}]\nweb_config = \"gone.yml\"\n")).unwrap_err();
        assert!(gone.contains("cannot read") && gone.contains("gone.yml"), "{gone}");
    }
}

/// The page says which test keeps what: there is no test of that name, nobody keeps it.
#[test]
fn every_test_that_the_page_on_security_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let table = page.split("## What keeps it").nth(1).unwrap();
    let rows = table.lines().filter_map(|line| line.rsplit(" | ").next().filter(|_| line.starts_with("| ")));
    let named =
        rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|name| !name.contains('/') && *name != "regex");
    let named: Vec<_> = named.collect();
    assert!(named.len() > 40, "{named:?}");
    let mut sources = String::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let missing: Vec<_> = named.into_iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
