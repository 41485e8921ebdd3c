//! Calls of Slack's Web API, one attempt each.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::answer;
use crate::channel::refusal::Refusal;
use crate::channel::web::{Call, Errand, Web};
use crate::clock::Clock;
use crate::journey::outcome::Cause;
use crate::journey::run::{Fault, Reply};
use crate::secret::Secret;

/// The Web API.
pub(super) struct Api(Web);

/// A call that came to nothing.
pub(super) struct Declined {
    /// Why.
    pub(super) fault: Fault,
    /// How long Slack wants us to wait, if that is why.
    pub(super) wait: Option<Duration>,
}

impl Api {
    /// The API at this root. Reads certificates; touches no network.
    pub(super) fn open(root: Url, ca_file: Option<PathBuf>, clock: Clock) -> Result<Api, String> {
        Web::open(root, ca_file, clock).map(Api)
    }

    /// Calls a method with arguments in JSON; gives the answer and how it came.
    pub(super) async fn post(
        &self,
        token: &Secret,
        method: &str,
        arguments: &Value,
        errand: Errand,
    ) -> Result<(Value, Reply), Declined> {
        let headers = vec![("content-type".to_owned(), "application/json; charset=utf-8".to_owned())];
        let body = arguments.to_string().into_bytes();
        self.call(token, method, Call { method: "POST", query: Vec::new(), headers, body, ..empty(errand) }).await
    }

    /// Calls a method that only reads.
    pub(super) async fn get(
        &self,
        token: &Secret,
        method: &str,
        arguments: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<(Value, Reply), Declined> {
        let query = arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.call(token, method, Call { query, ..empty(Errand::own(timeout)) }).await
    }

    async fn call(&self, token: &Secret, method: &str, mut call: Call) -> Result<(Value, Reply), Declined> {
        call.path = Some(method.to_owned());
        call.headers.push(("authorization".to_owned(), format!("Bearer {}", token.reveal().as_str())));
        let reply = self.0.call(call).await.map_err(|fault| Declined { fault, wait: None })?;
        let Some(message) = &reply.message else { return Err(Declined { fault: strange(reply), wait: None }) };
        match answer::read(method, message.status.unwrap_or_default(), &message.body) {
            Ok(answer) => Ok((answer, reply)),
            Err(refusal) => {
                let wait = (refusal.cause == Cause::Throttled).then(|| answer::wait(message.header("retry-after")));
                Err(Declined { fault: refusal.into_fault(reply.started, reply.finished, reply.phases), wait })
            }
        }
    }
}

fn empty(errand: Errand) -> Call {
    Call { method: "GET", path: None, query: Vec::new(), headers: Vec::new(), body: Vec::new(), errand }
}

/// The fault of an `ok` that lacks what it should have.
pub(super) fn strange(reply: Reply) -> Fault {
    let detail = "Slack's answer lacks what it should have: the message may be posted".to_owned();
    let refusal = Refusal { cause: Cause::Mismatch, detail, is_verdict: false };
    refusal.into_fault(reply.started, reply.finished, reply.phases)
}
