//! The API against its own description: every field that a daemon answers with is in the document, the document is a sound one, and
//! a generator that reads it finds no request that is answered otherwise than it says.

use std::collections::BTreeSet;
use std::time::Duration;

use journeyman::http::OPENAPI;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::command::run;
use crate::support::daemon::{Daemon, Setup};
use crate::support::{block_on, free_port, python_server, wait_for};

const TOKEN: &str = "the-admin-token";
/// Requests that the generator makes up for each operation.
const EXAMPLES: &str = "25";

/// A journey that fails, one that is well, a notifier that takes nothing: there is some of everything.
async fn stage(name: &str) -> Daemon {
    let setup = Setup::new(name);
    setup.write("token", TOKEN);
    let nobody = free_port();
    let main = format!(
        "[http]\nadmin_token = {{ file = \"token\" }}\n\
         [channels.loop]\ntype = \"memory\"\n[drill]\nread_back = \"loop\"\n\
         [channels.shop]\ntype = \"http\"\nurl = \"http://127.0.0.1:{nobody}/\"\n\
         [notifiers.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{nobody}/hook\"\n"
    );
    let probes = "[[journey]]\nname = \"good\"\nevery = \"500ms\"\ndeadline = \"400ms\"\nbudget = \"300ms\"\nlabels = { tier = \"gold\" }\n\
         depends_on = [\"other\"]\nobjective = { delivered = \"90%\", in_budget = \"80%\", window = \"1h\" }\n\
         [[journey.step]]\nsend = \"loop\"\ntext = \"{{ token }}\"\n[[journey.step]]\nreceive = \"loop\"\n\
         [[journey]]\nname = \"other\"\nevery = \"500ms\"\ndeadline = \"400ms\"\n[[journey.step]]\nrequest = \"shop\"\nexpect = [{ status = 200 }]\n\
         [[journey]]\nname = \"bad\"\nevery = \"500ms\"\ndeadline = \"400ms\"\nnotify = [\"hook\"]\nalert = { down_after = 1 }\n\
         [[journey.step]]\nrequest = \"shop\"\nexpect = [{ status = 200 }]\n";
    let daemon = setup.start(&main, probes).await;
    wait_for("an incident that people are to be told of", Duration::from_secs(20), async || {
        let (_, outbox) = daemon.get("/api/v1/outbox").await;
        outbox.contains("\"attempts\":1").then_some(())
    })
    .await;
    daemon
}

/// What is wrong with `value` by `schema`: a field that is not described, or missing, or of another type.
fn wrong(document: &Value, schema: &Value, value: &Value, place: &str, found: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).expect("what is referred to is there");
        return wrong(document, schema, value, place, found);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        if value.is_null() && choices.iter().any(|choice| choice["type"] == "null") {
            return;
        }
        return wrong(document, &choices[0], value, place, found);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !(types.contains(&is) || is == "integer" && types.contains(&"number")) {
        found.insert(format!("{place} is {is}, and not {types:?}"));
        return;
    }
    if let (Some(allowed), Value::String(_)) = (schema["enum"].as_array(), value)
        && !allowed.contains(value)
    {
        found.insert(format!("{place} is {value}, and not one of {allowed:?}"));
    }
    match value {
        Value::Array(items) => {
            items.iter().for_each(|item| wrong(document, &schema["items"], item, &format!("{place}[]"), found))
        }
        Value::Object(members) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !members.contains_key(name) {
                    found.insert(format!("{place}.{name} is missing"));
                }
            }
            for (name, member) in members {
                let (described, others) = (&schema["properties"][name], &schema["additionalProperties"]);
                match (described.is_null(), others.is_null()) {
                    (false, _) => wrong(document, described, member, &format!("{place}.{name}"), found),
                    (true, false) => wrong(document, others, member, &format!("{place}.*"), found),
                    (true, true) if schema["properties"].is_null() => {}
                    (true, true) => drop(found.insert(format!("{place}.{name} is not described"))),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn every_field_of_every_answer_is_described() {
    block_on(async {
        let mut daemon = stage("openapi").await;
        let document: Value = serde_json::from_str(OPENAPI).expect("the document is JSON");
        let (status, served) = daemon.get("/api/v1/openapi.json").await;
        assert_eq!((status, served.as_str()), (StatusCode::OK, OPENAPI));
        let client = Client::builder().no_proxy().build().expect("a client");
        let incident = async {
            let (_, text) = daemon.get("/api/v1/incidents").await;
            let list: Value = serde_json::from_str(&text).expect("in JSON");
            list["incidents"][0]["id"].as_str().expect("there is one").to_owned()
        };
        let runs = async |journey: &str| -> Value {
            let (_, text) = daemon.get(&format!("/api/v1/journeys/{journey}/runs")).await;
            serde_json::from_str(&text).expect("in JSON")
        };
        let incident = incident.await;
        let token = runs("bad").await["runs"][0]["token"].as_str().expect("a failed run has evidence").to_owned();
        let mut found = BTreeSet::new();
        let mut answered = BTreeSet::new();
        let (mut silence, mut drill) = (String::new(), String::new());
        // What is made first is what is asked for and taken back afterwards.
        let rank = |method: &str| ["post", "get", "delete"].iter().position(|known| *known == method);
        let mut operations: Vec<(&String, &String, &Value)> = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            operations.extend(
                item.as_object().expect("operations").iter().map(|(method, operation)| (path, method, operation)),
            );
        }
        operations.sort_by_key(|(path, method, _)| (rank(method), path.to_string()));
        for (path, method, operation) in operations {
            let name = if path.contains("/channels/") {
                "shop"
            } else if path.contains("/notifiers/") {
                "hook"
            } else {
                "bad"
            };
            let id = match path {
                _ if path.contains("silences") => &silence,
                _ if path.contains("drills") => &drill,
                _ => &incident,
            };
            let address = path
                .replace("{name}", name)
                .replace("{id}", id)
                .replace("{token}", &token)
                .replace("{notifier}", "hook");
            let body = match operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str() {
                Some("#/components/schemas/SilenceRequest") => {
                    Some(json!({ "matchers": ["journey=bad"], "for": "1h", "reason": "to see" }))
                }
                Some("#/components/schemas/OrderRequest") => {
                    Some(json!({ "state": "open", "for": "1h", "reason": "to see", "by": "ada" }))
                }
                Some("#/components/schemas/DrillRequest") => {
                    Some(json!({ "journey": "good", "fault": "refuse", "by": "ada" }))
                }
                Some(_) => Some(json!({ "by": "ada" })),
                None => None,
            };
            let ask = |address: String| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
                let request = client.request(method, format!("{}{address}", daemon.http_url())).bearer_auth(TOKEN);
                match &body {
                    Some(body) => request.header("content-type", "application/json").body(body.to_string()),
                    None => request,
                }
                .send()
            };
            for (address, is_right) in [(address, true), (path.replace('{', "no-").replace('}', ""), false)] {
                if !is_right && !path.contains('{') {
                    continue;
                }
                let answer = ask(address.clone()).await.expect("an answer");
                let status = answer.status();
                let text = answer.text().await.expect("a body");
                let value: Value = serde_json::from_str(&text).expect("an answer is JSON");
                let place = format!("{method} {path} {}", status.as_u16());
                assert!(!is_right || status.is_success(), "{place}: {address}: {value}");
                let response = &operation["responses"][status.as_str()];
                let response = match response["$ref"].as_str() {
                    Some(name) => document.pointer(name.trim_start_matches('#')).expect("it is there"),
                    None => response,
                };
                let schema = &response["content"]["application/json"]["schema"];
                assert!(!schema.is_null(), "{place} is not described: {value}");
                if path == "/api/v1/silences" && method == "post" {
                    silence = value["silence"]["id"].as_str().expect("it has an id").to_owned();
                }
                if path == "/api/v1/drills" && method == "post" {
                    drill = value["drill"]["id"].as_str().expect("it has an id").to_owned();
                }
                wrong(&document, schema, &value, &place, &mut found);
                answered.insert(place);
            }
        }
        // A list of a good journey has what that of a bad one has not.
        for journey in ["good", "other"] {
            let (_, text) = daemon.get(&format!("/api/v1/journeys/{journey}")).await;
            let value = serde_json::from_str(&text).expect("in JSON");
            let schema = json!({ "type": "object", "properties": { "journey": { "$ref": "#/components/schemas/JourneyDetail" } } });
            wrong(&document, &schema, &value, journey, &mut found);
        }
        assert!(found.is_empty(), "{found:#?}");
        assert!(answered.len() > 30, "{answered:?}");
        assert_eq!(daemon.terminate().await, 0);
    });
}

#[test]
fn what_the_caller_has_is_not_sent_again() {
    block_on(async {
        let daemon = stage("etag").await;
        let client = Client::builder().no_proxy().build().expect("a client");
        let address = format!("{}/api/v1/openapi.json", daemon.http_url());
        let first = client.get(&address).send().await.expect("an answer");
        let tag = first.headers()["etag"].to_str().expect("text").to_owned();
        assert_eq!(first.headers()["cache-control"], "private, no-cache");
        let again = client.get(&address).header("if-none-match", &tag).send().await.expect("an answer");
        assert_eq!((again.status(), again.headers()["etag"].to_str().ok()), (StatusCode::NOT_MODIFIED, Some(&*tag)));
        assert_eq!(again.headers()["x-content-type-options"], "nosniff");
        assert_eq!(again.text().await.expect("a body"), "");
        let other = client.get(&address).header("if-none-match", "\"another\"").send().await.expect("an answer");
        assert_eq!(other.status(), StatusCode::OK);
        let missing = client.get(format!("{address}x")).send().await.expect("an answer");
        assert!(missing.status() == StatusCode::NOT_FOUND && !missing.headers().contains_key("etag"));
        let page = client.get(daemon.http_url()).send().await.expect("an answer");
        assert_eq!(page.headers()["cache-control"], "no-store");
    });
}

#[test]
fn whatever_a_generator_asks_is_answered_as_the_document_says() {
    block_on(async {
        let Some(validator) = python_server("openapi-spec-validator") else { return };
        let Some(schemathesis) = python_server("schemathesis") else { return };
        let mut daemon = stage("schemathesis").await;
        let file = daemon.directory().join("openapi.json");
        std::fs::write(&file, OPENAPI).expect("it can be written");
        let mut check = Command::new(validator);
        check.arg(&file);
        let ended = run(check).await;
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);

        let mut search = Command::new(schemathesis);
        search.args(["run", &format!("{}/api/v1/openapi.json", daemon.http_url())]);
        search.args(["--header", &format!("Authorization: Bearer {TOKEN}"), "--max-examples", EXAMPLES, "--seed", "1"]);
        search.args(["--generation-database", "none", "--no-color", "--phases", "examples,coverage,fuzzing"]);
        // A word that nobody needs to know is none that is refused: paths and queries take any text.
        search.args(["--exclude-checks", "positive_data_acceptance"]);
        search.current_dir(daemon.directory());
        let ended = run(search).await;
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        let (status, body) = daemon.get("/live").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(daemon.terminate().await, 0);
    });
}
