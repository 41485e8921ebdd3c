//! `tls_server_config`: the server's side of TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::gate::rules::yaml::TlsServer;
use crate::gate::stamp::Stamped;

/// The server's side of TLS, made.
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// Ours, which callers are shown.
    pub(super) certificate: CertificateDer<'static>,
    /// One of these names must be in a caller's certificate; any will do if there are none.
    pub(super) allowed_names: Vec<String>,
    pub(super) wants_certificates: bool,
}

/// What is asked of callers.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Nothing,
    IfThere,
    Always,
}

impl Tls {
    pub(super) fn of(given: TlsServer, base: &Path, files: &mut Vec<Stamped>) -> Result<Tls, String> {
        for (key, is_given) in [
            ("cipher_suites", !given.cipher_suites.is_empty()),
            ("curve_preferences", !given.curve_preferences.is_empty()),
        ] {
            if is_given {
                return Err(format!(
                    "`{key}` cannot be chosen here: there are only ones without known weakness; leave it out"
                ));
            }
        }
        let mut pem = |key: &str, inline: &str, path: &str| -> Result<Option<Vec<u8>>, String> {
            match (inline.is_empty(), path.is_empty()) {
                (true, true) => Ok(None),
                (false, false) => Err(format!("`{key}` and `{key}_file` say the same; one of them is enough")),
                (false, true) => Ok(Some(inline.as_bytes().to_vec())),
                (true, false) => {
                    let path = base.join(path);
                    files.push(Stamped::new(&path));
                    let read = std::fs::read(&path);
                    read.map(Some).map_err(|error| format!("`{key}_file`: cannot read {}: {error}", path.display()))
                }
            }
        };
        let certificate = pem("cert", &given.cert, &given.cert_file)?;
        let key = pem("key", &given.key, &given.key_file)?;
        let authority = pem("client_ca", &given.client_ca, &given.client_ca_file)?;
        let (Some(certificate), Some(key)) = (certificate, key) else {
            return Err("`tls_server_config` needs `cert_file` and `key_file`".to_owned());
        };
        let chain = certificates("cert_file", &certificate)?;
        let own = chain.first().cloned().ok_or("`cert_file` has no certificate in it; it must be in PEM format")?;
        let key =
            PrivateKeyDer::from_pem_slice(&key).map_err(|_| "`key_file` has no private key in PEM format in it")?;
        let asked = asked(&given.client_auth_type)?;
        if asked != Asked::Always && !given.client_allowed_sans.is_empty() {
            return Err("`client_allowed_sans` needs `client_auth_type: RequireAndVerifyClientCert`: otherwise callers without a certificate come in".to_owned());
        }
        crate::tls::init();
        let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?.clone();
        let verifier = verifier(asked, authority.as_deref(), &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(&given.min_version, &given.max_version)?)
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| format!("`cert_file` and `key_file` do not go together: {error}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ignore_client_order = given.prefer_server_cipher_suites.unwrap_or(true);
        Ok(Tls {
            config: Arc::new(config),
            certificate: own,
            allowed_names: given.client_allowed_sans,
            wants_certificates: asked == Asked::Always,
        })
    }
}

fn certificates(key: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    found.map_err(|error| format!("`{key}` is not in PEM format: {error}"))
}

fn asked(text: &str) -> Result<Asked, String> {
    match text {
        "" | "NoClientCert" => Ok(Asked::Nothing),
        "VerifyClientCertIfGiven" => Ok(Asked::IfThere),
        "RequireAndVerifyClientCert" => Ok(Asked::Always),
        "RequestClientCert" | "RequireClientCert" | "RequireAnyClientCert" => Err(format!(
            "`client_auth_type: {text}` asks for a certificate and verifies none, which proves nothing; write RequireAndVerifyClientCert"
        )),
        _ => Err(format!(
            "`client_auth_type` cannot be `{text}`; it is NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"
        )),
    }
}

fn verifier(
    asked: Asked,
    authority: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let authority = match (asked, authority) {
        (Asked::Nothing, None) => return Ok(WebPkiClientVerifier::no_client_auth()),
        (Asked::Nothing, Some(_)) => {
            return Err("`client_ca_file` without `client_auth_type` asks nobody for a certificate".to_owned());
        }
        (_, None) => {
            return Err(
                "`client_auth_type` needs `client_ca_file`, whose certificates sign those of callers".to_owned()
            );
        }
        (_, Some(authority)) => authority,
    };
    let wrong = |error: &dyn std::fmt::Display| format!("`client_ca_file`: {error}");
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca_file", authority)? {
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no certificate is in it; it must be in PEM format"));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if asked == Asked::IfThere { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| wrong(&error))
}

fn versions(least: &str, most: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    const KNOWN: [(&str, &SupportedProtocolVersion); 2] = [("TLS12", &TLS12), ("TLS13", &TLS13)];
    let place = |key: &str, text: &str, default: usize| match text {
        "" => Ok(default),
        "TLS10" | "TLS11" if key == "min_version" => {
            Err(format!("`{key}: {text}` is broken, and not spoken here; the least is TLS12"))
        }
        _ => KNOWN
            .iter()
            .position(|(name, _)| *name == text)
            .ok_or_else(|| format!("`{key}` is TLS12 or TLS13, not `{text}`")),
    };
    let (least, most) = (place("min_version", least, 0)?, place("max_version", most, KNOWN.len() - 1)?);
    if least > most {
        return Err("`min_version` is above `max_version`".to_owned());
    }
    Ok(KNOWN[least..=most].iter().map(|(_, version)| *version).collect())
}
