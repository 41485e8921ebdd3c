//! Certificates made for one test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

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
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = parameters(names, &years).self_signed(&key).expect("it can be signed");
        let until = years.end();
        Certificate {
            certificate: scratch.write(&format!("certificate-{until}.pem"), &certificate.pem()),
            key: scratch.write(&format!("key-{until}.pem"), &key.serialize_pem()),
        }
    }
}

fn parameters(names: &[&str], years: &std::ops::RangeInclusive<i32>) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("the names are names");
    parameters.not_before = rcgen::date_time_ymd(*years.start(), 1, 1);
    parameters.not_after = rcgen::date_time_ymd(*years.end(), 1, 1);
    parameters
}

/// An issuer that only its `ca_file` makes trusted.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub ca_file: PathBuf,
}

impl Authority {
    /// One of this name, with its certificate in `directory`.
    pub fn new(name: &str, directory: &Path) -> Authority {
        let key = KeyPair::generate().expect("a key can be made");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).expect("it signs itself").pem();
        let ca_file = directory.join(format!("{name}.pem"));
        std::fs::write(&ca_file, certificate).expect("the directory can be written");
        Authority { issuer: Issuer::new(parameters, key), ca_file }
    }

    /// A certificate for these names and its key; an expired one ended in 2021.
    pub fn issue(&self, names: &[&str], is_expired: bool) -> (rcgen::Certificate, KeyPair) {
        let years = if is_expired { 2020..=2021 } else { 2020..=4000 };
        self.sign(parameters(names, &years))
    }

    /// A certificate for these names that ends so long after 1970, and its key.
    pub fn issue_until(&self, names: &[&str], end: Duration) -> (rcgen::Certificate, KeyPair) {
        let mut parameters = parameters(names, &(2020..=2021));
        parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        self.sign(parameters)
    }

    fn sign(&self, parameters: CertificateParams) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key can be made");
        (parameters.signed_by(&key, &self.issuer).expect("it can be signed"), key)
    }

    /// The same as files in `scratch`.
    pub fn issue_files(&self, scratch: &Scratch, name: &str, is_expired: bool) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(&[name], is_expired);
        let stem = format!("{name}-{is_expired}");
        let certificate = scratch.write(&format!("{stem}.pem"), &certificate.pem());
        (certificate, scratch.write(&format!("{stem}.key"), &key.serialize_pem()))
    }
}
