//! What nobody has been told yet need not be told piece by piece: the newest notice of an incident stands for those before it.

use std::collections::HashSet;

use crate::incident::NotifyReason;
use crate::store::{OutboxRow, OutboxState, OutboxStatus};

/// A notice that stands for others.
#[derive(Clone, Debug, PartialEq)]
pub struct Combined {
    /// What is to be told.
    pub row: OutboxRow,
    /// The delivery ids that it makes needless.
    pub superseded: Vec<String>,
}

/// Combines the undelivered notices of one incident to one notifier, oldest first. Nothing, if there is nothing to combine: one
/// alone, or one that may have been taken already, which is to be looked up before anything is said after it.
///
/// What was given up goes along, or it would be told behind its successor once the notifier works again. How often it was tried,
/// and how long ago, is no reason to give up what is told now.
pub fn combine(rows: &[OutboxRow]) -> Option<Combined> {
    let is_untold = |row: &OutboxRow| matches!(row.state.status, OutboxStatus::Pending | OutboxStatus::Dead);
    let (oldest, newest) = (rows.first()?, rows.last()?);
    if rows.len() < 2 || !rows.iter().all(is_untold) {
        return None;
    }
    let open: Vec<_> = rows.iter().filter(|row| row.state.status == OutboxStatus::Pending).collect();
    let waiting = open.first()?;
    let mut row = newest.clone();
    let began_untold = oldest.notification.reason == NotifyReason::First;
    let reasons = rows.iter().map(|row| row.notification.reason);
    row.notification.reason = match newest.notification.reason {
        NotifyReason::Resolved => {
            // Both ends in one: that it was down is news as well.
            row.notification.is_whole |= began_untold;
            NotifyReason::Resolved
        }
        // The strongest reason decides whether anybody is called; the newest state is what is true.
        _ => reasons.min().unwrap_or(NotifyReason::First),
    };
    let mut seen = HashSet::new();
    let news = rows.iter().flat_map(|row| row.notification.news.iter());
    row.notification.news = news.filter(|news| seen.insert((*news).clone())).cloned().collect();
    row.created = waiting.created;
    row.instead_of = row.instead_of.or_else(|| rows.iter().find_map(|row| row.instead_of.clone()));
    let attempt = open.iter().map(|row| row.state.attempt).max().unwrap_or(0);
    row.state = OutboxState { attempt, ..waiting.state.clone() };
    let superseded = rows.iter().map(|row| row.id.clone()).filter(|id| *id != row.id).collect();
    Some(Combined { row, superseded })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::row;

    fn notice(sequence: u32, reason: NotifyReason, status: OutboxStatus) -> OutboxRow {
        let mut row = row("i1", sequence, "slack", i64::from(sequence));
        row.notification.reason = reason;
        row.notification.news = vec![format!("news {sequence}"), "again".to_owned()];
        row.state.status = status;
        row
    }

    #[test]
    fn the_newest_stands_for_what_nobody_was_told() {
        use NotifyReason::{First, Repeat, Resolved, Updated, Worse};
        let table: &[(&[NotifyReason], NotifyReason, bool)] = &[
            (&[First, Updated], First, false),
            (&[First, Worse, Updated], First, false),
            (&[Worse, Repeat, Updated], Worse, false),
            (&[Updated, Repeat], Repeat, false),
            (&[First, Resolved], Resolved, true),
            (&[First, Worse, Repeat, Resolved], Resolved, true),
            (&[Worse, Resolved], Resolved, false),
        ];
        for (reasons, expected, is_whole) in table {
            let rows: Vec<_> = (1..)
                .zip(*reasons)
                .map(|(sequence, reason)| notice(sequence, *reason, OutboxStatus::Pending))
                .collect();
            let combined = combine(&rows).unwrap();
            let told = &combined.row;
            assert_eq!((told.notification.reason, told.notification.is_whole), (*expected, *is_whole), "{reasons:?}");
            assert_eq!((&told.id, told.created), (&rows[rows.len() - 1].id, rows[0].created));
            assert_eq!(combined.superseded.len(), rows.len() - 1);
            assert_eq!(told.notification.news.iter().filter(|news| *news == "again").count(), 1);
        }
    }

    #[test]
    fn what_was_given_up_is_told_with_what_came_after_it() {
        let [mut gone, mut open] = [1, 2].map(|sequence| notice(sequence, NotifyReason::First, OutboxStatus::Pending));
        open.notification.reason = NotifyReason::Updated;
        gone.state = OutboxState { status: OutboxStatus::Dead, attempt: 7, ..gone.state };
        let told = combine(&[gone.clone(), open.clone()]).unwrap();
        assert_eq!(told.superseded, [&*gone.id]);
        assert_eq!(told.row.notification.reason, NotifyReason::First);
        assert_eq!((told.row.created, told.row.state), (open.created, open.state.clone()), "it begins anew");
        // Taken back by hand, the older one alone is open; the newest still has the last word.
        let told = combine(&[open.clone(), gone.clone()]).unwrap();
        assert_eq!((&told.row.id, told.row.state.status), (&gone.id, OutboxStatus::Pending));
        assert_eq!(combine(&[gone.clone(), gone]), None, "nothing is open");
    }

    #[test]
    fn what_may_have_been_taken_is_looked_up_first() {
        let pending = notice(2, NotifyReason::Resolved, OutboxStatus::Pending);
        for status in [OutboxStatus::Ambiguous, OutboxStatus::Leased] {
            assert_eq!(combine(&[notice(1, NotifyReason::First, status), pending.clone()]), None);
        }
        assert_eq!(combine(&[pending]), None);
        assert_eq!(combine(&[]), None);
    }
}
