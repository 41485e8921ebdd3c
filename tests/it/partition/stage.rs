//! Several daemons on hosts of their own, what happens to them and to what they watch, and what must hold of it all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use jiff::Timestamp;
use journeyman::clock::Clock;
use journeyman::cluster::shard_of;
use journeyman::time::{Mono, between};
use reqwest::StatusCode;
use tokio_postgres::Client;

use crate::support::cluster::{check_slots, number, shares};
use crate::support::daemon::{Daemon, Setup};
use crate::support::fake_slack::{CHANNEL, FakeSlack, TOKEN};
use crate::support::network::{Cut, Host, Network, forget_clock};
use crate::support::postgres::{Database, Postgres};
use crate::support::table::Table;
use crate::support::target::{Mode, Target};
use crate::support::wait_for;

pub(super) const JOURNEYS: usize = 12;
/// What the product promises: who is gone is followed within this.
const TAKEN_OVER: Duration = Duration::from_secs(10);
/// All that a partition may add to the time in which people are told.
const TOLD: Duration = Duration::from_secs(15);
/// From the end of a fault until all is as it should be.
const CONVERGED: Duration = Duration::from_secs(60);
/// What waits for a daemon, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);
/// A supervisor starts what has ended after so long.
const RESTARTED: Duration = Duration::from_secs(1);
/// Another daemon has taken over.
const FENCED: i32 = 75;

/// The network and the server that all scenarios share that are played at the same time.
pub(super) struct Site {
    server: Postgres,
    network: Arc<Network>,
}

impl Site {
    /// The one that there is, or a new one. `None`: this machine does not let us.
    pub(super) async fn shared() -> Option<Arc<Site>> {
        static SHARED: tokio::sync::Mutex<Weak<Site>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(site) = shared.upgrade() {
            return Some(site);
        }
        let network = Network::new()?;
        let server = Postgres::also_at(network.store(), 400).await?;
        let site = Arc::new(Site { server, network });
        *shared = Arc::downgrade(&site);
        Some(site)
    }
}

/// How journeys run.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) every: Duration,
    pub(super) deadline: Duration,
}

impl Pace {
    /// Two bad runs, and the last of them to its end.
    fn detected(self) -> Duration {
        2 * self.every + self.deadline
    }
}

/// What happens. Daemons are named by the order in which they were started: 0 leads at first. So are parts: of three
/// daemons the first runs 0, 3, 6, … at first, the second 1, 4, 7, ….
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// These parts fail from now on.
    Break(&'static [usize]),
    /// These are well from now on.
    Mend(&'static [usize]),
    /// One that fails gets well, and one that is well fails.
    Turn(usize),
    /// A daemon's way to the store is cut.
    Cut(usize, Cut),
    /// It is as it was.
    Heal(usize),
    /// A daemon is stopped, and does not know it.
    Stop(usize),
    /// It goes on.
    Continue(usize),
}

/// Daemons that share a store, and everything around them.
pub(super) struct Stage<'a> {
    name: String,
    pace: Pace,
    nodes: Vec<Node>,
    database: Database<'a>,
    target: Target,
    slack: FakeSlack,
    clock: Clock,
    /// The parts, by the daemons that ran them at first, in turn.
    parts: Vec<usize>,
    turns: Vec<Turn>,
    outage: Option<Outage>,
    begun: Mono,
    healed: Mono,
    /// How long it took to follow who was gone: to decide in its place, and to have all of its shards.
    followed: Vec<Duration>,
    converged: Vec<Duration>,
    /// Daemons that ended because another had taken over.
    ended: usize,
}

struct Node {
    // It ends before its host goes.
    daemon: Daemon,
    host: Arc<Host>,
    is_stopped: bool,
    /// When it was found to have ended.
    ended: Option<Mono>,
}

impl Drop for Node {
    fn drop(&mut self) {
        forget_clock(&self.daemon.pid().to_string());
    }
}

/// A part began to fail, or got well.
struct Turn {
    part: usize,
    is_bad: bool,
    at: Timestamp,
}

/// A daemon that cannot do its work.
struct Outage {
    process: u32,
    since: Mono,
    /// Whether another is to decide in its place.
    led: bool,
    is_followed: bool,
}

/// What telling came to.
struct Told {
    notices: usize,
    /// Those that another daemon had told, too.
    twice: usize,
    /// From the first failure to the first notice, at most.
    latest: Duration,
}

/// What people were told.
struct Notice {
    /// Of this part, or of the monitor itself.
    part: Option<usize>,
    from: IpAddr,
    at: Timestamp,
    is_begin: bool,
    is_end: bool,
    /// It says nothing of whether it fails: that is another daemon's to say.
    is_handed_over: bool,
    text: String,
}

impl<'a> Stage<'a> {
    /// Starts a daemon for each of these wall clocks, which are so many seconds ahead of ours; waits until they share
    /// the journeys.
    pub(super) async fn start(site: &'a Site, name: &str, clocks: &[i64], pace: Pace) -> Stage<'a> {
        let database = site.server.database().await;
        let world = site.network.world();
        let target = Target::start_at(world, JOURNEYS, String::new()).await;
        let slack = FakeSlack::start_at(world).await;
        let (main, probes) = configuration(&target, &slack, pace);
        let mut nodes = Vec::new();
        for (nth, ahead) in clocks.iter().enumerate() {
            let host = Arc::new(site.network.host());
            let setup = Setup::new(&format!("{name}-{nth}")).store_url(&database.url_elsewhere()).on(host.clone());
            setup.write("token", TOKEN);
            let setup = if *ahead == 0 { setup } else { with_clock(setup, *ahead) };
            nodes.push(Node { daemon: setup.start(&main, &probes).await, host, is_stopped: false, ended: None });
        }
        let clock = Clock::system();
        let mut stage = Stage {
            name: name.to_owned(),
            pace,
            nodes,
            database,
            target,
            slack,
            clock,
            parts: Vec::new(),
            turns: Vec::new(),
            outage: None,
            begun: clock.now().mono,
            healed: clock.now().mono,
            followed: Vec::new(),
            converged: Vec::new(),
            ended: 0,
        };
        stage.converge().await;
        stage.converged.clear();
        stage.parts = stage.dealt().await;
        assert!(stage.nodes[0].leads().await, "who is first leads");
        stage
    }

    /// How long it has been played.
    pub(super) fn lasted(&self) -> Duration {
        self.clock.now().mono.since(self.begun)
    }

    /// Plays a script: what happens so long after its begin.
    pub(super) async fn play(&mut self, script: impl IntoIterator<Item = (u64, Event)>) {
        let begun = self.clock.now().mono;
        for (after, event) in script {
            let at = begun + Duration::from_millis(after);
            while self.clock.now().mono < at {
                self.look().await;
                self.pause().await;
            }
            self.happen(event).await;
        }
    }

    /// Waits until one daemon decides, all have their part, and nothing waits to be heard.
    pub(super) async fn converge(&mut self) {
        let bound = self.healed.max(self.begun) + CONVERGED;
        loop {
            self.look().await;
            let Some(amiss) = self.amiss().await else { break };
            let is_late = self.clock.now().mono > bound;
            assert!(!is_late, "{}: {CONVERGED:?} after it was over {amiss}", self.name);
            self.pause().await;
        }
        self.converged.push(self.clock.now().mono.since(self.healed));
    }

    /// Waits until the last word about each part is what is true of it.
    pub(super) async fn told(&mut self) {
        let bound = self.clock.now().mono + self.pace.detected() + TOLD;
        loop {
            self.look().await;
            let untrue = self.untrue();
            if untrue.is_empty() {
                break;
            }
            let is_late = self.clock.now().mono > bound;
            assert!(!is_late, "{}: the last word is not the truth: {untrue:#?}\n{:#?}", self.name, self.texts());
            self.pause().await;
        }
    }

    /// Between two looks.
    async fn pause(&self) {
        self.clock.sleep_until(self.clock.now().mono + Duration::from_millis(50)).await;
    }

    /// All parts get well; the daemons end in order; everything is checked.
    pub(super) async fn end(mut self) {
        for part in 0..JOURNEYS {
            self.turn(part, false);
        }
        self.told().await;
        self.converge().await;
        // Who decides goes last, and has heard of all that the others saw.
        for is_last in [false, true] {
            for node in &mut self.nodes {
                if node.leads().await == is_last {
                    assert_eq!(node.daemon.terminate().await, 0, "{}: {}", self.name, last_words(&node.daemon));
                }
            }
            let relay = "select count(*) from relay";
            let client = &self.database.client;
            wait_for("all to be heard", SOON, async || (number(client, relay).await == 0).then_some(())).await;
        }
        let (slots, unknown) = check_slots(&self.database.client, JOURNEYS, self.pace.every).await;
        // What was told meanwhile counts, too.
        let untrue = self.untrue();
        assert!(untrue.is_empty(), "{}: the last word is not the truth: {untrue:#?}\n{:#?}", self.name, self.texts());
        let told = self.check_notices();
        self.report(slots, unknown, &told);
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Break(parts) => parts.iter().for_each(|part| self.turn(self.parts[*part], true)),
            Event::Mend(parts) => parts.iter().for_each(|part| self.turn(self.parts[*part], false)),
            Event::Turn(part) => self.turn(part, !self.bad().contains(&part)),
            Event::Cut(node, cut) => {
                let led = self.decides(node).await;
                self.nodes[node].host.cut(cut);
                self.begin(node, led);
            }
            Event::Stop(node) => {
                let led = self.decides(node).await;
                self.nodes[node].daemon.signal("STOP");
                self.nodes[node].is_stopped = true;
                self.begin(node, led);
            }
            Event::Heal(node) => {
                self.nodes[node].host.heal();
                self.over();
            }
            Event::Continue(node) => {
                self.nodes[node].daemon.signal("CONT");
                self.nodes[node].is_stopped = false;
                self.over();
            }
        }
    }

    /// The parts, one of each daemon's after another, as long as each has more.
    async fn dealt(&self) -> Vec<usize> {
        let sql = "select shard, holder from lease where shard > 0";
        let rows = self.database.client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let holders: BTreeMap<i32, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let of = |node: &Node| -> VecDeque<usize> {
            let name = format!("process {}-", node.daemon.pid());
            let is_its = |part: &usize| holders[&shard_of(&format!("part-{part}"))].contains(&name);
            (0..JOURNEYS).filter(is_its).collect()
        };
        let mut hands: Vec<_> = self.nodes.iter().map(of).collect();
        let mut dealt = Vec::new();
        while dealt.len() < JOURNEYS {
            dealt.extend(hands.iter_mut().filter_map(VecDeque::pop_front));
        }
        dealt
    }

    /// Whether the lease of who decides is this one's.
    async fn decides(&self, node: usize) -> bool {
        decider(&self.database.client).await == Some(self.nodes[node].daemon.pid())
    }

    fn turn(&mut self, part: usize, is_bad: bool) {
        if self.bad().contains(&part) != is_bad {
            self.target.set(part, if is_bad { Mode::Fails } else { Mode::Well });
            self.turns.push(Turn { part, is_bad, at: self.clock.now().wall });
        }
    }

    fn begin(&mut self, node: usize, led: bool) {
        assert!(self.outage.is_none(), "one at a time");
        let (process, since) = (self.nodes[node].daemon.pid(), self.clock.now().mono);
        self.outage = Some(Outage { process, since, led, is_followed: false });
    }

    fn over(&mut self) {
        self.healed = self.clock.now().mono;
        if let Some(Outage { since, is_followed, .. }) = self.outage.take() {
            let lasted = self.healed.since(since);
            assert!(is_followed || lasted < TAKEN_OVER, "{}: nobody followed in {lasted:?}", self.name);
        }
    }

    /// What a supervisor does, and what is to be measured while it lasts.
    async fn look(&mut self) {
        let now = self.clock.now().mono;
        for node in self.nodes.iter_mut().filter(|node| !node.is_stopped) {
            let Some(code) = node.daemon.exit_code() else { continue };
            match node.ended {
                None => {
                    assert_eq!(code, FENCED, "{}: {}", self.name, last_words(&node.daemon));
                    self.ended += 1;
                    node.ended = Some(now);
                }
                Some(ended) if now.since(ended) > RESTARTED => {
                    node.daemon.spawn_again();
                    node.ended = None;
                }
                Some(_) => {}
            }
        }
        let Some(Outage { process, since, led, is_followed: false }) = self.outage else { return };
        let client = &self.database.client;
        if shares(client).await.contains_key(&process) {
            return;
        }
        if led {
            let decider = decider(client).await.filter(|decider| *decider != process);
            let Some(node) = self.nodes.iter().find(|node| Some(node.daemon.pid()) == decider) else { return };
            if !node.leads().await {
                return;
            }
        }
        let took = self.clock.now().mono.since(since);
        assert!(took <= TAKEN_OVER, "{}: followed after {took:?}", self.name);
        self.followed.push(took);
        self.outage.iter_mut().for_each(|outage| outage.is_followed = true);
    }

    /// What is not as it should be when nothing happens.
    async fn amiss(&self) -> Option<String> {
        if let Some(nth) = self.nodes.iter().position(|node| node.ended.is_some() || node.is_stopped) {
            return Some(format!("daemon {nth} does not run"));
        }
        let shares = shares(&self.database.client).await;
        let pids: BTreeSet<u32> = self.nodes.iter().map(|node| node.daemon.pid()).collect();
        let is_all = shares.values().sum::<usize>() == 32 && shares.keys().eq(&pids);
        let is_fair = shares.values().max().zip(shares.values().min()).is_some_and(|(most, least)| most - least <= 1);
        if !is_all || !is_fair {
            return Some(format!("the shards are shared out like this: {shares:?}, among {pids:?}"));
        }
        let waits = number(&self.database.client, "select count(*) from relay").await;
        if waits > 0 {
            return Some(format!("{waits} observations wait to be heard"));
        }
        let mut leaders = 0;
        for node in &self.nodes {
            leaders += usize::from(node.leads().await);
        }
        (leaders != 1).then(|| format!("{leaders} daemons decide"))
    }

    /// The parts that fail.
    fn bad(&self) -> BTreeSet<usize> {
        let mut bad = BTreeSet::new();
        for turn in &self.turns {
            if turn.is_bad {
                bad.insert(turn.part)
            } else {
                bad.remove(&turn.part)
            };
        }
        bad
    }

    fn notices(&self) -> Vec<Notice> {
        let requests = self.slack.requests().into_iter().filter(|request| request.method == "chat.postMessage");
        let notice = |request: crate::support::fake_slack::Request| {
            let text = request.arguments["text"].as_str().unwrap_or_default().to_owned();
            let digits = text.split("part-").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect());
            let part: Option<usize> = digits.and_then(|digits: String| digits.parse().ok());
            let is_whole = text.starts_with("WAS ");
            let is_end = is_whole || text.starts_with("WELL AGAIN");
            let is_handed_over = text.starts_with("HANDED OVER");
            let is_begin = is_whole || !is_end && !is_handed_over;
            Notice { part, from: request.from, at: request.at.wall, is_begin, is_end, is_handed_over, text }
        };
        requests.map(notice).collect()
    }

    /// What the monitor said of itself.
    fn own(&self) -> Vec<Notice> {
        self.notices().into_iter().filter(|notice| notice.part.is_none()).collect()
    }

    fn texts(&self) -> Vec<String> {
        let begun = self.turns.first().map_or(Timestamp::MAX, |turn| turn.at);
        let text = |notice: &Notice| {
            let after = between(begun, notice.at).as_secs_f32();
            format!("{after:.1} s, {}: {}", notice.from, notice.text)
        };
        self.notices().iter().map(text).collect()
    }

    /// The parts of which people believe what is not true.
    fn untrue(&self) -> Vec<String> {
        let (bad, mut notices) = (self.bad(), self.notices());
        // What a daemon has handed over, it does not claim any more.
        let over = |notice: &Notice| notice.is_handed_over.then_some((notice.part, notice.from, notice.at));
        let over: Vec<_> = notices.iter().filter_map(over).collect();
        notices.retain(|notice| {
            let is_after = |(part, from, at): &(Option<usize>, IpAddr, Timestamp)| {
                (*part, *from) == (notice.part, notice.from) && *at >= notice.at
            };
            !over.iter().any(is_after)
        });
        let mut untrue = Vec::new();
        for part in 0..JOURNEYS {
            let last = notices.iter().rev().find(|notice| notice.part == Some(part));
            let is_believed_bad = last.is_some_and(|notice| !notice.is_end);
            if is_believed_bad != bad.contains(&part) {
                let said = last.map_or("nothing was said", |notice| &notice.text);
                untrue.push(format!("part-{part}: {said}"));
            }
        }
        untrue
    }

    /// Whoever failed was told of in time, and nothing was told twice by the same daemon.
    fn check_notices(&self) -> Told {
        let notices = self.notices();
        let mut all = Told { notices: 0, twice: 0, latest: Duration::ZERO };
        for part in 0..JOURNEYS {
            let turns: Vec<_> = self.turns.iter().filter(|turn| turn.part == part).collect();
            let of: Vec<_> = notices.iter().filter(|notice| notice.part == Some(part)).collect();
            all.notices += of.len();
            for (nth, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.is_bad) {
                let until = turns.get(nth + 1).map_or(Timestamp::MAX, |next| next.at);
                // Nobody may have run it often enough, while nobody followed.
                if between(turn.at, until) < self.pace.detected() + TAKEN_OVER {
                    continue;
                }
                let told = of.iter().find(|notice| notice.is_begin && notice.at >= turn.at);
                let took = told.map_or(Duration::MAX, |notice| between(turn.at, notice.at));
                let is_in_time = took <= self.pace.detected() + TOLD;
                assert!(is_in_time, "{}: of part-{part} it was told after {took:?}\n{:#?}", self.name, self.texts());
                all.latest = all.latest.max(took);
            }
            let sides: BTreeSet<IpAddr> = of.iter().map(|notice| notice.from).collect();
            for is_bad in [true, false] {
                let count = turns.iter().filter(|turn| turn.is_bad == is_bad).count();
                let told = |notice: &&&Notice| if is_bad { notice.is_begin } else { notice.is_end };
                all.twice += of.iter().filter(told).count().saturating_sub(count);
                for side in &sides {
                    let said = of.iter().filter(|notice| notice.from == *side).filter(told).count();
                    let what = format!("{side} told {said} times that part-{part} turned, which did {count} times");
                    assert!(said <= count, "{}: {what}\n{:#?}", self.name, self.texts());
                }
            }
        }
        all
    }

    /// A row of figures, and those of all scenarios so far together.
    fn report(&self, slots: usize, unknown: i64, told: &Told) {
        static ALL: Mutex<Vec<Duration>> = Mutex::new(Vec::new());
        let mut all = ALL.lock().expect("no panic while held");
        all.extend(&self.followed);
        all.sort_unstable();
        let at = |share: usize| all.get((all.len() * share).div_ceil(100).max(1) - 1).copied().unwrap_or_default();
        let row: [(&str, &dyn Display); 12] = [
            ("scenario", &self.name),
            ("daemons", &self.nodes.len()),
            ("followed", &self.followed.len()),
            ("after at most", &most(&self.followed)),
            ("converged after at most", &most(&self.converged)),
            ("ended with 75", &self.ended),
            ("slots, each once", &slots),
            ("unknown", &unknown),
            ("turns", &self.turns.len()),
            ("told after at most", &most(&[told.latest])),
            ("notices", &told.notices),
            ("from both sides", &told.twice),
        ];
        Table::new("partition", &self.name, &row.map(|(head, _)| head)).row(&row.map(|(_, cell)| cell));
        for notice in self.own() {
            eprintln!("{}: of itself, {}: {}", self.name, notice.from, notice.text);
        }
        let line: Vec<_> = row.iter().map(|(head, cell)| format!("{head}: {cell}")).collect();
        let so_far = format!("{} followed so far, p50 {:.1?}, p99 {:.1?}", all.len(), at(50), at(99));
        eprintln!("{}\n  of all scenarios {so_far}", line.join("; "));
    }
}

impl Node {
    /// Whether it decides: it answers questions of the API.
    async fn leads(&self) -> bool {
        self.daemon.try_get("/api/v1/journeys").await.is_ok_and(|(status, _)| status == StatusCode::OK)
    }
}

fn most(durations: &[Duration]) -> String {
    durations.iter().max().map_or("-".to_owned(), |most| format!("{most:.1?}"))
}

/// The end of what it has logged.
fn last_words(daemon: &Daemon) -> String {
    let log = daemon.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The process that has the lease of who decides.
async fn decider(client: &Client) -> Option<u32> {
    let sql = "select holder from lease where shard = 0
        and until >= (extract(epoch from clock_timestamp()) * 1000)::bigint";
    let row = client.query_opt(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))?;
    let holder: String = row.get(0);
    holder.rsplit_once("process ")?.1.split('-').next()?.parse().ok()
}

fn with_clock(setup: Setup, ahead: i64) -> Setup {
    setup
        .environment("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1")
        .environment("FAKETIME", &format!("{ahead:+}s"))
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .environment("DONT_FAKE_MONOTONIC", "1")
}

fn configuration(target: &Target, slack: &FakeSlack, pace: Pace) -> (String, String) {
    let main = format!(
        "[alerting]\ngroup_by = []\ndigest_after = 1000\nnotify = []\n[channels.web]\ntype = \"http\"\nurl = \"{}\"\n\
         [notifiers.chat]\ntype = \"slack\"\ntoken = {{ file = \"token\" }}\nchannel = \"{CHANNEL}\"\napi_url = \"{}\"\n",
        target.url(),
        slack.url()
    );
    let journey = |part: usize| {
        format!(
            "[[journey]]\nname = \"part-{part}\"\nevery = \"{}ms\"\ndeadline = \"{}ms\"\nnotify = [\"chat\"]\n\
             alert = {{ down_after = 2, recover_after = 1, remind = \"never\", flapping = false }}\n\
             step = [{{ request = \"web\", path = \"/{part}\" }}]\n",
            pace.every.as_millis(),
            pace.deadline.as_millis()
        )
    };
    (main, (0..JOURNEYS).map(journey).collect())
}
