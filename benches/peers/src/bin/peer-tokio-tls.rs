//! Echo over TLS on tokio and tokio-rustls: the current-thread scheduler, one task and one buffer a connection.
//!
//! rustls is set up as slipring sets it up: the same version and provider, both versions of TLS, sessions in tickets
//! and nowhere else. The buffer holds all of a record, so that 16 KiB are one read and one write.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use slipring_peers::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// As much as a record holds.
const BUFFER_BYTES: usize = 16 * 1024;

async fn echo(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    while let read @ 1.. = stream.read(&mut buffer).await? {
        stream.write_all(&buffer[..read]).await?;
        stream.flush().await?;
    }
    // Our close_notify, in answer to the client's.
    stream.shutdown().await
}

fn config(options: &Options) -> Result<ServerConfig, Box<dyn Error>> {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&options.tls_cert)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&options.tls_key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse_and_pin()?;
    let acceptor = TlsAcceptor::from(Arc::new(config(&options)?));
    let listener = options.listen()?;
    slipring_peers::announce(listener.local_addr()?)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            // How one ended is its client's to tell.
            tokio::task::spawn_local(async move { echo(acceptor, stream).await.is_ok() });
        }
    })
}
