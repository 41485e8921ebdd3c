//! The API's description (OpenAPI 3.1, <https://spec.openapis.org/oas/v3.1.1>). It is written by hand, in `openapi.json`; tests hold it
//! against the table of routes and against what a daemon really answers.

use axum::http::header;
use axum::response::IntoResponse;

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::http::{RouteInfo, Visibility, table};

    #[test]
    fn the_document_has_every_route_of_the_api_and_no_other() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut described = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let needs_token = operation["security"].to_string().contains("admin");
                let responses = operation["responses"].as_object().unwrap();
                assert_eq!(needs_token, responses.contains_key("401"), "{method} {path}");
                let asked: BTreeSet<_> = operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                let named: BTreeSet<_> =
                    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
                assert_eq!(asked, named, "{method} {path}");
                described.insert((method.to_uppercase(), path.clone(), needs_token));
            }
        }
        let is_described = |route: &RouteInfo| route.path.starts_with("/api/");
        let key =
            |route: RouteInfo| (route.method.to_string(), route.path.to_owned(), route.visibility == Visibility::Admin);
        let routes: BTreeSet<_> = table().into_iter().filter(is_described).map(key).collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn what_the_document_refers_to_is_in_it_and_all_of_it_is_referred_to() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut meant = BTreeSet::new();
        collect(&document, &mut meant);
        let mut there = BTreeSet::new();
        for part in ["schemas", "responses"] {
            let names = document["components"][part].as_object().unwrap().keys();
            there.extend(names.map(|name| format!("#/components/{part}/{name}")));
        }
        assert_eq!(meant, there);
    }

    fn collect(value: &Value, meant: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                meant.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| collect(member, meant));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, meant)),
            _ => {}
        }
    }
}
