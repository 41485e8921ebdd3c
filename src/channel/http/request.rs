//! What goes out: the step's message and the channel's settings become one request, or the next one of a redirect. Pure.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use url::Url;

use crate::channel::http::HttpSettings;
use crate::channel::http::guard::Chosen;
use crate::journey::Outgoing;
use crate::secret::HeaderText;

/// The W3C trace context's header, by which a journey's request is found in traces and logs.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request, ready to go.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Who chose the host of `url`.
    pub(super) chosen: Chosen,
    /// The host that the configuration named.
    home: Option<String>,
}

impl Request {
    /// The request for a step's message; in words, why there can be none. The words hold no header value: it may be secret.
    pub(super) fn prepare(settings: &HttpSettings, outgoing: &Outgoing, is_request: bool) -> Result<Request, String> {
        let url = address(settings, outgoing)?;
        let method = match &outgoing.method {
            Some(method) => Method::from_bytes(method.to_ascii_uppercase().as_bytes())
                .map_err(|_| format!("{method:?} is not an HTTP method"))?,
            None if is_request && outgoing.body.is_empty() => Method::GET,
            None => Method::POST,
        };
        let mut headers = HeaderMap::new();
        // Credentials of a channel are for the channel's own origin, whatever URL a step names.
        if settings.url.as_ref().is_none_or(|own| own.origin() == url.origin()) {
            for (name, value) in &settings.headers {
                let mut parsed = header_value(name, &value.reveal())?;
                parsed.set_sensitive(matches!(value, HeaderText::Secret(_)));
                headers.insert(header_name(name)?, parsed);
            }
        }
        for (name, value) in &outgoing.headers {
            headers.insert(header_name(name)?, header_value(name, value)?);
        }
        if let Some(media_type) = outgoing.content_type {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(media_type));
        }
        headers.insert(TRACEPARENT, header_value("traceparent", &outgoing.token.traceparent())?);
        let home = url.host_str().map(str::to_owned);
        Ok(Request { method, url, headers, body: Bytes::from(outgoing.body.clone()), chosen: Chosen::ByUs, home })
    }

    /// The request that a redirect asks for (RFC 9110 section 15.4); `None` if the response is not a redirect. The configuration
    /// names `hosts` beside the one that was asked first.
    pub(super) fn redirected(
        &self,
        status: StatusCode,
        location: Option<&str>,
        hosts: &[String],
    ) -> Result<Option<Request>, String> {
        let (301 | 302 | 303 | 307 | 308, Some(location)) = (status.as_u16(), location) else { return Ok(None) };
        let mut url = self.url.join(location).map_err(|_| "redirected to something that is not a URL".to_owned())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("redirected to a `{}:` URL", url.scheme()));
        }
        let mut next = self.clone();
        let becomes_get = match status.as_u16() {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body = Bytes::new();
            next.headers.remove(CONTENT_TYPE);
        }
        if url.origin() == self.url.origin() {
            if url.username().is_empty() && url.password().is_none() {
                // An http(s) URL with a host takes both.
                let _ = url.set_username(self.url.username());
                let _ = url.set_password(self.url.password());
            }
        } else {
            // Any header may be a credential: an API key is as good as `authorization`.
            let keep = [TRACEPARENT, CONTENT_TYPE];
            next.headers =
                keep.into_iter().filter_map(|name| Some((name.clone(), next.headers.get(name)?.clone()))).collect();
        }
        let is_named = url.host_str().is_some_and(|host| self.home.iter().chain(hosts).any(|named| named == host));
        next.chosen = if is_named { Chosen::ByUs } else { Chosen::ByThem };
        next.url = url;
        Ok(Some(next))
    }

    /// Whether it may be repeated without harm (RFC 9110 section 9.2.1).
    pub(super) fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    /// Whom it is for: host and port, for people. Never the whole URL, which may hold a secret.
    pub(super) fn target(&self) -> String {
        let host = self.url.host_str().unwrap_or("?");
        match self.url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

fn address(settings: &HttpSettings, outgoing: &Outgoing) -> Result<Url, String> {
    let mut url = match (&outgoing.url, &settings.url) {
        (Some(text), _) => {
            // A value that leaves its place in the path would ask for something else than was meant.
            if text.split(['?', '#']).next().is_some_and(|path| path.split(['/', '\\']).any(is_dots)) {
                return Err("the step's URL has a `.` or `..` in its path".to_owned());
            }
            Url::parse(text).map_err(|error| format!("the step's URL is not one: {error}"))?
        }
        (None, Some(url)) => url.clone(),
        (None, None) => return Err("the step names no URL, and its channel has none".to_owned()),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{}:` is not a scheme of an `http` channel", url.scheme()));
    }
    if let Some(path) = &outgoing.path {
        append(&mut url, path)?;
    }
    if !outgoing.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&outgoing.query);
    }
    Ok(url)
}

/// Appends a path and its query. Not RFC 3986's reference resolution, in which `/abc` would replace the whole path.
fn append(url: &mut Url, path: &str) -> Result<(), String> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    // A captured id of `..` would turn "delete my message" into "delete all messages".
    if path.split(['/', '\\']).any(is_dots) {
        return Err(format!("the path {path:?} leaves the channel's URL"));
    }
    if !path.is_empty() {
        let base = url.path().strip_suffix('/').unwrap_or(url.path());
        let joined = format!("{base}/{}", path.strip_prefix('/').unwrap_or(path));
        url.set_path(&joined);
    }
    if let Some(query) = query {
        let joined = match url.query() {
            Some(before) if !before.is_empty() => format!("{before}&{query}"),
            _ => query.to_owned(),
        };
        url.set_query(Some(&joined));
    }
    Ok(())
}

fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header name"))
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value)
        .map_err(|_| format!("the value of header {name:?} has characters that no header may have"))
}

/// Where a redirect leads: never to another kind of URL, and never with credentials to another origin.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(url) = Url::parse("https://shop.example.net/orders/1?x=2") else { return };
    let headers = HeaderMap::from_iter([(reqwest::header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))]);
    let (chosen, home) = (Chosen::ByUs, url.host_str().map(str::to_owned));
    let request = Request { method: Method::POST, url, headers, body: Bytes::from_static(b"{}"), chosen, home };
    for status in [StatusCode::FOUND, StatusCode::SEE_OTHER, StatusCode::PERMANENT_REDIRECT] {
        if let Ok(Some(next)) = request.redirected(status, Some(&text), &[]) {
            assert!(matches!(next.url.scheme(), "http" | "https"), "{text:?}");
            assert!(next.url.origin() == request.url.origin() || next.headers.is_empty(), "{text:?}");
        }
    }
    if let Ok(url) = Url::parse(&text) {
        let _ = (crate::channel::address::host(&url), crate::channel::address::decoded(url.username()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::journey::token::Token;
    use crate::secret::{Redactor, Secret};

    fn settings(url: &str) -> HttpSettings {
        let key = Secret::new("k3y-of-the-gateway".to_owned(), &Redactor::new());
        let headers = vec![
            ("X-Api-Key".to_owned(), HeaderText::Secret(key)),
            ("Accept".to_owned(), HeaderText::Plain("application/json".to_owned())),
        ];
        HttpSettings { url: Some(url.parse().unwrap()), headers, ..HttpSettings::default() }
    }

    fn outgoing() -> Outgoing {
        Outgoing {
            token: Token::from_bits(7),
            url: None,
            method: None,
            path: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            content_type: None,
            fields: BTreeMap::new(),
            command: Vec::new(),
            timeout: Duration::from_secs(1),
            connected_since: None,
        }
    }

    fn url_of(base: &str, path: &str) -> Result<String, String> {
        let outgoing = Outgoing { path: Some(path.to_owned()), ..outgoing() };
        Request::prepare(&settings(base), &outgoing, true).map(|request| request.url.to_string())
    }

    #[test]
    fn a_path_is_appended_and_cannot_leave_the_channel() {
        for (base, path, expected) in [
            ("http://h/v1/messages", "/abc", "http://h/v1/messages/abc"),
            ("http://h/v1/messages/", "/abc", "http://h/v1/messages/abc"),
            ("http://h/v1/messages", "abc", "http://h/v1/messages/abc"),
            ("http://h/v1/messages", "", "http://h/v1/messages"),
            ("http://h", "/abc", "http://h/abc"),
            ("http://h/v1?key=1", "/abc?x=2", "http://h/v1/abc?key=1&x=2"),
            ("http://h/v1", "?x=2", "http://h/v1?x=2"),
            ("http://h/v1", "/a%2Fb%20c", "http://h/v1/a%2Fb%20c"),
            ("http://h/v1", "/a#b", "http://h/v1/a%23b"),
        ] {
            assert_eq!(url_of(base, path).unwrap(), expected, "{base} + {path}");
        }
        for path in ["/..", "/a/../../b", "/%2e%2E", "/.", "..", "/a/.%2e"] {
            assert!(url_of("http://h/v1", path).unwrap_err().contains("leaves"), "{path}");
        }
        assert!(url_of("http://h/v1", "/...").is_ok());
    }

    #[test]
    fn the_query_is_encoded_and_the_method_follows_from_the_payload() {
        let query = vec![("to".to_owned(), "+44 & more".to_owned())];
        let request =
            Request::prepare(&settings("http://h/send?u=1"), &Outgoing { query, ..outgoing() }, true).unwrap();
        assert_eq!(request.url.as_str(), "http://h/send?u=1&to=%2B44+%26+more");
        assert_eq!(request.method, Method::GET);
        let method = |body: &str, method: Option<&str>, is_request| {
            let outgoing = Outgoing { body: body.into(), method: method.map(str::to_owned), ..outgoing() };
            Request::prepare(&settings("http://h"), &outgoing, is_request).map(|request| request.method)
        };
        assert_eq!(method("{}", None, true), Ok(Method::POST));
        assert_eq!(method("", None, false), Ok(Method::POST));
        assert_eq!(method("", Some("delete"), true), Ok(Method::DELETE));
        assert!(method("", Some("NO GOOD"), true).is_err());
    }

    #[test]
    fn a_step_has_the_last_word_on_headers_but_not_on_the_trace() {
        let headers = [("accept", "text/csv"), ("Content-Type", "text/x"), ("traceparent", "mine")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let outgoing = Outgoing { headers, content_type: Some("application/json"), body: "{}".into(), ..outgoing() };
        let request = Request::prepare(&settings("http://h"), &outgoing, false).unwrap();
        assert_eq!(request.headers["accept"], "text/csv");
        assert_eq!(request.headers["content-type"], "text/x");
        assert_eq!(request.headers["traceparent"], Token::from_bits(7).traceparent().as_str());
        assert_eq!(request.headers["x-api-key"], "k3y-of-the-gateway");
        assert!(!format!("{request:?}").contains("k3y"), "a secret header is not printed");
        let bad = Outgoing { headers: vec![("x".to_owned(), "s3cret\u{1}".to_owned())], ..outgoing };
        let told = Request::prepare(&settings("http://h"), &bad, false).unwrap_err();
        assert!(told.contains("\"x\"") && !told.contains("s3cret"));
    }

    #[test]
    fn a_whole_url_of_another_origin_does_not_get_the_channels_headers() {
        let to = |url: &str| Outgoing { url: Some(url.to_owned()), ..outgoing() };
        let own = settings("https://gate.example/v1");
        let has_key = |url| Request::prepare(&own, &to(url), true).unwrap().headers.contains_key("x-api-key");
        assert!(has_key("https://gate.example:443/other"));
        assert!(!has_key("http://gate.example/other"));
        assert!(!has_key("https://evil.example/"));
        let without_url = HttpSettings { url: None, ..own.clone() };
        assert!(
            Request::prepare(&without_url, &to("https://any.example/"), true)
                .unwrap()
                .headers
                .contains_key("x-api-key")
        );
        assert!(Request::prepare(&without_url, &outgoing(), true).is_err());
        assert!(Request::prepare(&own, &to("ftp://gate.example/"), true).is_err());
    }

    #[test]
    fn redirects_change_the_method_as_the_rfc_says_and_leave_credentials_behind() {
        let post = Outgoing { body: "{}".into(), content_type: Some("application/json"), ..outgoing() };
        let post = Request::prepare(&settings("https://u:p@h/v1/messages"), &post, false).unwrap();
        let next = |status: u16, location: &str| {
            post.redirected(StatusCode::from_u16(status).unwrap(), Some(location), &[]).unwrap().unwrap()
        };
        for (status, method, length) in
            [(301, "GET", 0), (302, "GET", 0), (303, "GET", 0), (307, "POST", 2), (308, "POST", 2)]
        {
            let next = next(status, "/v2");
            assert_eq!((next.method.as_str(), next.body.len()), (method, length), "{status}");
            assert_eq!(next.url.as_str(), "https://u:p@h/v2");
            assert!(next.headers.contains_key("x-api-key"));
            assert_eq!(next.headers.contains_key("content-type"), length > 0);
        }
        for elsewhere in ["https://other/v2", "http://h/v2", "https://h:444/v2"] {
            let next = next(307, elsewhere);
            let names: Vec<_> = next.headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["traceparent", "content-type"], "{elsewhere}");
            assert_eq!(next.url.as_str(), elsewhere);
        }
        let status = |code| StatusCode::from_u16(code).unwrap();
        assert!(post.redirected(status(304), Some("/v2"), &[]).unwrap().is_none());
        assert!(post.redirected(status(302), None, &[]).unwrap().is_none());
        for scheme in ["file:///etc/passwd", "gopher://h/1", "data:text/plain,x", "ftp://h/", "javascript:1", "ws://h/"]
        {
            assert!(post.redirected(status(302), Some(scheme), &[]).is_err(), "{scheme}");
        }
    }

    #[test]
    fn a_response_chooses_nothing_but_what_the_configuration_named_for_it() {
        let first = Request::prepare(&settings("http://h/v1"), &outgoing(), true).unwrap();
        let named = ["sso.example".to_owned()];
        let next = |from: &Request, location: &str| {
            from.redirected(StatusCode::FOUND, Some(location), &named).unwrap().unwrap()
        };
        for (location, chosen) in [
            ("/v2", Chosen::ByUs),
            ("https://h:8443/", Chosen::ByUs),
            ("http://sso.example/login", Chosen::ByUs),
            ("http://SSO.example/login", Chosen::ByUs),
            ("http://sso.example.evil.example/", Chosen::ByThem),
            ("http://h@evil.example/", Chosen::ByThem),
            ("//evil.example/", Chosen::ByThem),
            ("http://10.0.0.1/", Chosen::ByThem),
        ] {
            assert_eq!(next(&first, location).chosen, chosen, "{location}");
        }
        let there = next(&first, "http://evil.example/");
        assert_eq!(next(&there, "/more").chosen, Chosen::ByThem, "it stays theirs");
        assert_eq!(next(&there, "http://h/").chosen, Chosen::ByUs, "and is ours again where we are named");
    }
}
