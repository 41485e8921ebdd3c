//! TLS for the whole process: the one place that names the cryptography provider.

pub(crate) mod der;

use std::path::Path;
use std::sync::{Arc, Once, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    WantsVerifier,
};
use rustls_platform_verifier::Verifier;

/// Installs the provider. The first statement of `main`, and of every test that builds a client; further calls do nothing.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only if another provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The TLS library's own error, wherever it is in a chain of errors. `source` does not show it where an `io::Error` holds it.
pub fn error_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match held {
        Some(held) => error_in(held),
        None => error.source().and_then(error_in),
    }
}

/// What went wrong in a handshake with `peer`, for people.
pub fn words(error: &rustls::Error, peer: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {peer} has expired ({error})")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("the certificate of {peer} is for another name ({error})"),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("the certificate of {peer} is from an issuer that is not trusted; `ca_file` can name it ({error})")
        }
        _ => format!("TLS with {peer} failed: {error}"),
    }
}

/// A client's configuration that trusts the system's certificates, and those of `ca_file` (PEM) beside them.
///
/// # Errors
/// In words: certificates that cannot be read.
pub fn client(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let (builder, provider) = builder()?;
    let verifier = verifier(ca_file, provider)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Who is told of a handshake while it is made, by the task that makes it.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The certificate that is shown, in DER, before it is verified.
    pub certificate: fn(&[u8]),
    /// The protocol's version, once the other side has proven that the certificate is its own.
    pub version: fn(&'static str),
}

/// As [`client`], watched. It resumes nothing: a resumed session shows no certificate, and a monitor must see the one that is
/// served today.
///
/// # Errors
/// As [`client`].
pub fn watched_client(ca_file: Option<&Path>, watch: Watch) -> Result<ClientConfig, String> {
    let (builder, provider) = builder()?;
    let verifier = Arc::new(Watched { verifier: verifier(ca_file, provider)?, watch });
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Tells of what is to be verified, and leaves the verdict to another.
#[derive(Debug)]
struct Watched {
    verifier: Arc<Verifier>,
    watch: Watch,
}

impl ServerCertVerifier for Watched {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        (self.watch.certificate)(end_entity);
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verified = self.verifier.verify_tls12_signature(message, certificate, signature);
        verified.inspect(|_| (self.watch.version)("TLSv1.2"))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verified = self.verifier.verify_tls13_signature(message, certificate, signature);
        verified.inspect(|_| (self.watch.version)("TLSv1.3"))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.verifier.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.verifier.root_hint_subjects()
    }
}

fn verifier(ca_file: Option<&Path>, provider: Arc<CryptoProvider>) -> Result<Arc<Verifier>, String> {
    // A root store is some 200 kB and milliseconds of parsing: everyone without roots of their own shares one.
    static SYSTEM: OnceLock<Arc<Verifier>> = OnceLock::new();
    Ok(match ca_file {
        Some(path) => {
            let told = |what: &dyn std::fmt::Display| format!("`ca_file` {}: {what}", path.display());
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| told(&error))?;
            if certificates.is_empty() {
                return Err(told(&"no certificate in it; it must be in PEM format"));
            }
            Arc::new(Verifier::new_with_extra_roots(certificates, provider).map_err(|error| told(&error))?)
        }
        None => match SYSTEM.get() {
            Some(verifier) => verifier.clone(),
            None => {
                let verifier = Verifier::new(provider).map_err(|error| {
                    format!(
                        "the system's certificates cannot be loaded ({error}); install them (Debian: `ca-certificates`) or set `ca_file`"
                    )
                })?;
                SYSTEM.get_or_init(|| Arc::new(verifier)).clone()
            }
        },
    })
}

/// A client's configuration that trusts this one certificate, whatever name and time it is for: the other side's own, from its files.
///
/// # Errors
/// In words: TLS cannot be set up at all.
pub fn client_that_knows(certificate: CertificateDer<'static>) -> Result<ClientConfig, String> {
    let (builder, provider) = builder()?;
    let verifier = Arc::new(Known { certificate, provider });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Knows one certificate by its bytes, and has the other side prove that it has the key.
#[derive(Debug)]
struct Known {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A client's configuration that trusts nobody: for a client that speaks no TLS, where the system has no certificates.
///
/// # Errors
/// In words: TLS cannot be set up at all.
pub fn client_without_roots() -> Result<ClientConfig, String> {
    let (builder, _) = builder()?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<(ConfigBuilder<ClientConfig, WantsVerifier>, Arc<CryptoProvider>), String> {
    init();
    let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?.clone();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok((builder, provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_error_is_found_wherever_it_hides() {
        let tls = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(error_in(&tls()).is_some());
        assert!(error_in(&std::io::Error::other(tls())).is_some());
        assert!(error_in(&std::io::Error::other(std::io::Error::other(tls()))).is_some());
        assert!(error_in(&std::io::Error::other("refused")).is_none());
    }
}
