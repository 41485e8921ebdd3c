//! A dashboard in Grafana's form.

use serde_json::{Map, Value, json};

use super::{Dashboard, Kind, Panel, Row, Series, Threshold, Variable};

/// Grafana's grid.
const COLUMNS: u32 = 24;
/// The step that rates look back over four of, at least.
const STEPS: [&str; 5] = ["1m", "5m", "15m", "1h", "6h"];

pub(super) fn json(dashboard: &Dashboard) -> Value {
    let variables = [datasource()].into_iter().chain(dashboard.variables.iter().map(|&variable| choice(variable)));
    json!({
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.help,
        "tags": ["journeyman", "slo", "synthetic"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": { "from": "now-6h", "to": "now" },
        "timepicker": {},
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": false,
        "links": [{
            "type": "dashboards", "title": "Journeyman", "tags": ["journeyman"], "asDropdown": true,
            "includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
        }],
        "annotations": { "list": annotations(dashboard.incidents) },
        "templating": { "list": variables.collect::<Vec<_>>() },
        "panels": panels(&dashboard.row),
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// In the order in which they stand: beside each other while there is room.
fn panels(rows: &[Row]) -> Vec<Value> {
    let mut out = Vec::new();
    let mut y = 0;
    for row in rows {
        let mut head = json!({
            "id": out.len() + 1, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
        });
        if let Some(variable) = &row.repeat {
            head["repeat"] = json!(variable);
            head["repeatDirection"] = json!("h");
        }
        out.push(head);
        y += 1;
        let (mut x, mut tallest) = (0, 0);
        for each in &row.panel {
            let (width, height) = each.size;
            if x + width > COLUMNS {
                (x, y, tallest) = (0, y + tallest, 0);
            }
            let mut made = panel(each);
            made["id"] = json!(out.len() + 1);
            made["gridPos"] = json!({ "x": x, "y": y, "w": width, "h": height });
            out.push(made);
            (x, tallest) = (x + width, tallest.max(height));
        }
        y += tallest;
    }
    out
}

fn panel(panel: &Panel) -> Value {
    let is_instant = matches!(panel.kind, Kind::Now | Kind::Gauge | Kind::Table);
    let target = |(at, (name, expression)): (u8, &(String, String))| {
        let mut target = json!({
            "refId": char::from(b'A' + at).to_string(), "datasource": source(), "editorMode": "code",
            "expr": expression, "legendFormat": name, "range": !is_instant,
        });
        if is_instant {
            target["instant"] = json!(true);
        }
        if panel.kind == Kind::Table {
            target["format"] = json!("table");
        }
        // Where runs are sparse, the time that a rate looks back over has to hold some.
        if expression.contains("$__rate_interval") {
            target["interval"] = json!("$step");
        }
        target
    };
    let mut out = json!({
        "type": grafana_type(panel.kind),
        "title": panel.title,
        "description": panel.help,
        "datasource": source(),
        "targets": (0..).zip(&panel.query).map(target).collect::<Vec<_>>(),
        "fieldConfig": { "defaults": defaults(panel), "overrides": panel.series.iter().map(special).collect::<Vec<_>>() },
        "options": options(panel),
    });
    if panel.kind == Kind::Table {
        out["transformations"] = columns(panel);
    }
    out
}

fn grafana_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Now => "stat",
        Kind::Lines | Kind::Stairs | Kind::Bars => "timeseries",
        Kind::States => "state-timeline",
        Kind::Gauge => "bargauge",
        Kind::Table => "table",
    }
}

fn defaults(panel: &Panel) -> Value {
    let color = match panel.kind {
        Kind::Lines | Kind::Stairs | Kind::Bars => "palette-classic",
        Kind::Now | Kind::States | Kind::Gauge | Kind::Table => "thresholds",
    };
    let mut out = Map::new();
    out.insert("color".to_owned(), json!({ "mode": color }));
    // Bands have the colours of their values.
    let banded: Vec<_> = panel
        .values
        .iter()
        .enumerate()
        .map(|(at, (value, _, color))| Threshold((at > 0).then(|| f64::from(*value)), color.clone()))
        .collect();
    let thresholds = if panel.kind == Kind::States { &banded } else { &panel.thresholds };
    out.insert("thresholds".to_owned(), steps(thresholds));
    let mut add = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(key.to_owned(), value);
        }
    };
    add("unit", panel.unit.as_ref().map(|unit| json!(unit)));
    add("decimals", panel.decimals.map(|decimals| json!(decimals)));
    add("min", panel.min.map(|min| json!(min)));
    add("max", panel.max.map(|max| json!(max)));
    add("noValue", panel.nothing.as_ref().map(|nothing| json!(nothing)));
    add("mappings", (!panel.values.is_empty()).then(|| words(&panel.values)));
    add("links", panel.link.as_ref().map(|(title, url)| json!([{ "title": title, "url": url }])));
    add("custom", custom(panel));
    Value::Object(out)
}

fn words(values: &[(u32, String, String)]) -> Value {
    let word = |(at, (value, text, color)): (usize, &(u32, String, String))| {
        (value.to_string(), json!({ "text": text, "color": color, "index": at }))
    };
    let options: Map<_, _> = values.iter().enumerate().map(word).collect();
    json!([{ "type": "value", "options": options }])
}

/// What is set by the kind alone.
fn custom(panel: &Panel) -> Option<Value> {
    let has_limits = panel.thresholds.len() > 1;
    let (style, interpolation, width, fill, points, stacking) = match panel.kind {
        Kind::Now | Kind::Gauge => return None,
        Kind::States => return Some(json!({ "fillOpacity": 80, "lineWidth": 0, "spanNulls": false })),
        Kind::Table => return Some(json!({ "align": "auto", "filterable": true })),
        Kind::Bars => ("bars", "linear", 0, 70, "never", "normal"),
        Kind::Lines => ("line", "linear", 1, if panel.bare { 0 } else { 8 }, "auto", "none"),
        Kind::Stairs => ("line", "stepAfter", 1, if panel.bare { 0 } else { 8 }, "auto", "none"),
    };
    let mut out = json!({
        "drawStyle": style, "lineInterpolation": interpolation, "lineWidth": width, "fillOpacity": fill,
        "gradientMode": "none", "showPoints": points, "pointSize": 4, "spanNulls": panel.kind != Kind::Bars,
        "stacking": { "mode": stacking, "group": "A" }, "axisPlacement": "auto",
        "thresholdsStyle": { "mode": if has_limits { "dashed" } else { "off" } },
    });
    if !panel.floats {
        out["axisSoftMin"] = json!(0);
    }
    if let Some(axis) = &panel.axis {
        out["axisLabel"] = json!(axis);
    }
    Some(out)
}

fn options(panel: &Panel) -> Value {
    let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
    match panel.kind {
        Kind::Now => json!({
            "reduceOptions": last, "orientation": "auto", "textMode": "auto", "colorMode": "value",
            "graphMode": "none", "justifyMode": "auto",
        }),
        Kind::Gauge => json!({
            "reduceOptions": last, "displayMode": "lcd", "orientation": "horizontal", "showUnfilled": true,
            "valueMode": "color", "minVizWidth": 0, "minVizHeight": 10,
        }),
        Kind::States => json!({
            "mergeValues": true, "showValue": "never", "alignValue": "left", "rowHeight": 0.85,
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
            "tooltip": { "mode": "single", "sort": "none" },
        }),
        Kind::Table => json!({
            "showHeader": true, "cellHeight": "sm", "footer": { "show": false },
            "sortBy": panel.worst.iter().map(|column| json!({ "displayName": column, "desc": false })).collect::<Vec<_>>(),
        }),
        Kind::Lines | Kind::Stairs | Kind::Bars => {
            let usual = if panel.kind == Kind::Bars { "mean" } else { "max" };
            let calcs = ["lastNotNull", panel.legend.as_deref().unwrap_or(usual)];
            json!({
                "legend": { "displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": calcs },
                "tooltip": { "mode": "multi", "sort": "desc" },
            })
        }
    }
}

fn columns(panel: &Panel) -> Value {
    let names: Map<_, _> = panel.columns.iter().map(|(column, name)| (column.clone(), json!(name))).collect();
    let labels = panel.columns.iter().filter(|(column, _)| !column.starts_with("Value "));
    let places: Map<_, _> = labels.enumerate().map(|(at, (column, _))| (column.clone(), json!(at))).collect();
    json!([
        { "id": "merge", "options": {} },
        { "id": "organize", "options": { "excludeByName": { "Time": true }, "indexByName": places, "renameByName": names } },
    ])
}

fn special(series: &Series) -> Value {
    let matcher = match (&series.is, &series.like) {
        (Some(name), _) => json!({ "id": "byName", "options": name }),
        (None, pattern) => {
            json!({ "id": "byRegexp", "options": format!("/{}/", pattern.as_deref().unwrap_or_default()) })
        }
    };
    let mut properties = Vec::new();
    let mut set = |id: &str, value: Value| properties.push(json!({ "id": id, "value": value }));
    if let Some(color) = &series.color {
        set("color", json!({ "mode": "fixed", "fixedColor": color }));
    }
    if series.dashed {
        set("custom.lineStyle", json!({ "fill": "dash", "dash": [8, 6] }));
        set("custom.fillOpacity", json!(0));
        set("custom.lineWidth", json!(2));
        set("custom.showPoints", json!("never"));
    }
    if let Some(unit) = &series.unit {
        set("unit", json!(unit));
    }
    if let Some(decimals) = series.decimals {
        set("decimals", json!(decimals));
    }
    if let Some(thresholds) = &series.thresholds {
        set("thresholds", steps(thresholds));
        // In a table, where else no value has a colour.
        if series.unit.is_some() {
            set("custom.cellOptions", json!({ "type": "color-text" }));
        }
    }
    json!({ "matcher": matcher, "properties": properties })
}

fn steps(thresholds: &[Threshold]) -> Value {
    let steps = thresholds.iter().map(|Threshold(value, color)| json!({ "color": color, "value": value }));
    json!({ "mode": "absolute", "steps": steps.collect::<Vec<_>>() })
}

fn datasource() -> Value {
    json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "regex": "",
        "multi": false, "includeAll": false, "current": {}, "options": [], "hide": 0, "skipUrlSync": false,
    })
}

fn choice(variable: Variable) -> Value {
    match variable {
        Variable::Location => labels(
            "location",
            "Location",
            "The daemon's `location`. All, where none is set.",
            "label_values(journeyman_build_info, location)",
        ),
        Variable::Journey => labels(
            "journey",
            "Journey",
            "All, or those that you look at.",
            "label_values(journeyman_runs_total{location=~\"$location\"}, journey)",
        ),
        Variable::Step => {
            let option = |step: &&str| json!({ "selected": *step == STEPS[0], "text": step, "value": step });
            json!({
                "name": "step", "label": "Least step", "type": "custom", "query": STEPS.join(","),
                "description": "Rates and quantiles look back over at least four of these; choose at least the interval of \
                                the journeys that you look at.",
                "multi": false, "includeAll": false, "current": option(&STEPS[0]),
                "options": STEPS.iter().map(option).collect::<Vec<_>>(), "hide": 0, "skipUrlSync": false,
            })
        }
    }
}

fn labels(name: &str, label: &str, help: &str, definition: &str) -> Value {
    json!({
        "name": name, "label": label, "description": help, "type": "query", "datasource": source(),
        "definition": definition,
        "query": { "qryType": 1, "query": definition, "refId": "PrometheusVariableQueryEditor-VariableQuery" },
        "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
        "options": [], "regex": "", "hide": 0, "skipUrlSync": false,
    })
}

fn annotations(has_incidents: bool) -> Vec<Value> {
    let mut out = vec![
        json!({
            "name": "Annotations & Alerts", "builtIn": 1, "type": "dashboard", "enable": true, "hide": true,
            "iconColor": "rgba(0, 211, 255, 1)", "datasource": { "type": "grafana", "uid": "-- Grafana --" },
        }),
        json!({
            "name": "Daemon started", "enable": true, "hide": false, "iconColor": "blue", "datasource": source(),
            "expr": "1000 * (process_start_time_seconds and on (instance, job) journeyman_build_info{location=~\"$location\"})",
            "step": "1m", "titleFormat": "Daemon started", "textFormat": "{{instance}}", "useValueForTime": true,
        }),
    ];
    if has_incidents {
        out.push(json!({
            "name": "Incident opened", "enable": false, "hide": false, "iconColor": "red", "datasource": source(),
            "expr": "max by (journey) (journeyman_alert_state{location=~\"$location\", journey=~\"$journey\"}) == 3",
            "step": "1m", "titleFormat": "Firing", "textFormat": "{{journey}}", "useValueForTime": false,
        }));
    }
    out
}
