//! Certificates made for one test.

use std::path::PathBuf;

use super::Scratch;

/// A certificate that signed itself, and its key, as files.
pub struct Certificate {
    /// The certificate, in PEM; naming it in `ca_file` makes it trusted.
    pub certificate: PathBuf,
    /// The key, in PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// One for these names, in `scratch`.
    pub fn new(scratch: &Scratch, names: &[&str]) -> Certificate {
        Certificate::valid_in(scratch, names, 2020..=4000)
    }

    /// One for these names that has expired.
    pub fn expired(scratch: &Scratch, names: &[&str]) -> Certificate {
        Certificate::valid_in(scratch, names, 2020..=2021)
    }

    fn valid_in(scratch: &Scratch, names: &[&str], years: std::ops::RangeInclusive<i32>) -> Certificate {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).expect("the names are names");
        parameters.not_before = rcgen::date_time_ymd(*years.start(), 1, 1);
        parameters.not_after = rcgen::date_time_ymd(*years.end(), 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let certificate = parameters.self_signed(&key).expect("it can be signed");
        let until = years.end();
        Certificate {
            certificate: scratch.write(&format!("certificate-{until}.pem"), &certificate.pem()),
            key: scratch.write(&format!("key-{until}.pem"), &key.serialize_pem()),
        }
    }
}
