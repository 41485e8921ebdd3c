//! Scripted timelines: journeys a minute apart in their own slots, and what people are told when.

use proptest::prelude::*;

use super::place::incident_id;
use super::*;
use crate::alert::{JourneyAlerts, Look};
use crate::control::Escalation;
use crate::detect::{Finding, Rules, Sample};
use crate::journey::AlertPolicy;
use crate::journey::outcome::{Cause, Verdict};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

pub(crate) fn rules() -> Rules {
    Rules {
        policy: AlertPolicy {
            down_after: 3,
            confirm: Vec::new(),
            partial: false,
            drift: true,
            flapping: true,
            slow_after: 3,
            recover_after: 2,
            remind: Some(Duration::from_secs(3_600)),
        },
        stale_after: Duration::from_secs(150),
        allowed: 0.01,
    }
}

/// A desk with journeys that run every minute, and everything that was told.
struct Stage {
    desk: Desk,
    journeys: BTreeMap<Name, (JourneyAlerts, Rules, Option<Resource>)>,
    told: Vec<(i64, Name, NotifyReason, String)>,
    closed: Vec<Incident>,
    actions: Vec<Action>,
}

fn profile(name: &str, resources: &[Resource], notify: &[&str]) -> Profile {
    Profile {
        subject: Subject::Journey(name.into()),
        labels: Arc::new(BTreeMap::from([("journey".to_owned(), name.to_owned())])),
        resources: resources.to_vec(),
        notify: notify.iter().map(|name| (*name).into()).collect(),
        remind: Some(Duration::from_secs(3_600)),
        muted: false,
        maintenance: Vec::new(),
    }
}

fn channel(name: &str) -> Resource {
    Resource::Channel(name.into())
}

impl Stage {
    fn new() -> Stage {
        Stage::routed(Vec::new())
    }

    fn routed(routes: Vec<Route>) -> Stage {
        let desk = Desk::new(routes, ["slack".into()].into());
        Stage { desk, journeys: BTreeMap::new(), told: Vec::new(), closed: Vec::new(), actions: Vec::new() }
    }

    fn with(mut self, profile: Profile) -> Stage {
        let Subject::Journey(name) = profile.subject.clone() else { panic!("a journey") };
        let blamed = profile.resources.iter().find(|resource| matches!(resource, Resource::Channel(_))).cloned();
        self.desk.enrol(profile, AlertState::default());
        self.journeys.insert(name, (JourneyAlerts::default(), rules(), blamed));
        self
    }

    /// One verdict: `g`ood, `s`low, `f`ailed, `u`nknown; `.` is only time.
    fn verdict(&mut self, name: &str, second: i64, verdict: char) {
        let now = at(second);
        let (alerts, rules, blamed) = self.journeys.get_mut(name).unwrap();
        let verdict = match verdict {
            'g' => Some(Verdict::Good),
            's' => Some(Verdict::Slow),
            'f' => Some(Verdict::Failed),
            'u' => Some(Verdict::Unknown),
            _ => None,
        };
        if let Some(verdict) = verdict {
            let cause = (verdict == Verdict::Failed).then_some(Cause::NotReceived);
            alerts.detectors.take(Sample { slot: now, verdict, cause, is_confirmation: false }, rules, now);
        }
        let findings = alerts.detectors.look(rules, now);
        let look = Look {
            findings,
            is_suspicious: alerts.detectors.is_suspicious(),
            since: alerts.detectors.since(),
            is_good: alerts.detectors.good > 0,
            is_bad_run: matches!(verdict, Some(Verdict::Failed | Verdict::Slow)),
            is_undamped: false,
        };
        let is_bad = look.is_suspicious || (!look.findings.is_empty() && !look.is_good);
        let transition = alerts.health.settle(look, now);
        let subject = Subject::Journey(name.into());
        alerts.health.incident = self.desk.update(&subject, &alerts.health, transition, is_bad, blamed.clone(), now);
        self.decide(second);
    }

    /// Every journey by its own script, together.
    fn each<'s>(&mut self, minute: i64, script: impl Fn(&str) -> &'s str) {
        let names: Vec<Name> = self.journeys.keys().cloned().collect();
        let scripts: Vec<_> = names.iter().map(|name| (&**name, script(name))).collect();
        self.together(minute, &scripts);
    }

    /// A look at a journey's budget: what is found, if anything.
    fn budget(&mut self, name: &str, alert: &mut AlertState, found: Option<Detector>, second: i64) {
        let findings = found.map(|detector| Finding::new(detector, "found")).into_iter().collect();
        let transition = alert.settle(Look { findings, ..Look::default() }, at(second));
        let subject = Subject::Budget(name.into());
        alert.incident = self.desk.update(&subject, alert, transition, found.is_some(), None, at(second));
        self.decide(second);
    }

    /// What the open incidents are of.
    fn titles(&self) -> Vec<String> {
        self.desk.open().map(Incident::title).collect()
    }

    fn decide(&mut self, second: i64) {
        for action in self.desk.decide(at(second)) {
            match &action {
                Action::Notify { notifier, reason, incident, .. } => {
                    self.told.push((second, notifier.clone(), *reason, incident.title()));
                }
                Action::Closed { incident, .. } => self.closed.push((**incident).clone()),
                Action::Moved { subject: Subject::Journey(name), incident } => {
                    self.journeys.get_mut(name).unwrap().0.health.incident = Some(incident.clone());
                }
                Action::Changed { .. } | Action::Moved { .. } => {}
            }
            self.actions.push(action);
        }
    }

    /// Verdicts of one journey a minute apart, from minute `from` on.
    fn play(&mut self, name: &str, from: i64, verdicts: &str) {
        for (minute, verdict) in (from..).zip(verdicts.chars()) {
            self.verdict(name, minute * 60, verdict);
        }
    }

    /// Verdicts of all journeys, side by side, seconds apart.
    fn together(&mut self, from: i64, verdicts: &[(&str, &str)]) {
        let minutes = verdicts.iter().map(|(_, verdicts)| verdicts.len()).max().unwrap_or(0);
        for minute in 0..minutes {
            for (offset, (name, verdicts)) in verdicts.iter().enumerate() {
                if let Some(verdict) = verdicts.chars().nth(minute) {
                    self.verdict(name, (from + minute as i64) * 60 + offset as i64, verdict);
                }
            }
        }
    }

    fn reasons(&self) -> Vec<(i64, NotifyReason)> {
        self.told.iter().map(|(second, _, reason, _)| (second / 60, *reason)).collect()
    }

    fn calls(&self) -> Vec<(i64, &str, NotifyReason, &str)> {
        let calls = self.told.iter().filter(|(_, _, reason, _)| *reason != NotifyReason::Updated);
        calls.map(|(second, notifier, reason, title)| (second / 60, &**notifier, *reason, title.as_str())).collect()
    }

    /// The same after a restart: a desk filled from what was written.
    fn restart(mut self) -> Stage {
        let mut open: BTreeMap<String, Incident> = BTreeMap::new();
        for action in &self.actions {
            match action {
                Action::Changed { incident, .. } => drop(open.insert(incident.id.clone(), (**incident).clone())),
                Action::Closed { incident, .. } => drop(open.remove(&incident.id)),
                Action::Notify { .. } | Action::Moved { .. } => {}
            }
        }
        let before = std::mem::take(&mut self.desk);
        self.desk = Desk::new(before.routes.clone(), before.updatable.clone());
        for (name, (alerts, ..)) in &self.journeys {
            let profile = (*before.seen[&Subject::Journey(name.clone())].profile).clone();
            let saved = serde_json::to_string(&alerts.health).unwrap();
            self.desk.enrol(profile, serde_json::from_str(&saved).unwrap());
        }
        let saved = open.into_values().map(|incident| serde_json::to_string(&incident).unwrap());
        let restored = saved.map(|saved| serde_json::from_str(&saved).unwrap()).collect();
        self.desk.restore(restored, before.silences);
        self
    }
}

use NotifyReason::{First, Repeat, Resolved, Updated, Worse};

#[test]
fn every_row_of_the_decision_table() {
    let told = |severity| Some(Told { at: at(0), severity });
    let standing = |severity, is_quiet| Standing { severity, remind: Some(Duration::from_secs(60)), is_quiet };
    let never = Standing { remind: None, ..standing(Severity::Critical, false) };
    let table = [
        (None, standing(Severity::Critical, true), 1, None),
        (told(Severity::Warning), standing(Severity::Critical, true), 999, None),
        (None, standing(Severity::Warning, false), 1, Some(First)),
        (told(Severity::Warning), standing(Severity::Critical, false), 1, Some(Worse)),
        (told(Severity::Critical), standing(Severity::Critical, false), 60, Some(Repeat)),
        (told(Severity::Critical), standing(Severity::Warning, false), 59, None),
        (told(Severity::Critical), never, 99_999, None),
    ];
    for (told, standing, seconds, expected) in table {
        assert_eq!(should_notify(told.as_ref(), standing, at(seconds)), expected, "{told:?} {standing:?}");
    }
}

fn alone() -> Stage {
    Stage::new().with(profile("sms", &[], &["mail"]))
}

#[test]
fn down_is_told_once_and_resolved_once() {
    let mut stage = alone();
    stage.play("sms", 0, "ggffgffffffgfggggg");
    assert_eq!(stage.reasons(), [(7, First), (14, Resolved)]);
    let incident = &stage.closed[0];
    assert_eq!((incident.since, incident.bad_runs, incident.worst), (at(5 * 60), 7, Severity::Critical));
    assert_eq!(stage.desk.open().count(), 0);
}

#[test]
fn slow_then_down_is_one_incident_that_gets_worse() {
    let mut stage = alone();
    stage.play("sms", 0, "sssfffggg");
    assert_eq!(stage.reasons(), [(2, First), (5, Worse), (7, Resolved)]);
}

#[test]
fn down_that_comes_back_slow_stays_open_without_another_word() {
    let mut stage = alone();
    stage.play("sms", 0, "fffsssgg");
    assert_eq!(stage.reasons(), [(2, First), (7, Resolved)]);
}

#[test]
fn silence_goes_stale_and_a_verdict_ends_it() {
    let mut stage = alone();
    stage.play("sms", 0, "g..u...gg");
    assert_eq!(stage.reasons(), [(3, First), (8, Resolved)]);
}

#[test]
fn reminders_come_only_after_the_interval_and_not_while_it_gets_well() {
    let mut stage = alone();
    stage.play("sms", 0, &"f".repeat(130));
    assert_eq!(stage.reasons(), [(2, First), (62, Repeat), (122, Repeat)]);
    stage.verdict("sms", 130 * 60, 'g');
    stage.decide(300 * 60);
    assert_eq!(stage.told.len(), 3, "{:?}", stage.told);
}

#[test]
fn an_incident_survives_a_restart_and_nobody_is_told_again() {
    let mut stage = alone();
    stage.play("sms", 0, "gfff");
    let id = stage.desk.open().next().unwrap().id.clone();
    let mut stage = stage.restart();
    stage.decide(200);
    stage.play("sms", 4, "ffgg");
    assert_eq!(stage.reasons(), [(3, First), (7, Resolved)]);
    assert_eq!((&stage.closed[0].id, stage.closed[0].bad_runs), (&id, 5));
}

#[test]
fn an_incident_whose_alert_ended_before_the_crash_is_told_over_at_the_start() {
    let mut stage = alone();
    stage.play("sms", 0, "fff");
    stage.journeys.get_mut("sms").unwrap().0.health = AlertState::default();
    let mut stage = stage.restart();
    stage.decide(240);
    assert_eq!(stage.reasons(), [(2, First), (4, Resolved)]);
}

#[test]
fn an_incident_has_the_same_id_in_every_version() {
    assert_eq!(incident_id("sms", at(60)), "2b09461e35f5", "a change here orphans every open incident's thread");
}

fn fleet(through_broker: usize, others: usize) -> Stage {
    let mut stage = Stage::new();
    for n in 0..through_broker {
        stage = stage.with(profile(
            &format!("order-{n}"),
            &[channel("broker"), Resource::Location("zrh".into())],
            &["slack"],
        ));
    }
    for n in 0..others {
        stage =
            stage.with(profile(&format!("web-{n}"), &[channel("web"), Resource::Location("zrh".into())], &["slack"]));
    }
    stage
}

#[test]
fn one_cause_is_one_page_that_names_it() {
    let mut stage = fleet(7, 31);
    stage.each(0, |name| if name.starts_with("order") { "ggfffffgg" } else { "ggggggggg" });
    let calls = stage.calls();
    assert_eq!(calls, [(4, "slack", First, "channel broker"), (8, "slack", Resolved, "channel broker")]);
    let Root::Shared { said, .. } = &stage.closed[0].root else { panic!("{:?}", stage.closed[0].root) };
    assert_eq!(said, "7 of 7 journeys that use it fail, 31 of 31 others do not (by chance: p < 0.000001)");
    assert_eq!((stage.closed[0].members, stage.closed[0].bad_runs), (7, 35));
}

#[test]
fn a_member_that_is_broken_for_another_reason_splits_off() {
    let mut stage = fleet(6, 4);
    let names = ["order-0", "order-1", "order-4", "order-5", "order-2", "order-3"];
    stage.together(0, &names.map(|name| (name, "fff")));
    assert_eq!(stage.calls(), [(2, "slack", First, "channel broker")]);
    let end = |name| match name {
        "order-2" => "ffffffff",
        "order-3" => "ffffffffgg",
        _ => "gggggggg",
    };
    let ends = names.map(|name| (name, end(name)));
    stage.together(3, &ends);
    let expected =
        [(2, "slack", First, "channel broker"), (9, "slack", First, "order-3"), (12, "slack", Resolved, "order-3")];
    assert_eq!(stage.calls(), expected);
    assert_eq!(stage.titles(), ["order-2"], "the incident goes on under its own name");
}

#[test]
fn of_many_that_go_on_after_their_cause_most_are_told_in_one() {
    let mut stage = fleet(60, 4);
    stage.desk = std::mem::take(&mut stage.desk).with_digest_after(5);
    // A third of those that fail together are not well when the others are.
    let script = |name: &str| match name.strip_prefix("order-").map(|n| n.parse::<u32>()) {
        Some(Ok(n)) if n % 3 == 0 => "ffffffffffff",
        Some(_) => "fffggggggggg",
        None => "gggggggggggg",
    };
    stage.each(0, script);
    let pages: Vec<_> = stage.calls().into_iter().filter(|(_, _, reason, _)| *reason == First).collect();
    assert_eq!(pages.len(), 1 + 5 + 1, "the cause, those that got an incident of their own, and the rest: {pages:?}");
    assert_eq!(stage.desk.open().map(|incident| incident.firing).sum::<u32>(), 20);
}

#[test]
fn who_only_waits_for_calm_is_not_broken_for_another_reason() {
    let mut stage = fleet(6, 4);
    // One of them takes part in the last outage only, and so is not waited for.
    let script = |name: &str| match name {
        "order-0" => "gggggggggggggggfff",
        _ if name.starts_with("order") => "fffggfffggfffggfff",
        _ => "gggggggggggggggggg",
    };
    stage.each(0, script);
    let pages = |stage: &Stage| stage.calls().iter().filter(|(_, _, reason, _)| *reason == First).count();
    let before = pages(&stage);
    let calm = "g".repeat(25);
    stage.each(18, |_| &calm);
    assert_eq!(pages(&stage), before, "{:?}", stage.calls());
    assert_eq!(stage.desk.open().map(|incident| incident.firing).collect::<Vec<_>>(), [5]);
}

#[test]
fn who_runs_rarely_and_failed_while_the_cause_was_there_is_not_broken_for_another_reason() {
    let mut stage = fleet(6, 4);
    // Nobody ends after the last outage: most wait for calm, and one that failed before is well long since.
    let script = |name: &str| match name {
        "order-0" => "f....f....f....f....f.....",
        "order-1" => "ggggggggggfffggggggggggggg",
        _ if name.starts_with("order") => "fffggfffggfffggfffggfffggg",
        _ => "gggggggggggggggggggggggggg",
    };
    stage.each(0, script);
    assert_eq!(stage.titles(), ["channel broker"], "{:?}", stage.calls());
    // It goes on when the cause has long been gone.
    stage.each(26, |name| if name == "order-0" { "..f....f" } else { "gggggggg" });
    assert_eq!(stage.titles().len(), 2, "{:?}", stage.calls());
}

#[test]
fn who_has_not_run_since_the_cause_went_is_not_broken_for_another_reason() {
    let mut stage = fleet(6, 4);
    // One of them runs so rarely that its next run is long after the others are well.
    let script = |name: &str| match name {
        "order-0" => "fff..............f",
        _ if name.starts_with("order") => "ffffgggggggggggggg",
        _ => "gggggggggggggggggg",
    };
    stage.each(0, |name| &script(name)[..17]);
    assert_eq!(stage.titles(), ["channel broker"]);
    stage.each(17, |name| &script(name)[17..]);
    assert_eq!(stage.titles(), ["order-0"], "it fails now, and nobody else does");
}

#[test]
fn what_an_outage_spends_belongs_to_it_from_the_first_budget() {
    let mut stage = fleet(30, 4);
    for n in 0..30 {
        let name = format!("order-{n}");
        let subject = Subject::Budget(name.as_str().into());
        let resources = [channel("broker"), Resource::Location("zrh".into())];
        stage.desk.enrol(Profile { subject, ..profile(&name, &resources, &["slack"]) }, AlertState::default());
    }
    stage.each(0, |name| if name.starts_with("order") { "ffff" } else { "gggg" });
    let mut homes = BTreeSet::new();
    let mut alerts = vec![AlertState::default(); 4];
    for (n, alert) in (0..).zip(&mut alerts) {
        stage.budget(&format!("order-{n}"), alert, Some(Detector::Budget), 240 + n);
        homes.extend(alert.incident.clone());
    }
    assert_eq!(homes.len(), 1, "{homes:?}");
    // They stay spent, and the outage is over: whoever heard of it is not called for that, for an hour.
    let told = stage.calls();
    assert_eq!(told, [(2, "slack", First, "channel broker")]);
    stage.each(5, |_| "ggg");
    let mut minutes = |stage: &mut Stage, minutes: std::ops::Range<i64>| {
        for minute in minutes {
            let spent = (0..).zip(&mut alerts);
            spent
                .for_each(|(n, alert)| stage.budget(&format!("order-{n}"), alert, Some(Detector::Budget), minute * 60));
        }
    };
    minutes(&mut stage, 8..64);
    assert_eq!(stage.calls()[1..], [(6, "slack", Resolved, "channel broker")]);
    minutes(&mut stage, 64..70);
    assert_eq!(stage.calls()[2..], [(65, "slack", First, "channel broker")]);
}

/// A budget that an outage has spent is spent for as long as its window: it goes on because of the outage.
#[test]
fn budgets_that_were_spent_together_stay_together() {
    let mut stage = Stage::new();
    let names: Vec<String> = (0..9).map(|n| format!("order-{n}")).collect();
    for name in &names {
        let profile = Profile {
            subject: Subject::Budget(name.as_str().into()),
            ..profile(name, &[channel("broker")], &["slack"])
        };
        stage.desk.enrol(profile, AlertState::default());
    }
    let mut alerts = vec![AlertState::default(); names.len()];
    let mut spend = |stage: &mut Stage, of: &mut dyn Iterator<Item = usize>, found, second| {
        of.for_each(|n| stage.budget(&names[n], &mut alerts[n], found, second));
    };
    spend(&mut stage, &mut (0..9).rev(), Some(Detector::Exhausted), 0);
    let told = stage.told.len();
    spend(&mut stage, &mut (3..9), None, 60);
    for minute in 2..20 {
        stage.decide(minute * 60);
        spend(&mut stage, &mut (0..3), Some(Detector::Exhausted), minute * 60);
    }
    assert_eq!(stage.told[told..].iter().filter(|(_, _, reason, _)| *reason == First).count(), 0, "{:?}", stage.told);
    assert_eq!(stage.desk.open().map(|incident| incident.firing).collect::<Vec<_>>(), [3]);
}

#[test]
fn two_unrelated_journeys_are_two_incidents() {
    let mut stage = fleet(1, 4);
    stage.together(0, &[("order-0", "fff"), ("web-0", "fff"), ("web-1", "ggg"), ("web-2", "ggg"), ("web-3", "ggg")]);
    let titles: Vec<_> = stage.calls().into_iter().map(|(_, _, reason, title)| (reason, title.to_owned())).collect();
    assert_eq!(titles, [(First, "order-0".to_owned()), (First, "web-0".to_owned())]);
}

#[test]
fn a_channel_that_is_down_takes_the_journeys_through_it_along() {
    let mut stage = fleet(2, 3);
    let subject = Subject::Channel("broker".into());
    let shared = profile("x", &[channel("broker")], &["slack"]);
    stage.desk.enrol(Profile { subject: subject.clone(), ..shared }, AlertState::default());
    let mut alert = AlertState::default();
    let look = Look { findings: vec![Finding::new(Detector::ChannelDown, "refused")], ..Look::default() };
    let transition = alert.settle(look, at(0));
    alert.incident = stage.desk.update(&subject, &alert, transition, true, None, at(0));
    stage.decide(0);
    stage.together(0, &[("order-0", "fff")]);
    assert_eq!(stage.calls(), [(0, "slack", First, "channel broker")]);
    let transition = alert.settle(Look::default(), at(400));
    stage.desk.update(&subject, &alert, transition, false, None, at(400));
    stage.play("order-0", 7, "gg");
    assert_eq!(stage.calls().last().unwrap(), &(8, "slack", Resolved, "channel broker"));
}

/// Three of twenty prove nothing by their number; that calls through the channel are refused does.
#[test]
fn who_fails_while_calls_through_a_channel_are_refused_is_in_its_incident_from_the_first() {
    for is_blocked in [true, false] {
        let mut stage = fleet(20, 0);
        let names: Vec<Name> = stage.journeys.keys().cloned().collect();
        stage.desk.block(&"broker".into(), true);
        stage.desk.block(&"broker".into(), is_blocked);
        for name in &names {
            stage.play(name, 0, "g");
        }
        for minute in 1..4 {
            for name in &names[..3] {
                stage.verdict(name, minute * 60, 'f');
            }
        }
        let pages = stage.told.iter().filter(|(_, _, reason, _)| *reason == NotifyReason::First).count();
        assert_eq!(pages, if is_blocked { 1 } else { 3 }, "{:?}", stage.told);
    }
}

#[test]
fn more_than_twenty_incidents_in_a_minute_are_told_in_one_message() {
    let mut stage = Stage::new();
    for n in 0..60 {
        stage = stage.with(profile(&format!("j{n:02}"), &[channel(&format!("c{n:02}"))], &["slack", "mail"]));
    }
    for n in 0..60 {
        for minute in 0..3 {
            // All fail for the third time within one minute.
            let second = if minute == 2 { 180 + n / 2 } else { minute * 60 + n / 2 };
            stage.verdict(&format!("j{n:02}"), second, 'f');
        }
    }
    let firsts = stage.calls().iter().filter(|call| call.1 == "mail" && call.2 == First).count();
    assert_eq!(firsts, STORM + 1);
    let digest = stage.desk.open().find(|incident| incident.root == Root::Storm).unwrap();
    assert_eq!((digest.members, digest.firing), (40, 40));
    let updates = stage.told.iter().filter(|(_, _, reason, _)| *reason == Updated).count();
    assert!(updates <= 3, "{updates}");
}

#[test]
fn ten_thousand_journeys_that_fail_together_are_one_incident_and_few_messages() {
    let mut stage = Stage::new();
    for n in 0..10_000 {
        stage = stage.with(profile(&format!("j{n}"), &[channel("gateway")], &["slack"]));
    }
    for minute in 0..4 {
        for n in 0..10_000 {
            stage.verdict(&format!("j{n}"), minute * 60 + n / 167, 'f');
        }
    }
    assert_eq!(stage.desk.open().count(), 1);
    let first = stage.told[0].0;
    let told = stage.told.iter().filter(|(second, ..)| second - first < 60).count();
    // In Slack an update is an edit and a reply in the thread: five calls.
    assert!(told <= 3, "{told} notices in the first minute");
    assert_eq!(stage.calls().len(), 1);
    let incident = stage.desk.open().next().unwrap();
    assert_eq!((incident.members, incident.firing), (10_000, 10_000));
}

fn silence(matchers: &[&str], from: i64, until: i64) -> Silence {
    Silence {
        id: "s1".to_owned(),
        matchers: matchers.iter().map(|text| crate::control::Matcher::parse(text).unwrap()).collect(),
        from: at(from),
        until: at(until),
        until_resolved: false,
        exclude_from_slo: false,
        pauses: false,
        reason: "upgrade".to_owned(),
        author: "ann".to_owned(),
    }
}

#[test]
fn a_silence_keeps_quiet_and_its_end_tells_at_once_what_still_fires() {
    let mut stage = alone();
    stage.desk.silence(silence(&["sms"], 0, 600));
    stage.play("sms", 0, "ffffff");
    assert_eq!(stage.told, []);
    assert!(stage.desk.open().next().unwrap().quiet.as_ref().unwrap().contains("ann"));
    assert_eq!(stage.desk.deadline(), Some(at(600)));
    stage.decide(600);
    assert_eq!(stage.reasons(), [(10, First)]);
}

#[test]
fn a_silence_that_begins_later_still_lets_the_end_be_told_and_its_own_end_repeats() {
    let mut stage = alone();
    stage.play("sms", 0, "fff");
    stage.desk.silence(silence(&["journey=~\"s.*\"", "severity=critical"], 0, 600));
    stage.decide(200);
    stage.decide(600);
    assert_eq!(stage.reasons(), [(2, First), (10, Repeat)]);
    stage.desk.silence(silence(&["sms"], 600, 6_000));
    stage.decide(610);
    stage.play("sms", 11, "gg");
    assert_eq!(stage.reasons(), [(2, First), (10, Repeat), (12, Resolved)]);
}

#[test]
fn who_sees_it_fire_sees_that_it_was_silenced_and_for_whom() {
    let mut stage = Stage::new().with(profile("sms", &[], &["slack"])).with(profile("mail.in", &[], &["mail"]));
    stage.play("sms", 0, "fff");
    let id = stage.desk.open().next().unwrap().id.clone();
    let matchers = stage.desk.matchers(&id).unwrap();
    assert_eq!(matchers, [crate::control::Matcher::equals("subject", "sms")]);
    stage.desk.silence(Silence { matchers, ..silence(&[], 0, 600) });
    stage.actions.clear();
    stage.decide(125);
    let Some(Action::Notify { reason, incident, news, .. }) = stage.actions.first() else { panic!("nothing is told") };
    assert_eq!((*reason, incident.quiet.as_ref()), (Updated, news.first()));
    assert!(news[0].starts_with("silenced by ann until "), "{news:?}");
    stage.play("mail.in", 3, "fff");
    assert_eq!(stage.reasons(), [(2, First), (2, Updated), (5, First)], "the other is told all the same");
    assert!(stage.desk.matchers("nothing").is_err());
}

#[test]
fn a_silence_until_resolved_ends_with_the_incident() {
    let mut stage = alone();
    stage.desk.silence(Silence { until_resolved: true, ..silence(&["sms"], 0, 86_400) });
    stage.play("sms", 0, "fffgg");
    assert_eq!((stage.told.len(), stage.desk.silences(at(0)).count()), (0, 0));
}

#[test]
fn an_acknowledgement_is_written_at_once_and_so_is_its_end() {
    let mut stage = alone();
    stage.play("sms", 0, "fff");
    let id = stage.desk.open().next().unwrap().id.clone();
    let written = |actions: Vec<Action>| {
        let acked = actions.iter().find_map(|action| match action {
            Action::Changed { incident, .. } => Some(incident.acked.is_some()),
            _ => None,
        });
        acked.unwrap()
    };
    stage.desk.acknowledge(&id, Ack { by: "bob".to_owned(), at: at(180), until: None, note: None }).unwrap();
    assert!(written(stage.desk.decide(at(180))));
    stage.desk.unacknowledge(&id, "bob").unwrap();
    assert!(!written(stage.desk.decide(at(181))));
}

#[test]
fn a_remark_brings_what_was_told_up_to_date_and_calls_nobody() {
    let mut stage = Stage::new().with(profile("sms", &[], &["mail", "slack"]));
    stage.play("sms", 0, "fff");
    let id = stage.desk.open().next().unwrap().id.clone();
    assert_eq!(stage.desk.lead(&id), Some(&Subject::Journey("sms".into())));
    stage.desk.remark(&id, "run again, asked by ada: good".to_owned());
    stage.desk.remark("nope", "nobody hears of it".to_owned());
    assert_eq!(stage.desk.lead("nope"), None);
    stage.decide(200);
    assert_eq!(stage.reasons(), [(2, First), (2, First), (3, Updated)]);
    let Some(Action::Notify { notifier, news, .. }) =
        stage.actions.iter().rev().find(|action| matches!(action, Action::Notify { .. }))
    else {
        panic!("{:?}", stage.actions)
    };
    assert_eq!((&**notifier, news.as_slice()), ("slack", &["run again, asked by ada: good".to_owned()][..]));
}

#[test]
fn a_silence_until_resolved_waits_for_its_own() {
    let mut stage = Stage::new().with(profile("sms", &[], &["mail"])).with(profile("web", &[], &["mail"]));
    stage.desk.silence(Silence { until_resolved: true, ..silence(&["sms", "severity=critical"], 0, 86_400) });
    stage.play("web", 0, "fffgg");
    assert_eq!(stage.desk.silences(at(0)).count(), 1, "it is about something else, which has not begun yet");
    stage.play("sms", 5, "fffgg");
    assert_eq!(stage.desk.silences(at(0)).count(), 0);
}

#[test]
fn a_silence_excludes_the_slots_in_it_also_of_runs_that_end_later() {
    let mut stage = alone();
    let sms = Subject::Journey("sms".into());
    stage.desk.silence(Silence { exclude_from_slo: true, ..silence(&["sms"], 60, 600) });
    stage.decide(700);
    let excluded = |slot: i64| stage.desk.excluded_by(&sms, at(slot)).is_some();
    assert_eq!([59, 60, 599, 600].map(excluded), [false, true, true, false]);
    assert!(stage.desk.excluded_by(&Subject::Journey("web".into()), at(60)).is_none());
    assert_eq!(stage.desk.silences(at(700)).count(), 0, "nobody is shown one that is over");
    stage.decide(600 + 86_400);
    assert!(stage.desk.excluded_by(&sms, at(60)).is_none(), "it is not kept for ever");
}

#[test]
fn in_maintenance_nobody_is_told_and_its_end_tells_at_once() {
    for exclude_from_slo in [false, true] {
        let time = crate::journey::MaintenanceTime::Once { from: at(0), until: at(600) };
        let maintenance = vec![Maintenance { name: "upgrade".to_owned(), time, exclude_from_slo }];
        let mut stage = Stage::new().with(Profile { maintenance, ..profile("sms", &[], &["mail"]) });
        stage.play("sms", 0, "ffffff");
        assert_eq!(stage.told, []);
        let quiet = stage.desk.open().next().unwrap().quiet.clone().unwrap();
        assert!(quiet.starts_with("in maintenance until ") && quiet.ends_with(": upgrade"), "{quiet}");
        stage.decide(600);
        assert_eq!(stage.reasons(), [(10, First)]);
    }
}

#[test]
fn muted_tells_nothing() {
    let muted = Profile { muted: true, ..profile("sms", &[], &["mail"]) };
    let mut stage = Stage::new().with(muted);
    stage.play("sms", 0, "fffffggg");
    assert_eq!(stage.told, []);
    assert_eq!(stage.closed.len(), 1, "it is on record all the same");
}

#[test]
fn an_acknowledged_incident_is_not_repeated_until_it_gets_worse_or_the_time_is_over() {
    let mut stage = alone();
    stage.play("sms", 0, "sss");
    let id = stage.desk.open().next().unwrap().id.clone();
    let ack = Ack { by: "bob".to_owned(), at: at(180), until: Some(at(3 * 3_600)), note: None };
    stage.desk.acknowledge(&id, ack.clone()).unwrap();
    stage.play("sms", 3, &"s".repeat(100));
    assert_eq!(stage.reasons(), [(2, First)]);
    stage.play("sms", 103, "fff");
    assert_eq!(stage.reasons(), [(2, First), (105, Worse)]);
    assert_eq!(stage.desk.open().next().unwrap().acked, None);
    stage.desk.acknowledge(&id, ack).unwrap();
    stage.decide(106 * 60);
    stage.decide(3 * 3_600);
    assert_eq!(stage.reasons().last(), Some(&(180, Repeat)));
    assert_eq!(
        stage.desk.acknowledge("nope", Ack { by: "b".into(), at: at(0), until: None, note: None }),
        Err(NotOpen)
    );
}

#[test]
fn what_nobody_has_to_be_called_for_goes_to_those_who_can_update_and_not_too_often() {
    let mut stage = Stage::new();
    for n in 0..3 {
        stage = stage.with(profile(&format!("j{n}"), &[channel("c")], &["slack", "mail"]));
    }
    stage.together(0, &[("j0", "fff"), ("j1", "fff"), ("j2", "ff.")]);
    stage.decide(131);
    let told: Vec<_> = stage.told.iter().map(|(second, notifier, reason, _)| (*second, &**notifier, *reason)).collect();
    assert_eq!(told, [(120, "mail", First), (120, "slack", First), (131, "slack", Updated)]);
    let Some(Action::Notify { news, members, .. }) =
        stage.actions.iter().rev().find(|action| matches!(action, Action::Notify { .. }))
    else {
        panic!("an update")
    };
    assert!(news.iter().any(|news| news == "j1 joined"), "{news:?}");
    assert_eq!(members.len(), 2);
}

#[test]
fn each_notifier_hears_of_the_end_if_it_heard_of_the_beginning() {
    let mut stage =
        Stage::new().with(profile("a", &[channel("c")], &["slack"])).with(profile("b", &[channel("c")], &["mail"]));
    stage.together(0, &[("a", "fffgg"), ("b", "ffffggg")]);
    let expected = [
        (2, "slack", First, "channel c"),
        (2, "mail", First, "channel c"),
        (5, "mail", Resolved, "channel c"),
        (5, "slack", Resolved, "channel c"),
    ];
    assert_eq!(stage.calls(), expected);
}

#[test]
fn nobody_answers_and_the_next_is_called() {
    let ladder = Escalation { after: Duration::from_secs(600), notify: vec!["boss".into()] };
    let route = Route {
        matchers: vec![crate::control::Matcher::parse("severity=critical").unwrap()],
        notify: vec!["pager".into()],
        escalate: vec![ladder],
        ..Route::default()
    };
    let mut stage = Stage::routed(vec![route]).with(profile("sms", &[], &["mail"]));
    stage.play("sms", 0, "fff");
    assert_eq!(stage.desk.deadline(), Some(at(720)));
    stage.decide(720);
    stage.play("sms", 13, "gg");
    let told: Vec<_> =
        stage.calls().into_iter().map(|(minute, name, reason, _)| (minute, name.to_owned(), reason)).collect();
    let expected = [(2, "pager", First), (12, "boss", First), (14, "boss", Resolved), (14, "pager", Resolved)];
    assert_eq!(told, expected.map(|(minute, name, reason)| (minute, name.to_owned(), reason)));
}

#[test]
fn what_goes_up_and_down_becomes_one_flapping_incident_until_it_is_calm() {
    let mut stage = alone();
    stage.play("sms", 0, &"fffgg".repeat(5));
    // Three cycles; the fourth is the flapping one, and the fifth is inside it.
    assert_eq!(stage.reasons().len(), 7);
    assert_eq!(stage.reasons()[6], (17, First));
    stage.play("sms", 25, &"g".repeat(28));
    assert_eq!(stage.told.len(), 7, "{:?}", stage.told);
    stage.play("sms", 53, "gg");
    assert_eq!(stage.reasons()[7].1, Resolved);
}

#[test]
fn a_budget_that_burns_because_the_journey_is_down_is_told_when_that_is_over() {
    let mut stage = alone();
    let subject = Subject::Budget("sms".into());
    stage.desk.enrol(Profile { subject: subject.clone(), ..profile("sms", &[], &["mail"]) }, AlertState::default());
    stage.play("sms", 0, "fff");
    let mut alert = AlertState::default();
    stage.budget("sms", &mut alert, Some(Detector::Budget), 180);
    // Nothing changes about the budget meanwhile.
    stage.play("sms", 4, "gg");
    let expected = [(2, "mail", First, "sms"), (5, "mail", Resolved, "sms"), (5, "mail", First, "sms: error budget")];
    assert_eq!(stage.calls(), expected);
    // Down and well again: nobody is called for the budget once more.
    stage.play("sms", 6, "fffgg");
    assert_eq!(stage.calls()[3..], [(8, "mail", First, "sms"), (10, "mail", Resolved, "sms")]);
}

proptest! {
    /// Whatever happens: a beginning before an end, no reminder inside the interval, and everybody who heard of the beginning
    /// hears of the end.
    #[test]
    fn told_in_order_and_never_twice_inside_the_interval(
        scripts in prop::collection::vec("[gsfu.]{1,120}", 1..5),
        shared in any::<bool>(),
        restart in 0usize..200,
    ) {
        let mut stage = Stage::new();
        let names: Vec<String> = (0..scripts.len()).map(|n| format!("j{n}")).collect();
        for name in &names {
            let own = if shared { channel("c") } else { channel(name) };
            let remind = Some(Duration::from_secs(600));
            stage = stage.with(Profile { remind, ..profile(name, &[own], &["slack", "mail"]) });
        }
        let longest = scripts.iter().map(String::len).max().unwrap_or(0);
        for minute in 0..longest + 60 {
            if minute == restart {
                stage = stage.restart();
            }
            for (offset, (name, script)) in names.iter().zip(&scripts).enumerate() {
                let verdict = script.chars().nth(minute).unwrap_or('g');
                stage.verdict(name, minute as i64 * 60 + offset as i64, verdict);
            }
        }
        let mut open: BTreeMap<(String, Name), i64> = BTreeMap::new();
        for action in &stage.actions {
            let Action::Notify { notifier, reason, incident, .. } = action else { continue };
            let key = (incident.id.clone(), notifier.clone());
            let now = incident.told.get(notifier).map_or(0, |told| told.at.as_second());
            match (reason, open.get(&key).copied()) {
                (First, None) | (Worse, Some(_)) => drop(open.insert(key, now)),
                (Repeat, Some(before)) => {
                    prop_assert!(now - before >= 600, "{} s", now - before);
                    open.insert(key, now);
                }
                (Updated, Some(_)) => {}
                (Resolved, Some(_)) => drop(open.remove(&key)),
                other => prop_assert!(false, "{other:?} of {key:?}"),
            }
        }
        prop_assert!(open.is_empty(), "{open:?}");
        prop_assert_eq!(stage.desk.open().count(), 0);
    }
}

/// The next run may be hours away.
#[test]
fn those_whose_hours_begin_hear_of_it_when_they_begin() {
    let time = |minute| jiff::civil::time(14, minute, 0, 0);
    let hours = crate::control::Hours {
        days: vec![at(0).to_zoned(jiff::tz::TimeZone::UTC).weekday()],
        from: time(20),
        until: time(50),
        zone: jiff::tz::TimeZone::UTC,
    };
    let office = Route { hours: Some(hours), notify: vec!["office".into()], ..Route::default() };
    let mut stage = Stage::routed(vec![office]).with(profile("sms", &[], &["slack"]));
    for second in [0, 60, 120] {
        stage.verdict("sms", second, 'f');
    }
    assert_eq!(stage.desk.deadline(), Some(at(400)), "twenty past two");
    stage.decide(400);
    let told: Vec<_> = stage.told.iter().map(|(second, name, reason, _)| (*second, &**name, *reason)).collect();
    assert_eq!(told, [(120, "slack", NotifyReason::First), (400, "office", NotifyReason::First)]);
    assert_eq!(stage.desk.deadline(), Some(at(2_200)), "ten to three, when they go home");
}
