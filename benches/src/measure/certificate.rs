//! A certificate for the servers of one run, and its key.
//!
//! ECDSA on P-256, signed by itself, in files that only this user can read, in a directory that is removed when this is
//! dropped. Nobody is meant to trust it, and the load does not ask whom it is for.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use crate::load::tls::SERVER_NAME;

/// The files of this run's certificate. Dropping it removes them.
#[derive(Debug)]
pub struct Certificate {
    directory: PathBuf,
}

impl Certificate {
    /// Makes the certificate, and writes it.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn new() -> io::Result<Self> {
        let name = format!("slipring-certificate-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let made = Self { directory };
        let names = [SERVER_NAME.to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        fs::write(made.directory.join("cert.pem"), pair.cert.pem())?;
        fs::write(made.directory.join("key.pem"), pair.signing_key.serialize_pem())?;
        Ok(made)
    }

    /// How servers are told of it, ours and the peers alike.
    #[must_use]
    pub fn arguments(&self) -> [String; 4] {
        let file = |name| self.directory.join(name).display().to_string();
        ["--tls-cert".to_owned(), file("cert.pem"), "--tls-key".to_owned(), file("key.pem")]
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_go_with_it() {
        let certificate = Certificate::new().expect("a temporary directory");
        let [_, cert, _, key] = certificate.arguments();
        let text = fs::read_to_string(&cert).expect("it was written");
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----"), "{text}");
        let text = fs::read_to_string(&key).expect("it was written");
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----"), "not a key");
        let directory = certificate.directory.clone();
        drop(certificate);
        assert!(!directory.exists());
    }
}
