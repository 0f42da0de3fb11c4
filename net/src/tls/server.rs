//! What a TLS server is made of: its identities, whom it asks for a certificate, which protocols it speaks. One
//! value for all reactors.
//!
//! Shared means: a ticket that one reactor gave out resumes on every other, and a reload is one swap. Tickets
//! carry the session themselves, encrypted with keys that change by the hour, so that sessions take no memory here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::client::{protocols, roots_of};
use super::error::TlsSetupError;
use super::handshake::{Version, spoken};
use super::heap::keep_freed_memory;
use super::identity::{Choice, Identities, Identity, Pem, provider};

/// How long a handshake may take, if nothing else is said.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes that may be under way on a reactor at a time, if nothing else is said: those whose client has sent its
/// whole ClientHello, and is waited for. Our own choice: each keeps some five kilobytes, and an honest one is done
/// within a few round trips.
pub const HANDSHAKES_MAX: usize = 256;

/// Of the next server.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Terminates TLS. Cheap to clone; give each reactor a clone, so that they resume each other's sessions.
///
/// TLS 1.3 and 1.2; sessions are resumed by tickets; early data (0-RTT), which can be replayed, is refused.
///
/// ```no_run
/// use slipring::tls::{Identity, TlsServer};
///
/// let server = TlsServer::builder()
///     .identity(Identity::from_files("cert.pem", "key.pem")?)
///     .alpn(["h2", "http/1.1"])
///     .build()?;
/// // Later, when the files have been renewed: all or nothing, and without a drop.
/// server.reload()?;
/// # Ok::<(), slipring::tls::TlsSetupError>(())
/// ```
#[derive(Clone)]
pub struct TlsServer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Of its own, in this process.
    number: u64,
    /// With a resolver that is replaced for each handshake.
    config: ServerConfig,
    identities: Arc<Identities>,
    handshake_timeout: Duration,
    handshakes_max: usize,
}

impl TlsServer {
    /// To set one up.
    pub fn builder() -> TlsServerBuilder {
        TlsServerBuilder {
            identities: Vec::new(),
            clients: None,
            alpn: Vec::new(),
            versions: vec![Version::Tls13, Version::Tls12],
            resumption: true,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshakes_max: HANDSHAKES_MAX,
        }
    }

    /// Reads the files of all identities again and, if all of them are good, shows the new ones from the next handshake
    /// on. Connections go on as they are, and tickets stay good. Blocks on the disk: call it from an ordinary thread,
    /// not from a reactor's. What [`replace`](Self::replace) brings meanwhile is not undone: it is read again instead.
    ///
    /// # Errors
    /// [`TlsSetupError`]: what is wrong with the new files. Then nothing has changed.
    pub fn reload(&self) -> Result<(), TlsSetupError> {
        self.shared.identities.reload()
    }

    /// The same with identities that come from elsewhere than the files that were named.
    ///
    /// # Errors
    /// [`TlsSetupError`]: what is wrong with them. Then nothing has changed.
    pub fn replace(
        &self,
        identities: impl IntoIterator<Item = Identity>,
    ) -> Result<(), TlsSetupError> {
        self.shared.identities.replace(identities.into_iter().collect())
    }

    /// How long a handshake may take.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.shared.handshake_timeout
    }

    /// How many may be under way on a reactor at a time.
    #[must_use]
    pub fn handshakes_max(&self) -> usize {
        self.shared.handshakes_max
    }

    /// Tells it and its clones from other servers.
    pub(super) fn number(&self) -> u64 {
        self.shared.number
    }

    /// What rustls is given for one handshake, and the choice that will be made in it.
    pub(super) fn config(&self) -> (Arc<ServerConfig>, Arc<Choice>) {
        let choice = Arc::new(Choice::new(Arc::clone(&self.shared.identities)));
        let mut config = self.shared.config.clone();
        config.cert_resolver = choice.clone();
        (Arc::new(config), choice)
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("identities", &self.shared.identities)
            .finish_non_exhaustive()
    }
}

/// Whom to ask for a certificate, and whose to accept.
#[derive(Debug)]
struct Clients {
    roots: Roots,
    required: bool,
}

#[derive(Debug)]
enum Roots {
    File(PathBuf),
    Pem(Vec<u8>),
}

/// Sets up a [`TlsServer`].
#[derive(Debug)]
#[must_use]
pub struct TlsServerBuilder {
    identities: Vec<Identity>,
    clients: Option<Clients>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<Version>,
    resumption: bool,
    handshake_timeout: Duration,
    handshakes_max: usize,
}

impl TlsServerBuilder {
    /// Adds an identity. Which one a client is shown depends on the name it asks for (SNI) and on the DNS names of
    /// the certificates; the first is for everybody else.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Requires a certificate of each client, issued by one of the authorities in a PEM file (mTLS).
    pub fn require_client_certificates(mut self, roots: impl AsRef<Path>) -> Self {
        let roots = Roots::File(roots.as_ref().to_owned());
        self.clients = Some(Clients { roots, required: true });
        self
    }

    /// Asks each client for a certificate, and lets in who has none; one that is shown has to be good.
    pub fn ask_client_certificates(mut self, roots: impl AsRef<Path>) -> Self {
        let roots = Roots::File(roots.as_ref().to_owned());
        self.clients = Some(Clients { roots, required: false });
        self
    }

    /// The same with the authorities in memory, as PEM.
    pub fn client_certificates_of(mut self, roots: &[u8], required: bool) -> Self {
        self.clients = Some(Clients { roots: Roots::Pem(roots.to_vec()), required });
        self
    }

    /// The application protocols that are spoken (ALPN), best first, such as `h2`. A client that names others only is
    /// refused; one that names none is let in. None by default.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// The versions of TLS that are spoken: both by default.
    pub fn versions(mut self, versions: impl IntoIterator<Item = Version>) -> Self {
        self.versions = versions.into_iter().collect();
        self
    }

    /// Whether sessions can be resumed, which saves a client that comes again the signature. They can by default.
    pub fn resumption(mut self, resumption: bool) -> Self {
        self.resumption = resumption;
        self
    }

    /// How long a handshake may take, the wait for its turn included. 5 s by default, our own choice.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How many handshakes of this server may be under way on a reactor at a time; further clients wait for their turn,
    /// and while they do, each of those has a second. [`HANDSHAKES_MAX`] by default; at least 1.
    pub fn handshakes_max(mut self, handshakes: usize) -> Self {
        self.handshakes_max = handshakes.max(1);
        self
    }

    /// The server.
    ///
    /// # Errors
    /// [`TlsSetupError`], with the cause and the remedy.
    pub fn build(self) -> Result<TlsServer, TlsSetupError> {
        let identities = Arc::new(Identities::new(self.identities)?);
        let refused = |source| TlsSetupError::Refused { source };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&spoken(&self.versions))
            .map_err(refused)?;
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let pem = match &clients.roots {
                    Roots::File(path) => Pem::read(path)?,
                    Roots::Pem(bytes) => Pem::given(bytes),
                };
                let roots: Arc<RootCertStore> = Arc::new(roots_of(&pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = match clients.required {
                    true => verifier.build(),
                    false => verifier.allow_unauthenticated().build(),
                };
                builder.with_client_cert_verifier(verifier.map_err(|error| {
                    TlsSetupError::Roots { file: pem.source().clone(), cause: error.to_string() }
                })?)
            }
        };
        let resolver = Arc::new(Choice::new(Arc::clone(&identities)));
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = protocols(self.alpn)?;
        // All ciphers are good ones; scanners want the server to choose among them all the same.
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.resumption {
            config.ticketer = rustls::crypto::ring::Ticketer::new()
                .map_err(|source| TlsSetupError::Random { source })?;
        } else {
            config.send_tls13_tickets = 0;
        }
        keep_freed_memory();
        // Records are opened and sealed by `records`, which takes the keys over after the handshake.
        config.enable_secret_extraction = true;
        Ok(TlsServer {
            shared: Arc::new(Shared {
                number: NUMBERS.fetch_add(1, Ordering::Relaxed),
                config,
                identities,
                handshake_timeout: self.handshake_timeout,
                handshakes_max: self.handshakes_max,
            }),
        })
    }
}
