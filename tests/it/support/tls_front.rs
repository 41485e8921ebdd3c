//! Ends TLS in front of a server that speaks none, with a certificate that is as good or as bad as a test wants.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

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
        let (authority, ca_pem) = authority();
        let (other, _) = authority_named("somebody else");
        let ca_file = directory.join(format!("ca-{shown:?}.pem"));
        std::fs::write(&ca_file, ca_pem).expect("the directory can be written");
        let names = if shown == Shown::WrongHost { "elsewhere.example.net" } else { "localhost" };
        let mut names = vec![names.to_owned()];
        if shown != Shown::WrongHost {
            names.push("127.0.0.1".to_owned());
        }
        let mut parameters = CertificateParams::new(names).expect("names are names");
        if shown == Shown::Expired {
            parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(2020, 2, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let issuer = if shown == Shown::Unknown { &other } else { &authority };
        let certificate = parameters.signed_by(&key, issuer).expect("a certificate");
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
        TlsFront { address, ca_file, _tasks: tasks }
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

fn authority() -> (Issuer<'static, KeyPair>, String) {
    authority_named("the tests' authority")
}

fn authority_named(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    (Issuer::new(parameters, key), certificate.pem())
}
