//! `journeyman health`: asks a running daemon whether it is ready. For container health checks, which need no other program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Health checks run every few seconds; one that takes longer has failed.
const WITHIN: Duration = Duration::from_secs(3);

/// 0 if the daemon that listens on `listen` says that it is ready, 1 otherwise; prints why not.
pub async fn ask(listen: SocketAddr) -> u8 {
    let url = format!("{}/ready", reach(listen));
    let client = reqwest::Client::builder().timeout(WITHIN).no_proxy().build();
    let answer = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) if response.status().is_success() => 0,
        Ok(response) => {
            eprintln!("not ready: {url} answered {}", response.status());
            1
        }
        Err(error) => {
            eprintln!("not ready: {error}");
            1
        }
    }
}

/// Where a daemon that listens on `listen` is reached from this machine, without a slash at the end.
pub fn reach(listen: SocketAddr) -> String {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(host, listen.port()))
}
