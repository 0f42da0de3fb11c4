//! What a TLS client is made of: whom it trusts, who it is, which protocols it offers. One value for all reactors.
//!
//! By default it trusts whom the host trusts (`rustls-platform-verifier`): the host's packages renew that list and
//! take authorities off it that went bad, and a company's own authority is in it already. A list compiled in
//! (`webpki-roots`) would be as old as the build.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientSessionMemoryCache, WebPkiServerVerifier};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use rustls_platform_verifier::Verifier;

use super::error::{TlsError, TlsSetupError};
use super::handshake::{Version, spoken};
use super::heap::keep_freed_memory;
use super::identity::{Identity, Pem, provider};
use super::server::HANDSHAKE_TIMEOUT;

/// Servers whose sessions a client remembers.
const SERVERS_REMEMBERED: usize = 1024;

/// Originates TLS. Cheap to clone; give each reactor a clone, so that they resume each other's sessions.
///
/// ```no_run
/// use slipring::tls::TlsClient;
///
/// let client = TlsClient::builder().alpn(["h2"]).build()?;
/// # Ok::<(), slipring::tls::TlsSetupError>(())
/// ```
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    handshake_timeout: Duration,
}

impl TlsClient {
    /// To set one up.
    pub fn builder() -> TlsClientBuilder {
        TlsClientBuilder {
            roots: Roots::Host,
            identity: None,
            alpn: Vec::new(),
            versions: vec![Version::Tls13, Version::Tls12],
            resumption: true,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }

    /// How long a handshake may take.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Roots {
    Host,
    File(PathBuf),
    Pem(Vec<u8>),
}

/// Sets up a [`TlsClient`].
#[derive(Debug)]
#[must_use]
pub struct TlsClientBuilder {
    roots: Roots,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<Version>,
    resumption: bool,
    handshake_timeout: Duration,
}

impl TlsClientBuilder {
    /// Trusts the authorities in a PEM file, and no others.
    pub fn roots_file(mut self, roots: impl AsRef<Path>) -> Self {
        self.roots = Roots::File(roots.as_ref().to_owned());
        self
    }

    /// Trusts the authorities in this PEM, and no others.
    pub fn roots_pem(mut self, roots: &[u8]) -> Self {
        self.roots = Roots::Pem(roots.to_vec());
        self
    }

    /// The certificate to show to servers that ask for one (mTLS).
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The application protocols to offer (ALPN), best first, such as `h2`. None by default.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// The versions of TLS that are spoken: both by default.
    pub fn versions(mut self, versions: impl IntoIterator<Item = Version>) -> Self {
        self.versions = versions.into_iter().collect();
        self
    }

    /// Whether sessions are resumed where the server lets us. They are by default.
    pub fn resumption(mut self, resumption: bool) -> Self {
        self.resumption = resumption;
        self
    }

    /// How long a handshake may take. 5 s by default, our own choice.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// [`TlsSetupError`], with the cause and the remedy.
    pub fn build(self) -> Result<TlsClient, TlsSetupError> {
        let refused = |source| TlsSetupError::Refused { source };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&spoken(&self.versions))
            .map_err(refused)?
            .dangerous()
            .with_custom_certificate_verifier(self.roots.verifier()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certified = Arc::clone(&identity.certified);
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                    certified,
                )))
            }
        };
        config.alpn_protocols = protocols(self.alpn)?;
        config.resumption = match self.resumption {
            true => Resumption::store(Arc::new(ClientSessionMemoryCache::new(SERVERS_REMEMBERED))),
            false => Resumption::disabled(),
        };
        keep_freed_memory();
        // Records are opened and sealed by `records`, which takes the keys over after the handshake.
        config.enable_secret_extraction = true;
        Ok(TlsClient { config: Arc::new(config), handshake_timeout: self.handshake_timeout })
    }
}

impl Roots {
    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
        let pem = match self {
            Self::Host => {
                let verifier = Verifier::new(provider())
                    .map_err(|source| TlsSetupError::HostRoots { source })?;
                return Ok(Arc::new(verifier));
            }
            Self::File(path) => Pem::read(path)?,
            Self::Pem(bytes) => Pem::given(bytes),
        };
        let roots = Arc::new(roots_of(&pem)?);
        match WebPkiServerVerifier::builder_with_provider(roots, provider()).build() {
            Ok(verifier) => Ok(verifier),
            Err(error) => {
                let file = pem.source().clone();
                Err(TlsSetupError::Roots { file, cause: error.to_string() })
            }
        }
    }
}

/// The authorities in PEM. One that cannot be used is an error: who lists it means to trust it.
pub(super) fn roots_of(pem: &Pem) -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    for (place, certificate) in pem.certificates()?.into_iter().enumerate() {
        roots.add(certificate).map_err(|source| TlsSetupError::Certificate {
            file: pem.source().clone(),
            number: place + 1,
            source,
        })?;
    }
    Ok(roots)
}

/// Names of application protocols, as ALPN can carry them.
pub(super) fn protocols(names: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, TlsSetupError> {
    match names.iter().find(|name| !(1..=255).contains(&name.len())) {
        Some(name) => Err(TlsSetupError::Protocol { length: name.len() }),
        None => Ok(names),
    }
}

/// The name a server's certificate has to be for.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadName { name: name.to_owned() })
}
