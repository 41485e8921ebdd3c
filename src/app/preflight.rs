//! Before anything starts: what is said to be required must be there, and what is only looked at is told if it is not.

use crate::app::connect::{self, Proof};
use crate::board::Board;
use crate::clock::Clock;
use crate::config::Plan;
use crate::delivery;
use crate::exit::{self, Failure};

/// Proves every channel and notifier with `required`. Gives those that are not there and may be missing.
///
/// # Errors
/// What may not be missing is not there.
pub(super) async fn prove(plan: &Plan, clock: Clock) -> Result<Vec<Proof>, Failure> {
    let is_required = |proof: &Proof| required(plan, proof) == Some(true);
    let proofs = connect::prove(plan, clock, |required| required.is_some()).await?;
    let missing: Vec<_> = proofs.into_iter().filter(|proof| proof.result.is_err()).collect();
    if missing.iter().any(is_required) {
        let lines: String =
            missing.iter().filter(|proof| is_required(proof)).map(|proof| format!("\n  {proof}")).collect();
        let help = "start it and this again, or say `required = false`, which starts without it and says so";
        return Err(Failure::new(
            exit::UNAVAILABLE,
            format!("what the configuration requires is not there; nothing was started{lines}\n  help: {help}"),
        ));
    }
    for proof in &missing {
        tracing::warn!(what = proof.what, name = proof.name, why = ?proof.result.as_ref().err(), "not there at the start; going on without it");
    }
    Ok(missing)
}

fn required(plan: &Plan, proof: &Proof) -> Option<bool> {
    match proof.what {
        "channel" => plan.channels.get(&*proof.name)?.policy.required,
        _ => plan.notifiers.get(&*proof.name)?.required,
    }
}

/// Shows what was not there, until it is used and says better.
pub(super) fn show(missing: &[Proof], board: &Board, clock: Clock) {
    for Proof { what, name, result, .. } in missing {
        let component = if *what == "channel" { format!("channel {name}") } else { delivery::component(name) };
        let why = result.as_ref().err().map_or("", String::as_str);
        board.set_component(&component, false, false, format!("not there at the start: {why}"), clock.now().wall);
    }
}
