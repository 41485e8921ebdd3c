//! What is asked of others while an experiment goes on: Prometheus for a number, an address whether it is well, Grafana to note
//! when a phase began.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use url::Url;

use crate::experiment::report::Report;
use crate::gate::why_silent;
use crate::secret::Secret;
use crate::time::later;

/// Nobody is waited for longer: an experiment is under way.
const WITHIN: Duration = Duration::from_secs(3);
/// Of an answer, so much is read.
const MOST: usize = 64 * 1024;

fn client() -> Result<Client, String> {
    let builder = Client::builder().timeout(WITHIN).redirect(reqwest::redirect::Policy::none()).no_proxy();
    builder.build().map_err(|error| format!("no client: {error}"))
}

/// Whether an address answers 2xx.
pub(super) async fn is_well(url: &str) -> bool {
    let Ok(client) = client() else { return false };
    client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
}

/// The one number that Prometheus answers.
///
/// # Errors
/// It does not answer, or with something else; in words.
pub(super) async fn number(base: &str, query: &str) -> Result<f64, String> {
    let mut url: Url = base.parse().map_err(|error| format!("{base}: {error}"))?;
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["api", "v1", "query"]);
    }
    url.query_pairs_mut().append_pair("query", query);
    let answer = client()?.get(url).send().await;
    let mut answer = answer.map_err(|error| format!("Prometheus does not answer: {}", why_silent(error)))?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(why_silent)? {
        body.extend_from_slice(&piece);
        if body.len() > MOST {
            return Err("Prometheus answers more than one number".to_owned());
        }
    }
    let document: Value = serde_json::from_slice(&body).map_err(|_| format!("Prometheus answered {status}"))?;
    read(&document).ok_or_else(|| {
        let why = document["error"].as_str().map_or("the answer is not one number".to_owned(), str::to_owned);
        format!("Prometheus answered {status}: {why}")
    })
}

/// The number in an answer of the query API: a scalar, or a vector of one sample.
fn read(document: &Value) -> Option<f64> {
    let result = &document["data"]["result"];
    let pair = match document["data"]["resultType"].as_str()? {
        "scalar" => result,
        "vector" => match result.as_array()?.as_slice() {
            [only] => &only["value"],
            _ => return None,
        },
        _ => return None,
    };
    pair.get(1)?.as_str()?.parse().ok()
}

/// Notes each part of the experiment in Grafana, as an annotation over its time.
///
/// # Errors
/// Grafana does not take one; in words.
pub(super) async fn annotate(base: &Url, token: &Secret, report: &Report) -> Result<usize, String> {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["api", "annotations"]);
    }
    let client = client()?;
    for part in &report.phases {
        let millis = |after: Duration| later(report.started, after).as_millisecond();
        let note = json!({
            "time": millis(part.from),
            "timeEnd": millis(part.to),
            "tags": ["journeyman", "experiment", report.name, part.name],
            "text": format!("{}: {} ({})", report.name, part.name, report.target),
        });
        let request = client.post(url.clone()).bearer_auth(token.reveal().as_str());
        let request = request.header("content-type", "application/json").body(note.to_string());
        let answer = request.send().await.map_err(|error| format!("Grafana does not answer: {}", why_silent(error)))?;
        if !answer.status().is_success() {
            return Err(format!("Grafana answered {}", answer.status()));
        }
    }
    Ok(report.phases.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_read_and_anything_else_is_none() {
        let vector = |samples: Value| json!({ "data": { "resultType": "vector", "result": samples } });
        let sample = json!({ "metric": {}, "value": [1.5, "42.5"] });
        assert_eq!(read(&vector(json!([sample]))), Some(42.5));
        assert_eq!(read(&json!({ "data": { "resultType": "scalar", "result": [1, "7"] } })), Some(7.0));
        assert_eq!(read(&vector(json!([sample, sample]))), None, "which of them?");
        assert_eq!(read(&vector(json!([]))), None, "nothing is not zero");
        assert_eq!(read(&json!({ "status": "error" })), None);
    }
}
