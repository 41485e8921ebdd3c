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
