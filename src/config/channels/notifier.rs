//! `type = "notifier"`.

use crate::channel::Settings;
use crate::channel::notifier::NotifierSettings;
use crate::config::channels::{Channel, Grammar};
use crate::config::document::Section;

pub(super) const GRAMMAR: Grammar = Grammar { kind: "notifier", keys: &["notifier"], tables: &[], read };

/// That there is one of this name is seen when all of them are read.
fn read(section: &Section<'_>, _channel: &mut Channel) -> Option<Settings> {
    let node = section.require("notifier", "whom to ring, as in `notifier = \"oncall\"` for [notifiers.oncall]")?;
    let name = section.context.text(node, "notifier")?;
    Some(Settings::Notifier(NotifierSettings { notifier: name.into() }))
}
