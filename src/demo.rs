//! The sandbox behind `journeyman demo`: systems to watch, and places to be told in, all on loopback and without any account.
//! The daemon reaches them over HTTP and SMTP as it reaches real ones, and is the same daemon.

mod blocks;
mod chart;
mod configuration;
pub mod gateway;
mod inbox;
pub mod mail;
pub mod mime;
mod ring;
mod script;
mod server;
pub mod shop;
mod smtp;
pub mod workspace;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::configuration::DemoConfig;
use self::configuration::{Addresses, Keys};
use self::gateway::Gateway;
use self::inbox::Inbox;
use self::mail::Mailbox;
pub use self::script::{ACTS, Act};
use self::script::{Board, play};
use self::shop::Shop;
use self::workspace::Workspace;
use crate::clock::Clock;

/// Everything that the demo's daemon talks to. Ends when it is dropped.
pub struct Sandbox {
    clock: Clock,
    keys: Keys,
    addresses: Addresses,
    gateway: Arc<Gateway>,
    shop: Arc<Shop>,
    mailbox: Arc<Mailbox>,
    workspace: Arc<Workspace>,
    board: Arc<Board>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Sandbox {
    /// Starts every system of the sandbox, each on a loopback port of its own. `hook_url` is the root of the daemon's listener for
    /// webhooks, which need not be there yet; `status_url` is where its pages are, for a link.
    ///
    /// # Errors
    /// A port could not be had, or no HTTP client could be built.
    pub async fn start(hook_url: &str, status_url: Option<&str>, clock: Clock) -> io::Result<Sandbox> {
        let (tasks, stop, keys) = (TaskTracker::new(), CancellationToken::new(), Keys::random());
        let guard = stop.clone().drop_guard();
        let hook = |path: &str| format!("{}{path}", hook_url.trim_end_matches('/'));
        let client = server::callback_client()?;

        let gateway_keys = [keys.gateway.clone(), keys.gateway_signing.clone()];
        let gateway = Gateway::new(hook("/inbound-sms"), gateway_keys, client.clone(), tasks.clone(), stop.clone());
        let shop = Shop::open(hook("/orders-done"), keys.shop.clone(), client.clone(), &tasks, stop.clone());
        let mailbox = Mailbox::new();
        let rule = mail::Rule { hook: hook("/drill-mail"), key: keys.mail.clone(), client };
        let workspace = Workspace::new(keys.workspace.clone(), clock);
        let board = Arc::new(Board::new(clock.now()));
        let inbox = Inbox {
            clock,
            gateway: gateway.clone(),
            shop: shop.clone(),
            mailbox: mailbox.clone(),
            workspace: workspace.clone(),
            board: board.clone(),
            status_url: status_url.map(str::to_owned),
        };
        let addresses = Addresses {
            gateway: server::serve(&tasks, &stop, gateway.routes()).await?,
            shop: server::serve(&tasks, &stop, shop.routes()).await?,
            mail: mail::serve(mailbox.clone(), rule, clock, &tasks, &stop).await?,
            inbox: server::serve(&tasks, &stop, inbox.routes().merge(workspace.routes())).await?,
        };
        Ok(Sandbox { clock, keys, addresses, gateway, shop, mailbox, workspace, board, tasks, stop: guard })
    }

    /// The files that make a daemon watch this sandbox, keep its state in `state_dir` and listen on these ports of loopback.
    pub fn configuration(&self, state_dir: &Path, http_port: u16, hooks_port: u16) -> DemoConfig {
        DemoConfig::new(&self.keys, self.addresses, state_dir, [http_port, hooks_port])
    }

    /// Where the alert inbox is, for people.
    pub fn inbox_url(&self) -> String {
        format!("http://{}/", self.addresses.inbox)
    }

    /// The SMS gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The shop.
    pub fn shop(&self) -> &Shop {
        &self.shop
    }

    /// The mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// The workspace.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// Ends every system. Waits for what is under way, but not for long.
    pub async fn stop(self) {
        self.stop.disarm().cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("a part of the sandbox did not end in time");
        }
    }
}

/// A Slack message, as JSON, drawn as a page of its own: much as Slack shows it.
///
/// # Errors
/// It is no message; in words.
pub fn slack_page(message: &[u8], at: jiff::Timestamp) -> Result<String, String> {
    let content = serde_json::from_slice(message).map_err(|error| format!("no message of Slack's: {error}"))?;
    inbox::message(&content, at).map_err(|error| format!("the message cannot be drawn: {error}"))
}

/// Plays the demo's script on `sandbox`, from its start, and tells each act through `say`. Returns after the last act, within two
/// minutes, or at `stop`.
pub async fn script(sandbox: &Sandbox, stop: CancellationToken, say: impl Fn(&str)) {
    play(&sandbox.gateway, &sandbox.board, sandbox.clock, stop, say).await;
}

/// Callbacks under way are cut at once; what is left is to answer the requests that were being read.
const DRAIN: Duration = Duration::from_secs(2);
