//! The HTTP client that the daemon uses, with nothing around it, in a process of its own: what no monitor on it can be cheaper than.

use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::Processes;

/// The word by which this program knows that it is to be the client.
pub(crate) const WORD: &str = "bare-client";

/// One request to each of `targets` paths below `url` every `every`, until it is dropped.
pub(crate) fn start(url: &str, targets: usize, every: Duration, is_new: bool) -> Processes {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    let connections = if is_new { "new" } else { "kept" };
    command.args([WORD, url, &targets.to_string(), &every.as_millis().to_string(), connections]);
    Processes::start([command])
}

/// Is the client, as [`start`] asked.
pub(crate) fn run(arguments: &[String]) {
    let [url, targets, every, connections] = arguments else { panic!("{WORD} URL TARGETS MILLISECONDS new|kept") };
    let targets: u32 = targets.parse().expect("a number");
    let every = Duration::from_millis(every.parse().expect("milliseconds"));
    journeyman::tls::init();
    let mut builder = reqwest::Client::builder().no_proxy();
    if connections == "new" {
        builder = builder.pool_max_idle_per_host(0);
    }
    let client = builder.build().expect("a client");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        for n in 0..targets {
            let (client, url) = (client.clone(), format!("{url}{n}"));
            tokio::spawn(async move {
                let mut slots = interval_at(start + every * n / targets, every);
                loop {
                    slots.tick().await;
                    let answer = client.get(&url).send().await.expect("the target answers");
                    assert!(answer.status().is_success(), "{}", answer.status());
                    answer.bytes().await.expect("the target answers");
                }
            });
        }
        std::future::pending::<()>().await;
    });
}
