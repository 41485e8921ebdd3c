//! The files for Grafana and Prometheus that go with this version. A dashboard is written down short, in `dashboards/*.toml`; what
//! Grafana wants of it beside that is the same for all panels of a kind, and made here. Numbers and places are given out in the order
//! in which panels stand.
//!
//! The form is Grafana's dashboard JSON model, schema version 39:
//! <https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/>.

mod grafana;

use serde::Deserialize;
use serde::de::Error as _;

/// A file, and where it belongs below the folder that they are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path, with slashes.
    pub path: &'static str,
    /// All of it.
    pub text: String,
}

const DASHBOARDS: [(&str, &str); 4] = [
    ("grafana/journeyman-overview.json", include_str!("dashboards/overview.toml")),
    ("grafana/journeyman-journey.json", include_str!("dashboards/journey.toml")),
    ("grafana/journeyman-channels.json", include_str!("dashboards/channels.toml")),
    ("grafana/journeyman-monitor.json", include_str!("dashboards/monitor.toml")),
];

/// Dashboards, and the rules of Prometheus that they go with.
///
/// # Panics
/// A dashboard that this was built with is not well-formed, which its tests rule out.
pub fn files() -> Vec<File> {
    let dashboard = |(path, text): (&'static str, &str)| {
        let dashboard: Dashboard = toml::from_str(text).expect("what this is built with can be read");
        File { path, text: format!("{:#}\n", grafana::json(&dashboard)) }
    };
    let rules = include_str!("../config/prometheus/journeyman.rules.yml");
    let rules = File { path: "prometheus/journeyman.rules.yml", text: rules.to_owned() };
    DASHBOARDS.into_iter().map(dashboard).chain([rules]).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dashboard {
    title: String,
    uid: String,
    help: String,
    /// What can be chosen, beside the data source.
    variables: Vec<Variable>,
    /// Whether it can mark when incidents opened.
    #[serde(default)]
    incidents: bool,
    row: Vec<Row>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Variable {
    Location,
    Journey,
    Step,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    /// The variable of which each value has a row of its own.
    repeat: Option<String>,
    panel: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    title: String,
    kind: Kind,
    /// Its width, of 24, and its height.
    size: (u32, u32),
    unit: Option<String>,
    /// What it says, and what to do about it.
    help: String,
    /// Each with what it is called.
    query: Vec<(String, String)>,
    #[serde(default = "plain")]
    thresholds: Vec<Threshold>,
    decimals: Option<u32>,
    min: Option<f64>,
    max: Option<f64>,
    /// Said where there is no data.
    nothing: Option<String>,
    /// What the axis is called.
    axis: Option<String>,
    /// The axis need not begin at zero.
    #[serde(default)]
    floats: bool,
    /// Nothing is filled below its lines.
    #[serde(default)]
    bare: bool,
    /// What the legend says beside the last value, if not what is usual.
    legend: Option<String>,
    /// Words and colours for values.
    #[serde(default)]
    values: Vec<(u32, String, String)>,
    /// A title, and where a click leads.
    link: Option<(String, String)>,
    /// What columns of a table are called.
    #[serde(default)]
    columns: Vec<(String, String)>,
    /// The column by which a table is sorted, the least first.
    worst: Option<String>,
    #[serde(default)]
    series: Vec<Series>,
}

/// What a panel looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The last value, large.
    Now,
    Lines,
    /// Lines between values that hold until the next.
    Stairs,
    Bars,
    /// A band for each series, coloured by its value.
    States,
    /// The last values beside each other, as bars.
    Gauge,
    Table,
}

/// What is special about some series.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    is: Option<String>,
    /// A regular expression.
    like: Option<String>,
    color: Option<String>,
    #[serde(default)]
    dashed: bool,
    unit: Option<String>,
    decimals: Option<u32>,
    thresholds: Option<Vec<Threshold>>,
}

/// A colour, and from which value on; the first has none.
#[derive(Debug)]
struct Threshold(Option<f64>, String);

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Threshold, D::Error> {
        match toml::Value::deserialize(from)? {
            toml::Value::String(color) => Ok(Threshold(None, color)),
            toml::Value::Array(pair) => match &pair[..] {
                [toml::Value::Integer(value), toml::Value::String(color)] => {
                    Ok(Threshold(Some(f64::from(i32::try_from(*value).map_err(D::Error::custom)?)), color.clone()))
                }
                [toml::Value::Float(value), toml::Value::String(color)] => Ok(Threshold(Some(*value), color.clone())),
                _ => Err(D::Error::custom("a threshold is a colour, or a value and a colour")),
            },
            _ => Err(D::Error::custom("a threshold is a colour, or a value and a colour")),
        }
    }
}

fn plain() -> Vec<Threshold> {
    vec![Threshold(None, "green".to_owned())]
}
