//! Ends TLS in front of a server that speaks none, with a certificate that is as good or as bad as a test wants.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
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
}

/// A listener with TLS in front of a server without. Ends with its owner.
pub(crate) struct TlsFront {
    address: SocketAddr,
    ca_file: PathBuf,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    /// On a free port of the loopback; the authority's certificate is written below `directory`.
    pub(crate) async fn start(upstream: SocketAddr, shown: Shown, directory: &std::path::Path) -> TlsFront {
        journeyman::tls::init();
        let authority = Authority::new(&format!("ca-{shown:?}"), directory);
        let other = Authority::new("somebody-else", directory);
        let issuer = if shown == Shown::Unknown { &other } else { &authority };
        let names: &[_] =
            if shown == Shown::WrongHost { &["elsewhere.example.net"] } else { &["localhost", "127.0.0.1"] };
        let (certificate, key) = issuer.issue(names, shown == Shown::Expired);
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("they fit");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        TlsFront { address, ca_file: authority.ca_file, _tasks: tasks }
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
