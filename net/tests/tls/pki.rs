//! Certificates for the tests: an authority, and what it issues.
#![allow(dead_code, reason = "each test file that has this uses its share of it")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use slipring::tls::{Identity, TlsClient, TlsClientBuilder, TlsServer, TlsServerBuilder};

/// A certificate with its key, as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).expect("a good pair")
    }
}

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // No two have the same name: a stranger is not to be taken for the other with a bad signature.
        let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(parameters, key).expect("a certificate") }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For servers of these names, and for clients.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2120)
    }

    /// The same, valid until the beginning of a year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.not_before = date_time_ymd(2000, 1, 1);
        parameters.not_after = date_time_ymd(year, 1, 1);
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// The authority of most tests.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}

/// A server's certificate for `localhost` and 127.0.0.1, of that authority.
pub(crate) fn localhost() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| authority().issue(&["localhost", "127.0.0.1"]))
}

pub(crate) fn server() -> TlsServerBuilder {
    TlsServer::builder().identity(localhost().identity())
}

pub(crate) fn client() -> TlsClientBuilder {
    TlsClient::builder().roots_pem(authority().pem().as_bytes())
}
