//! What has the configuration read again without anybody asking: SIGHUP, and files that changed.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::commands::Reloads;
use crate::config::Stamp;

/// The files are looked at this often. A change is taken up when they look the same twice, so that none is read half written.
const LOOK: Duration = Duration::from_secs(2);

/// Where the configuration is.
#[derive(Clone, Debug)]
pub struct Source {
    /// The daemon's file.
    pub path: PathBuf,
    /// Whether changed files are taken up by themselves.
    pub is_watched: bool,
}

/// Asks for a reload at every SIGHUP and after every change of the files, until `stop`. What comes of it is told by whoever does it.
pub(in crate::app) async fn watch(source: Source, reloads: Reloads, clock: Clock, stop: CancellationToken) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else {
        tracing::error!("SIGHUP cannot be heeded; POST /api/v1/reload does the same");
        return stop.cancelled().await;
    };
    let look = || {
        let path = source.path.clone();
        tokio::task::spawn_blocking(move || Stamp::of(&path))
    };
    let mut applied = look().await.ok();
    let mut before = applied.clone();
    let mut next = clock.now().mono + LOOK;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            hangup = hangups.recv() => {
                if hangup.is_none() {
                    return stop.cancelled().await;
                }
                applied = look().await.ok();
                let _ = reloads.ask("SIGHUP".to_owned()).await;
            }
            () = clock.sleep_until(next), if source.is_watched => {
                let now = look().await.ok();
                if now != applied && now == before {
                    applied.clone_from(&now);
                    let _ = reloads.ask("a changed file".to_owned()).await;
                }
                before = now;
                next = clock.now().mono + LOOK;
            }
        }
    }
}
