//! `journeyman check`: what is wrong with a configuration, and with what it connects to.

use serde_json::{Value, json};

use crate::app::connect::Proof;
use crate::cli::check::as_json;
use crate::cli::{ConfigArgument, Format};
use crate::clock::Clock;
use crate::config::Plan;
use crate::exit::{self, Failure};
use crate::program::{block_on, say, tell_problems};
use crate::text::visible_line;
use crate::{app, config, log};

/// Says what is wrong with it; the exit code says whether that is much.
pub(super) fn check(from: &ConfigArgument, connect: bool, strict: bool, format: Format) -> Result<u8, Failure> {
    let loaded = config::load(&from.config);
    if format == Format::Json {
        let (plan, problems) = match &loaded {
            Ok((plan, warnings)) => (Some(plan), warnings),
            Err(problems) => (None, problems),
        };
        let mut found = as_json(&from.config.display().to_string(), plan, problems);
        let mut code = if plan.is_none() || strict && !problems.is_empty() { exit::CONFIG } else { 0 };
        if let (Some(plan), true) = (plan, connect) {
            let proofs = proofs(plan)?;
            if proofs.iter().any(|proof| proof.result.is_err()) {
                code = exit::UNAVAILABLE;
            }
            found["connected"] = proofs.iter().map(proof_as_json).collect();
        }
        say(&format!("{found:#}\n"))?;
        return Ok(code);
    }
    match loaded {
        Ok((plan, warnings)) => {
            tell_problems(&warnings);
            let [journeys, channels, notifiers] = [
                (plan.journeys.len(), "journey"),
                (plan.channels.len(), "channel"),
                (plan.notifiers.len(), "notifier"),
            ]
            .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }));
            say(&format!("{}: {journeys}, {channels}, {notifiers}\n", from.config.display()))?;
            if connect && !prove(&plan)? {
                return Ok(exit::UNAVAILABLE);
            }
            Ok(if strict && !warnings.is_empty() { exit::CONFIG } else { 0 })
        }
        Err(problems) => {
            tell_problems(&problems);
            Ok(exit::CONFIG)
        }
    }
}

/// Connects to everything that the plan names.
fn proofs(plan: &Plan) -> Result<Vec<Proof>, Failure> {
    log::init("error", false, &plan.redactor);
    block_on(async |_| app::connect::connect(plan, Clock::system()).await)
}

fn proof_as_json(proof: &Proof) -> Value {
    let Proof { what, name, kind, result, took } = proof;
    let (is_well, said) = match result {
        Ok(said) => (true, said),
        Err(why) => (false, why),
    };
    json!({ "what": what, "name": name, "type": kind, "well": is_well, "said": said, "took_seconds": took.as_secs_f64() })
}

/// Connects to everything that the plan names, and says what came of it; whether all of it is well.
fn prove(plan: &Plan) -> Result<bool, Failure> {
    let proofs = proofs(plan)?;
    for proof in &proofs {
        say(&format!("{}\n", visible_line(&proof.to_string())))?;
    }
    let failed = proofs.iter().filter(|proof| proof.result.is_err()).count();
    say(&format!("{} of {} are well\n", proofs.len() - failed, proofs.len()))?;
    Ok(failed == 0)
}
