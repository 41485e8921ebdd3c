//! A picture of growth: figures over the number of journeys, both axes logarithmic, so that a straight line of slope one is linear.

use std::fmt::Write as _;

/// One figure over the number of journeys.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 220.0;
const MARGIN: (f64, f64) = (52.0, 34.0);

/// A panel for each line, in SVG.
pub(crate) fn draw(lines: &[Line]) -> String {
    let all = WIDTH * lines.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{all}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for (at, line) in lines.iter().enumerate() {
        panel(&mut svg, at as f64 * WIDTH, line);
    }
    svg += "</svg>\n";
    svg
}

fn panel(svg: &mut String, left: f64, line: &Line) {
    let (xs, ys): (Vec<f64>, Vec<f64>) = line.points.iter().copied().unzip();
    let (x, y) = (decades(&xs), decades(&ys));
    let place = |value: f64, (low, high): (i32, i32)| (value.log10() - f64::from(low)) / f64::from((high - low).max(1));
    let at = |point: (f64, f64)| {
        let across = left + MARGIN.0 + place(point.0, x) * (WIDTH - MARGIN.0 - 16.0);
        let up = HEIGHT - MARGIN.1 - place(point.1, y) * (HEIGHT - 2.0 * MARGIN.1);
        (across, up)
    };
    let (name, unit) = (line.name, line.unit);
    let _ = writeln!(svg, "<text x=\"{}\" y=\"18\" font-weight=\"bold\">{name}, {unit}</text>", left + MARGIN.0);
    let (bottom, top) = (10f64.powi(y.0), 10f64.powi(y.1));
    for exponent in x.0..=x.1 {
        let value = 10f64.powi(exponent);
        let ((across, from), (_, to)) = (at((value, bottom)), at((value, top)));
        let _ = writeln!(
            svg,
            "<path d=\"M{across:.1} {from:.1}V{to:.1}\" stroke=\"#ddd\"/><text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>",
            from + 15.0
        );
    }
    for exponent in y.0..=y.1 {
        let value = 10f64.powi(exponent);
        let ((from, up), (to, _)) = (at((10f64.powi(x.0), value)), at((10f64.powi(x.1), value)));
        let _ = writeln!(
            svg,
            "<path d=\"M{from:.1} {up:.1}H{to:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            from - 5.0,
            up + 4.0
        );
    }
    let path: Vec<_> = line.points.iter().map(|point| at(*point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ =
        writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\"/>", path.join(" "));
    for point in &line.points {
        let (x, y) = at(*point);
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1f6feb\"/>");
    }
}

/// The decades that hold all values.
fn decades(values: &[f64]) -> (i32, i32) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values.iter().copied().fold(0.0, f64::max).log10().ceil();
    (low as i32, high as i32)
}
