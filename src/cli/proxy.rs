//! `journeyman proxy`: an outage by hand, between whoever connects and a server.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::Format;
use crate::clock::Clock;
use crate::exit::{self, Failure};
use crate::proxy::{Carried, Fault, Proxy, Tally};

/// Where it stands, and what it does.
#[derive(Clone, Debug, clap::Args)]
pub struct ProxyArguments {
    /// Where it listens; port 0 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The server that it stands before
    #[arg(long, value_name = "HOST:PORT", value_parser = read_server)]
    pub to: String,
    /// What it does: latency=200ms±50ms, bandwidth=10kB/s, slicer=64, slow_close=1s, timeout=5s, reset=0.1, limit=1kB, hold, down; with to-server: or to-client: before it for one direction, with @10% after it for a share of the connections
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<Fault>,
    /// Decides which connections a share strikes, and how latencies vary; without, chance
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How to print what went through
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

fn read_server(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    match parts {
        Some((host, Ok(1..))) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("write a host and a port, as in broker.example.net:5672".to_owned()),
    }
}

/// Stands there until `stop`. Prints where it listens, and at the end what went through and what was done to it.
///
/// # Errors
/// The server's name says nothing, or it cannot listen there.
pub async fn proxy(asked: &ProxyArguments, clock: Clock, stop: CancellationToken) -> Result<(), Failure> {
    let ProxyArguments { listen, to, faults, format, .. } = asked;
    let seed = asked.seed.unwrap_or_else(|| fastrand::u64(..));
    // A name that is mistyped would look like a server that is down.
    let found = tokio::net::lookup_host(to).await.map(|mut addresses| addresses.next());
    let unknown = |why: &str| {
        let text = format!("the server {to} cannot be found: {why}; nothing was started");
        Failure::new(exit::UNAVAILABLE, text)
    };
    found.map_err(|error| unknown(&error.to_string()))?.ok_or_else(|| unknown("its name has no address"))?;
    let proxy = Proxy::start(*listen, to, seed, clock).await.map_err(|error| {
        let text = format!("cannot listen on {listen}: {error}; another address, or port 0 for a free one, may do");
        Failure::new(exit::UNAVAILABLE, text)
    })?;
    proxy.impose(faults.clone());
    say(&match format {
        Format::Json => format!("{}\n", begun(&proxy, to, seed)),
        Format::Text => begun_text(&proxy, to, seed, faults),
    });
    stop.cancelled().await;
    let (tally, struck) = (proxy.tally(), proxy.struck());
    say(&match format {
        Format::Json => format!("{}\n", ended(&tally, &struck)),
        Format::Text => ended_text(&tally, &struck),
    });
    Ok(())
}

/// Out at once, also into a pipe: who waits for the address begins with it. That nobody reads any more is no reason to end.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn begun(proxy: &Proxy, to: &str, seed: u64) -> Value {
    let faults: Vec<String> = proxy.struck().iter().map(|(fault, _)| fault.to_string()).collect();
    json!({ "listening": proxy.address().to_string(), "to": to, "seed": seed, "faults": faults })
}

fn begun_text(proxy: &Proxy, to: &str, seed: u64, faults: &[Fault]) -> String {
    let mut text = format!("listening on {}, before {to}; seed {seed}\n", proxy.address());
    for fault in faults {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {fault}");
    }
    text
}

fn ended(tally: &Tally, struck: &[(Fault, u64)]) -> Value {
    let struck = struck.iter().map(|(fault, count)| json!({ "fault": fault.to_string(), "connections": count }));
    json!({ "went_through": tally, "struck": struck.collect::<Vec<_>>() })
}

fn ended_text(tally: &Tally, struck: &[(Fault, u64)]) -> String {
    let done = [
        (tally.open, "still open"),
        (tally.unreached, "without a server"),
        (tally.cut, "cut"),
        (tally.reset, "reset"),
        (tally.timed_out, "ended by a timeout"),
        (tally.limited, "ended by a limit"),
    ];
    let done = done.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let done = done.collect::<Vec<_>>().join(", ");
    let mut text =
        format!("{}{}{done}\n", number(tally.connections, "connection"), if done.is_empty() { "" } else { ": " });
    for (name, Carried { came, went }) in [("to the server", tally.to_server), ("to the client", tally.to_client)] {
        let _ = writeln!(text, "{name}: {} came, {went} went on", number(came, "byte"));
    }
    for (fault, count) in struck {
        let _ = writeln!(text, "{fault} struck {}", number(*count, "connection"));
    }
    text
}

fn number(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
