//! A run beside the last good one as Slack's own bars: seconds per step. <https://docs.slack.dev/reference/block-kit/blocks/data-visualization-block>

use serde_json::Number;
use slack_morphism::prelude::{
    SlackBlock, SlackChart, SlackChartAxisConfig, SlackChartDataPoint, SlackChartDataSeries,
    SlackDataVisualizationBlock, SlackSeriesChart,
};

use crate::journey::report::{Report, StepReport, StepStatus};

/// Characters of the title.
pub(super) const TITLE: usize = 50;
/// Characters of a label, of a category and of the name of a series.
pub(super) const LABEL: usize = 20;
/// Categories: steps that are shown.
pub(super) const CATEGORIES: usize = 20;

/// The bars of `report`, beside those of `good`; nothing for a run without steps. `line` makes a text of ours fit and safe.
pub(super) fn bars(report: &Report, good: Option<&Report>, line: impl Fn(&str, usize) -> String) -> Option<SlackBlock> {
    // If not all can be shown, then those that lead up to the one that failed.
    let failed = report.steps.iter().position(|step| step.status == StepStatus::Failed).unwrap_or(0);
    let first = (failed + 1).saturating_sub(CATEGORIES);
    let steps: Vec<&StepReport> = report.steps.iter().skip(first).take(CATEGORIES).collect();
    if steps.is_empty() {
        return None;
    }
    let mut labels: Vec<String> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let label = line(&step.name, LABEL);
        // Slack knows a bar by its label.
        let is_taken = label.trim().is_empty() || labels.contains(&label);
        labels.push(if is_taken { line(&format!("{} {}", first + at + 1, step.name), LABEL) } else { label });
    }
    let series = |name: &str, took: &dyn Fn(&StepReport) -> Option<f64>| {
        let point = |(step, label): (&&StepReport, &String)| {
            let seconds = (took(step).unwrap_or(0.0) * 1_000.0).round() / 1_000.0;
            SlackChartDataPoint::new(label.clone(), Number::from_f64(seconds).unwrap_or_else(|| 0.into()))
        };
        SlackChartDataSeries::new(name.to_owned(), steps.iter().zip(&labels).map(point).collect())
    };
    let mut all = vec![series("this run", &|step| Some(reached(step)?.took.as_secs_f64()))];
    if let Some(good) = good {
        let before =
            |step: &StepReport| Some(good.steps.iter().find(|other| other.name == step.name)?.took.as_secs_f64());
        all.push(series("last good", &before));
    }
    let unreached: Vec<_> = steps.iter().filter(|step| reached(step).is_none()).map(|step| &*step.name).collect();
    let title = match unreached.is_empty() {
        true => "Seconds per step".to_owned(),
        false => format!("Seconds per step; not reached: {}", unreached.join(", ")),
    };
    let chart = SlackSeriesChart::new(all, SlackChartAxisConfig::new(labels));
    Some(SlackDataVisualizationBlock::new(line(&title, TITLE), SlackChart::Bar(chart)).into())
}

fn reached(step: &StepReport) -> Option<&StepReport> {
    Some(step).filter(|step| step.status != StepStatus::Skipped)
}
