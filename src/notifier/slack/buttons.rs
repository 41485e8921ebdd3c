//! Hearing of buttons that were pressed, and doing what was asked: from the signed calls that Slack makes to us, or over a
//! connection that we open. Either only judges and takes on, for Slack waits three seconds; one clerk does it, one after another.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use slack_morphism::{SlackApiToken, SlackApiTokenValue};
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;

use super::answer::Refusal;
use super::bot::within;
use super::escape;
use super::press::{self, Press, Wanted};
#[cfg(feature = "slack")]
use super::socket::Socket;
use super::{Client, Interactions, SlackSettings};
use crate::clock::Clock;
use crate::commands::{Callback, Commands, Denial};
use crate::journey::Name;
use crate::secret::{Redactor, Secret};

/// Presses that wait at most.
const WAITING: usize = 64;
/// Calls that were taken lately: within five minutes one could be played again.
const REMEMBERED: usize = 1_000;
/// The owner of alert state answers by then, or we say that it did not.
const PATIENCE: Duration = Duration::from_secs(30);
/// Characters of an answer.
const ANSWER: usize = 300;

/// What hears of buttons, and what then does it.
pub struct Buttons {
    /// Takes Slack's calls, if any notifier has a secret to know them by.
    pub callback: Option<Arc<dyn Callback>>,
    clerk: Clerk,
    #[cfg(feature = "slack")]
    sockets: Vec<Socket>,
}

/// A workspace that buttons are pressed in.
pub(super) struct Door {
    /// The notifier.
    pub(super) name: Name,
    pub(super) client: Client,
    token: Secret,
    /// The workspace's id, once it was asked for.
    team: OnceCell<String>,
}

/// A press, and at which door.
pub(super) type Pressed = (Arc<Door>, Press);

/// Makes what hears of the buttons of these notifiers; `None` if none has any. `key` is the one that [`super::open`] was given.
///
/// # Errors
/// TLS cannot be set up; in words.
pub fn buttons<'a>(
    notifiers: impl Iterator<Item = (&'a Name, &'a SlackSettings)>,
    key: Arc<[u8]>,
    commands: Commands,
    redactor: Redactor,
    clock: Clock,
) -> Result<Option<Buttons>, String> {
    let (inbox, pressed) = mpsc::channel(WAITING);
    let mut signed = Vec::new();
    #[cfg(feature = "slack")]
    let mut sockets = Vec::new();
    let mut doors = 0;
    for (name, settings) in notifiers {
        let SlackSettings::Bot { token, api_url, interactions, .. } = settings else { continue };
        let Interactions { signing_secret, app_token } = interactions;
        if !interactions.is_possible() {
            continue;
        }
        doors += 1;
        let client = super::client(api_url.as_ref())?;
        let door = Door { name: name.clone(), client, token: token.clone(), team: OnceCell::new() };
        let door = Arc::new(door);
        if let Some(secret) = signing_secret {
            signed.push((door.clone(), secret.clone()));
        }
        #[cfg(feature = "slack")]
        if let Some(app_token) = app_token {
            sockets.push(Socket::new(door, app_token.clone(), inbox.clone(), clock));
        }
        #[cfg(not(feature = "slack"))]
        let _ = app_token;
    }
    let callback = (!signed.is_empty())
        .then(|| -> Arc<dyn Callback> { Arc::new(Gate { signed, inbox, clock, taken: Mutex::default() }) });
    let clerk = Clerk { pressed, key, commands, redactor, clock };
    let buttons = Buttons {
        callback,
        clerk,
        #[cfg(feature = "slack")]
        sockets,
    };
    Ok((doors > 0).then_some(buttons))
}

impl Buttons {
    /// Hears and does until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        #[cfg(feature = "slack")]
        let heard = futures_util::future::join_all(self.sockets.into_iter().map(|socket| socket.run(stop.clone())));
        #[cfg(not(feature = "slack"))]
        let heard = std::future::ready(());
        tokio::join!(self.clerk.run(&stop), heard);
    }
}

/// Calls of Slack's that were taken lately, or envelopes: whoever has recorded one cannot play it again.
#[derive(Default)]
pub(super) struct Taken(VecDeque<String>);

impl Taken {
    /// Whether this one is new.
    pub(super) fn is_new(&self, mark: &str) -> bool {
        !self.0.iter().any(|known| known == mark)
    }

    /// Remembers it.
    pub(super) fn note(&mut self, mark: &str) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(mark.to_owned());
    }
}

/// Where Slack calls.
struct Gate {
    signed: Vec<(Arc<Door>, Secret)>,
    inbox: mpsc::Sender<Pressed>,
    clock: Clock,
    taken: Mutex<Taken>,
}

impl Callback for Gate {
    fn called(&self, header: &dyn Fn(&str) -> Option<String>, body: &[u8]) -> Result<(), Denial> {
        let (stamp, signature) = (header("x-slack-request-timestamp"), header("x-slack-signature"));
        let now = self.clock.now().wall;
        let check = |secret: &Secret| {
            press::verify(secret.reveal().as_bytes(), stamp.as_deref(), signature.as_deref(), body, now)
        };
        let mut denial = Denial::Forged("no secret");
        let known = self.signed.iter().find(|(_, secret)| check(secret).map_err(|why| denial = why).is_ok());
        let Some((door, _)) = known else { return Err(denial) };
        let payload = press::payload(body)?;
        // A link was opened, or something else happened that nobody asks us to act on.
        let Some(press) = press::read(&payload) else { return Ok(()) };
        let mark = signature.unwrap_or_default();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.is_new(&mark) {
            return Err(Denial::Forged("played again"));
        }
        self.inbox.try_send((door.clone(), press)).map_err(|_| Denial::Busy)?;
        taken.note(&mark);
        Ok(())
    }
}

/// Does what was asked, and says so to who asked if it cannot.
struct Clerk {
    pressed: mpsc::Receiver<Pressed>,
    key: Arc<[u8]>,
    commands: Commands,
    redactor: Redactor,
    clock: Clock,
}

impl Clerk {
    async fn run(mut self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some((door, press)) = self.pressed.recv() => self.serve(&door, &press).await,
            }
        }
    }

    async fn serve(&self, door: &Door, press: &Press) {
        let done = match door.team().await {
            Ok(team) => match press::judge(press, team, &self.key, self.clock.now().wall) {
                Ok(wanted) => {
                    tracing::info!(notifier = %door.name, user = press.user, ?wanted, "asked for in Slack");
                    let asked = tokio::time::timeout(PATIENCE, self.ask(wanted)).await;
                    asked.unwrap_or_else(|_| Err("nobody answered; try again".to_owned()))
                }
                Err(why) => Err(why),
            },
            Err(error) => Err(format!("your workspace could not be checked; try again ({error})")),
        };
        let text = match done {
            // What was done is told by a reply in the thread, to everybody.
            Ok(None) => return,
            Ok(Some(said)) => said,
            Err(why) => {
                tracing::warn!(notifier = %door.name, user = press.user, why, "a button in Slack was refused");
                format!("Journeyman did not do this: {why}.")
            }
        };
        let text = escape::line(&self.redactor.clean(&text), ANSWER);
        let answer = json!({ "channel": press.channel, "user": press.user, "text": text });
        if let Err(refusal) = door.call("chat.postEphemeral", &answer).await {
            let error = self.redactor.clean(&refusal.into_error().to_string());
            tracing::warn!(notifier = %door.name, error, "who pressed it could not be told");
        }
    }

    /// Asks; gives what is to be said of it to who pressed, if that is not told to everybody.
    async fn ask(&self, wanted: Wanted) -> Result<Option<String>, String> {
        match wanted {
            Wanted::Change(request) => self.commands.ask(request).await.map(|()| None),
            Wanted::Run { which, by } => self
                .commands
                .run(which, by)
                .await
                .map(|run| Some(format!("Running {} again, asked by {}: run {}.", run.journey, run.by, run.token))),
        }
        .map_err(|refusal| refusal.to_string())
    }
}

impl Door {
    async fn team(&self) -> Result<&str, String> {
        let ask = async {
            let who = self.call("auth.test", &json!({})).await.map_err(|refusal| refusal.into_error().to_string())?;
            who["team_id"].as_str().map(str::to_owned).ok_or_else(|| "Slack does not say which it is".to_owned())
        };
        self.team.get_or_try_init(|| ask).await.map(String::as_str)
    }

    async fn call(&self, method: &str, arguments: &serde_json::Value) -> Result<serde_json::Value, Refusal> {
        let token = SlackApiToken::new(SlackApiTokenValue(self.token.reveal().to_string()));
        let session = self.client.open_session(&token);
        within(session.http_session_api.http_post(method, arguments, None)).await
    }
}
