//! The waterfall as a picture, this run over the last good one: what mail clients show whose tables are not to be trusted.
//!
//! Drawn at twice the size at which it is shown, on a ground of its own, so that it is sharp on any display and readable in dark
//! mode. A palette of 16 colours keeps even a long run's picture at some kilobytes.

use std::io::Write;
use std::time::Duration;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

use super::font::{ADVANCE, points};
use crate::journey::report::{Report, StepReport, StepStatus};
use crate::time::Human;

/// More steps are only counted; the text has them.
const STEPS: usize = 24;
const WIDTH: usize = 1_280;
const MARGIN: usize = 24;
/// The bars' column.
const BARS: usize = 304;
const BARS_END: usize = 1_064;
/// Letters of a step's name that fit before the bars.
const NAME: usize = 15;
const TOP: usize = 60;
const STEP: usize = 72;
const BOTTOM: usize = 52;
/// Points are drawn as squares of so many pixels: a letter is as high as the mail's own, shown at half the size.
const SIZE: usize = 3;

/// The palette, in the order of [`COLOURS`].
#[derive(Clone, Copy)]
enum Ink {
    Ground,
    Black,
    Muted,
    Grey,
    Track,
    Green,
    Amber,
    Red,
}

const COLOURS: [[u8; 3]; 8] = [
    [0xff, 0xff, 0xff],
    [0x1f, 0x23, 0x28],
    [0x57, 0x60, 0x6a],
    [0x9a, 0xa4, 0xae],
    [0xee, 0xf1, 0xf4],
    [0x2d, 0x8a, 0x46],
    [0xbf, 0x7a, 0x00],
    [0xc6, 0x28, 0x28],
];

/// A PNG, and the size at which it is to be shown.
pub(super) struct Picture {
    pub(super) png: Vec<u8>,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// The run, beside the last good one if there is one. `name` goes over every name that is drawn.
pub(super) fn waterfall(report: &Report, reference: Option<&Report>, name: impl Fn(&str) -> String) -> Picture {
    let end = |report: &Report| report.steps.iter().map(|step| step.at + step.took).max().unwrap_or_default();
    let scale = end(report).max(reference.map(end).unwrap_or_default()).max(Duration::from_micros(1));
    let shown = report.steps.len().min(STEPS);
    let more = report.steps.len() - shown;
    let mut canvas = Canvas::new(TOP + shown * STEP + BOTTOM);
    canvas.legend(reference.is_some());
    for (at, step) in report.steps.iter().take(shown).enumerate() {
        let top = TOP + at * STEP;
        let colour = match step.status {
            StepStatus::Passed => Ink::Green,
            StepStatus::Slow | StepStatus::Warned => Ink::Amber,
            StepStatus::Failed => Ink::Red,
            StepStatus::Skipped => Ink::Grey,
        };
        let is_skipped = step.status == StepStatus::Skipped;
        let took = if is_skipped { "skipped".to_owned() } else { Human(step.took).to_string() };
        let ink = if step.status == StepStatus::Failed { Ink::Red } else { Ink::Black };
        canvas.text(MARGIN, top + 12, &shortened(&name(&step.name)), ink);
        canvas.text_to(WIDTH - MARGIN, top + 12, &took, ink);
        canvas.fill(BARS, top + 10, BARS_END - BARS, 26, Ink::Track);
        if !is_skipped {
            canvas.bar(top + 10, 26, step, scale, colour);
        }
        let before = reference.and_then(|reference| reference.steps.iter().find(|other| other.name == step.name));
        if let Some(before) = before.filter(|before| before.status != StepStatus::Skipped) {
            canvas.bar(top + 42, 12, before, scale, Ink::Grey);
            canvas.text_to(WIDTH - MARGIN, top + 42, &Human(before.took).to_string(), Ink::Muted);
        }
    }
    let foot = TOP + shown * STEP;
    canvas.fill(BARS, foot + 2, BARS_END - BARS, 2, Ink::Grey);
    canvas.text(BARS, foot + 14, "0", Ink::Muted);
    canvas.text_to(BARS_END, foot + 14, &Human(scale).to_string(), Ink::Muted);
    if more > 0 {
        canvas.text(MARGIN, foot + 14, &format!("and {more} more steps"), Ink::Muted);
    }
    Picture { width: WIDTH / 2, height: canvas.height / 2, png: canvas.png() }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(NAME) {
        Some(_) => text.chars().take(NAME - 2).chain("..".chars()).collect(),
        None => text.to_owned(),
    }
}

/// One byte a pixel: an index into the palette.
struct Canvas {
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(height: usize) -> Canvas {
        Canvas { height, pixels: vec![Ink::Ground as u8; WIDTH * height] }
    }

    /// What lies outside is cut off.
    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, ink: Ink) {
        let columns = x.min(WIDTH)..(x + width).min(WIDTH);
        for row in self.pixels.chunks_exact_mut(WIDTH).skip(y).take(height) {
            row[columns.clone()].fill(ink as u8);
        }
    }

    fn text(&mut self, x: usize, y: usize, text: &str, ink: Ink) {
        for (at, c) in text.chars().enumerate() {
            // Microseconds.
            let c = if matches!(c, 'µ' | 'μ') { 'u' } else { c };
            for (column, row) in points(c) {
                self.fill(x + (at * ADVANCE + column) * SIZE, y + row * SIZE, SIZE, SIZE, ink);
            }
        }
    }

    /// Text that ends at `x`.
    fn text_to(&mut self, x: usize, y: usize, text: &str, ink: Ink) {
        let width = text.chars().count() * ADVANCE * SIZE;
        self.text((x + SIZE).saturating_sub(width), y, text, ink);
    }

    /// The step's time on the scale; never invisible.
    fn bar(&mut self, y: usize, height: usize, step: &StepReport, scale: Duration, ink: Ink) {
        const LEAST: usize = 4;
        let room = BARS_END - BARS;
        let pixel = |time: Duration| (time.as_secs_f64() / scale.as_secs_f64() * room as f64).round() as usize;
        let start = pixel(step.at).min(room - LEAST);
        let length = pixel(step.at + step.took).saturating_sub(start).clamp(LEAST, room - start);
        self.fill(BARS + start, y, length, height, ink);
    }

    fn legend(&mut self, is_compared: bool) {
        let mut entry = |x: usize, text: &str, swatches: &[Ink]| {
            for (at, ink) in swatches.iter().enumerate() {
                self.fill(x + at * 10, 20, 10, 20, *ink);
            }
            self.text(x + swatches.len() * 10 + 12, 20, text, Ink::Muted);
        };
        entry(BARS, "this run", &[Ink::Green, Ink::Amber, Ink::Red]);
        if is_compared {
            entry(BARS + 260, "last good run", &[Ink::Grey, Ink::Grey, Ink::Grey]);
        }
    }

    /// <https://www.w3.org/TR/png-3/>: a palette of 16, two pixels a byte, no filter.
    fn png(&self) -> Vec<u8> {
        let mut rows = Vec::with_capacity((WIDTH / 2 + 1) * self.height);
        for row in self.pixels.chunks_exact(WIDTH) {
            rows.push(0);
            rows.extend(row.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]));
        }
        let mut header = Vec::with_capacity(13);
        header.extend((WIDTH as u32).to_be_bytes());
        header.extend((self.height as u32).to_be_bytes());
        // Four bits a pixel, by palette; deflate, the standard filters, not interlaced.
        header.extend([4, 3, 0, 0, 0]);
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(&mut out, b"IHDR", &header);
        chunk(&mut out, b"PLTE", COLOURS.as_flattened());
        chunk(&mut out, b"IDAT", &deflate(&rows));
        chunk(&mut out, b"IEND", &[]);
        out
    }
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    let start = out.len();
    out.extend(kind);
    out.extend(data);
    let mut crc = Crc::new();
    crc.update(&out[start..]);
    out.extend(crc.sum().to_be_bytes());
}

fn deflate(rows: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(rows).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::incident::NotifyReason;
    use crate::notice::sample::sample;

    /// The pixels again, as a client would read them.
    fn pixels(picture: &Picture) -> Vec<Vec<u8>> {
        let at = picture.png.windows(4).position(|part| part == b"IDAT").expect("there is data");
        let length = u32::from_be_bytes(picture.png[at - 4..at].try_into().expect("four bytes")) as usize;
        let data = &picture.png[at + 4..at + 4 + length];
        let mut rows = Vec::new();
        let _read = flate2::read::ZlibDecoder::new(data).read_to_end(&mut rows).expect("it is zlib");
        let row = |row: &[u8]| row[1..].iter().flat_map(|pair| [pair >> 4, pair & 15]).collect();
        rows.chunks_exact(WIDTH / 2 + 1).map(row).collect()
    }

    #[test]
    fn bars_are_on_one_scale_and_the_failed_one_is_red() {
        let notice = sample(NotifyReason::First);
        let report = notice.report.expect("a run");
        let failed = report.steps.iter().position(|step| step.status == StepStatus::Failed).expect("a failed step");
        let picture = waterfall(&report, notice.last_good.as_ref(), str::to_owned);
        assert_eq!((picture.width, picture.height), (WIDTH / 2, (TOP + report.steps.len() * STEP + BOTTOM) / 2));
        let pixels = pixels(&picture);
        assert_eq!(pixels.len(), picture.height * 2);
        let count = |y: usize, ink: Ink| pixels[y][BARS..BARS_END].iter().filter(|pixel| **pixel == ink as u8).count();
        let top = TOP + failed * STEP;
        assert!(count(top + 20, Ink::Red) > (BARS_END - BARS) * 8 / 10, "it took nearly all of the time");
        let good = count(top + 48, Ink::Grey);
        assert!((4..(BARS_END - BARS) / 4).contains(&good), "the good run took a small part of it: {good}");
    }

    #[test]
    fn any_name_and_any_number_of_steps_is_drawn_and_small() {
        let notice = sample(NotifyReason::First);
        let mut report = notice.report.expect("a run");
        report.steps = report.steps.iter().cycle().take(500).cloned().collect();
        let picture = waterfall(&report, None, |_| "日本\u{0}\u{10ffff}<&>".repeat(50));
        assert!(picture.png.len() < 60_000 && picture.height < 1_000, "{}", picture.png.len());
        let skipped = StepReport { status: StepStatus::Skipped, ..report.steps[0].clone() };
        report.steps = vec![skipped];
        waterfall(&report, None, str::to_owned);
        report.steps.clear();
        waterfall(&report, None, str::to_owned);
    }
}
