//! Ends TLS in front of a server that speaks none, with a certificate that is as good or as bad as a test wants.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use journeyman::clock::Clock;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::certificate::Authority;

/// The certificate that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// For `localhost` and the loopback's address, valid, from the authority in `ca_file`.
    Good,
    /// The same, for another name.
    WrongHost,
    /// The same, and its time is over.
    Expired,
    /// From an authority that nobody knows.
    Unknown,
    /// As the good one, with six days and a half left.
    Ending,
}

/// A listener with TLS in front of a server without. Ends with its owner.
pub(crate) struct TlsFront {
    address: SocketAddr,
    ca_file: PathBuf,
    authorities: [Authority; 2],
    shown: watch::Sender<Arc<ServerConfig>>,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    /// On a free port of the loopback; the authority's certificate is written below `directory`.
    pub(crate) async fn start(upstream: SocketAddr, shown: Shown, directory: &std::path::Path) -> TlsFront {
        journeyman::tls::init();
        let (authority, other) =
            (Authority::new(&format!("ca-{shown:?}"), directory), Authority::new("somebody-else", directory));
        let ca_file = authority.ca_file.clone();
        let authorities = [authority, other];
        let (shown, current) = watch::channel(server(shown, &authorities));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(current.borrow().clone());
                connections.spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        TlsFront { address, ca_file, authorities, shown, _tasks: tasks }
    }

    /// What new connections are shown from now on, by the same authorities.
    pub(crate) fn show(&self, shown: Shown) {
        self.shown.send_replace(server(shown, &self.authorities));
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority's certificate, in PEM.
    pub(crate) fn ca_file(&self) -> &std::path::Path {
        &self.ca_file
    }
}

fn server(shown: Shown, [authority, other]: &[Authority; 2]) -> Arc<ServerConfig> {
    let names: &[_] = if shown == Shown::WrongHost { &["elsewhere.example.net"] } else { &["localhost", "127.0.0.1"] };
    let issuer = if shown == Shown::Unknown { other } else { authority };
    let (certificate, key) = if shown == Shown::Ending {
        let end = Clock::system().now().wall.as_second() + 6 * 86_400 + 43_200;
        issuer.issue_until(names, Duration::from_secs(end.unsigned_abs()))
    } else {
        issuer.issue(names, shown == Shown::Expired)
    };
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
    Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("they fit"))
}
