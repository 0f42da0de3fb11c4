//! TLS, terminated and originated, by rustls, on the buffers that the kernel filled.
//!
//! | file | what it is |
//! |---|---|
//! | `conn` | a connection of a reactor, encrypted: what `async` code holds |
//! | `establishing` | how one comes about: hello, turn, handshake |
//! | `gate` | who may shake hands, and who waits for that |
//! | `hello` | when a client's first message is whole |
//! | `inbox` | what was decrypted and not taken yet |
//! | `machine` | one connection without its transport: bytes in, plaintext and bytes out |
//! | `handshake` | rustls conducts it, by its unbuffered API |
//! | `records` | what comes after: opened in place, sealed, keys changed |
//! | `server`, `client` | what a side is made of, shared by all reactors |
//! | `identity` | certificates and keys, read, checked, chosen by name, reloaded |
//! | `heap` | what the allocator keeps for the next records |
//! | `error` | what can go wrong |
//!
//! What there is: TLS 1.3 and 1.2, client certificates, SNI, ALPN, resumption by tickets, reload. What there is not:
//! early data (it can be replayed), renegotiation, revocation lists, kTLS (it needs a module of the kernel that the
//! machines this is tested on lack).

mod client;
mod conn;
mod error;
mod establishing;
mod gate;
mod handshake;
mod heap;
mod hello;
mod identity;
mod inbox;
mod machine;
mod records;
mod server;

pub(crate) use client::server_name;
pub use client::{TlsClient, TlsClientBuilder};
pub use conn::TlsConn;
pub use error::{AlertDescription, CertificateError, Seen, Source, TlsError, TlsSetupError};
pub use handshake::{Agreed, Version};
pub use identity::Identity;
pub use machine::{Machine, Plain};
pub use rustls_pki_types::CertificateDer;
pub use server::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, TlsServer, TlsServerBuilder};

/// Its examples are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/tls.md")]
struct Guide;
