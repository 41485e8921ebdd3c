//! The vocabulary: what a journey is, as the configuration made it. Immutable after load.

pub mod compare;
pub mod expect;
pub mod message;
pub mod objective;
pub mod outcome;
pub mod own;
pub mod report;
pub mod run;
pub mod schedule;
pub mod seen;
pub mod spend;
pub mod template;
pub mod token;
pub mod trace_url;
pub mod trend;
pub mod value;
pub mod vantage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::journey::expect::{Expectation, Query};
pub use crate::journey::objective::Objective;
use crate::journey::objective::{USUAL_WINDOW, Window};
use crate::journey::schedule::{Calendar, Schedule};
use crate::journey::template::{Medium, Scope, Template, TemplateError};
use crate::journey::token::Token;
use crate::journey::vantage::{Places, Vantage};
use crate::time::Mono;

/// A name of a journey, channel, notifier or step.
pub type Name = Arc<str>;

/// A named flow: what to do, when, how fast it must be, and whom to tell.
#[derive(Clone, Debug)]
pub struct Journey {
    /// Unique among journeys; a matrix appends its values: `checkout-api[eu]`.
    pub name: Name,
    /// When it is due.
    pub schedule: Schedule,
    /// Slower than this is slow; `None` never is.
    pub budget: Option<Duration>,
    /// Not done by then, counted from just before the first step, is failed.
    pub deadline: Duration,
    /// How long a message that is not here by the deadline is still listened for, counted from the send.
    pub late: Duration,
    /// What share of runs must be right, and in time.
    pub objective: Option<Objective>,
    /// When people are told.
    pub alert: AlertPolicy,
    /// Who is told, in this order.
    pub notify: Vec<Name>,
    /// Who owns the journey.
    pub owner: Option<String>,
    /// Where it says what to do.
    pub runbook: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// What must work for it to work: other journeys, declared dependencies, and names that only say that journeys have
    /// something in common.
    pub depends_on: Vec<Name>,
    /// It is run and measured, and nobody is told.
    pub muted: bool,
    /// A share of the permits is kept for it.
    pub critical: bool,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// Times in which its slots do not count.
    pub maintenance: Vec<Maintenance>,
    /// From where it is run; `None` is from wherever one daemon does.
    pub vantage: Option<Vantage>,
    /// Why this build cannot run it, if it cannot. Its slots are then `unknown`, and it goes stale, which people are told.
    pub unavailable: Option<String>,
    /// Where it was defined: `file:line`.
    pub defined_at: String,
    /// What its definition comes to in a few digits: another one is another definition.
    pub fingerprint: String,
}

/// A system that journeys depend on, and what somebody promises of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependency {
    /// The share of time or of messages for which it works, in `0..=1`.
    pub delivered: f64,
    /// For people.
    pub description: Option<String>,
}

/// When people are told about a journey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertPolicy {
    /// This many failed runs in a row fire *down*.
    pub down_after: u32,
    /// A failed run is confirmed by others, so long after it each; if all fail too, it is *down*. Empty: only runs in a row count.
    pub confirm: Vec<Duration>,
    /// Whether failures that are not in a row may fire *partial*.
    pub partial: bool,
    /// Whether runs that are slower than in the same hours of the days before may fire *drift*.
    pub drift: bool,
    /// Whether what fires and ends again and again becomes one incident, which only calm ends.
    pub flapping: bool,
    /// This many slow runs in a row fire *slow*.
    pub slow_after: u32,
    /// This many good runs in a row resolve.
    pub recover_after: u32,
    /// Told again this often while it fires; `None` is never.
    pub remind: Option<Duration>,
}

/// Recurring maintenance.
#[derive(Clone, Debug)]
pub struct Maintenance {
    /// For people.
    pub name: String,
    /// When it is.
    pub time: MaintenanceTime,
    /// Whether slots in it are left out of the objective.
    pub exclude_from_slo: bool,
}

/// When maintenance is.
#[derive(Clone, Debug)]
pub enum MaintenanceTime {
    /// Again and again.
    Recurring {
        /// When it begins.
        begins: Box<Calendar>,
        /// How long it lasts.
        lasts: Duration,
    },
    /// One time.
    Once {
        /// From then on.
        from: jiff::Timestamp,
        /// Until then.
        until: jiff::Timestamp,
    },
}

impl Maintenance {
    /// Whether `at` lies in a window.
    pub fn is_active(&self, at: jiff::Timestamp) -> bool {
        self.active_until(at).is_some()
    }

    /// When the window in which `at` lies ends; `None` if it lies in none.
    pub fn active_until(&self, at: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let (from, until) = match &self.time {
            MaintenanceTime::Recurring { begins, lasts } => {
                let began = begins.last(at)?;
                (began, crate::time::later(began, *lasts))
            }
            MaintenanceTime::Once { from, until } => (*from, *until),
        };
        (from <= at && at < until).then_some(until)
    }

    /// When the next window after `at` begins; `None` if there is none.
    pub fn next(&self, at: jiff::Timestamp) -> Option<jiff::Timestamp> {
        match &self.time {
            MaintenanceTime::Recurring { begins, .. } => begins.next(at),
            MaintenanceTime::Once { from, .. } => Some(*from).filter(|from| at < *from),
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Unique within the journey; the verb and the channel if it was not named.
    pub name: Name,
    /// What it does.
    pub verb: Verb,
    /// Slower than this makes the run slow.
    pub budget: Option<Duration>,
    /// Its own limit within the journey's deadline.
    pub timeout: Option<Duration>,
    /// Runs whatever happened before; its failure is a warning.
    pub always: bool,
    /// Its failure is a warning.
    pub soft: bool,
    /// Skipped unless this holds.
    pub when: Option<Template>,
    /// What must be true of its message.
    pub expect: Vec<Expectation>,
    /// What later steps may use, by name.
    pub capture: Vec<(String, Query)>,
    /// Repeats a request until its expectations hold.
    pub poll: Option<Poll>,
}

/// Repetition of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// From the end of one attempt to the beginning of the next.
    pub every: Duration,
    /// From the first attempt's beginning to the last one's.
    pub within: Duration,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Sends a message that will arrive elsewhere.
    Send(Box<Draft>),
    /// Waits for a message of this run.
    Receive(Receive),
    /// Sends a request and reads the response.
    Request(Box<Draft>),
    /// Looks at a system beside the journey: a queue's depth, a certificate. Takes nothing, leaves nothing.
    Check(Box<Draft>),
    /// Runs a program.
    Exec(Box<Draft>),
    /// Waits.
    Pause(Duration),
}

impl Verb {
    /// The verb's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Verb::Send(_) => "send",
            Verb::Receive(_) => "receive",
            Verb::Request(_) => "request",
            Verb::Check(_) => "check",
            Verb::Exec(_) => "exec",
            Verb::Pause(_) => "pause",
        }
    }

    /// The channel it uses.
    pub fn channel(&self) -> Option<&Name> {
        match self {
            Verb::Receive(receive) => Some(&receive.channel),
            Verb::Pause(_) => None,
            Verb::Send(draft) | Verb::Request(draft) | Verb::Check(draft) | Verb::Exec(draft) => Some(&draft.channel),
        }
    }

    /// What it does with its channel, and what it gives it; `None` if it only waits.
    pub fn act(&self) -> Option<(Act, &Draft)> {
        match self {
            Verb::Send(draft) => Some((Act::Send, draft)),
            Verb::Request(draft) | Verb::Exec(draft) => Some((Act::Request, draft)),
            Verb::Check(draft) => Some((Act::Check, draft)),
            Verb::Receive(_) | Verb::Pause(_) => None,
        }
    }
}

/// What is asked of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// To send a message that will arrive elsewhere.
    Send,
    /// To send a request and read the response.
    Request,
    /// To look at the system.
    Check,
}

/// What a `receive` waits for.
#[derive(Clone, Debug)]
pub struct Receive {
    /// Where.
    pub channel: Name,
    /// The index of the send whose start its latency counts from.
    pub since: usize,
    /// Only messages that fulfil these are this step's.
    pub filter: Vec<Expectation>,
    /// Match by the channel's `key` instead of by token: the key's value.
    pub key: Option<Template>,
}

/// A message to be sent, as templates.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Through which channel.
    pub channel: Name,
    /// A whole URL instead of the channel's.
    pub url: Option<Template>,
    /// HTTP method.
    pub method: Option<String>,
    /// Appended to the channel's URL.
    pub path: Option<Template>,
    /// Query parameters.
    pub query: Vec<(String, Template)>,
    /// Header fields.
    pub headers: Vec<(String, Template)>,
    /// The payload.
    pub payload: Payload,
    /// What only this channel's protocol knows, by key: `routing_key`, `exchange`, `subject`, …
    pub fields: BTreeMap<String, Template>,
    /// A program and its arguments; empty for everything but `exec`.
    pub command: Vec<Template>,
}

/// A payload as templates.
#[derive(Clone, Debug, Default)]
pub enum Payload {
    /// None.
    #[default]
    Empty,
    /// A JSON document whose strings are templates.
    Json(JsonTemplate),
    /// Form fields.
    Form(Vec<(String, Template)>),
    /// Text.
    Text(Template),
}

/// A JSON document whose strings are templates.
#[derive(Clone, Debug)]
pub enum JsonTemplate {
    /// A string, escaped as JSON when rendered.
    Text(Template),
    /// Anything without a string in it.
    Fixed(serde_json::Value),
    /// A list.
    List(Vec<JsonTemplate>),
    /// An object; names are as written.
    Object(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    fn render(&self, scope: &Scope) -> Result<serde_json::Value, TemplateError> {
        Ok(match self {
            JsonTemplate::Text(template) => template.render(scope, Medium::Plain)?.into(),
            JsonTemplate::Fixed(value) => value.clone(),
            JsonTemplate::List(items) => {
                serde_json::Value::Array(items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>()?)
            }
            JsonTemplate::Object(members) => serde_json::Value::Object(
                members
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), value.render(scope)?)))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }
}

/// A message ready to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The run's token; channels that can carry headers send its `traceparent`.
    pub token: Token,
    /// A whole URL instead of the channel's.
    pub url: Option<String>,
    /// HTTP method.
    pub method: Option<String>,
    /// Appended to the channel's URL.
    pub path: Option<String>,
    /// Query parameters, not yet encoded.
    pub query: Vec<(String, String)>,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub body: Vec<u8>,
    /// The payload's media type.
    pub content_type: Option<&'static str>,
    /// What only this channel's protocol knows.
    pub fields: BTreeMap<String, String>,
    /// A program and its arguments; empty for everything but `exec`.
    pub command: Vec<String>,
    /// How long the message may take to be acknowledged.
    pub timeout: Duration,
    /// No connection that was made before will do. A confirmation asks for this: what only an old connection suffers from, a
    /// new one shows, and the other way round. The old one ends when its last user is done with it.
    pub connected_since: Option<Mono>,
}

impl Outgoing {
    /// A message with nothing in it, and a token that is nobody's: for what a channel asks on its own account.
    pub fn empty(timeout: Duration) -> Outgoing {
        Outgoing {
            token: Token::from_bits(0),
            url: None,
            method: None,
            path: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            content_type: None,
            fields: BTreeMap::new(),
            command: Vec::new(),
            timeout,
            connected_since: None,
        }
    }
}

impl Draft {
    /// The message for one run.
    ///
    /// # Errors
    /// A template that cannot be rendered.
    pub fn render(&self, scope: &Scope, token: Token, timeout: Duration) -> Result<Outgoing, TemplateError> {
        let pairs = |templates: &[(String, Template)], medium| {
            templates
                .iter()
                .map(|(name, template)| Ok((name.clone(), template.render(scope, medium)?)))
                .collect::<Result<Vec<_>, TemplateError>>()
        };
        let optional = |template: &Option<Template>, medium| {
            template.as_ref().map(|template| template.render(scope, medium)).transpose()
        };
        let (body, content_type) = match &self.payload {
            Payload::Empty => (Vec::new(), None),
            Payload::Json(document) => (document.render(scope)?.to_string().into_bytes(), Some("application/json")),
            Payload::Text(text) => (text.render(scope, Medium::Plain)?.into_bytes(), Some("text/plain; charset=utf-8")),
            Payload::Form(fields) => {
                let fields = pairs(fields, Medium::Plain)?;
                let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                (encoded.into_bytes(), Some("application/x-www-form-urlencoded"))
            }
        };
        Ok(Outgoing {
            token,
            url: optional(&self.url, Medium::Url)?,
            method: self.method.clone(),
            path: optional(&self.path, Medium::Url)?,
            query: pairs(&self.query, Medium::Plain)?,
            headers: pairs(&self.headers, Medium::Header)?,
            body,
            content_type,
            fields: self
                .fields
                .iter()
                .map(|(key, template)| Ok((key.clone(), template.render(scope, Medium::Header)?)))
                .collect::<Result<_, TemplateError>>()?,
            command: self
                .command
                .iter()
                .map(|word| word.render(scope, Medium::Plain))
                .collect::<Result<_, TemplateError>>()?,
            timeout,
            connected_since: None,
        })
    }
}

impl Journey {
    /// The channels that it receives on, each once.
    pub fn receivers(&self) -> Vec<Name> {
        let mut names = Vec::new();
        for step in &self.steps {
            if let Verb::Receive(receive) = &step.verb
                && !names.contains(&receive.channel)
            {
                names.push(receive.channel.clone());
            }
        }
        names
    }

    /// The channels that it uses, each once.
    pub fn channels(&self) -> Vec<Name> {
        let mut names = Vec::new();
        for name in self.steps.iter().filter_map(|step| step.verb.channel()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// How many messages a run sends through this channel, if it gets to all of its steps. Requests and checks are not among them.
    pub fn sends_through(&self, channel: &Name) -> u64 {
        let sends =
            self.steps.iter().filter(|step| matches!(&step.verb, Verb::Send(draft) if draft.channel == *channel));
        sends.count() as u64
    }

    /// The window that it is measured over: its objective's, or thirty days.
    pub fn window(&self) -> Window {
        self.objective.as_ref().map_or(USUAL_WINDOW.into(), |objective| objective.window.clone())
    }

    /// How many slots that window has at `now`.
    pub fn slots_in_window(&self, now: jiff::Timestamp) -> u64 {
        let window = self.window();
        let before = crate::time::earlier(window.bounds(now).0, Duration::from_millis(1));
        self.schedule.count(before, window.length(now))
    }

    /// Whether it is run itself, and not only its parts in several places.
    pub fn is_run(&self) -> bool {
        self.places().is_none()
    }

    /// The places that see it together.
    pub fn places(&self) -> Option<&Places> {
        match &self.vantage {
            Some(Vantage::Together(places)) => Some(places),
            _ => None,
        }
    }

    /// The journey that people are told of: another one, if this is what one place of several sees.
    pub fn told_as(&self) -> &Name {
        match &self.vantage {
            Some(Vantage::Place { of, .. }) => of,
            _ => &self.name,
        }
    }

    /// Whether it is what one place of several sees: people are told of what they see together.
    pub fn is_part(&self) -> bool {
        matches!(self.vantage, Some(Vantage::Place { .. }))
    }

    /// From where it is seen; `here` is where whoever asks looks from.
    pub fn seen_from<'a>(&'a self, here: Option<&'a str>) -> Option<&'a str> {
        match &self.vantage {
            None => here,
            Some(Vantage::Place { location, .. }) => Some(location),
            Some(Vantage::Together(_)) => None,
        }
    }

    /// What matchers of silences and routes see of it, seen from `location` if it is not seen from a place of its own.
    pub fn alert_labels(&self, location: Option<&str>) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        let location = self.seen_from(location);
        let own = [("journey", Some(&**self.told_as())), ("owner", self.owner.as_deref()), ("location", location)];
        labels.extend(own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
        labels.insert("critical".to_owned(), self.critical.to_string());
        labels
    }

    /// Whether `at` lies in a maintenance window that leaves slots out of the objective.
    pub fn is_excluded(&self, at: jiff::Timestamp) -> bool {
        self.excluded_until(at).0
    }

    /// As [`Journey::is_excluded`], and until when the answer is the same at least.
    pub fn excluded_until(&self, at: jiff::Timestamp) -> (bool, jiff::Timestamp) {
        let mut answer = (false, jiff::Timestamp::MAX);
        for window in self.maintenance.iter().filter(|window| window.exclude_from_slo) {
            let change = match window.active_until(at) {
                Some(end) => {
                    answer.0 = true;
                    end
                }
                None => window.next(at).unwrap_or(jiff::Timestamp::MAX),
            };
            answer.1 = answer.1.min(change);
        }
        answer
    }
}
