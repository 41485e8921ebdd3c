//! `journeyman runs`: a journey's last runs, out of the store.

use std::fmt::Write as _;

use serde_json::json;

use crate::cli::Format;
use crate::store::RunRow;
use crate::time::Human;

/// The runs, printed; the newest first.
pub fn print_runs(journey: &str, rows: &[RunRow], format: Format) -> String {
    match format {
        Format::Json => {
            let one = |row: &RunRow| {
                json!({
                    "token": row.token.map(|token| token.to_string()),
                    "slot": row.slot,
                    "verdict": row.verdict,
                    "why": row.why,
                    "latency_seconds": row.latency.as_secs_f64(),
                    "late_by_seconds": row.late_by.map(|late| late.as_secs_f64()),
                })
            };
            let document = json!({ "journey": journey, "runs": rows.iter().map(one).collect::<Vec<_>>() });
            format!("{document:#}\n")
        }
        Format::Text if rows.is_empty() => "no run is like that\n".to_owned(),
        Format::Text => {
            let mut text = format!("{:23}  {:8}  {:14}  {:>8}  run\n", "slot", "verdict", "why", "latency");
            rows.iter().for_each(|row| line(&mut text, row));
            text
        }
    }
}

fn line(text: &mut String, row: &RunRow) {
    let slot = row.slot.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let latency = if row.latency.is_zero() { "-".to_owned() } else { Human(row.latency).to_string() };
    let late = row.late_by.map_or(String::new(), |late| format!("came {} late  ", Human(late)));
    let run = row.token.map_or("-".to_owned(), |token| token.to_string());
    let verdict = row.verdict.as_str();
    let _ = writeln!(text, "{slot:23}  {verdict:8}  {:14}  {latency:>8}  {late}{run}", row.why);
}
