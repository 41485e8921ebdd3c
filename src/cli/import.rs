//! `journeyman import`: journeys out of what people have already. What cannot be taken over is said, with its line, and never
//! silently dropped: a check that is not made any more looks like one that passes.

mod blackbox;
mod conditions;
mod document;
mod gatus;
mod yaml;

pub(super) use document::{name_of, quoted};

/// A file that was taken over.
pub struct Imported {
    /// A daemon's file.
    pub toml: String,
    /// What is to be said of it.
    pub notes: Vec<Note>,
}

/// Something to say of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The line, from 1.
    pub line: u64,
    /// What.
    pub text: String,
    /// Something that was checked or told there is not any more.
    pub is_loss: bool,
}

impl Imported {
    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        !self.notes.iter().any(|note| note.is_loss)
    }
}

/// Endpoints and alerts of Gatus (<https://github.com/TwiN/gatus#configuration>).
///
/// # Errors
/// The file is no YAML, or has no endpoint.
pub fn gatus(text: &str) -> Result<Imported, String> {
    gatus::import(&yaml::read(text)?)
}

/// Modules of the blackbox exporter
/// (<https://github.com/prometheus/blackbox_exporter/blob/master/CONFIGURATION.md>), for the targets that a configuration of
/// Prometheus gives them.
///
/// # Errors
/// A file is no YAML, or has no module.
pub fn blackbox(text: &str, prometheus: Option<&str>) -> Result<Imported, String> {
    let prometheus = prometheus.map(yaml::read).transpose().map_err(|why| format!("of Prometheus: {why}"))?;
    blackbox::import(&yaml::read(text)?, prometheus.as_ref())
}
