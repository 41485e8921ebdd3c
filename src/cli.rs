//! The command line: what can be typed, and what is printed.

pub mod ask;
pub mod breaker;
pub mod check;
pub mod cluster;
pub mod control;
pub mod dashboards;
pub mod drill;
pub mod experiment;
pub mod explain;
pub mod import;
pub mod init;
mod junit;
pub mod live;
pub mod once;
mod openslo;
pub mod pause;
pub mod progress;
mod promql;
pub mod proxy;
pub mod reload;
pub mod replay;
pub mod rerun;
pub mod runs;
mod slo;
mod sloth;
pub mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::drill::Fault;
use crate::incident::NotifyReason;
use crate::journey::Journey;
use crate::journey::outcome::Verdict;
use crate::slo::JourneySlo;

/// Watches message paths end to end: sends real messages, waits for them at the far end, and tells people when they do not come.
#[derive(Debug, Parser)]
#[command(name = "journeyman", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (the default)
    Run(ConfigArgument),
    /// Check a configuration: every problem at once, nothing touched; with --connect also what it connects to
    Check {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArgument,
        /// Connect to every channel and notifier, too: is it there, does it take our credentials? Nothing is sent
        #[arg(long)]
        connect: bool,
        /// Treat warnings as errors
        #[arg(long)]
        strict: bool,
        /// How to print what was found
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Show how all journeys of the running daemon are, the most urgent first
    Status(StatusArguments),
    /// List a journey's last runs, out of the store; beside a running daemon or without
    Runs(RunsArguments),
    /// Show the daemons that share a store in PostgreSQL: who leads, who runs how much, in what their configurations differ
    Cluster {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArgument,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Run journeys once, now, and show their waterfalls; exits 0 good, 1 slow, 2 failed, 3 unknown: by the worst of them
    Once(OnceArguments),
    /// Tell the story of a run: what went where and came back when, what failed and the line that says so, who was told
    Explain {
        /// The run, as notices, pages and `runs` have it; or a journey, for its last run that was not good
        #[arg(value_name = "RUN|JOURNEY")]
        run: String,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArgument,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Show everything on a sandbox of its own: good runs, an alert with its evidence, the recovery
    Demo {
        /// End with the script's last act, after two minutes, instead of going on until stopped
        #[arg(long)]
        exit: bool,
    },
    /// Show where objectives stand: achieved and how sure, budget left, burn, refund, forecast; beside a running daemon or without
    Slo {
        /// The journeys; all that have an objective if none is named
        journeys: Vec<String>,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArgument,
        /// How to print them
        #[arg(long, value_enum, default_value_t = SloFormat::Text)]
        format: SloFormat,
    },
    /// List the incidents of the running daemon that are open
    Incidents {
        /// Those that are over, too
        #[arg(long)]
        all: bool,
        /// Where and how.
        #[command(flatten)]
        asking: AskArguments,
    },
    /// Say that somebody looks after an incident: nobody is reminded or called after that
    Ack(AckArguments),
    /// Take an acknowledgement back
    Unack {
        /// The incident's id, or the name of a journey that is in it
        #[arg(value_name = "INCIDENT|JOURNEY")]
        incident: String,
        /// Who asks
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Where and how.
        #[command(flatten)]
        asking: AskArguments,
    },
    /// Tell nobody of what matches, for a time; it is measured all the same
    Silence(SilenceArguments),
    /// Do not run journeys for a time, which counts for no objective and tells nobody; it outlives a restart
    Pause(PauseArguments),
    /// End the pauses of journeys: they are run again
    Resume {
        /// The journeys' names
        #[arg(value_name = "JOURNEY", required = true)]
        journeys: Vec<String>,
        /// Where and how.
        #[command(flatten)]
        asking: AskArguments,
    },
    /// List the silences of the running daemon, pauses among them
    Silences(AskArguments),
    /// End a silence; what fires is told at once
    Unsilence {
        /// The silence's id
        id: String,
        /// Where and how.
        #[command(flatten)]
        asking: AskArguments,
    },
    /// Have the running daemon read its configuration again; it says what is different now, or why nothing was changed
    Reload(AskArguments),
    /// Force the breaker of a channel or notifier of the running daemon, let it go by itself again, or show how it stands
    Breaker(BreakerArguments),
    /// Run a journey of the running daemon now, beside its schedule; it counts for no objective
    Rerun(RerunArguments),
    /// Rehearse an outage: put a fault into our side of a journey, and see that people are told, and told that it is over
    Drill(DrillArguments),
    /// Look at what people are told, or tell a notifier that this is a test
    #[command(subcommand)]
    Notify(Notify),
    /// Tell what people would have been told of the recorded runs: by this configuration, and by a changed one
    Replay {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArgument,
        /// A probe file whose journeys are judged by its `alert`, `objective` and `notify` instead; copy yours and change it
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// How far to go back
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = crate::config::read_duration)]
        from: Duration,
        /// Only these journeys
        #[arg(long, value_name = "NAME", num_args = 1..)]
        journey: Vec<String>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Write the dashboards for Grafana and the rules for Prometheus that go with this version
    Dashboards {
        /// The folder that they are written to; what is there with their names is replaced
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// How to print which files those are
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Stand before a server and do to its connections what networks do, to rehearse an outage; says at the end what went through
    Proxy(proxy::ProxyArguments),
    /// Cut something under traffic, count every message, heal it again; exits 0 held, 1 failed, 2 aborted, 3 not tested, 4 not undone
    Experiment(experiment::ExperimentArguments),
    /// Ask five questions and write a configuration that works; what is there is never overwritten
    Init(InitArguments),
    /// Turn what others watch with into journeys; exits 65 if something of it is left out, which is said
    Import {
        /// Out of what.
        #[command(subcommand)]
        what: Import,
        /// How to print what was made, and what was left out
        #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print the JSON Schema of a configuration file, for editors: `#:schema FILE` in its first line
    Schema {
        /// Of which file
        #[arg(value_enum, default_value_t = SchemaOf::Daemon)]
        of: SchemaOf,
    },
    /// Print what completes this command in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command to a directory
    Man {
        /// Where the pages go
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Ask a running daemon whether it is ready; exits 0 or 1 (for container health checks)
    Health {
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArgument,
        /// How to print it; for people nothing is said if it is ready
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// What is run once.
#[derive(Clone, Debug, clap::Args)]
pub struct OnceArguments {
    /// The journeys' names
    #[arg(value_name = "JOURNEY", conflicts_with = "all")]
    pub journeys: Vec<String>,
    /// All that the configuration has
    #[arg(long)]
    pub all: bool,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgument,
    /// How to print them
    #[arg(long, value_enum, default_value_t = RunFormat::Text)]
    pub format: RunFormat,
    /// Write that to a file, and the waterfalls to the terminal all the same
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Which journeys are shown, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArguments {
    /// Only those whose name, owner or a label contains this
    #[arg(value_name = "TEXT")]
    pub find: Option<String>,
    /// Look again every two seconds, until stopped
    #[arg(long)]
    pub watch: bool,
    /// Where and how.
    #[command(flatten)]
    pub asking: AskArguments,
}

/// Which runs are listed, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct RunsArguments {
    /// The journey's name
    pub journey: String,
    /// Only those that came to this: good, slow, failed, late, unknown, excluded
    #[arg(long, value_name = "OUTCOME", num_args = 1..)]
    pub outcome: Vec<Verdict>,
    /// Only those of the last so much time, as in 6h
    #[arg(long, value_name = "TIME", value_parser = crate::config::read_duration)]
    pub since: Option<Duration>,
    /// So many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub limit: usize,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgument,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// What is acknowledged.
#[derive(Clone, Debug, clap::Args)]
pub struct AckArguments {
    /// The incident's id, or the name of a journey that is in it
    #[arg(value_name = "INCIDENT|JOURNEY")]
    pub incident: String,
    /// For how long, as in 2h; without, until it gets worse or is over
    #[arg(long = "for", value_name = "DURATION")]
    pub lasts: Option<String>,
    /// Who looks after it; whoever is logged in if nothing is said
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub asking: AskArguments,
}

/// What is run again.
#[derive(Clone, Debug, clap::Args)]
pub struct RerunArguments {
    /// The journey's name
    pub journey: String,
    /// Wait until it has ended and say what it came to; exits 0 good, 1 slow, 2 failed, 3 unknown
    #[arg(long)]
    pub wait: bool,
    /// Who asks; whoever is logged in if nothing is said
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub asking: AskArguments,
}

/// What is rehearsed.
#[derive(Clone, Debug, clap::Args)]
pub struct DrillArguments {
    /// The journey's name
    #[arg(required_unless_present = "list")]
    pub journey: Option<String>,
    /// What is put in: drop, delay=10s, duplicate, corrupt, reorder, refuse, throttle=1/s; exits 0 passed, 1 failed, 3 not tested, 4 aborted
    #[arg(long, required_unless_present = "list")]
    pub fault: Option<Fault>,
    /// Until when people must have been told, and as long again until it must be over; `within` of [drill] if nothing is said
    #[arg(long, value_name = "TIME", value_parser = crate::config::read_duration)]
    pub within: Option<Duration>,
    /// List the drills that were made, of all journeys or of this one
    #[arg(long, conflicts_with_all = ["fault", "within", "by"])]
    pub list: bool,
    /// Who asks; whoever is logged in if nothing is said
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub asking: AskArguments,
}

/// What is silenced.
#[derive(Clone, Debug, clap::Args)]
pub struct SilenceArguments {
    /// What: the name of a journey, with * for anything, or label=value, label!=value, label=~regex; all must hold
    #[arg(value_name = "MATCHER", required = true)]
    pub matchers: Vec<String>,
    /// For how long, as in 2h
    #[arg(long = "for", value_name = "DURATION")]
    pub lasts: String,
    /// Why; people will read it
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// End it earlier, once nothing fires any more that it is about
    #[arg(long)]
    pub until_resolved: bool,
    /// Do not count what runs meanwhile for objectives: maintenance
    #[arg(long, conflicts_with = "until_resolved")]
    pub exclude_from_slo: bool,
    /// Who asks; whoever is logged in if nothing is said
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub asking: AskArguments,
}

/// What is paused.
#[derive(Clone, Debug, clap::Args)]
pub struct PauseArguments {
    /// The journeys' names
    #[arg(value_name = "JOURNEY", required = true)]
    pub journeys: Vec<String>,
    /// For how long, as in 30m
    #[arg(long = "for", value_name = "DURATION", default_value = "2h")]
    pub lasts: String,
    /// Why; people will read it
    #[arg(long, value_name = "TEXT", default_value = "paused from the command line")]
    pub reason: String,
    /// Who asks; whoever is logged in if nothing is said
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub asking: AskArguments,
}

/// Which breaker, and what is wanted of it.
#[derive(Clone, Debug, clap::Args)]
pub struct BreakerArguments {
    /// The channel's name
    #[arg(value_name = "CHANNEL")]
    pub name: String,
    /// What it is to be; without, it is shown
    #[arg(value_enum, requires_ifs = [("open", "reason"), ("open", "lasts"), ("closed", "reason"), ("closed", "lasts"), ("observe", "reason"), ("observe", "lasts")])]
    pub state: Option<WantedState>,
    /// The name is a notifier's
    #[arg(long)]
    pub notifier: bool,
    /// Why; people will read it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// For how long, as in 2h; at most 24h
    #[arg(long = "for", value_name = "DURATION")]
    pub lasts: Option<String>,
    /// Who asks; whoever is logged in if nothing is said
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub asking: AskArguments,
}

/// What a breaker is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WantedState {
    /// Nothing goes through
    Open,
    /// Everything goes through, and nothing is counted
    Closed,
    /// Everything goes through, and is counted as if it might not
    Observe,
    /// It goes by itself
    Auto,
}

impl WantedState {
    fn as_str(self) -> &'static str {
        match self {
            WantedState::Open => "open",
            WantedState::Closed => "closed",
            WantedState::Observe => "observe",
            WantedState::Auto => "auto",
        }
    }
}

/// How the running daemon is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct AskArguments {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgument,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// What can be asked about notices.
#[derive(Debug, Subcommand)]
pub enum Notify {
    /// Write what people would be told to files: Slack's JSON, the mail and its parts; of an incident that never was, or of a run
    Preview {
        /// Of this run of the store, as people were told of it; if nobody was, as they would have been
        #[arg(long, value_name = "TOKEN")]
        run: Option<String>,
        /// As this notifier of the configuration tells it; without, as Slack and mail do by themselves
        #[arg(long, value_name = "NAME")]
        notifier: Option<String>,
        /// Why they are told: first, worse, repeat, updated or resolved; first, or of a run the first notice that shows it
        #[arg(long)]
        reason: Option<NotifyReason>,
        /// Where the files go
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArgument,
        /// How to print which files those are
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Tell people through one notifier that this is a test, and print the receipt; exits 69 if it does not take it
    Test {
        /// The notifier's name
        notifier: String,
        /// Where the configuration is.
        #[command(flatten)]
        config: ConfigArgument,
        /// How to print the receipt
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// The answers to the questions of `init`; what is missing is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArguments {
    /// What the journey sends to: an http or https address
    #[arg(long, value_name = "ADDRESS")]
    pub send: Option<String>,
    /// Where it comes back: `answer`, or a path where the system calls us
    #[arg(long, value_name = "answer|PATH")]
    pub back: Option<String>,
    /// How often it runs
    #[arg(long, value_name = "DURATION")]
    pub every: Option<String>,
    /// How long it may take
    #[arg(long, value_name = "DURATION")]
    pub within: Option<String>,
    /// Who is told: a mail address, the address of a Slack webhook, or `nobody`
    #[arg(long, value_name = "WHO")]
    pub tell: Option<String>,
    /// What it is called; the host's name if nothing is said
    #[arg(long)]
    pub name: Option<String>,
    /// Below which directory the files go
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Ask nothing: what is not given has its default
    #[arg(long)]
    pub yes: bool,
    /// How to print what was made
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// What can be taken over.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// Endpoints and alerts of a Gatus configuration
    Gatus {
        /// Its file
        file: PathBuf,
    },
    /// Modules of the blackbox exporter, with the targets that Prometheus gives them
    Blackbox {
        /// Its file
        file: PathBuf,
        /// Prometheus' configuration: its jobs name the targets
        #[arg(long, value_name = "FILE")]
        targets: Option<PathBuf>,
    },
}

/// Which file a schema is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// The daemon's file
    Daemon,
    /// A probe file
    Probes,
}

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgument {
    /// The daemon's configuration file
    #[arg(long, short, value_name = "FILE", default_value = "config/journeyman.toml")]
    pub config: PathBuf,
}

impl Default for ConfigArgument {
    fn default() -> Self {
        ConfigArgument { config: PathBuf::from("config/journeyman.toml") }
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How runs are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// JUnit XML, as CI systems read it
    Junit,
}

/// How objectives are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SloFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// The objectives as OpenSLO v1; needs no store
    Openslo,
    /// The objectives as Prometheus rules in Sloth's form; needs no store
    Sloth,
}

/// The objectives of these journeys, as a document for other tools; `None` for the formats that say where they stand.
pub fn print_objectives<'a>(journeys: impl Iterator<Item = &'a Arc<Journey>>, format: SloFormat) -> Option<String> {
    match format {
        SloFormat::Openslo => Some(openslo::openslo(journeys)),
        SloFormat::Sloth => Some(sloth::sloth(journeys)),
        SloFormat::Text | SloFormat::Json => None,
    }
}

/// Where objectives stand, printed.
pub fn print_slo(all: &[JourneySlo], format: SloFormat, now: Timestamp) -> String {
    match format {
        SloFormat::Json => slo::json(all, now),
        SloFormat::Text | SloFormat::Openslo | SloFormat::Sloth => slo::text(all, now),
    }
}

/// With at most so many decimals, and no zeros at the end.
fn round(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The exit code of several runs: that something failed says more than that nobody knows.
pub fn exit_code_of_all(runs: &[once::Ran]) -> u8 {
    const ORDER: [u8; 4] = [0, 1, 3, 2];
    let codes = runs.iter().map(|(report, _)| exit_code_of(report.outcome.verdict()));
    codes.max_by_key(|code| ORDER.iter().position(|other| other == code)).unwrap_or(0)
}

/// The exit code of `once`, as Nagios plug-ins have them.
pub fn exit_code_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Good => 0,
        Verdict::Slow => 1,
        Verdict::Failed | Verdict::Late => 2,
        Verdict::Unknown | Verdict::Excluded => 3,
    }
}
