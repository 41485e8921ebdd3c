//! Asks the running daemon, at the address and with the token of its configuration.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use url::Url;

use crate::config::{HttpPlan, no_journey};
use crate::exit::{self, Failure};
use crate::gate::{Local, why_silent};
use crate::secret::Secret;

/// The daemon writes to its disk before it answers.
const WITHIN: Duration = Duration::from_secs(15);

/// The running daemon.
pub struct Daemon {
    base: Url,
    token: Option<Secret>,
    client: Client,
}

impl Daemon {
    /// The daemon that runs on this configuration.
    ///
    /// # Errors
    /// No client can be made.
    pub fn of(http: &HttpPlan) -> Result<Daemon, Failure> {
        let Local { base, client, .. } = Local::to(http.listen, http.web_config.as_deref(), WITHIN)
            .map_err(|why| Failure::new(exit::CONFIG, format!("the daemon cannot be asked: {why}")))?;
        Ok(Daemon { base, token: http.admin_token.clone(), client })
    }

    /// What is at this path of the API; `None` if nothing is.
    ///
    /// # Errors
    /// The daemon does not answer, or cannot say.
    pub async fn find(&self, path: &[&str]) -> Result<Option<Value>, Failure> {
        match self.call(Method::GET, path, &[], None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, answer) => self.accepted(status, answer).map(Some),
        }
    }

    /// That a journey of this name is there.
    ///
    /// # Errors
    /// It is not, and others are named that may have been meant; or the daemon does not answer.
    pub async fn has(&self, journey: &str) -> Result<(), Failure> {
        if self.find(&["journeys", journey]).await?.is_some() {
            return Ok(());
        }
        let names = self.journeys().await?;
        Err(Failure::new(exit::USAGE, no_journey(journey, names.iter().map(String::as_str))))
    }

    /// The names of all journeys.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn journeys(&self) -> Result<Vec<String>, Failure> {
        let all = self.read(&["journeys"], &[]).await?;
        let names = all["journeys"].as_array().into_iter().flatten().filter_map(|journey| journey["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// What is at this path of the API.
    ///
    /// # Errors
    /// Nothing is, or the daemon does not answer.
    pub async fn read(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        let (status, answer) = self.call(Method::GET, path, query, None).await?;
        self.accepted(status, answer)
    }

    /// Has something changed, which takes the admin token.
    ///
    /// # Errors
    /// It was refused, in the daemon's words; or the daemon does not answer.
    pub async fn change(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        if self.token.is_none() {
            let why = "the daemon changes nothing on request: `admin_token` is not in [http] of its configuration";
            let help = "add `admin_token = { file = \"…\" }`, and restart it";
            return Err(Failure::new(exit::CONFIG, format!("{why}\n  help: {help}")));
        }
        let (status, answer) = self.call(method, path, query, body).await?;
        self.accepted(status, answer)
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal().as_str());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let silent = |error: reqwest::Error| {
            let address = self.base.host_str().unwrap_or_default();
            let port = self.base.port_or_known_default().unwrap_or_default();
            let help = "does it run, on this configuration?";
            let why = why_silent(error);
            Failure::new(
                exit::UNAVAILABLE,
                format!("the daemon at {address}:{port} does not answer: {why}\n  help: {help}"),
            )
        };
        let answer = request.send().await.map_err(silent)?;
        let status = answer.status();
        let text = answer.text().await.map_err(silent)?;
        let other = || Failure::new(exit::UNAVAILABLE, format!("{} is no Journeyman: it answered {status}", self.base));
        match serde_json::from_str(&text) {
            Ok(answer) => Ok((status, answer)),
            // Who asks for a password speaks to people.
            Err(_) if status == StatusCode::UNAUTHORIZED => Ok((status, Value::Null)),
            Err(_) => Err(other()),
        }
    }

    /// The answer, or what the daemon says against it.
    fn accepted(&self, status: StatusCode, answer: Value) -> Result<Value, Failure> {
        if status.is_success() {
            return Ok(answer);
        }
        let code = match status {
            StatusCode::UNAUTHORIZED => exit::NO_PERMISSION,
            StatusCode::TOO_MANY_REQUESTS => exit::TEMPORARY,
            status if status.is_client_error() => exit::USAGE,
            _ => exit::UNAVAILABLE,
        };
        if status == StatusCode::UNAUTHORIZED {
            let (why, help) = match self.token {
                Some(_) => (
                    "the daemon does not take the `admin_token` of this configuration",
                    "is it the file that the daemon runs on, and has the token changed since it started?",
                ),
                None => (
                    "the daemon wants a password (`web_config`)",
                    "with an `admin_token` in [http] of its configuration this command needs none",
                ),
            };
            return Err(Failure::new(code, format!("{why}\n  help: {help}")));
        }
        let said = answer["error"].as_str().unwrap_or("the daemon refused, without a word");
        Err(Failure::new(code, said.to_owned()))
    }
}
