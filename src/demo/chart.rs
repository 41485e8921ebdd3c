//! Slack's bars as a drawing: columns in groups over one scale, each with its number.
//! <https://docs.slack.dev/reference/block-kit/blocks/data-visualization-block>

use minijinja::{Value as Shown, context};
use serde_json::Value;

/// A drawing's width and height, and what of it is left for the columns.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 162.0;
/// A column is no wider.
const WIDEST: f64 = 44.0;
/// Numbers stand over columns that are at least this wide.
const ROOM: f64 = 26.0;
/// A column of next to nothing is still seen.
const LEAST: f64 = 1.5;

/// A bar chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chart {
    title: String,
    categories: Vec<String>,
    series: Vec<(String, Vec<f64>)>,
}

/// Reads a block with a chart of bars; `None` if it is none.
pub(super) fn read(block: &Value) -> Option<Chart> {
    let chart = &block["chart"];
    if chart["type"] != "bar" {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let categories: Vec<String> = chart["axis_config"]["categories"].as_array()?.iter().map(text).collect();
    let one = |series: &Value| {
        let data = series["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let value = |category: &String| {
            let point = data.iter().find(|point| point["label"].as_str() == Some(category));
            point.and_then(|point| point["value"].as_f64()).unwrap_or(0.0).max(0.0)
        };
        (text(&series["name"]), categories.iter().map(value).collect())
    };
    let series: Vec<_> = chart["series"].as_array()?.iter().map(one).collect();
    let is_empty = categories.is_empty() || series.is_empty();
    (!is_empty).then(|| Chart { title: text(&block["title"]), categories, series })
}

/// Where everything stands, for a template.
pub(super) fn shown(chart: &Chart) -> Shown {
    let most = chart.series.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max);
    let step = step(most);
    let top = step * (most / step).ceil().max(1.0);
    let height = |value: f64| (BOTTOM - TOP) * value / top;
    let group = (WIDTH - LEFT) / chart.categories.len() as f64;
    let column = (group * 0.8 / chart.series.len() as f64).min(WIDEST);
    let left_of = |category: usize| LEFT + group * category as f64 + (group - column * chart.series.len() as f64) / 2.0;
    let mut columns = Vec::new();
    for (serial, (_, values)) in chart.series.iter().enumerate() {
        for (category, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let tall = height(*value).max(LEAST);
            let x = left_of(category) + column * serial as f64;
            let number = (column >= ROOM).then(|| number(*value));
            columns.push(context! {
                series => serial % 2, x, y => BOTTOM - tall, width => column - 2.0, height => tall,
                middle => x + column / 2.0 - 1.0, number,
            });
        }
    }
    let lines = (0..).map(|nth| step * f64::from(nth)).take_while(|value| *value <= top * 1.001);
    let lines: Vec<_> = lines.map(|value| context! { y => BOTTOM - height(value), number => number(value) }).collect();
    let labels: Vec<_> = (chart.categories.iter().enumerate())
        .map(|(at, label)| context! { x => LEFT + group * (at as f64 + 0.5), text => label.as_str() })
        .collect();
    context! {
        kind => "chart", title => chart.title.as_str(), width => WIDTH, height => HEIGHT, left => LEFT, under => BOTTOM + 17.0,
        columns, lines, labels, names => chart.series.iter().map(|(name, _)| Shown::from(name.as_str())).collect::<Vec<_>>(),
    }
}

/// From one line of the scale to the next: 1, 2 or 5 times a power of ten, so that there are three to six.
fn step(most: f64) -> f64 {
    let rough = if most > 0.0 { most / 4.0 } else { 0.25 };
    let power = 10f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= rough * 0.999).unwrap_or(10.0);
    times * power
}

fn number(value: f64) -> String {
    let decimals = match value {
        10.0.. => 0,
        1.0.. => 1,
        0.01.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn block(values: [f64; 2]) -> Value {
        let [one, two] = values.map(|value| json!([{ "label": "submit", "value": value }]));
        json!({
            "type": "data_visualization", "title": "Seconds per step",
            "chart": {
                "type": "bar",
                "series": [{ "name": "this run", "data": one }, { "name": "last good", "data": two }],
                "axis_config": { "categories": ["submit"] },
            },
        })
    }

    fn drawn(values: [f64; 2]) -> String {
        let template = "{% for c in columns %}{{ c.series }}: {{ c.number }} {{ c.height }} {{ c.y }}, {% endfor %}\
                        {% for line in lines %}{{ line.number }} {% endfor %}";
        let chart = read(&block(values)).unwrap();
        minijinja::Environment::new().render_str(template, shown(&chart)).unwrap()
    }

    #[test]
    fn columns_are_on_one_scale_and_what_is_nothing_has_none() {
        assert_eq!(drawn([4.0, 2.0]), "0: 4 146.0 16.0, 1: 2 73.0 89.0, 0 1 2 3 4 ");
        assert_eq!(drawn([0.0, 0.0]), "0 0.5 ");
        assert_eq!(read(&json!({ "chart": { "type": "pie" } })), None);
    }

    #[test]
    fn the_scale_has_round_numbers() {
        for (most, expected) in [(60.0, 20.0), (1.8, 0.5), (0.2, 0.05), (4.0, 1.0), (9.0, 5.0), (1_000.0, 500.0)] {
            let step = step(most);
            assert!((step - expected).abs() < 1e-9, "{most}: {step}");
            assert!((1.0..=4.01).contains(&(most / step)), "{most}");
        }
        assert_eq!([60.0, 1.804, 0.05, 0.004, 0.0].map(number), ["60", "1.8", "0.05", "0.004", "0"]);
    }
}
