//! What is wrong with certificates and keys is said at the start, with the file and the remedy.

use std::fs;
use std::path::{Path, PathBuf};

use slipring::tls::{Identity, TlsClient, TlsServer, TlsSetupError, Version};

use super::pki::{self, Pair, authority};

/// A folder of this test's own, gone at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("slipring-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("it can be written to");
        path
    }

    pub(crate) fn pair(&self, pair: &Pair) -> (PathBuf, PathBuf) {
        (self.write("cert.pem", &pair.certificate), self.write("key.pem", &pair.key))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One line that names the file and what to do.
fn says(error: &TlsSetupError, file: &Path, what: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than a line: {text}");
    assert!(text.contains(&file.display().to_string()), "{text}");
    for what in what {
        assert!(text.contains(what), "no \"{what}\" in: {text}");
    }
}

#[test]
fn files_that_do_not_hold_what_they_should_are_named() {
    let folder = Folder::new("files");
    let (certificate, key) = folder.pair(pki::localhost());
    let other = folder.write("other.pem", &authority().issue(&["x"]).key);
    let empty = folder.write("empty.pem", "");
    let text = folder.write("text.pem", "no PEM at all\n");
    let missing = folder.0.join("missing.pem");
    let locked = folder.write(
        "locked.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let torn = folder.write("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let nonsense = folder
        .write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n");
    let odd =
        folder.write("odd.pem", "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n");
    let load = |certificate: &Path, key: &Path| {
        Identity::from_files(certificate, key).expect_err("not a pair")
    };

    says(&load(&missing, &key), &missing, &["cannot read", "check the path"]);
    says(&load(&certificate, &missing), &missing, &["cannot read"]);
    says(&load(&empty, &key), &empty, &["no certificate", "-----BEGIN CERTIFICATE-----"]);
    says(&load(&text, &key), &text, &["no certificate"]);
    says(&load(&key, &certificate), &key, &["no certificate", "swapped"]);
    says(&load(&certificate, &certificate), &certificate, &["no private key", "swapped"]);
    says(&load(&certificate, &locked), &locked, &["encrypted", "openssl pkey"]);
    says(&load(&certificate, &empty), &empty, &["no private key"]);
    says(&load(&certificate, &odd), &odd, &["cannot be used", "ECDSA"]);
    says(&load(&torn, &key), &torn, &["not PEM"]);
    says(&load(&nonsense, &key), &nonsense, &["certificate 1", "issue it again"]);
    let mismatch = load(&certificate, &other);
    says(&mismatch, &certificate, &["not that of the first certificate"]);
    says(&mismatch, &other, &["one pair"]);
    Identity::from_files(&certificate, &key).expect("a pair");
}

#[test]
fn both_in_one_file_are_fine() {
    let folder = Folder::new("both");
    let Pair { certificate, key } = pki::localhost();
    let both = folder.write("both.pem", &format!("{key}{certificate}{}", authority().pem()));
    let identity = Identity::from_files(&both, &both).expect("key and certificates");
    assert_eq!(identity.names(), ["localhost"]);
}

#[test]
fn a_server_without_identities_or_with_ambiguous_ones_is_refused() {
    let refused = |builder: slipring::tls::TlsServerBuilder| {
        builder.build().expect_err("it makes no sense").to_string()
    };
    assert!(refused(TlsServer::builder()).contains("at least one identity"));
    let again = authority().issue(&["other.example", "LocalHost"]).identity();
    assert!(refused(pki::server().identity(again)).contains("the name localhost"));
    let nameless = authority().issue(&["10.0.0.1"]).identity();
    assert!(refused(pki::server().identity(nameless.clone())).contains("no DNS names"));
    TlsServer::builder().identity(nameless).build().expect("the first may have none");
    assert!(
        refused(pki::server().alpn([""])).contains("1 to 255 bytes, such as h2 or http/1.1, not 0")
    );
    assert!(
        refused(pki::server().versions([] as [Version; 0])).contains("refused the configuration")
    );
    let roots = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n".as_bytes();
    assert!(refused(pki::server().client_certificates_of(roots, true)).contains("certificate 1"));
    let none = refused(pki::server().require_client_certificates("/nonexistent/ca.pem"));
    assert!(none.contains("/nonexistent/ca.pem"), "{none}");
}

#[test]
fn a_client_without_roots_is_refused() {
    let error = TlsClient::builder().roots_pem(b"").build().expect_err("nobody to trust");
    assert!(matches!(error, TlsSetupError::NoCertificate { .. }), "{error:?}");
    let error = TlsClient::builder().roots_file("/nonexistent.pem").build();
    assert!(matches!(error, Err(TlsSetupError::File { .. })));
}

/// Whether a host has roots is its own business; either way the answer is a client or a remedy.
#[test]
fn the_roots_of_the_host_are_there_or_the_remedy_is_said() {
    match TlsClient::builder().build() {
        Ok(_) => {}
        Err(error) => assert!(error.to_string().contains("ca-certificates"), "{error}"),
    }
}
