//! `line_chat`: what one client says, all others hear, a line at a time.
//!
//! The idea: a codec of tokio-util frames a reactor's connection, and a channel of tokio, which needs no runtime of
//! tokio's, reaches the clients of all reactors. Nothing grows without a bound: whoever does not read misses lines, and
//! is told how many. Try it, in two terminals:
//!
//! ```text
//! cargo run --release --bin line_chat
//! nc 127.0.0.1 7000
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use futures_util::future::{Either, select};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use slipring::Conn;
use slipring_examples::cli::ServerOptions;
use slipring_examples::service;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::{Receiver, Sender, channel, error::RecvError};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

/// What one client says, all others hear.
#[derive(Parser, Debug)]
#[command(name = "line_chat", version)]
struct Options {
    #[command(flatten)]
    server: ServerOptions,
}

/// Lines kept for those who are slow; who is slower misses the oldest.
const LINES_KEPT: usize = 256;
/// A longer line ends its client.
const LINE_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug)]
struct Said {
    by: u64,
    line: Arc<str>,
}

/// Until the client ends its direction.
async fn talk(
    mut lines: impl Stream<Item = Result<String, LinesCodecError>> + Unpin,
    by: u64,
    all: &Sender<Said>,
) {
    while let Some(line) = lines.next().await {
        let said = match &line {
            Ok(line) => format!("{by}: {line}"),
            Err(_) => return,
        };
        // Without anybody to hear it.
        let _ = all.send(Said { by, line: said.into() });
    }
}

/// Until the client is gone.
async fn listen(
    mut lines: impl Sink<String, Error = LinesCodecError> + Unpin,
    own: u64,
    mut all: Receiver<Said>,
) -> Result<(), LinesCodecError> {
    lines.send(format!("you are {own}")).await?;
    loop {
        match all.recv().await {
            Ok(said) if said.by == own => {}
            Ok(said) => lines.send(said.line.to_string()).await?,
            Err(RecvError::Lagged(missed)) => {
                lines.send(format!("you missed {missed} lines")).await?;
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

async fn chat<T: AsyncRead + AsyncWrite>(stream: T, own: u64, all: Sender<Said>) {
    let stream = Box::pin(stream);
    let framed = Framed::new(stream, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
    let (sink, stream) = framed.split();
    let heard = all.subscribe();
    let talk = pin!(talk(stream, own, &all));
    let listen = pin!(listen(sink, own, heard));
    let served = select(talk, listen);
    // An order to drain ends it between two lines.
    if let Either::Left((Either::Right((Err(error), _)), _)) =
        select(served, pin!(slipring::draining())).await
    {
        tracing::debug!(%error, "a client is gone");
    }
}

fn main() -> ExitCode {
    let (options, signals) = service::begin::<Options>();
    let (all, _) = channel(LINES_KEPT);
    let clients = Arc::new(AtomicU64::new(1));
    let tls = options.server.tls.server(&[]);
    service::serve(&options.server, signals, move |conn: Conn| {
        let (own, all, tls) = (clients.fetch_add(1, Ordering::Relaxed), all.clone(), tls.clone());
        async move {
            let Some(tls) = tls else { return chat(conn, own, all).await };
            match tls.accept(conn).await {
                Ok(conn) => chat(conn, own, all).await,
                Err(error) => tracing::debug!(%error, "no handshake"),
            }
        }
    })
}
