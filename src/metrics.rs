//! The metric families: names, help, labels, and handles that their users hold. Rendered by our own server.
//!
//! Every series that can be known in advance is born at zero, so that a rate over its first increment is right; but not each cause
//! of each journey. What is not of a journey is in a registry.

mod breakers;
mod histogram;
mod journey;
mod journeys;
mod packed;
mod render;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::drill::Verdict;
use crate::journey::outcome::Cause;
use crate::journey::value::Value;
use crate::journey::{Journey, Name};
use crate::ledger::Kind;
pub use crate::metrics::breakers::{BreakerMetrics, PaceMetrics};
pub use crate::metrics::journey::JourneyMetrics;
use crate::metrics::journeys::Journeys;
pub use crate::metrics::packed::Packed;
use crate::metrics::render::Text;
use crate::time::Mono;

/// A metric family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge`, `histogram`, or `summary`: a sum and a count.
    pub kind: &'static str,
    /// Its help text.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident: $kind:literal $name:literal $help:literal;)+) => {
        $(const $constant: &str = $name;)+
        /// Every family that the daemon exports; the dashboards and rules are tested against it.
        pub const FAMILIES: &[Family] = &[$(Family { name: $name, kind: $kind, help: $help }),+];
    };
}

families! {
    RUNS: "counter" "journeyman_runs_total" "Runs by journey and outcome.";
    RUN_CAUSES: "counter" "journeyman_run_causes_total" "Runs that failed, are unknown or do not count, by cause or reason; there from the first one on.";
    RUN_DURATION: "histogram" "journeyman_run_duration_seconds" "Critical-path latency of delivered runs, from just before the first send.";
    STEP_DURATION: "summary" "journeyman_step_duration_seconds" "Duration of passed steps; for a receive, from just before its send to the reader's stamp.";
    RUN_BUDGET: "gauge" "journeyman_run_budget_seconds" "The journey's budget; a delivered run that takes longer is slow.";
    RUN_BUDGET_RATIO: "gauge" "journeyman_run_latency_budget_ratio" "Latency of the last delivered run divided by the journey's budget.";
    LAST_RUN: "gauge" "journeyman_last_run_timestamp_seconds" "When the journey's last run ended.";
    LAST_SUCCESS: "gauge" "journeyman_last_success_timestamp_seconds" "When the journey was last delivered, in budget or not.";
    STALE_AFTER: "gauge" "journeyman_stale_after_seconds" "How long the journey may be without a verdict before its alert says so.";
    ALERT_STATE: "gauge" "journeyman_alert_state" "Where the journey's alert stands: 0 ok, 1 suspect, 2 recovering, 3 firing.";
    INCIDENTS_FIRING: "gauge" "journeyman_incidents_firing" "Open incidents by severity.";
    SLO_OBJECTIVE: "gauge" "journeyman_slo_objective_ratio" "The objective.";
    SLO_ACHIEVED: "gauge" "journeyman_slo_achieved_ratio" "What was achieved over the window.";
    SLO_BUDGET_LEFT: "gauge" "journeyman_slo_budget_left_ratio" "Error budget left, as a share of it; negative when overspent.";
    SLO_BURN: "gauge" "journeyman_slo_burn_rate" "Burn rate over a window; 1 spends exactly the budget.";
    SLO_INTERVAL: "gauge" "journeyman_slo_achieved_interval_ratio" "The 95 % Wilson interval around what was achieved, by end.";
    SLO_UNCORRECTED: "gauge" "journeyman_slo_uncorrected_ratio" "What was achieved over the window with every run in maintenance as what it was.";
    SLO_LEFT_SECONDS: "gauge" "journeyman_slo_budget_left_seconds" "Error budget left as time; none when overspent.";
    SLO_REFUND: "gauge" "journeyman_slo_next_refund_timestamp_seconds" "When spent error budget next comes back; 0 if none is spent.";
    SLO_EXHAUSTION: "gauge" "journeyman_slo_exhaustion_timestamp_seconds" "When the error budget is used up if the last three days go on; 0 if not within the window.";
    SLO_COMPOSED: "gauge" "journeyman_slo_composed_ratio" "What the journey's dependencies would deliver one after the other, if they fail independently.";
    SLO_COVERAGE: "gauge" "journeyman_slo_coverage_ratio" "Share of the window's slots that have a verdict.";
    ARRIVALS: "counter" "journeyman_arrivals_total" "Messages that a receiving channel saw, by what they were to the ledger.";
    LEDGER: "gauge" "journeyman_ledger_tokens" "Tokens in the ledger by state.";
    CHANNEL_READY: "gauge" "journeyman_channel_ready" "Whether a receiving channel is proven ready.";
    CHANNEL_FAULTS: "counter" "journeyman_channel_faults_total" "Sends and requests that failed, by cause.";
    CHANNEL_ACKS: "histogram" "journeyman_channel_acknowledgement_seconds" "From just before a send, request or check to its acknowledgement or response; only those that succeeded.";
    CHANNEL_CONNECT: "histogram" "journeyman_channel_connect_seconds" "Time to make a connection (name, TCP, TLS, greeting), where a send, request or check made one.";
    CHANNEL_LOST: "counter" "journeyman_channel_receiver_lost_total" "Times that a receiving channel was ready and then was not.";
    CHANNEL_DEPTH: "gauge" "journeyman_channel_depth" "Messages waiting, as the last check of a target saw it.";
    CHANNEL_LAG: "gauge" "journeyman_channel_lag" "Messages that consumers are behind, as the last check of a target saw it.";
    CHANNEL_OLDEST: "gauge" "journeyman_channel_oldest_age_seconds" "Age of the oldest waiting message, as the last check of a target saw it.";
    CHANNEL_CONSUMERS: "gauge" "journeyman_channel_consumers" "Consumers, as the last check of a target saw them.";
    CHANNEL_CERTIFICATE: "gauge" "journeyman_channel_certificate_expiry_timestamp_seconds" "When the certificate that a channel shows expires; of several, the first.";
    CHANNEL_SLOWED: "gauge" "journeyman_channel_slowed_seconds" "How long a channel waits between two calls, or before the next, because its system made it slow down; 0 if it did not.";
    CHANNEL_SLOWDOWNS: "counter" "journeyman_channel_slowdowns_total" "Times that a channel was made to slow down: told how long, shown that a limit is used up, or throttled without a word.";
    BREAKER_STATE: "gauge" "journeyman_breaker_state" "Where a breaker stands: 1 for its state, 0 for the others.";
    BREAKER_TRANSITIONS: "counter" "journeyman_breaker_transitions_total" "Changes of a breaker, by the state that it came to.";
    SPEND_TODAY: "gauge" "journeyman_channel_spend_today" "What was spent through the channel today, in the measure of its limit: money, or messages.";
    SPEND_LIMIT: "gauge" "journeyman_channel_spend_limit" "What may be spent through the channel in a day.";
    WEBHOOK_REQUESTS: "counter" "journeyman_webhook_requests_total" "Calls to a webhook channel's route, by result.";
    TURNED_AWAY: "counter" "journeyman_listener_turned_away_total" "Connections to a listener that were turned away or cut, by reason.";
    WEB_CONFIG: "gauge" "journeyman_web_config_valid" "Whether a listener's web_config is in force as its file is now, or there is none; with 0 the last good one is in force.";
    LATENESS: "histogram" "journeyman_schedule_lateness_seconds" "Start of a run after its slot. Never part of a latency.";
    SKIPPED: "counter" "journeyman_runs_skipped_total" "Slots without a run, by reason.";
    IN_FLIGHT: "gauge" "journeyman_runs_in_flight" "Runs under way.";
    BLIND: "counter" "journeyman_blind_seconds_total" "Time that slots were missed because the daemon was not running.";
    NOTIFICATIONS: "counter" "journeyman_notifications_total" "Attempts to tell people, by notifier and result.";
    TELL_DURATION: "histogram" "journeyman_notification_duration_seconds" "From the decision to the notifier's receipt.";
    OUTBOX_PENDING: "gauge" "journeyman_outbox_pending" "Notices not delivered yet.";
    OUTBOX_DEAD: "gauge" "journeyman_outbox_dead" "Notices given up.";
    OUTBOX_OLDEST: "gauge" "journeyman_outbox_oldest_age_seconds" "Age of the oldest undelivered notice.";
    STORE_UP: "gauge" "journeyman_store_up" "Whether the store took the last commit.";
    STORE_COMMIT: "histogram" "journeyman_store_commit_seconds" "Time to make a batch durable, waiting included.";
    CONFIG_LOADS: "counter" "journeyman_config_loads_total" "Times that the configuration was read, by result; the start is one.";
    CONFIG_ACCEPTED: "gauge" "journeyman_config_last_load_accepted" "Whether the configuration was in order when it was read last.";
    CONFIG_ACCEPTED_AT: "gauge" "journeyman_config_last_accepted_timestamp_seconds" "Since when the configuration that runs does so.";
    CLOCK_STEPS: "counter" "journeyman_clock_steps_total" "Steps of the wall clock that were noticed.";
    SELF_LAST: "gauge" "journeyman_self_journey_last_success_timestamp_seconds" "When the monitor's own journey last went all the way, through the outbox to a delivery worker.";
    DEAD_MAN_LAST: "gauge" "journeyman_dead_man_last_success_timestamp_seconds" "When a dead man's switch last took a call that all is well.";
    DEAD_MAN_FAILURES: "counter" "journeyman_dead_man_failures_total" "Calls to a dead man's switch that it did not take.";
    CLUSTER_CONFIGURATIONS: "gauge" "journeyman_cluster_configurations" "How many configurations the daemons have that share the store and live: one, if all is well.";
    CLUSTER_CUT_OFF: "gauge" "journeyman_cluster_cut_off" "Whether this daemon is cut off from the store that it shares, and tells people by itself.";
    CLUSTER_DAEMONS: "gauge" "journeyman_cluster_daemons" "Daemons that share the store and live, this one among them.";
    CLUSTER_LEADS: "gauge" "journeyman_cluster_leads" "Whether this daemon decides and tells, of those that share the store.";
    CLUSTER_SHARDS: "gauge" "journeyman_cluster_shards" "Shards whose journeys this daemon runs; there are 32.";
    CLUSTER_SPOOLED: "gauge" "journeyman_cluster_spooled" "What this daemon has seen, and the one that decides has not been told.";
    DRILL_LAST: "gauge" "journeyman_drill_last_success_timestamp_seconds" "When a drill of the journey last passed.";
    DRILLS: "counter" "journeyman_drills_total" "Drills of the journey, by what they came to.";
    SAFE_MODE: "gauge" "journeyman_safe_mode" "Whether the daemon runs fewer journeys at once because its last starts crashed.";
    OFFLINE: "gauge" "journeyman_observer_offline" "Whether no reference endpoint answers: our own network is down, and what fails by it is unknown.";
    OFFLINE_SECONDS: "counter" "journeyman_observer_offline_seconds_total" "Time that no reference endpoint answered.";
    BUILD: "gauge" "journeyman_build_info" "The version, as a label.";
    STARTED: "gauge" "process_start_time_seconds" "When the process started.";
    MEMORY: "gauge" "process_resident_memory_bytes" "Resident memory.";
    CPU: "counter" "process_cpu_seconds_total" "CPU time, user and system.";
}

/// Durations of journeys, in seconds; every budget and deadline of the plan is added, so that shares in budget are exact.
const DURATIONS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Short things inside the daemon, in seconds.
const SHORT: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// From a decision to a receipt, in seconds.
const TELLING: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0];
/// How a send or request can fail. Born at zero: the first failure after a start must show in a rate.
const SEND_FAULTS: [Cause; 9] = [
    Cause::Unreachable,
    Cause::Tls,
    Cause::Auth,
    Cause::Refused,
    Cause::Rejected,
    Cause::Throttled,
    Cause::Unroutable,
    Cause::Uncertain,
    Cause::Mismatch,
];
/// An exposition serves every scrape for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Bucket edges that budgets may add at most; a plan with more different ones keeps the smallest.
const BUDGET_EDGES: usize = 16;

const METADATA: Metadata<'static> = Metadata::new("journeyman", Level::INFO, None);

/// The registry. Handles come from it; [`Metrics::render`] gives the exposition.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Labels of what the configuration has no more. The recorder forgets nothing: their series are left out of the exposition.
    gone: RwLock<BTreeSet<String>>,
    journeys: Journeys,
    /// The last exposition, and when it was made.
    last: Mutex<Option<(Mono, Packed)>>,
}

impl Metrics {
    /// A registry for a plan with these journeys. `location` becomes a label of every series.
    pub fn new(journeys: &[Arc<Journey>], location: Option<&str>) -> Metrics {
        let mut edges: Vec<f64> = journeys
            .iter()
            .flat_map(|journey| journey.budget.into_iter().chain([journey.deadline]))
            .map(|edge| edge.as_secs_f64())
            .collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        edges.truncate(BUDGET_EDGES);
        edges.extend(DURATIONS);
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let mut builder = PrometheusBuilder::new();
        for (family, buckets) in [
            (CHANNEL_ACKS, edges.as_slice()),
            (CHANNEL_CONNECT, &edges),
            (LATENESS, &SHORT),
            (STORE_COMMIT, &SHORT),
            (TELL_DURATION, &TELLING),
        ] {
            let matcher = Matcher::Full(family.to_owned());
            builder = builder.set_buckets_for_metric(matcher, buckets).expect("a family has at least one bucket");
        }
        if let Some(location) = location {
            builder = builder.add_global_label("location", location);
        }
        let recorder = builder.build_recorder();
        for family in FAMILIES {
            let (name, help) = (family.name.into(), SharedString::const_str(family.help));
            match family.kind {
                "counter" => recorder.describe_counter(name, None::<Unit>, help),
                "gauge" => recorder.describe_gauge(name, None, help),
                _ => recorder.describe_histogram(name, None, help),
            }
        }
        let handle = recorder.handle();
        let journeys = Journeys::new(&edges, location);
        let metrics = Metrics { recorder, handle, gone: RwLock::default(), journeys, last: Mutex::default() };
        metrics.gauge(BUILD, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        metrics
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        let counter = self.recorder.register_counter(&key(name, labels), &METADATA);
        counter.increment(0);
        counter
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// The exposition as it was at `now` or less than a second before. Takes some 300 ms for ten thousand journeys: not on an async
    /// worker.
    pub fn exposition(&self, now: Mono) -> Packed {
        if let Some((_, packed)) = self.last().as_ref().filter(|(at, _)| now.since(*at) < FRESH) {
            return packed.clone();
        }
        let packed = Packed::new(|out| self.write(out));
        *self.last() = Some((now, packed.clone()));
        packed
    }

    fn last(&self) -> MutexGuard<'_, Option<(Mono, Packed)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exposition in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        self.write(&mut text);
        String::from_utf8(text).expect("names and numbers are text")
    }

    fn write(&self, out: &mut dyn std::io::Write) {
        out.write_all(self.without_gone(self.handle.render()).as_bytes()).expect("memory takes all");
        let mut text = Text::new(out);
        self.journeys.render(&mut text);
        text.finish();
    }

    fn without_gone(&self, text: String) -> String {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        if gone.is_empty() {
            return text;
        }
        let is_gone = |line: &str| {
            labels(line).any(|label| gone.contains(label))
                || breakers::pair_of(line).is_some_and(|pair| gone.contains(&pair))
        };
        let is_there = |line: &&str| line.starts_with('#') || !is_gone(line);
        text.split_inclusive('\n').filter(is_there).collect()
    }

    /// Shows the series with this label from here on, or no longer. `label` is that of a channel or a notifier.
    pub fn show(&self, label: &'static str, name: &str, is_there: bool) {
        let pair = format!("{label}=\"{name}\"");
        let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
        match is_there {
            true => gone.remove(&pair),
            false => gone.insert(pair),
        };
    }

    /// Folds recorded samples into their buckets, and forgets an exposition that nobody will be given any more. To be called every few
    /// seconds.
    pub fn upkeep(&self, now: Mono) {
        self.handle.run_upkeep();
        self.last().take_if(|(at, _)| now.since(*at) >= FRESH);
    }

    /// A channel's handles.
    pub fn channel(self: &Arc<Self>, channel: &Name, receives: bool) -> ChannelMetrics {
        let mut arrivals = HashMap::new();
        if receives {
            for kind in Kind::ALL {
                let labels = [("channel", &**channel), ("kind", kind.as_str())];
                arrivals.insert(*kind, self.counter(ARRIVALS, &labels));
            }
        }
        let ready = receives.then(|| self.gauge(CHANNEL_READY, &[("channel", channel)]));
        if let Some(ready) = &ready {
            ready.set(0.0);
        }
        for cause in SEND_FAULTS {
            let _born = self.counter(CHANNEL_FAULTS, &[("channel", channel), ("cause", cause.as_str())]);
        }
        let lost = receives.then(|| self.counter(CHANNEL_LOST, &[("channel", channel)]));
        let (acks, connects) =
            ([CHANNEL_ACKS, CHANNEL_CONNECT]).map(|name| self.histogram(name, &[("channel", channel)])).into();
        let pace = self.pace(channel);
        ChannelMetrics { metrics: self.clone(), channel: channel.clone(), arrivals, ready, lost, acks, connects, pace }
    }

    /// The handles of a channel with a spend limit.
    pub fn spend(&self, channel: &Name) -> SpendMetrics {
        let of = [("channel", &**channel)];
        SpendMetrics { today: self.gauge(SPEND_TODAY, &of), limit: self.gauge(SPEND_LIMIT, &of) }
    }

    /// A notifier's handles.
    pub fn notifier(&self, notifier: &Name) -> NotifierMetrics {
        let result = |result| self.counter(NOTIFICATIONS, &[("notifier", notifier), ("result", result)]);
        let of = [("notifier", &**notifier)];
        let handles = NotifierMetrics {
            sent: result("sent"),
            retried: result("retried"),
            throttled: result("throttled"),
            ambiguous: result("ambiguous"),
            dead: result("dead"),
            fallback: result("fallback"),
            duration: self.histogram(TELL_DURATION, &of),
            pending: self.gauge(OUTBOX_PENDING, &of),
            dead_rows: self.gauge(OUTBOX_DEAD, &of),
            oldest: self.gauge(OUTBOX_OLDEST, &of),
        };
        handles.pending.set(0.0);
        handles.dead_rows.set(0.0);
        handles.oldest.set(0.0);
        handles
    }

    /// The handles of what becomes of reloads.
    pub fn configuration(&self) -> ConfigMetrics {
        let result = |result| self.counter(CONFIG_LOADS, &[("result", result)]);
        ConfigMetrics {
            accepted: result("accepted"),
            refused: result("refused"),
            is_last_accepted: self.gauge(CONFIG_ACCEPTED, &[]),
            last_accepted: self.gauge(CONFIG_ACCEPTED_AT, &[]),
        }
    }

    /// Of the daemons that share the store, this one's part.
    pub fn share(&self) -> ShareMetrics {
        ShareMetrics {
            configurations: self.gauge(CLUSTER_CONFIGURATIONS, &[]),
            cut_off: self.gauge(CLUSTER_CUT_OFF, &[]),
            spooled: self.gauge(CLUSTER_SPOOLED, &[]),
            daemons: self.gauge(CLUSTER_DAEMONS, &[]),
            leads: self.gauge(CLUSTER_LEADS, &[]),
            shards: self.gauge(CLUSTER_SHARDS, &[]),
        }
    }

    /// The daemon's own handles.
    pub fn daemon(&self) -> DaemonMetrics {
        let firing = |severity| {
            let gauge = self.gauge(INCIDENTS_FIRING, &[("severity", severity)]);
            gauge.set(0.0);
            gauge
        };
        let skipped = |reason| self.counter(SKIPPED, &[("reason", reason)]);
        let handles = DaemonMetrics {
            firing_critical: firing("critical"),
            firing_warning: firing("warning"),
            lateness: self.histogram(LATENESS, &[]),
            skipped_overlap: skipped("overlap"),
            skipped_capacity: skipped("capacity"),
            skipped_missed: skipped("missed"),
            skipped_spend: skipped("spend"),
            skipped_paused: skipped("paused"),
            in_flight: self.gauge(IN_FLIGHT, &[]),
            blind: self.counter(BLIND, &[]),
            ledger_expected: self.gauge(LEDGER, &[("state", "expected")]),
            ledger_settled: self.gauge(LEDGER, &[("state", "settled")]),
            store_up: self.gauge(STORE_UP, &[]),
            store_commit: self.histogram(STORE_COMMIT, &[]),
            clock_steps: self.counter(CLOCK_STEPS, &[]),
            safe_mode: self.gauge(SAFE_MODE, &[]),
            started: self.gauge(STARTED, &[]),
            memory: self.gauge(MEMORY, &[]),
            cpu: self.counter(CPU, &[]),
        };
        handles.store_up.set(1.0);
        handles.in_flight.set(0.0);
        handles.safe_mode.set(0.0);
        handles
    }

    /// When the own journey last went all the way.
    pub fn own(&self) -> Gauge {
        let last = self.gauge(SELF_LAST, &[]);
        last.set(0.0);
        last
    }

    /// Drills of this journey are made: what is counted of them is there from now on.
    pub fn drilled(&self, journey: &str) {
        self.gauge(DRILL_LAST, &[("journey", journey)]).increment(0.0);
        for verdict in Verdict::ALL {
            self.counter(DRILLS, &[("journey", journey), ("result", verdict.as_str())]).increment(0);
        }
    }

    /// A drill of this journey has passed.
    pub fn drill_passed(&self, journey: &str, at: Timestamp) {
        self.gauge(DRILL_LAST, &[("journey", journey)]).set(seconds(at));
    }

    /// A drill of this journey has come to this.
    pub fn drill_ended(&self, journey: &str, verdict: Verdict) {
        self.counter(DRILLS, &[("journey", journey), ("result", verdict.as_str())]).increment(1);
    }

    /// The handles of a dead man's switch, by its place among them.
    pub fn dead_man(&self, switch: &str) -> DeadManMetrics {
        let of = [("switch", switch)];
        let handles = DeadManMetrics {
            last_success: self.gauge(DEAD_MAN_LAST, &of),
            failures: self.counter(DEAD_MAN_FAILURES, &of),
        };
        handles.last_success.set(0.0);
        handles
    }

    /// The handles of the observer.
    pub fn observer(&self) -> ObserverMetrics {
        let handles =
            ObserverMetrics { offline: self.gauge(OFFLINE, &[]), seconds: self.counter(OFFLINE_SECONDS, &[]) };
        handles.offline.set(0.0);
        handles
    }

    /// When the certificate that a channel shows expires. Not born: no time is that of a certificate that nobody saw.
    pub fn set_certificate(&self, channel: &str, until: Timestamp) {
        self.gauge(CHANNEL_CERTIFICATE, &[("channel", channel)]).set(seconds(until));
    }

    /// Sets the total of connections that a listener turned away for this.
    pub fn set_turned_away(&self, listener: &str, reason: &'static str, total: u64) {
        self.counter(TURNED_AWAY, &[("listener", listener), ("reason", reason)]).absolute(total);
    }

    /// Sets whether the `web_config` of a listener is in force as its file is now.
    pub fn set_web_config(&self, listener: &str, is_valid: bool) {
        self.gauge(WEB_CONFIG, &[("listener", listener)]).set(if is_valid { 1.0 } else { 0.0 });
    }

    /// Sets the total of calls to a webhook's route that ended with `result`.
    pub fn set_webhook_requests(&self, channel: &str, result: &'static str, total: u64) {
        self.counter(WEBHOOK_REQUESTS, &[("channel", channel), ("result", result)]).absolute(total);
    }
}

/// The labels of a line of the exposition, as they are written: `journey="sms"`.
fn labels(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line.split_once('{').map_or("", |(_, rest)| rest);
    std::iter::from_fn(move || {
        let value = rest.find("=\"")? + 2;
        // A quote within a value stands behind a backslash.
        let mut is_escaped = false;
        let end = rest[value..].find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        })?;
        let label = &rest[..value + end + 1];
        rest = rest[label.len()..].trim_start_matches(',');
        Some(label)
    })
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    Key::from_parts(name, labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect::<Vec<_>>())
}

/// A channel's handles.
pub struct ChannelMetrics {
    metrics: Arc<Metrics>,
    channel: Name,
    arrivals: HashMap<Kind, Counter>,
    ready: Option<Gauge>,
    lost: Option<Counter>,
    acks: Histogram,
    connects: Histogram,
    pace: PaceMetrics,
}

impl ChannelMetrics {
    /// Those of its own pace.
    pub fn pace(&self) -> &PaceMetrics {
        &self.pace
    }

    /// A message was seen.
    pub fn arrived(&self, kind: Kind) {
        if let Some(counter) = self.arrivals.get(&kind) {
            counter.increment(1);
        }
    }

    /// Whether it can receive.
    pub fn set_ready(&self, is_ready: bool) {
        if let Some(gauge) = &self.ready {
            gauge.set(f64::from(u8::from(is_ready)));
        }
    }

    /// It was ready, and is not any more.
    pub fn lost(&self) {
        if let Some(counter) = &self.lost {
            counter.increment(1);
        }
    }

    /// A send, request or check was acknowledged after `took`; `connected` if it made a connection, and how long that took.
    pub fn acknowledged(&self, took: Duration, connected: Option<Duration>) {
        self.acks.record(took.as_secs_f64());
        if let Some(connected) = connected {
            self.connects.record(connected.as_secs_f64());
        }
    }

    /// What a check saw of `target`.
    pub fn checked(&self, target: &str, facts: &BTreeMap<&'static str, Value>) {
        let labels = [("channel", &*self.channel), ("target", target)];
        for (fact, family) in [
            ("depth", CHANNEL_DEPTH),
            ("lag", CHANNEL_LAG),
            ("oldest_age", CHANNEL_OLDEST),
            ("consumers", CHANNEL_CONSUMERS),
        ] {
            if let Some(value) = facts.get(fact).and_then(Value::as_f64) {
                self.metrics.gauge(family, &labels).set(value);
            }
        }
    }

    /// A send or request failed.
    pub fn fault(&self, cause: Cause) {
        let labels = [("channel", &*self.channel), ("cause", cause.as_str())];
        self.metrics.counter(CHANNEL_FAULTS, &labels).increment(1);
    }
}

/// The handles of a channel with a spend limit.
pub struct SpendMetrics {
    today: Gauge,
    limit: Gauge,
}

impl SpendMetrics {
    /// What was spent today, and what may be.
    pub fn set(&self, today: f64, limit: f64) {
        self.today.set(today);
        self.limit.set(limit);
    }
}

/// A notifier's handles.
pub struct NotifierMetrics {
    /// Taken by the other side.
    pub sent: Counter,
    /// Failed, to be tried again.
    pub retried: Counter,
    /// Asked to wait.
    pub throttled: Counter,
    /// May or may not have been taken.
    pub ambiguous: Counter,
    /// Given up.
    pub dead: Counter,
    /// Handed to the fallback.
    pub fallback: Counter,
    /// From the decision to the receipt.
    pub duration: Histogram,
    /// Undelivered rows.
    pub pending: Gauge,
    /// Rows given up.
    pub dead_rows: Gauge,
    /// Age of the oldest undelivered row, in seconds.
    pub oldest: Gauge,
}

/// Handles of what becomes of reloads.
pub struct ConfigMetrics {
    accepted: Counter,
    refused: Counter,
    is_last_accepted: Gauge,
    last_accepted: Gauge,
}

/// A daemon's part of what several share.
pub struct ShareMetrics {
    daemons: Gauge,
    leads: Gauge,
    shards: Gauge,
    configurations: Gauge,
    cut_off: Gauge,
    spooled: Gauge,
}

impl ShareMetrics {
    /// So many shards are its, of so many daemons, which have so many configurations.
    pub fn set(&self, shards: usize, daemons: usize, configurations: usize) {
        self.configurations.set(configurations as f64);
        self.shards.set(shards as f64);
        self.daemons.set(daemons as f64);
    }

    /// Whether it is cut off from the store.
    pub fn set_cut_off(&self, is_cut_off: bool) {
        self.cut_off.set(f64::from(u8::from(is_cut_off)));
    }

    /// So much of what it saw waits to be said.
    pub fn set_spooled(&self, rows: usize) {
        self.spooled.set(rows as f64);
    }

    /// Whether it decides.
    pub fn set_leads(&self, leads: bool) {
        self.leads.set(f64::from(u8::from(leads)));
    }
}

impl ConfigMetrics {
    /// The configuration runs since `now`.
    pub fn accepted(&self, now: Timestamp) {
        self.accepted.increment(1);
        self.is_last_accepted.set(1.0);
        self.last_accepted.set(seconds(now));
    }

    /// One was not accepted.
    pub fn refused(&self) {
        self.refused.increment(1);
        self.is_last_accepted.set(0.0);
    }
}

/// The handles of a dead man's switch.
pub struct DeadManMetrics {
    /// When it last took a call that all is well.
    pub last_success: Gauge,
    /// Calls that it did not take.
    pub failures: Counter,
}

/// The handles of the observer.
pub struct ObserverMetrics {
    /// Whether our network is down.
    pub offline: Gauge,
    /// For how long it was.
    pub seconds: Counter,
}

/// The daemon's own handles.
pub struct DaemonMetrics {
    /// Open critical incidents.
    pub firing_critical: Gauge,
    /// Open warnings.
    pub firing_warning: Gauge,
    /// Start of a run after its slot.
    pub lateness: Histogram,
    /// The run before was still going.
    pub skipped_overlap: Counter,
    /// No permit was free.
    pub skipped_capacity: Counter,
    /// The daemon was not running, or the machine slept.
    pub skipped_missed: Counter,
    /// It would have spent more than a channel may by then.
    pub skipped_spend: Counter,
    /// Somebody has paused the journey.
    pub skipped_paused: Counter,
    /// Runs under way.
    pub in_flight: Gauge,
    /// Seconds in which slots were missed.
    pub blind: Counter,
    /// Tokens expected.
    pub ledger_expected: Gauge,
    /// Tokens remembered.
    pub ledger_settled: Gauge,
    /// Whether the store took the last commit.
    pub store_up: Gauge,
    /// Time to make a batch durable.
    pub store_commit: Histogram,
    /// Steps of the wall clock.
    pub clock_steps: Counter,
    /// Whether it has started carefully.
    pub safe_mode: Gauge,
    /// When the process started.
    pub started: Gauge,
    /// Resident memory in bytes.
    pub memory: Gauge,
    /// CPU seconds.
    pub cpu: Counter,
}

/// Seconds since the Unix epoch, as Prometheus has them.
pub fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_apart_whatever_their_values_hold() {
        let found = |line: &'static str| labels(line).collect::<Vec<_>>();
        assert_eq!(found("a 1"), [""; 0]);
        assert_eq!(found("a{journey=\"api[eu,us]\",le=\"0.5\"} 1"), ["journey=\"api[eu,us]\"", "le=\"0.5\""]);
        assert_eq!(found("a{x=\"1\\\"}\",journey=\"y\"} 1"), ["x=\"1\\\"}\"", "journey=\"y\""]);
    }

    #[test]
    fn what_the_configuration_has_no_more_is_not_shown_and_comes_back_as_it_was() {
        let metrics = Metrics::new(&[], None);
        metrics.counter(ARRIVALS, &[("channel", "sms"), ("kind", "late")]).increment(3);
        metrics.counter(ARRIVALS, &[("channel", "sms-2"), ("kind", "late")]).increment(4);
        let shows = |name: &str| metrics.render().contains(&format!("channel=\"{name}\""));
        metrics.show("channel", "sms", false);
        assert!(!shows("sms") && shows("sms-2"));
        assert!(metrics.render().contains("# TYPE journeyman_arrivals_total"));
        metrics.show("channel", "sms", true);
        assert!(metrics.render().contains("journeyman_arrivals_total{channel=\"sms\",kind=\"late\"} 3"));
    }
}
