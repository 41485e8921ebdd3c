//! Sending: one submit, or one for each part, and the SMS centre's word on it.

use std::time::Duration;

use tokio::time::timeout_at;

use super::message::{self, Submit};
use super::sent::Owner;
use super::session::{Answer, Role, Session};
use super::{Account, Smpp};
use crate::channel::dial::Limit;
use crate::channel::refusal::Refusal;
use crate::journey::Outgoing;
use crate::journey::outcome::Cause;
use crate::journey::report::Phase;
use crate::journey::run::{Fault, Reply};
use crate::time::{Human, Now};

/// Submits and waits for the answer, all within the message's timeout. Nothing is sent twice.
pub(super) async fn send(channel: &Smpp, outgoing: &Outgoing) -> Result<Reply, Fault> {
    let clock = channel.clock;
    let asked = clock.now();
    let limit = Limit::new(clock, outgoing.timeout);
    // Parts that overtake those of another message must not be taken for them.
    let reference = outgoing.token.bits() as u8;
    let submits = message::submits(outgoing, &channel.settings, reference)
        .map_err(|detail| Refusal::new(Cause::Refused, detail).into_fault(asked, asked, Vec::new()))?;
    let (session, is_new) = channel
        .session(limit)
        .await
        .map_err(|refusal| refusal.before_sending().into_fault(asked, clock.now(), Vec::new()))?;

    let started = clock.now();
    let submitting = submit(&session, outgoing, submits);
    let answer = timeout_at(limit.instant(), submitting).await;
    let finished = clock.now();
    let mut phases = if is_new { session.phases.clone() } else { Vec::new() };
    phases.push(Phase { name: "submit".to_owned(), took: finished.mono.since(started.mono) });
    let refusal = match answer {
        Ok(Ok(ids)) => {
            let ack = match &ids[..] {
                [id] => format!("message id {id}"),
                ids => format!("message ids {}", ids.join(", ")),
            };
            return Ok(Reply { started, finished, ack, message: None, phases });
        }
        Ok(Err(refusal)) => refusal,
        Err(_) => {
            session.doubt();
            let waited = Human(finished.mono.since(started.mono));
            let detail = format!("no answer to submit_sm from {} within {waited}", session.peer);
            Refusal { cause: Cause::Uncertain, detail, is_verdict: false }
        }
    };
    Err(refusal.into_fault(started, finished, phases))
}

/// The ids that the SMS centre gave. All parts go out before the first answer is waited for, as a handset sends them.
async fn submit(session: &Session, outgoing: &Outgoing, submits: Vec<Submit>) -> Result<Vec<String>, Refusal> {
    let of = submits.len();
    let mut answers = Vec::with_capacity(of);
    for Submit { pdu, part, to } in submits {
        answers.push(session.submit(pdu, Owner { token: outgoing.token, part, to }).await?);
    }
    let mut ids = Vec::with_capacity(of);
    for (index, answer) in answers.into_iter().enumerate() {
        let refusal = match answer.await {
            Ok(Answer::Taken(id)) => {
                ids.push(id);
                continue;
            }
            Ok(Answer::Refused(status)) => Refusal::of_submit(status, &session.peer),
            Ok(Answer::Unreadable(why)) => {
                let detail = format!("the answer of {} cannot be read: {why}", session.peer);
                Refusal { cause: Cause::Uncertain, detail, is_verdict: false }
            }
            Err(_) => Refusal { cause: Cause::Unreachable, detail: session.ended().await, is_verdict: false },
        };
        return Err(match of {
            1 => refusal,
            _ => Refusal { detail: format!("part {} of {of}: {}", index + 1, refusal.detail), ..refusal },
        });
    }
    Ok(ids)
}

/// Binds each account on a connection of its own, and unbinds.
pub(super) async fn prove(channel: &Smpp, within: Duration) -> Result<String, Fault> {
    let asked = channel.clock.now();
    let limit = Limit::new(channel.clock, within);
    let mut told = Vec::new();
    let receiving = channel.settings.receiver.as_ref().map(|_| &channel.receiving);
    for endpoint in [Some(&channel.sending), receiving].into_iter().flatten() {
        let Account { system_id, .. } = &endpoint.account;
        let bound = Session::open(endpoint, Role::Transmitter, channel.sent.clone(), channel.clock, limit).await;
        let session = bound.map_err(|refusal| fault(refusal, asked, channel.clock.now()))?;
        session.close().await;
        told.push(format!("{} lets us bind as `{system_id}`", session.peer));
    }
    Ok(told.join("; "))
}

fn fault(refusal: Refusal, asked: Now, now: Now) -> Fault {
    refusal.before_sending().into_fault(asked, now, Vec::new())
}
