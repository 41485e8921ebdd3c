//! What is met on the way of a call: noted where it is seen, by whoever sees it, for the call under way.
//!
//! Who dials, who greets and who speaks are different layers, and a call fails in any of them; a note stays whatever becomes of
//! the call. Whose call it is, they learn from a task-local, as the stages of HTTP do. What somebody else's task does is
//! noted for nobody.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;

use crate::channel::certificate;
use crate::journey::seen::{Seen, What, keep};

tokio::task_local! {
    static NOTES: Notes;
}

/// What was met so far.
#[derive(Clone, Default)]
pub struct Notes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    seen: Mutex<Vec<Seen>>,
    /// Who asked for what is under way: they have seen it too.
    outer: Option<Notes>,
}

impl Notes {
    /// Notes of a part of the work under way, which takes them as its own as well.
    pub(crate) fn of_a_part() -> Notes {
        let outer = NOTES.try_with(Clone::clone).ok();
        Notes(Arc::new(Inner { seen: Mutex::default(), outer }))
    }

    /// Does `work`; what it meets is noted here.
    pub async fn over<T>(&self, work: impl Future<Output = T>) -> T {
        NOTES.scope(self.clone(), work).await
    }

    /// What was met so far, in the order of [`What`].
    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, seen: &Seen) {
        keep(&mut self.0.seen.lock().unwrap_or_else(PoisonError::into_inner), seen.clone());
        if let Some(outer) = &self.0.outer {
            outer.add(seen);
        }
    }

    fn remove(&self, what: What) {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).retain(|seen| seen.what != what);
        if let Some(outer) = &self.0.outer {
            outer.remove(what);
        }
    }

    fn clear(&self) {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Notes it for the call under way, if there is one. Of each kind the last stays.
pub(crate) fn note(what: What, is: &str) {
    // Outside of a call there is nobody to tell; and what says nothing was not seen.
    if !is.is_empty() {
        let _ = NOTES.try_with(|notes| notes.add(&Seen::new(what, is)));
    }
}

/// What was noted so does not hold any more.
pub(crate) fn take_back(what: What) {
    let _ = NOTES.try_with(|notes| notes.remove(what));
}

/// Notes again what was met when the connection in use was made.
pub(crate) fn note_again(seen: &[Seen]) {
    let _ = NOTES.try_with(|notes| seen.iter().for_each(|seen| notes.add(seen)));
}

/// Everything begins anew: what was noted is of a connection that has ended.
pub(crate) fn forget() {
    let _ = NOTES.try_with(Notes::clear);
}

/// Notes what the name of a host stands for; an address stands for itself.
pub(crate) fn note_addresses(host: &str, addresses: impl Iterator<Item = IpAddr>) {
    if host.parse::<IpAddr>().is_err() {
        note_answer(What::Addresses, addresses);
    }
}

/// Notes what a name server said, in order: it turns them round each time.
pub(crate) fn note_answer<T: Ord + ToString>(what: What, answer: impl Iterator<Item = T>) {
    let mut answer: Vec<_> = answer.collect();
    answer.sort();
    answer.dedup();
    let words: Vec<_> = answer.iter().map(T::to_string).collect();
    note(what, &words.join(", "));
}

/// Notes whom the connection is with.
pub(crate) fn note_peer(peer: std::io::Result<SocketAddr>) {
    if let Ok(peer) = peer {
        note(What::Peer, &peer.to_string());
    }
}

/// Whom a connection that is kept is with: in words made once, for all runs over it.
#[derive(Default)]
pub(crate) struct LastPeer(Mutex<Option<(SocketAddr, Seen)>>);

impl LastPeer {
    /// Notes it.
    pub(crate) fn note(&self, peer: SocketAddr) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, seen) = match &*last {
            Some(last) if last.0 == peer => last,
            _ => last.insert((peer, Seen::new(What::Peer, &peer.to_string()))),
        };
        let _ = NOTES.try_with(|notes| notes.add(seen));
    }
}

/// Notes the certificate that is shown, in DER.
pub(crate) fn note_certificate(der: &[u8]) {
    if let Some(told) = certificate::told(der) {
        note(What::Certificate, &told);
    }
}

/// Notes by which protocol and cipher TLS is spoken.
pub(crate) fn note_tls(session: &rustls::ClientConnection) {
    let version = session.protocol_version().and_then(|version| version.as_str().map(version_name));
    let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    if let (Some(version), Some(cipher)) = (version, cipher) {
        note(What::Tls, &format!("{version}, {cipher}"));
    }
}

/// As the RFCs write it.
pub(crate) fn version_name(name: &'static str) -> &'static str {
    match name {
        "TLSv1_2" => "TLSv1.2",
        "TLSv1_3" => "TLSv1.3",
        other => other,
    }
}

/// The client's side of TLS of a channel: what is shown in a handshake is noted, also where it is not trusted.
///
/// # Errors
/// In words: certificates that cannot be read.
pub(crate) fn tls_client(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let watch = crate::tls::Watch { certificate: note_certificate, version: |name| note(What::Tls, name) };
    crate::tls::watched_client(ca_file, watch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journey::seen::find;

    #[tokio::test]
    async fn a_part_notes_for_itself_and_for_the_whole() {
        note(What::Peer, "nobody's");
        let whole = Notes::default();
        let part = whole
            .over(async {
                note(What::Peer, "a");
                let part = Notes::of_a_part();
                part.over(async { note(What::Banner, "b") }).await;
                note(What::Server, "");
                part
            })
            .await;
        assert_eq!(find(&part.seen(), What::Banner), Some("b"));
        assert_eq!(part.seen().len(), 1);
        assert_eq!(whole.seen().len(), 2);
        whole.over(async { forget() }).await;
        assert_eq!(whole.seen(), []);
        whole.over(async { note_again(&part.seen()) }).await;
        assert_eq!(whole.seen(), part.seen());
    }

    #[tokio::test]
    async fn a_name_has_its_addresses_in_order_and_an_address_none() {
        let notes = Notes::default();
        let addresses: Vec<IpAddr> = ["10.0.0.2", "10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap()).into();
        notes.over(async { note_addresses("10.0.0.2", addresses.iter().copied()) }).await;
        assert_eq!(notes.seen(), []);
        notes.over(async { note_addresses("mx.example.net", addresses.iter().copied()) }).await;
        assert_eq!(find(&notes.seen(), What::Addresses), Some("10.0.0.1, 10.0.0.2"));
    }
}
