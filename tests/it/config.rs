//! Configurations as people write them: those that ship, good ones, bad ones with what is said about them, and mangled ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use journeyman::channel;
use journeyman::channel::webhook::{Algorithm, Encoding, SigHash, Verify, VonageMethod};
use journeyman::channel::websocket::Frames;
use journeyman::config::watcher::{Door, OwnPlan};
use journeyman::config::{Plan, Problem, Severity, load, load_text, render};
use journeyman::control::route;
use journeyman::journey::expect::Query;
use journeyman::journey::objective::{Period, PeriodUnit, Window};
use journeyman::journey::schedule::Schedule;
use journeyman::journey::template::Scope;
use journeyman::journey::token::Token;
use journeyman::journey::{AlertPolicy, Journey, Name, Objective, Poll, Verb};
use journeyman::notifier;
use journeyman::notifier::email::Security;
use journeyman::notifier::slack::SlackSettings;
use journeyman::time::earlier;
use proptest::prelude::*;

use crate::support::Scratch;
use crate::support::document::{commented_channels, toml_blocks};

/// The files of a directory with this ending, in order.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a directory can be read").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are no {ending} files in {directory}");
    files
}

fn loaded(path: &Path) -> (Plan, Vec<Problem>) {
    load(path).unwrap_or_else(|problems| panic!("{}:\n{}", path.display(), render(&problems, false)))
}

/// Compares with the file, or writes it if `UPDATE_EXPECT` is set. Gives whether they were the same.
fn is_as_expected(path: &Path, told: &str) -> bool {
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if std::env::var_os("UPDATE_EXPECT").is_some() && expected != told {
        if told.is_empty() {
            std::fs::remove_file(path).expect("a file can be removed")
        } else {
            std::fs::write(path, told).expect("a file can be written")
        }
        return true;
    }
    if expected != told {
        eprintln!("--- {}\n{expected}\n+++ now\n{told}", path.display());
    }
    expected == told
}

#[test]
fn what_ships_loads() {
    for path in files("config", ".toml") {
        let (plan, problems) = loaded(&path);
        assert!(problems.iter().all(|problem| !problem.is_error()));
        assert!(!plan.journeys.is_empty(), "{}", path.display());
    }
    let (plan, _) = loaded(Path::new("config/journeyman.toml"));
    let defined: Vec<_> =
        plan.journeys.iter().map(|journey| journey.defined_at.rsplit_once(':').unwrap().0.to_owned()).collect();
    for path in files("probes", ".toml") {
        assert!(defined.contains(&path.display().to_string()), "{} gives no journey", path.display());
    }
}

/// A configuration beside which these secrets lie must load without a word.
fn loads_without_a_word(what: &str, text: &str, secrets: &[&str]) {
    let scratch = Scratch::new("examples");
    for secret in secrets {
        scratch.write(secret, "s3cr3t");
    }
    let (plan, problems) = match load_text("journeyman.toml", text, &[], scratch.path()) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{what}:\n{}", render(&problems, false)),
    };
    assert!(problems.is_empty(), "{what}:\n{}", render(&problems, false));
    assert!(!plan.journeys.is_empty() && plan.journeys.iter().all(|journey| journey.unavailable.is_none()), "{what}");
}

const AWS_SECRETS: &[&str] = &["secrets/aws-access-key-id", "secrets/aws-secret-access-key"];
const SLACK_SECRETS: &[&str] = &["secrets/slack-bot-token"];

#[cfg(all(feature = "slack", feature = "sqs"))]
#[test]
fn what_the_pages_of_sqs_sns_and_slack_show_loads_and_so_do_their_examples() {
    let muted = "[defaults]\nmuted = true\n";
    for (page, secrets) in [("sqs", AWS_SECRETS), ("sns", AWS_SECRETS), ("slack", SLACK_SECRETS)] {
        let text = toml_blocks(&format!("docs/channels/{page}.md")).concat();
        loads_without_a_word(page, &format!("{muted}{text}"), secrets);
    }
    for (example, secrets) in [("probes/examples/sqs.toml", AWS_SECRETS), ("probes/examples/slack.toml", SLACK_SECRETS)]
    {
        let journeys = std::fs::read_to_string(example).unwrap();
        let text = format!("{muted}{}\n{journeys}", commented_channels(example));
        loads_without_a_word(example, &text, secrets);
    }
}

#[test]
fn good_files_load_with_no_more_than_the_expected_warnings() {
    let mut all_good = true;
    for path in files("tests/it/config/good", ".toml") {
        let (_, problems) = loaded(&path);
        let told = if problems.is_empty() { String::new() } else { render(&problems, false) };
        all_good &= is_as_expected(&path.with_extension("stderr"), &told);
    }
    assert!(all_good, "UPDATE_EXPECT=1 rewrites the expectations");
}

#[test]
fn bad_files_are_explained() {
    let files = files("tests/it/config/bad", ".toml");
    assert!(files.len() >= 25, "{}", files.len());
    let mut all_good = true;
    for path in files {
        let Err(problems) = load(&path) else { panic!("{} loads", path.display()) };
        assert!(problems.iter().any(Problem::is_error), "{}", path.display());
        all_good &= is_as_expected(&path.with_extension("stderr"), &render(&problems, false));
    }
    assert!(all_good, "UPDATE_EXPECT=1 rewrites the expectations");
}
#[test]
fn no_problem_shows_a_secret() {
    let mut seen = 0;
    for directory in ["tests/it/config/good", "tests/it/config/bad"] {
        for path in files(directory, ".toml") {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).replace("CANARY-NO-SECRET", "");
            if !text.contains("CANARY") {
                continue;
            }
            seen += 1;
            let problems = load(&path).map_or_else(|problems| problems, |(_, problems)| problems);
            let told = [render(&problems, false), render(&problems, true), format!("{problems:?}")].concat();
            assert!(!told.replace("CANARY-NO-SECRET", "").contains("CANARY"), "{}\n{told}", path.display());
        }
    }
    assert!(seen >= 2, "{seen}");
}

/// The plan of a text, which must have no error.
fn plan_of(text: &str) -> (Plan, Vec<Problem>) {
    match load_text("test.toml", text, &[], Path::new(".")) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{}", render(&problems, false)),
    }
}

fn journey(plan: &Plan, name: &str) -> Arc<Journey> {
    let found = plan.journeys.iter().find(|journey| &*journey.name == name);
    found.unwrap_or_else(|| panic!("no journey is named {name}")).clone()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_example_means_what_it_says() {
    let (plan, problems) = loaded(Path::new("config/journeyman.toml"));
    let names: Vec<_> = plan.journeys.iter().map(|journey| &*journey.name).collect();
    let expected = [
        "mail-round-trip",
        "checkout-api[eu]",
        "checkout-api[us]",
        "legacy-script",
        "order-pipeline",
        "order-backlog",
        "sms-round-trip",
    ];
    assert_eq!(names, expected);
    assert_eq!(plan.location.as_deref(), Some("london-1"));
    assert_eq!((plan.http.listen.port(), plan.hooks.as_ref().map(|hooks| hooks.listen.port())), (9464, Some(9465)));
    assert_eq!(plan.http.admin_token.as_ref().unwrap().reveal().as_str(), "example-admin-token");
    assert_eq!(plan.redactor.clean("Bearer example-slack-bot-token"), "Bearer •••");
    assert_eq!(plan.store.home.to_string(), "state/journeyman.db");
    assert_eq!(plan.store.keep_runs, seconds(90 * 86_400));
    assert_eq!(plan.notifiers["oncall"].fallback.as_deref(), Some("ops-mail"));
    assert_eq!(plan.notifiers["oncall"].fallback_after, seconds(120));

    let sms = journey(&plan, "sms-round-trip");
    assert_eq!(sms.defined_at, "probes/sms.toml:3");
    assert_eq!((sms.budget, sms.deadline, sms.late), (Some(seconds(5)), seconds(60), seconds(600)));
    let objective =
        Objective { delivered: 0.995, in_budget: Some(0.99), window: seconds(30 * 86_400).into(), late_is_good: false };
    assert_eq!(sms.objective, Some(objective));
    assert_eq!(sms.notify.iter().map(|name| &**name).collect::<Vec<_>>(), ["oncall", "ops-mail"]);
    let steps: Vec<_> = sms.steps.iter().map(|step| (&*step.name, step.verb.as_str(), step.always)).collect();
    let expected = [
        ("submit", "send", false),
        ("arrive", "receive", false),
        ("receipt", "request", false),
        ("tidy", "request", true),
    ];
    assert_eq!(steps, expected);
    assert_eq!(sms.steps[2].poll, Some(Poll { every: Duration::from_millis(500), within: seconds(10) }));
    assert!(matches!(&sms.steps[0].capture[..], [(name, Query::Json(_))] if name == "sid"));
    assert_eq!(sms.maintenance.len(), 1, "the glob of the maintenance window names it");
    assert_eq!(sms.unavailable, None);
    let channel::Settings::Webhook(inbound) = &plan.channels["inbound"].settings else { panic!() };
    let Verify::Twilio { secrets, url } = &inbound.verify else { panic!("{:?}", inbound.verify) };
    assert_eq!((secrets.len(), url.as_str()), (1, "https://hooks.example.net/inbound-sms"));

    let pipeline = journey(&plan, "order-pipeline");
    assert_eq!((pipeline.unavailable.as_ref(), pipeline.maintenance.len()), (None, 0));
    let expected = AlertPolicy {
        down_after: 3,
        confirm: Vec::new(),
        partial: true,
        drift: true,
        flapping: true,
        slow_after: 3,
        recover_after: 2,
        remind: Some(seconds(4 * 3_600)),
    };
    assert_eq!(pipeline.alert, expected);
    assert_eq!(pipeline.steps[1].name.as_ref(), "receive orders");

    let checkout = journey(&plan, "checkout-api[us]");
    assert_eq!(checkout.labels["region"], "us");
    let Verb::Request(draft) = &checkout.steps[0].verb else { panic!("{:?}", checkout.steps[0].verb) };
    assert_eq!(draft.url.as_ref().unwrap().source(), "https://us.shop.example.net/health/checkout");
    assert_eq!(plan.channels[&draft.channel].kind.name, "http");
    assert!(
        matches!(journey(&plan, "mail-round-trip").schedule, Schedule::Cron(_)),
        "its own cron beats the default every"
    );
    assert!(problems.iter().all(|problem| problem.severity == Severity::Warning));
}

#[test]
fn what_journeys_depend_on_arrives_in_the_plan() {
    let (plan, _) = loaded(Path::new("tests/it/config/good/dependencies.toml"));
    let on = |name: &str| -> Vec<String> { journey(&plan, name).depends_on.iter().map(|on| on.to_string()).collect() };
    assert_eq!(on("orders[us]"), ["broker:us-1"]);
    assert_eq!(on("sms-round-trip"), ["orders[eu]", "carrier"]);
    assert_eq!(on("voice"), ["network:london"]);
    let broker = &plan.dependencies["broker:eu-1"];
    assert_eq!(broker.delivered, 0.9995);
    assert_eq!(broker.description.as_deref(), Some("the managed broker of the eu region"));
}

#[test]
fn an_objective_has_the_window_that_was_written() {
    let (plan, _) = loaded(Path::new("tests/it/config/good/objectives.toml"));
    let window = |name: &str| journey(&plan, name).objective.as_ref().unwrap().window.clone();
    let of = |unit, zone: &str, start| {
        Window::Calendar(Box::new(Period { unit, zone: jiff::tz::TimeZone::get(zone).unwrap(), start }))
    };
    let date = jiff::civil::date;
    assert_eq!(window("by-the-month"), of(PeriodUnit::Month, "Europe/Paris", date(2024, 1, 1)));
    assert_eq!(window("by-the-week"), of(PeriodUnit::Week, "UTC", date(2026, 1, 7)));
    assert_eq!(window("by-the-quarter"), of(PeriodUnit::Quarter, "UTC", date(2026, 2, 1)));
    assert_eq!(window("rolling"), Window::Rolling(seconds(28 * 86_400)));
    let late = |name: &str| journey(&plan, name).objective.as_ref().unwrap().late_is_good;
    assert_eq!((late("by-the-month"), late("rolling")), (true, false));
}

#[test]
fn what_everybody_may_see_is_made_of_the_journeys_that_are_named() {
    let (plan, _) = loaded(Path::new("tests/it/config/good/everything.toml"));
    let public = plan.status_page.as_ref().unwrap();
    assert_eq!((public.title.as_str(), public.about.as_deref()), ("Example services", Some("Measured from outside.")));
    let [part] = &public.components[..] else { panic!("{public:?}") };
    assert_eq!((part.title.as_str(), part.group.as_deref()), ("Text messages", Some("Messaging")));
    let members: Vec<_> = plan.journeys.iter().filter(|journey| part.has(journey)).map(|one| &*one.name).collect();
    assert!(members.contains(&"orders") && members.contains(&"sms[us,a]"), "{members:?}");
    let silver = plan.journeys.iter().find(|one| one.labels.get("tier").is_some_and(|tier| tier == "silver"));
    assert!(silver.is_none_or(|journey| journey.name.starts_with("sms") || !part.has(journey)), "{silver:?}");
    let token = Token::from_bits(0xabc);
    let logs = plan.http.trace_url.as_ref().unwrap().of(token);
    assert_eq!(logs, format!("https://logs.example.net/run/{token}?q={:032x}", 0xabc));
}

#[test]
fn routes_and_windows_mean_what_they_say() {
    let (plan, _) = loaded(Path::new("tests/it/config/good/everything.toml"));
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let names = |names: &[Name]| names.join(" ");
    assert_eq!(names(&plan.operators), "mail");
    let told = |labels: &[(&str, &str)], now: &str| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (notify, escalate) = route(&plan.routes, &["default".into()], &labels, at(now));
        let rungs: Vec<_> =
            escalate.iter().map(|rung| format!("{} {}", rung.after.as_secs(), names(&rung.notify))).collect();
        (names(&notify), rungs.join(", "))
    };
    let gold = [("journey", "orders"), ("tier", "gold"), ("severity", "critical")];
    let rungs = "600 mail, 3600 hook".to_owned();
    assert_eq!(told(&gold, "2026-11-20T08:00:00Z"), ("slack".to_owned(), rungs.clone()), "Friday at nine in Zurich");
    assert_eq!(told(&gold, "2026-11-20T22:59:59Z"), ("slack".to_owned(), rungs.clone()), "until midnight");
    for closed in ["2026-11-20T07:59:59Z", "2026-11-20T23:00:00Z", "2026-11-19T12:00:00Z", "2026-11-21T12:00:00Z"] {
        assert_eq!(told(&gold, closed), ("default".to_owned(), String::new()), "{closed}");
    }
    assert_eq!(told(&gold, "2026-07-20T07:00:00Z").0, "slack", "in summer, Zurich is two hours ahead");
    let sms = [("journey", "sms[us,a]"), ("tier", "gold"), ("severity", "critical")];
    assert_eq!(told(&sms, "2026-11-20T12:00:00Z"), ("slack".to_owned(), rungs), "the second adds nobody");
    assert_eq!(told(&sms[..1], "2026-11-20T12:00:00Z").0, "", "and takes what the first does not");
    assert_eq!(names(&plan_of(SMALL).0.operators), "a b", "all that journeys and routes name");

    let moved = &journey(&plan, "orders").maintenance[1];
    let until = at("2026-12-02T03:00:00Z");
    assert_eq!(moved.active_until(at("2026-12-01T20:59:59Z")), None, "22:00 in Paris is 21:00");
    assert_eq!(moved.active_until(at("2026-12-01T21:00:00Z")), Some(until));
    assert_eq!((moved.is_active(earlier(until, Duration::from_millis(1))), moved.is_active(until)), (true, false));
    let swap = journey(&plan, "sms[us,a]").maintenance[1].clone();
    assert_eq!(swap.active_until(at("2026-12-05T21:29:59Z")), Some(at("2026-12-05T21:30:00Z")));
    assert!(swap.exclude_from_slo);
}

/// Nobody is told by the journey itself, and none of that is a mistake.
const SMALL: &str = r#"
    [channels.box]
    type = "memory"
    [notifiers.a]
    type = "webhook"
    url = "https://alerts.example.net/a"
    [notifiers.b]
    type = "webhook"
    url = "https://alerts.example.net/b"
    [[journey]]
    name = "sms"
    every = "1m"
    step = [{ send = "box" }]
    [[route]]
    match = ["severity=critical"]
    notify = ["b"]
    [[route]]
    notify = ["a"]
"#;

#[test]
fn a_journey_that_a_route_takes_is_not_said_to_tell_nobody() {
    assert_eq!(plan_of(SMALL).1.len(), 0, "{:?}", plan_of(SMALL).1);
    let (_, problems) = plan_of(&SMALL.replace("[\"severity=critical\"]", "[\"mail\"]").replace("[\"a\"]", "[]"));
    let told = render(&problems, false);
    assert!(told.contains("no journey has what this route asks for") && told.contains("by `a`"), "{told}");
}

#[test]
fn what_is_not_written_has_its_default() {
    let (plan, problems) = loaded(Path::new("tests/it/config/good/smallest.toml"));
    assert!(problems.is_empty());
    assert_eq!(plan.http.listen.to_string(), "127.0.0.1:9464");
    assert!(plan.hooks.is_none() && plan.http.admin_token.is_none() && plan.location.is_none());
    assert_eq!(plan.store.home.to_string(), "tests/it/config/good/journeyman.db");
    assert_eq!((plan.max_runs, plan.log.json, plan.log.level.as_str()), (512, false, "info"));
    assert_eq!(plan.watcher.own, Some(OwnPlan { every: seconds(30), door: Door::Public }));
    assert!(plan.watcher.dead_man.is_none() && plan.watcher.references.is_empty());
    let home = journey(&plan, "home-page");
    assert_eq!((home.budget, home.deadline, home.late), (None, seconds(30), seconds(300)));
    assert_eq!((home.objective.as_ref(), home.muted, home.critical), (None, false, false));
    assert_eq!((home.alert.down_after, home.alert.slow_after, home.alert.recover_after), (3, 3, 2));
    assert_eq!(plan.channels.keys().map(|name| &**name).collect::<Vec<_>>(), ["http"]);

    let webhook = "[channels.w]\ntype = 'webhook'\npath = '/w'\nverify = { scheme = 'none' }\n";
    let text =
        |keys: &str| format!("{webhook}[[journey]]\nname = 'a'\nmuted = true\n{keys}\n[[journey.step]]\npause = '1ms'");
    for (keys, down_after, deadline, late) in [
        ("every = \"119s\"", 3, 30, 300),
        ("every = \"2m\"", 2, 30, 300),
        ("cron = \"* * * * *\"", 3, 30, 300),
        ("cron = \"0 * * * *\"", 2, 30, 300),
        ("every = \"2h\"\nbudget = \"2s\"", 2, 30, 300),
        ("every = \"2h\"\nbudget = \"4s\"", 2, 40, 400),
        ("every = \"2d\"\nbudget = \"3h\"", 2, 86_400, 86_400),
        ("every = \"2d\"\ndeadline = \"5h\"", 2, 5 * 3_600, 86_400),
    ] {
        let (plan, _) = plan_of(&text(keys));
        let one = journey(&plan, "a");
        let found = (one.alert.down_after, one.deadline, one.late);
        assert_eq!(found, (down_after, seconds(deadline), seconds(late)), "{keys}");
        assert_eq!(plan.hooks.unwrap().listen.to_string(), "127.0.0.1:9465", "a webhook channel needs the listener");
    }
}

#[test]
fn every_key_arrives_in_the_plan() {
    let (plan, _) = loaded(Path::new("tests/it/config/good/everything.toml"));
    let names: Vec<_> = plan.journeys.iter().map(|journey| &*journey.name).collect();
    assert_eq!(names, ["sms[eu,a]", "sms[us,a]", "orders"], "others are disabled or for elsewhere");
    let sms = journey(&plan, "sms[us,a]");
    let labels: Vec<_> = sms.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["path=a", "region=eu", "team=ops", "tier=silver"], "own, then fragment, then defaults");
    assert_eq!(
        sms.alert,
        AlertPolicy {
            down_after: 5,
            confirm: Vec::new(),
            partial: true,
            drift: false,
            flapping: true,
            slow_after: 3,
            recover_after: 2,
            remind: None
        }
    );
    assert!(sms.critical && !sms.maintenance[0].exclude_from_slo);
    let Verb::Send(draft) = &sms.steps[0].verb else { panic!() };
    assert_eq!(draft.method.as_deref(), Some("PUT"));
    let token = Token::from_bits(1);
    let scope = Scope::new(token, "sms".into(), "2026-11-21T07:00:00Z".parse().unwrap(), 1);
    let sent = draft.render(&scope, token, seconds(1)).unwrap();
    assert_eq!(sent.path.as_deref(), Some("/a/messages"));
    let query = [("region", "US"), ("page", "1"), ("dry", "false")];
    assert_eq!(sent.query, query.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(sent.headers, [("X-Run".to_owned(), token.to_string())]);
    let body = String::from_utf8(sent.body).unwrap();
    assert!(
        body.starts_with(&format!("To=%2B44&Body={token}+")) && body.ends_with("&At=2026-11-21T07%3A00%3A00Z"),
        "{body}"
    );
    assert_eq!(sms.steps[0].expect.len(), 2, "from the step's fragment");
    let Verb::Receive(receive) = &sms.steps[2].verb else { panic!() };
    assert_eq!((receive.since, receive.filter.len(), receive.key.as_ref().unwrap().source()), (0, 1, "{{ sid }}"));
    let checks: Vec<_> =
        sms.steps[2].expect.iter().map(|expectation| (expectation.message.as_deref(), expectation.soft)).collect();
    let expected = [(Some("the id that we were given"), false), (None, true), (Some("quick"), false)];
    assert_eq!(checks[..3], expected);
    let names: Vec<_> = sms.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["submit", "pause", "receive hook", "request api", "request http"]);
    assert_eq!(sms.steps[3].timeout, Some(seconds(90)), "a request without a timeout of its own has its channel's");

    let orders = journey(&plan, "orders");
    let names: Vec<_> = orders.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["send orders", "send orders #2", "receive orders"]);
    let Verb::Send(draft) = &orders.steps[0].verb else { panic!() };
    let sent = draft.render(&scope, token, seconds(1)).unwrap();
    let body = String::from_utf8(sent.body).unwrap();
    assert_eq!(body, format!(r#"{{"f":1.5,"id":"{token}","list":["{token}",2],"n":1,"ok":true}}"#));
    assert_eq!(
        (sent.fields["exchange"].as_str(), sent.fields["routing_key"].as_str()),
        ("other", &*format!("probe.{token}"))
    );
    let Verb::Receive(receive) = &orders.steps[2].verb else { panic!() };
    assert_eq!(receive.since, 1, "the last send before it");

    let channel::Settings::Http(http) = &plan.channels["api"].settings else { panic!() };
    assert_eq!((http.redirects, http.new_connection, http.headers.len()), (3, true, 2));
    let policy = &plan.channels["api"].policy;
    assert_eq!((policy.rate, policy.max_in_flight, policy.timeout), (Some(50.0 / 60.0), 2, seconds(90)));
    let channel::Settings::Webhook(hook) = &plan.channels["hook"].settings else { panic!() };
    assert_eq!((hook.path.as_str(), hook.max_body, hook.respond), ("/inbound/sms", 65_536, 204));
    let Verify::Hmac { secrets, header, algorithm, encoding, prefix } = &hook.verify else { panic!() };
    assert_eq!((secrets.len(), header.as_str(), prefix.as_str()), (2, "X-Hub-Signature", "sha512="));
    assert_eq!((*algorithm, *encoding), (Algorithm::Sha512, Encoding::Base64));
    assert!(plan.channels["hook"].policy.key.is_some() && plan.channels["hook"].policy.filter.len() == 2);
    let verify = |name: &str| match &plan.channels[name].settings {
        channel::Settings::Webhook(settings) => settings.verify.clone(),
        other => panic!("{other:?}"),
    };
    let Verify::Twilio { secrets, url } = verify("twilio") else { panic!() };
    assert_eq!((secrets.len(), url.as_str()), (2, "https://hooks.example.net/base/twilio"));
    let Verify::Twilio { url, .. } = verify("twilio-elsewhere") else { panic!() };
    assert_eq!(url, "https://Hooks.example.org:8443/sms", "as it is written: that is what is signed");
    let Verify::Vonage { method, tolerance, .. } = verify("vonage") else { panic!() };
    assert_eq!((method, tolerance), (VonageMethod::Jwt { api_key: Some("a1b2c3d".to_owned()) }, seconds(60)));
    let Verify::Vonage { method, tolerance, .. } = verify("vonage-sms") else { panic!() };
    assert_eq!((method, tolerance), (VonageMethod::Sig(SigHash::Sha512), seconds(300)));
    assert!(matches!(verify("slack-events"), Verify::Slack { tolerance, .. } if tolerance == seconds(30)));
    assert!(matches!(verify("github"), Verify::Hmac { header, prefix, encoding: Encoding::Hex, .. }
        if header == "X-Hub-Signature-256" && prefix == "sha256="));
    let channel::Settings::WebSocket(push) = &plan.channels["push"].settings else { panic!() };
    assert!(push.url.reveal().starts_with("wss://push.example.net/v1?") && push.subprotocol.is_some());
    assert_eq!((push.headers.len(), push.hello.len(), push.subscribe.len()), (2, 2, 1));
    assert!(push.frames == Frames::Binary && push.ready_when.as_ref().unwrap().is_match("{\"type\":\"next\"}"));
    assert_eq!(plan.redactor.clean("no token=canary-token-of-a-url"), "no token=•••");
    let channel::Settings::Amqp(amqp) = &plan.channels["orders"].settings else { panic!() };
    assert_eq!((amqp.exchange.as_str(), amqp.routing_key.as_str()), ("orders", "order.created"));
    assert_eq!(amqp.queue.as_ref().unwrap().bind[1].exchange, "fanout");
    assert_eq!(amqp.management.as_ref().unwrap().reveal().as_str(), "https://mq.example.net:15671");
    assert_eq!(plan.redactor.clean("amqps://mq.example.net/vhost"), "amqps://mq.example.net/vhost");

    let notifier::Settings::Email(email) = &plan.notifiers["mail"].settings else { panic!() };
    assert_eq!((email.host.as_str(), email.port, email.security), ("mail.example.net", 587, Security::StartTls));
    assert_eq!(email.credentials.as_ref().unwrap().0, "probe@example.net");
    let notifier::Settings::Slack(SlackSettings::Bot { interactions, .. }) = &plan.notifiers["slack"].settings else {
        panic!()
    };
    assert!(interactions.signing_secret.is_some() && interactions.app_token.is_some());
    let notifier::Settings::Slack(SlackSettings::Webhook { url }) = &plan.notifiers["slack-hook"].settings else {
        panic!()
    };
    assert!(url.reveal().starts_with("https://hooks.slack.com/"));
    let notifier::Settings::Pagerduty(pager) = &plan.notifiers["pager"].settings else { panic!() };
    assert_eq!(pager.routing_key.reveal().len(), 32);
    assert_eq!(pager.url.reveal().as_str(), "https://events.eu.pagerduty.com/v2/enqueue");
    let notifier::Settings::Alertmanager(alerts) = &plan.notifiers["alerts"].settings else { panic!() };
    assert_eq!((alerts.urls.len(), alerts.headers.len()), (2, 1));
    assert!(alerts.urls[1].reveal().contains("@am-2.example.org:9093"));
    assert_eq!((alerts.resend_every, alerts.expires_after), (seconds(30), seconds(6 * 3_600)));
    let notifier::Settings::Alertmanager(here) = &plan.notifiers["alerts-here"].settings else { panic!() };
    assert_eq!((here.urls.len(), here.resend_every, here.expires_after), (1, seconds(60), seconds(3_600)));
    assert_eq!(plan.watcher.own, Some(OwnPlan { every: seconds(10), door: Door::Listener }));
    let dead_man = plan.watcher.dead_man.as_ref().unwrap();
    assert_eq!((dead_man.switches.len(), dead_man.every), (2, seconds(120)));
    let references: Vec<_> = plan.watcher.references.iter().map(ToString::to_string).collect();
    assert_eq!(references, ["https://one.example.net", "tcp://[2001:db8::1]:53"]);
    assert_eq!((plan.channels["api"].policy.required, plan.channels["hook"].policy.required), (Some(true), None));
    assert_eq!(plan.notifiers["slack"].required, Some(false));
    let shown = format!("{plan:?}");
    for secret in ["hooks.slack.com", "0123456789abcdef0123456789abcdef", "canary-password", "canary-switch"] {
        assert!(!shown.contains(secret));
    }
    assert_eq!(plan.redactor.clean("no 0123456789abcdef0123456789abcdef, canary-password"), "no •••, •••");
}

#[test]
fn a_missing_file_is_explained() {
    let problems = load(Path::new("tests/it/config/gone.toml")).unwrap_err();
    let told = render(&problems, false);
    assert!(told.contains("cannot read tests/it/config/gone.toml") && told.ends_with("1 error\n"), "{told}");
}

/// The example, as texts.
fn example() -> Vec<(String, String)> {
    let paths = std::iter::once(PathBuf::from("config/journeyman.toml")).chain(files("probes", ".toml"));
    paths.map(|path| (path.display().to_string(), std::fs::read_to_string(path).expect("it is there"))).collect()
}

#[derive(Clone, Debug)]
enum Edit {
    Delete(usize),
    Insert(Vec<u8>),
    Replace(Vec<u8>),
}

fn edit() -> impl Strategy<Value = (usize, prop::sample::Index, Edit)> {
    let snippet = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..6),
        prop::sample::select(vec![
            "\"",
            "{{",
            "}}",
            "[[",
            "]",
            "{",
            "}",
            "=",
            "\n",
            ",",
            "'",
            "0",
            "-",
            "99999999999999999999",
            "é",
            "$.",
            "(",
            "*",
            "[[journey]]\n",
            "[[journey.step]]\n",
            "[channels.x]\n",
            "use = \"x\"\n",
            "true",
            "\"1m\"",
            "inf",
            "#",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let edit = prop_oneof![
        (1usize..40).prop_map(Edit::Delete),
        snippet.clone().prop_map(Edit::Insert),
        snippet.prop_map(Edit::Replace)
    ];
    (0usize..5, any::<prop::sample::Index>(), edit)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn mangled_files_never_panic_and_every_problem_has_its_place(edits in prop::collection::vec(edit(), 1..5)) {
        let mut texts = example();
        prop_assert_eq!(texts.len(), 5);
        for (file, at, edit) in edits {
            let mut bytes = texts[file].1.clone().into_bytes();
            let at = at.index(bytes.len() + 1);
            match edit {
                Edit::Delete(length) => drop(bytes.drain(at..(at + length).min(bytes.len()))),
                Edit::Insert(snippet) => drop(bytes.splice(at..at, snippet)),
                Edit::Replace(snippet) => {
                    let end = (at + snippet.len()).min(bytes.len());
                    drop(bytes.splice(at..end, snippet));
                }
            }
            texts[file].1 = String::from_utf8_lossy(&bytes).into_owned();
        }
        let probes: Vec<_> = texts[1..].iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let result = load_text(&texts[0].0, &texts[0].1, &probes, Path::new("config"));
        let failed = result.is_err();
        let problems = result.map_or_else(|problems| problems, |(_, problems)| problems);
        prop_assert_eq!(failed, problems.iter().any(Problem::is_error));
        for problem in &problems {
            let (place, text) = (&problem.place, problem.place.source().text());
            prop_assert!(texts.iter().any(|(name, _)| name == place.source().name()));
            prop_assert!(place.range().end <= text.len() && !text.is_empty());
            prop_assert!(place.line() >= 1 && place.line() <= text.matches('\n').count() + 1 && place.column() >= 1);
            prop_assert!(!problem.message.is_empty());
        }
        let told = render(&problems, false);
        prop_assert!(told.matches("--> ").count() >= problems.len(), "{}", told);
    }
}
