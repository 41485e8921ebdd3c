//! The dashboard and the rules: sound in themselves, true to the registry, and against a real Prometheus that scrapes a real
//! daemon every expression gives data.

use std::collections::BTreeSet;
use std::time::Duration;

use journeyman::dashboards::files;
use journeyman::detect::burn::{PAIRS, Pair};
use journeyman::metrics::{FAMILIES, Family};
use journeyman::slo::{BURN_NAMES, BURN_WINDOWS};
use regex::Regex;
use serde_json::Value;

use crate::support::command::journeyman;
use crate::support::daemon::Setup;
use crate::support::prometheus::{Prometheus, promtool, repository, selectors};
use crate::support::tls_front::{Shown, TlsFront};
use crate::support::{Scratch, block_on, free_port, wait_for};

const RULES: &str = "config/prometheus/journeyman.rules.yml";
const SCRAPING: &str = "config/prometheus/prometheus.yml";
const RULES_TEST: &str = "tests/it/prometheus/rules.test.yml";
/// Until an expression has data: the calendar works every five seconds, and rates need two scrapes.
const DATA: Duration = Duration::from_secs(60);

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Each with the name of its file.
fn dashboards() -> Vec<(&'static str, Value)> {
    let files = files().into_iter().filter(|file| file.path.starts_with("grafana/"));
    files.map(|file| (file.path, serde_json::from_str(&file.text).expect("a dashboard is JSON"))).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("`{key}` is not a list in {value}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` is not text in {value}"))
}

/// An expression of a dashboard as Prometheus gets it, with where it stands and the labels that its legend shows.
struct Query {
    place: String,
    expression: String,
    legend: Vec<String>,
}

impl Query {
    /// As Grafana fills them in: all locations and journeys, a least step of a minute; `looks_back` is what rates look back over.
    fn new(place: String, expression: &str, legend: &str, looks_back: &str) -> Query {
        let expression = [
            ("$location", ".*"),
            ("$journey", ".*"),
            ("$__rate_interval", looks_back),
            ("$__interval", "1m"),
            ("$__range", "6h"),
        ]
        .iter()
        .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
        assert!(!expression.contains('$'), "{place} has a variable that the dashboard does not: {expression}");
        let label = Regex::new(r"\{\{\s*(\w+)\s*\}\}").expect("a sound pattern");
        let legend = label.captures_iter(legend).map(|found| found[1].to_owned()).collect();
        Query { place, expression, legend }
    }

    /// Rates over the usual time, and over the least that gives any: two scrapes.
    fn all(place: &str, expression: &str, legend: &str) -> Vec<Query> {
        let mut all = vec![Query::new(place.to_owned(), expression, legend, "4m")];
        if expression.contains("$__rate_interval") {
            all.push(Query::new(format!("{place}, two scrapes"), expression, legend, "2s"));
        }
        all
    }
}

/// Every expression of every panel, annotation and variable.
fn queries() -> Vec<Query> {
    let labels = Regex::new(r"^label_values\((.+), (\w+)\)$").expect("a sound pattern");
    let mut queries = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in list(&dashboard, "panels").iter().filter(|panel| panel["type"] != "row") {
            for target in list(panel, "targets") {
                let place = format!("{file}, panel {:?}, {}", text(panel, "title"), text(target, "refId"));
                queries.extend(Query::all(&place, text(target, "expr"), text(target, "legendFormat")));
            }
        }
        for variable in list(&dashboard["templating"], "list").iter().filter(|variable| variable["type"] == "query") {
            let definition = text(variable, "definition");
            assert_eq!(definition, text(&variable["query"], "query"), "the two are one");
            let found = labels.captures(definition).unwrap_or_else(|| panic!("{definition} is not understood here"));
            let place = format!("{file}, variable {:?}", text(variable, "name"));
            queries.extend(Query::all(&place, &found[1], &format!("{{{{{}}}}}", &found[2])));
        }
        let annotations =
            list(&dashboard["annotations"], "list").iter().filter(|annotation| annotation["builtIn"].is_null());
        for annotation in annotations {
            let place = format!("{file}, annotation {:?}", text(annotation, "name"));
            queries.extend(Query::all(&place, text(annotation, "expr"), text(annotation, "textFormat")));
        }
    }
    assert!(queries.len() > 50, "there are only {}", queries.len());
    queries
}

/// The family that a series of this name belongs to.
fn family(series: &str) -> Option<&'static Family> {
    let is_its = |family: &&Family| match family.kind {
        "histogram" => ["_bucket", "_sum", "_count"].iter().any(|part| series.strip_suffix(part) == Some(family.name)),
        "summary" => ["_sum", "_count"].iter().any(|part| series.strip_suffix(part) == Some(family.name)),
        _ => series == family.name,
    };
    FAMILIES.iter().find(is_its)
}

fn name(selector: &str) -> &str {
    selector.split('{').next().map_or(selector, str::trim)
}

#[test]
fn the_selectors_of_an_expression_are_found() {
    let table: [(&str, &[&str]); 7] = [
        ("up", &["up"]),
        (
            "sum by (le, job) (rate(a_bucket{x=~\"[a}]\\\"b\", y='z'}[5m] offset 1h)) > 0.5e3",
            &["a_bucket{x=~\"[a}]\\\"b\", y='z'}"],
        ),
        ("sum(a) without (b) / on (c) group_left (d) (e == bool 3)", &["a", "e"]),
        ("a and on (job) b or c unless d", &["a", "b", "c", "d"]),
        ("histogram_quantile(0.9, sum(rate(h_bucket [5m])) by (le))", &["h_bucket"]),
        ("absent(team:x:rate5m) * -1 + time()", &["team:x:rate5m"]),
        ("min without (window) (burn {window=~\"1h|6h\"})", &["burn {window=~\"1h|6h\"}"]),
    ];
    for (expression, expected) in table {
        assert_eq!(selectors(expression), expected, "{expression}");
    }
}

#[test]
fn the_files_below_config_are_what_the_command_writes() {
    for file in files() {
        let path = repository(&format!("config/{}", file.path));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &file.text).expect("it can be written");
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == file.text, "{} differs; UPDATE_EXPECT=1 renews it", path.display());
    }
    let there = std::fs::read_dir(repository("config/grafana")).expect("the folder is there");
    let there =
        there.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".json")));
    assert_eq!(there.count(), dashboards().len(), "each dashboard is made");
    block_on(async {
        let scratch = Scratch::new("dashboards");
        let folder = scratch.path().join("files");
        let folder = folder.to_str().expect("a path in UTF-8");
        let ended = journeyman(scratch.path(), &["dashboards", folder]).await;
        let paths: String = files().iter().map(|file| format!("{folder}/{}\n", file.path)).collect();
        assert_eq!((ended.code, ended.stdout), (0, paths));
        for file in files() {
            assert_eq!(std::fs::read_to_string(format!("{folder}/{}", file.path)).expect("it was written"), file.text);
        }
        let ended =
            journeyman(scratch.path(), &["dashboards", &format!("{folder}/grafana/journeyman-overview.json")]).await;
        assert_eq!(ended.code, 73, "{ended:?}");
        assert!(
            ended.stderr.contains("cannot write") && ended.stderr.contains("journeyman-overview.json"),
            "{ended:?}"
        );
    });
}

#[test]
fn dashboards_are_well_formed() {
    let mut uids = BTreeSet::new();
    let mut repeated = 0;
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(text(&dashboard, "uid").to_owned()), "{file}: another has its uid");
        let (mut ids, mut titles, mut places) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        let mut rows = Vec::new();
        for panel in list(&dashboard, "panels") {
            let title = text(panel, "title");
            assert!(ids.insert(panel["id"].as_u64().expect("a panel has a number")), "{title}: its id is taken");
            assert!(titles.insert(title), "{title}: two panels have this title");
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a panel has a place"));
            assert!(w > 0 && h > 0 && x + w <= 24, "{title} is not on the grid");
            for (other, (ox, oy, ow, oh)) in &places {
                let overlaps = x < ox + ow && *ox < x + w && y < oy + oh && *oy < y + h;
                assert!(!overlaps, "{title} lies on {other}");
            }
            places.push((title, (x, y, w, h)));
            if panel["type"] == "row" {
                assert!(rows.last().is_none_or(|last| *last < y), "rows go down");
                rows.push(y);
                continue;
            }
            assert!(rows.last().is_some_and(|row| *row < y), "{title} stands below the row that it comes after");
            assert!(text(panel, "description").len() > 30, "{title} says what to do");
            let has_unit = panel["fieldConfig"]["defaults"]["unit"].is_string();
            assert!(has_unit || ["table", "state-timeline"].contains(&text(panel, "type")), "{title} has no unit");
            let steps = list(&panel["fieldConfig"]["defaults"]["thresholds"], "steps");
            let values: Vec<_> = steps.iter().map(|step| step["value"].as_f64()).collect();
            assert!(values[0].is_none() && values[1..].is_sorted_by(|a, b| a < b), "{title}: {values:?}");
        }
        let variables: BTreeSet<_> =
            list(&dashboard["templating"], "list").iter().map(|each| text(each, "name").to_owned()).collect();
        let whole = dashboard["panels"].to_string();
        for variable in &variables {
            let is_used =
                [format!("${variable}"), format!("${{{variable}}}")].iter().any(|used| whole.contains(&**used));
            assert!(is_used, "{file}: nothing depends on {variable}");
        }
        repeated += whole.matches("\"repeat\":\"journey\"").count();
    }
    assert_eq!(repeated, 1);
}

#[test]
fn only_families_that_exist_are_named_and_all_are_drawn() {
    let mut drawn = BTreeSet::new();
    for Query { place, expression, .. } in queries() {
        let found = selectors(&expression);
        assert!(!found.is_empty(), "{place}: {expression}");
        for selector in found {
            let family = family(name(&selector)).unwrap_or_else(|| panic!("{place}: nobody exports {selector}"));
            drawn.insert(family.name);
        }
    }
    let missing: Vec<_> = FAMILIES.iter().map(|family| family.name).filter(|name| !drawn.contains(name)).collect();
    assert!(missing.is_empty(), "on no dashboard: {missing:?}");

    let (rules, tests) = (read(RULES), read(RULES_TEST));
    let metric = Regex::new(r"\b(?:journeyman|process)_\w+").expect("a sound pattern");
    let named: BTreeSet<_> =
        metric.find_iter(&rules).chain(metric.find_iter(&tests)).map(|found| found.as_str()).collect();
    assert!(named.len() > 15, "{named:?}");
    for name in named {
        assert!(family(name).is_some(), "the rules or their tests name {name}, which nobody exports");
    }
}

#[test]
fn every_family_is_in_the_documentation_as_it_is_in_the_exposition() {
    let page = read("docs/operation.md");
    let documented: Vec<_> = page.lines().filter(|line| line.starts_with("| `") && line.contains("` (")).collect();
    let exported: Vec<_> =
        FAMILIES.iter().map(|family| format!("| `{}` ({}) | {} |", family.name, family.kind, family.help)).collect();
    assert_eq!(documented, exported, "the table in docs/operation.md is FAMILIES, line by line");
}

#[test]
fn the_rules_on_burn_are_the_daemons_own_pairs() {
    let rules = read(RULES);
    let name = |length| {
        let at = BURN_WINDOWS.iter().position(|window| *window == length);
        BURN_NAMES[at.unwrap_or_else(|| panic!("no series is over {length:?}"))]
    };
    for Pair { long, short, factor } in PAIRS {
        let (long, short) = (name(long), name(short));
        for part in [
            format!(
                "min{short}{long}\n        expr: min without (window) (journeyman_slo_burn_rate{{window=~\"{short}|{long}\"}})"
            ),
            format!("journeyman:slo_burn_rate:min{short}{long} > {factor}\n"),
            format!("[{long}])) > 2.5\n"),
        ] {
            assert!(rules.contains(&part), "{part}");
        }
    }
    assert_eq!(rules.matches("record: journeyman:slo_burn_rate:").count(), PAIRS.len());
}

#[test]
fn promtool_finds_nothing_to_say_and_every_alert_fires_where_it_should() {
    for arguments in [["check", "rules", RULES], ["check", "config", SCRAPING], ["test", "rules", RULES_TEST]] {
        let Some(result) = promtool(&arguments, "") else { return };
        result.unwrap_or_else(|said| panic!("promtool {arguments:?}: {said}"));
    }
    let (rules, tests) = (read(RULES), read(RULES_TEST));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{RULES_TEST} does not show that {alert} fires");
        assert!(
            read("docs/operation.md").contains(&format!("`{alert}`")),
            "docs/operation.md does not say when {alert} fires"
        );
    }
}

/// One journey of each kind. Notices go out all the time: what is down is told again every other second.
const PROBES: &str = r#"
    [fragment.watched]
    every = "250ms"
    objective = { delivered = "90%", in_budget = "80%", window = "1h" }
    alert = { down_after = 1, slow_after = 1, recover_after = 1, remind = "2s" }
    notify = ["hook", "nowhere"]

    [[journey]]
    name  = "queue"
    every = "500ms"
    [[journey.step]]
    check  = "loop"
    expect = [{ depth = { less_than = 1000 } }]

    [[journey]]
    name  = "secure"
    every = "500ms"
    [[journey.step]]
    request = "secure"
    method  = "GET"

    [[journey]]
    name = "good"
    use = "watched"
    depends_on = ["queue", "slow"]
    budget = "150ms"
    deadline = "200ms"
    step = [{ name = "out", send = "loop", text = "{{ token }}" }, { name = "in", receive = "loop" }]

    [[journey]]
    name = "posted"
    use = "watched"
    budget = "150ms"
    deadline = "200ms"
    step = [{ name = "out", send = "door", text = "{{ token }}" }, { name = "in", receive = "told" }]

    [[journey]]
    name = "slow"
    use = "watched"
    budget = "20ms"
    deadline = "200ms"
    step = [{ name = "out", send = "loop", text = "{{ token }}", delay = "50ms" }, { name = "in", receive = "loop" }]

    [[journey]]
    name = "lost"
    use = "watched"
    budget = "20ms"
    deadline = "100ms"
    step = [{ name = "out", send = "loop", text = "{{ token }}", copies = "0" }, { name = "in", receive = "loop" }]

    [[journey]]
    name = "refused"
    use = "watched"
    budget = "150ms"
    deadline = "200ms"
    step = [{ name = "ask", request = "nobody", method = "GET", expect = [{ status = 200 }] }]

    [[journey]]
    name = "resting"
    use = "watched"
    budget = "150ms"
    deadline = "200ms"
    step = [{ name = "out", send = "loop", text = "{{ token }}" }, { name = "in", receive = "loop" }]
"#;
const TOKEN: &str = "the-admin-token";

/// Two notifiers: one posts to the daemon's own webhook channel, as a journey does; where the other posts, nobody listens.
fn config(setup: &Setup, front: &TlsFront) -> String {
    let [nobody, nowhere] = [(); 2].map(|()| free_port());
    let hook = setup.hook_url("/told");
    setup.write("token", TOKEN);
    format!(
        r#"
            location = "here"
            [channels.loop]
            type = "memory"
            spend = {{ messages_per_day = 1000000000 }}
            [channels.nobody]
            type = "http"
            url = "http://127.0.0.1:{nobody}"
            [channels.secure]
            type = "http"
            url = "https://localhost:{}/live"
            ca_file = "{}"
            [channels.door]
            type = "http"
            new_connection = true
            url = "{hook}"
            [channels.told]
            type = "webhook"
            path = "/told"
            verify = {{ scheme = "none" }}
            [notifiers.hook]
            type = "webhook"
            url = "{hook}"
            [notifiers.nowhere]
            type = "webhook"
            url = "http://127.0.0.1:{nowhere}"
            [self_journey]
            every = "1s"
            [dead_man]
            url = "{hook}"
            every = "1s"
            [drill]
            read_back = "told"
            notify = ["hook"]
            [observer]
            reference = ["http://{http}/live", "tcp://{http}", "tcp://127.0.0.1:{nobody}"]
        "#,
        front.address().port(),
        front.ca_file().display(),
        http = setup.http_address(),
    )
}

#[test]
fn every_expression_gives_data_when_prometheus_scrapes_the_daemon() {
    block_on(async {
        let setup = Setup::new("prometheus");
        // The example's own files, only quicker and elsewhere. Prometheus is there first, and sees every counter at zero.
        let scraping =
            read(SCRAPING).replace("127.0.0.1:9464", &setup.http_address().to_string()).replace(": 15s", ": 1s");
        setup.write("journeyman.rules.yml", &read(RULES));
        let scraping = setup.write("prometheus.yml", &scraping);
        let Some(prometheus) = Prometheus::start(&scraping).await else { return };
        let front = TlsFront::start(setup.http_address(), Shown::Good, setup.directory()).await;
        let config = format!("{}\n[http]\nadmin_token = {{ file = \"token\" }}\n", config(&setup, &front));
        let mut daemon = setup.start(&config, PROBES).await;
        // Somebody pauses one.
        let pause = r#"{ "matchers": ["journey=resting"], "for": "1h", "reason": "to see", "pauses": true }"#;
        let silences = format!("{}/api/v1/silences", daemon.http_url());
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let paused = client.post(silences).bearer_auth(TOKEN).body(pause).send().await.expect("an answer");
        assert!(paused.status().is_success(), "{}", paused.text().await.unwrap_or_default());

        // And another has an outage rehearsed.
        let drills = format!("{}/api/v1/drills", daemon.http_url());
        let drill = r#"{ "journey": "posted", "fault": "refuse" }"#;
        let drilled = client.post(drills).bearer_auth(TOKEN).body(drill).send().await.expect("an answer");
        assert!(drilled.status().is_success(), "{}", drilled.text().await.unwrap_or_default());

        for Query { place, expression, legend } in queries() {
            let is_complete = |(labels, value): &(Value, f64)| {
                !value.is_nan()
                    && legend.iter().all(|label| labels[label].as_str().is_some_and(|text| !text.is_empty()))
            };
            wait_for(&format!("{place}, labels {legend:?}: {expression}"), DATA, async || {
                prometheus.query(&expression).await.into_iter().find(is_complete)
            })
            .await;
            for selector in selectors(&expression) {
                assert!(!prometheus.query(&selector).await.is_empty(), "{place}: {selector} selects nothing");
            }
        }

        let rules = prometheus.rules().await;
        assert!(rules.len() > 20, "there are only {}", rules.len());
        for rule in rules {
            let (rule_name, expression) = (text(&rule, "name"), text(&rule, "query"));
            for selector in selectors(expression) {
                let is_known = ["up"].contains(&name(&selector)) || name(&selector).starts_with("journeyman:");
                assert!(is_known || family(name(&selector)).is_some(), "{rule_name}: nobody exports {selector}");
                wait_for(&format!("{rule_name}: {selector}"), DATA, async || prometheus.query(&selector).await.pop())
                    .await;
            }
            if rule["type"] == "recording" {
                wait_for(rule_name, DATA, async || {
                    prometheus.query(rule_name).await.into_iter().find(|(_, value)| !value.is_nan())
                })
                .await;
                continue;
            }
            assert!(["critical", "warning"].contains(&text(&rule["labels"], "severity")), "{rule_name}");
            for annotation in ["summary", "description", "runbook"] {
                assert!(text(&rule["annotations"], annotation).len() > 20, "{rule_name}: {annotation}");
            }
        }
        // Once more, now that all have been evaluated on what the daemon exports.
        for rule in prometheus.rules().await {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        let firing = |alert: &str| format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
        wait_for("the journeys that fail to fire", DATA, async || {
            let firing = prometheus.query(&firing("JourneyFiring")).await;
            let journeys: BTreeSet<_> = firing.iter().filter_map(|(labels, _)| labels["journey"].as_str()).collect();
            journeys.is_superset(&BTreeSet::from(["lost", "refused", "slow"])).then_some(())
        })
        .await;
        assert!(prometheus.query(&firing("JourneymanAbsent")).await.is_empty());

        // What the first failure's rate and the comparisons of the rules depend on.
        for (family, labels, expected) in [
            ("journeyman_runs_total", [("journey", "good"), ("outcome", "excluded")].as_slice(), 0.0),
            ("journeyman_channel_faults_total", &[("channel", "loop"), ("cause", "auth")], 0.0),
            ("journeyman_run_budget_seconds", &[("journey", "good")], 0.15),
            ("journeyman_stale_after_seconds", &[("journey", "good")], 0.7),
        ] {
            assert_eq!(daemon.metric(family, labels).await, Some(expected), "{family}");
        }
        if let Some(result) = promtool(&["check", "metrics"], &daemon.metrics().await) {
            result.unwrap_or_else(|said| panic!("promtool check metrics: {said}"));
        }
        assert_eq!(daemon.terminate().await, 0, "{}", daemon.log());
    });
}
