//! What a caller has already is not sent again: entity tags and conditional requests (RFC 9110 sections 8.8.3 and 13.1.2).

use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::http::api;

/// So much of the hash is enough to tell answers apart, in bytes.
const TAG: usize = 16;

/// Tags what the API answers, and answers 304 to whoever shows the tag. What is behind a password stays out of shared caches, and
/// what is kept is asked for again each time.
pub(super) async fn tag(request: Request, next: Next) -> Response {
    let is_asked = request.method() == Method::GET && request.uri().path().starts_with("/api/");
    let known: Vec<HeaderValue> = request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect();
    let response = next.run(request).await;
    if !is_asked || response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // It is in memory already, whole.
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return api::refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer broke off");
    };
    let tag = tag_of(&body);
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if known.iter().any(|value| names(value, &tag)) {
        let kept = |name| parts.headers.get(&name).map(|value| (name, value.clone()));
        let headers: HeaderMap = [header::ETAG, header::CACHE_CONTROL].into_iter().filter_map(kept).collect();
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    Response::from_parts(parts, Body::from(body))
}

fn tag_of(body: &[u8]) -> String {
    let mut tag = String::from("\"");
    for byte in &Sha256::digest(body)[..TAG] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

/// Whether a value of `If-None-Match` names this tag; weak ones count here (RFC 9110 section 13.1.2).
fn names(value: &HeaderValue, tag: &str) -> bool {
    let Ok(value) = value.to_str() else { return false };
    value.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_named_alone_in_a_list_weakly_or_by_a_star() {
        let tag = tag_of(b"{}");
        assert_eq!(tag.len(), 2 + 2 * TAG);
        assert_ne!(tag, tag_of(b"{ }"));
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        for text in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            assert!(names(&value(&text), &tag), "{text}");
        }
        for text in [tag.trim_matches('"').to_owned(), "\"other\"".to_owned(), String::new()] {
            assert!(!names(&value(&text), &tag), "{text}");
        }
        assert!(!names(&HeaderValue::from_bytes(b"\xff").unwrap(), &tag));
    }
}
