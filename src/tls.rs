//! TLS for the whole process: the one place that names the cryptography provider.

use std::sync::Once;

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
