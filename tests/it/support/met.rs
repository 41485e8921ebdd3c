//! What a channel met while it worked.

use std::collections::BTreeMap;

use journeyman::channel::seen::Notes;
use journeyman::journey::seen::Seen;

/// What was met, by name.
pub(crate) type Met = BTreeMap<&'static str, String>;

/// Does `work`; what it came to, and what it met.
pub(crate) async fn met<T>(work: impl Future<Output = T>) -> (T, Met) {
    let notes = Notes::default();
    let done = notes.over(work).await;
    (done, by_name(&notes.seen()))
}

/// The same of what is in a report.
pub(crate) fn by_name(seen: &[Seen]) -> Met {
    seen.iter().map(|seen| (seen.what.as_str(), seen.is.to_string())).collect()
}
