//! `redis_get`: asks a Redis server for keys, and prints their values.
//!
//! The idea: a protocol that somebody wrote for tokio speaks over a connection that a reactor dialed, and the answer
//! comes to an ordinary thread. All keys are asked for at once; the answers come in their order. Try it:
//!
//! ```text
//! redis-server --port 7001 &
//! redis-cli -p 7001 set greeting hello
//! cargo run --release --bin redis_get -- --server 127.0.0.1:7001 greeting
//! ```
//!
//! A key that is not there prints as an empty line. Exit codes: 0; 1 when the server answers something else; 2 when it
//! cannot be asked.

use std::io::{self, Error, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use slipring::{DialError, Runtime, Serve};
use slipring_examples::cli::{self, fail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;

/// Asks a Redis server for keys, and prints their values, a line each.
#[derive(Parser, Debug)]
#[command(name = "redis_get", version)]
struct Options {
    /// The server, `IP:PORT`
    #[arg(long, value_name = "ADDR", value_parser = cli::address, default_value = "127.0.0.1:6379")]
    server: SocketAddr,

    /// How long it may all take
    #[arg(long, value_name = "DUR", value_parser = cli::duration, default_value = "5s")]
    timeout: Duration,

    /// The keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum GetError {
    #[error("cannot reach the server: {0}; check --server")]
    Dial(#[from] DialError),
    #[error("the server did not answer in time; check --server, or give it a longer --timeout")]
    Timeout,
    #[error("the server ended the connection: {0}; ask again")]
    Ended(Error),
    #[error("not the protocol of Redis: {0}; check --server")]
    Protocol(redis_protocol::error::RedisProtocolError),
}

impl From<redis_protocol::error::RedisProtocolError> for GetError {
    fn from(error: redis_protocol::error::RedisProtocolError) -> Self {
        Self::Protocol(error)
    }
}

async fn get<T>(stream: T, keys: Vec<String>) -> Result<Vec<BytesFrame>, GetError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut redis = Framed::new(stream, Resp2::default());
    let count = keys.len();
    for key in keys {
        let words = ["GET".to_owned(), key].map(|word| BytesFrame::BulkString(word.into()));
        redis.feed(BytesFrame::Array(words.into())).await?;
    }
    SinkExt::<BytesFrame>::flush(&mut redis).await?;
    let mut values = Vec::new();
    while values.len() < count {
        let early = || GetError::Ended(io::ErrorKind::UnexpectedEof.into());
        values.push(redis.next().await.ok_or_else(early)??);
    }
    Ok(values)
}

/// A line for each value; whether all were values.
fn print(values: &[BytesFrame]) -> io::Result<bool> {
    let mut all_good = true;
    let mut stdout = io::stdout().lock();
    for value in values {
        match value {
            BytesFrame::BulkString(bytes) => {
                stdout.write_all(bytes)?;
                stdout.write_all(b"\n")?;
            }
            BytesFrame::Null => stdout.write_all(b"\n")?,
            other => {
                all_good = false;
                let _ = writeln!(io::stderr(), "the server answered: {other:?}");
            }
        }
    }
    stdout.flush()?;
    Ok(all_good)
}

fn main() -> ExitCode {
    let options: Options = cli::parse();
    let builder = Runtime::builder().cores([0]).max_connections(0).max_dialed(1);
    let serving = builder.serve(async |_nobody| {}).unwrap_or_else(|error| fail(error));
    let values = serving.spawner().spawn(move || async move {
        let asked = async { get(slipring::dial(options.server).await?, options.keys).await };
        slipring::timeout(options.timeout, asked).await.unwrap_or(Err(GetError::Timeout))
    });
    let values = match values.join() {
        Ok(values) => values.unwrap_or_else(|error| fail(error)),
        Err(error) => fail(format_args!("{error}; report this")),
    };
    serving.handle().drain();
    let ended = serving.join();
    match (print(&values), ended) {
        (Ok(true), Ok(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
