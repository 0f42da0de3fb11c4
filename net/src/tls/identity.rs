//! Who we are to a peer: a certificate with its issuers, and its key, read from PEM.
//!
//! ```text
//!   files or bytes --read--> Identity --by its names--> Identities --SNI--> what a client is shown
//!                                                        swapped whole by a reload
//! ```
//!
//! What can be found out before the first client comes is: that the files can be read, hold what they should, and
//! belong together. A certificate that has expired, or is not valid yet, is a warning in the log and no error:
//! whether that is fatal is for the client to say, and a server that refuses to start makes it certain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::error::{Seen, Source, TlsSetupError};

/// A certificate, those of its issuers, and its private key.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    /// Its DNS names, in lower case; `*.` in front stands for one label.
    names: Vec<String>,
    origin: Source,
    /// The files it came from, to be read again.
    files: Option<(PathBuf, PathBuf)>,
}

impl Identity {
    /// From a PEM file with the certificate, followed by those of its issuers, and one with its key, which may be
    /// the same.
    ///
    /// # Errors
    /// [`TlsSetupError`]: a file cannot be read, does not hold what it should, or the two are no pair.
    pub fn from_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsSetupError> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let chain = Pem::read(certificates)?;
        let mut identity = Self::new(&chain, &Pem::read(key)?)?;
        identity.files = Some((certificates.to_owned(), key.to_owned()));
        Ok(identity)
    }

    /// From the same in memory.
    ///
    /// # Errors
    /// [`TlsSetupError`]: the bytes do not hold what they should, or the two are no pair.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsSetupError> {
        Self::new(&Pem::given(certificates), &Pem::given(key))
    }

    fn new(certificates: &Pem, key: &Pem) -> Result<Self, TlsSetupError> {
        let chain = certificates.certificates()?;
        let provider = provider();
        let signing = provider
            .key_provider
            .load_private_key(key.key()?)
            .map_err(|source| TlsSetupError::Key { file: key.source.clone(), source })?;
        let unusable = |source| TlsSetupError::Certificate {
            file: certificates.source.clone(),
            number: 1,
            source,
        };
        let names = {
            let first = webpki::EndEntityCert::try_from(&chain[0]).map_err(|_| {
                unusable(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))
            })?;
            warn_of_time(&first, &chain[0], &certificates.source);
            first.valid_dns_names().map(str::to_ascii_lowercase).collect()
        };
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(TlsSetupError::KeyMismatch {
                    certificates: certificates.source.clone(),
                    key: key.source.clone(),
                });
            }
            Err(source) => return Err(unusable(source)),
        }
        let certified = Arc::new(certified);
        Ok(Self { certified, names, origin: certificates.source.clone(), files: None })
    }

    /// Reads its files again; one that came from memory stays what it is.
    fn again(&self) -> Result<Self, TlsSetupError> {
        match &self.files {
            Some((certificates, key)) => Self::from_files(certificates, key),
            None => Ok(self.clone()),
        }
    }

    /// The DNS names that its certificate is for, in lower case.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The ciphers, key exchanges and signatures of all TLS here. Passed explicitly wherever rustls wants one, so that
/// nothing depends on what else a process has installed.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Says so if the certificate is not valid now. (Its validity is judged first, so it need not have an issuer.)
fn warn_of_time(first: &webpki::EndEntityCert<'_>, der: &CertificateDer<'_>, source: &Source) {
    let Ok(anchor) = webpki::anchor_from_trusted_cert(der) else { return };
    let anchors = [anchor];
    let outcome = first.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &[],
        UnixTime::now(),
        webpki::KeyUsage::server_auth(),
        None,
        None,
    );
    match outcome {
        Err(webpki::Error::CertExpired { .. }) => {
            tracing::warn!(
                "the certificate in {source} has expired: clients will refuse it; renew it"
            );
        }
        Err(webpki::Error::CertNotValidYet { .. }) => {
            tracing::warn!(
                "the certificate in {source} is not valid yet; is the clock of this host right?"
            );
        }
        _ => {}
    }
}

/// PEM, and where it came from.
pub(super) struct Pem {
    bytes: Vec<u8>,
    source: Source,
}

impl Pem {
    pub(super) fn read(path: &Path) -> Result<Self, TlsSetupError> {
        let source = Source::file(path);
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self { bytes, source }),
            Err(error) => Err(TlsSetupError::File { file: source, source: error }),
        }
    }

    pub(super) fn given(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), source: Source::Memory }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// The certificates in it, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
        let wrong = |source| TlsSetupError::Pem { file: self.source.clone(), source };
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<_, _>>().map_err(wrong)?;
        if chain.is_empty() {
            return Err(TlsSetupError::NoCertificate {
                file: self.source.clone(),
                seen: self.seen(),
            });
        }
        Ok(chain)
    }

    /// The first private key in it.
    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
        match PrivateKeyDer::pem_slice_iter(&self.bytes).next() {
            Some(Ok(key)) => Ok(key),
            Some(Err(source)) => Err(TlsSetupError::Pem { file: self.source.clone(), source }),
            None => Err(TlsSetupError::NoKey { file: self.source.clone(), seen: self.seen() }),
        }
    }

    /// What there is in it.
    fn seen(&self) -> Seen {
        let text = String::from_utf8_lossy(&self.bytes);
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Seen::EncryptedKey;
        }
        let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(&self.bytes);
        let mut seen = if text.contains("-----BEGIN ") { Seen::Other } else { Seen::Nothing };
        for (kind, _) in sections.flatten() {
            match kind {
                SectionKind::Certificate => return Seen::Certificates,
                SectionKind::PrivateKey
                | SectionKind::RsaPrivateKey
                | SectionKind::EcPrivateKey => seen = Seen::Key,
                _ => {}
            }
        }
        seen
    }
}

/// Who a server is, by the name that a client asks for.
#[derive(Debug)]
struct Chosen {
    identities: Vec<Identity>,
    by_name: BTreeMap<String, usize>,
}

impl Chosen {
    fn new(identities: Vec<Identity>) -> Result<Self, TlsSetupError> {
        if identities.is_empty() {
            return Err(TlsSetupError::NoIdentity);
        }
        let mut by_name = BTreeMap::new();
        for (place, identity) in identities.iter().enumerate() {
            if identity.names.is_empty() && place > 0 {
                return Err(TlsSetupError::NoNames { file: identity.origin.clone() });
            }
            for name in &identity.names {
                let before = by_name.insert(name.clone(), place);
                if before.is_some_and(|before| before != place) {
                    return Err(TlsSetupError::NameTwice { name: name.clone() });
                }
            }
        }
        Ok(Self { identities, by_name })
    }

    /// The one for this name, or for names like it; otherwise the first.
    fn identity(&self, name: Option<&str>) -> &Identity {
        let place = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let like = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            self.by_name.get(&name).or_else(|| self.by_name.get(&like?)).copied()
        });
        &self.identities[place.unwrap_or(0)]
    }
}

/// The identities of a server, shared by all reactors, and swapped whole.
#[derive(Debug)]
pub(super) struct Identities {
    /// Read once for each handshake, written by a reload: the lock is held for a pointer's copy.
    chosen: RwLock<Arc<Chosen>>,
}

impl Identities {
    pub(super) fn new(identities: Vec<Identity>) -> Result<Self, TlsSetupError> {
        Ok(Self { chosen: RwLock::new(Arc::new(Chosen::new(identities)?)) })
    }

    fn current(&self) -> Arc<Chosen> {
        Arc::clone(&self.chosen.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, identities: Vec<Identity>) -> Result<(), TlsSetupError> {
        let chosen = Arc::new(Chosen::new(identities)?);
        *self.chosen.write().unwrap_or_else(PoisonError::into_inner) = chosen;
        Ok(())
    }

    pub(super) fn reload(&self) -> Result<(), TlsSetupError> {
        self.reload_by(Identity::again)
    }

    fn reload_by(
        &self,
        again: impl Fn(&Identity) -> Result<Identity, TlsSetupError>,
    ) -> Result<(), TlsSetupError> {
        loop {
            let before = self.current();
            let read = before.identities.iter().map(&again).collect::<Result<_, _>>()?;
            let read = Arc::new(Chosen::new(read)?);
            let mut chosen = self.chosen.write().unwrap_or_else(PoisonError::into_inner);
            // Otherwise somebody was faster, with what may be newer: those are read then.
            if Arc::ptr_eq(&chosen, &before) {
                *chosen = read;
                return Ok(());
            }
        }
    }
}

/// Chooses for one handshake, and remembers the name that was asked for, which rustls does not tell afterwards.
#[derive(Debug)]
pub(super) struct Choice {
    identities: Arc<Identities>,
    asked: RwLock<Option<String>>,
}

impl Choice {
    pub(super) fn new(identities: Arc<Identities>) -> Self {
        Self { identities, asked: RwLock::new(None) }
    }

    /// The name the client asked for.
    pub(super) fn asked(&self) -> Option<String> {
        self.asked.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        *self.asked.write().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_owned);
        Some(Arc::clone(&self.identities.current().identity(name).certified))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn identity(name: &str) -> Identity {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a pair");
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("a pair")
    }

    /// Others come while the files are read.
    #[test]
    fn a_reload_does_not_undo_what_came_while_it_read() {
        let identities = Identities::new(vec![identity("first")]).expect("one");
        let reads = Cell::new(0);
        let again = |identity: &Identity| {
            reads.set(reads.get() + 1);
            if reads.get() == 1 {
                identities.replace(vec![self::identity("second")])?;
            }
            identity.again()
        };
        identities.reload_by(again).expect("good ones");
        assert_eq!(identities.current().identities[0].names(), ["second"]);
        assert_eq!(reads.get(), 2, "the others are read again too");
    }
}
