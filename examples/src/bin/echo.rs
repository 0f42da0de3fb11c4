//! `echo`: sends every byte back to where it came from.
//!
//! The smallest complete server, three times: as a handler, as an `async fn`, and over TLS. Ten lines each are the
//! service, the rest is its command line.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use slipring::tls::{TlsError, TlsServer};
use slipring::{Conn, Ctx, Handler, Lease, SendError, Timeout};
use slipring_examples::cli::{self, SharedOptions, TlsOptions};
use slipring_examples::service;

/// Sends every byte back to where it came from.
#[derive(Parser, Debug)]
#[command(name = "echo", version)]
struct Options {
    /// Where to listen, `IP:PORT`; port 0 takes a free one. May be given several times
    /// [default: 127.0.0.1:7000]
    #[arg(long, value_name = "ADDR", value_parser = cli::address)]
    listen: Vec<SocketAddr>,

    /// How the service is written: as callbacks or as an async function. Clients see no difference
    #[arg(long, value_enum, default_value_t = Api::Handler)]
    api: Api,

    #[command(flatten)]
    tls: TlsOptions,

    #[command(flatten)]
    shared: SharedOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Api {
    Handler,
    Async,
}

struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

async fn echo(mut conn: Conn) -> Result<(), SendError> {
    while let Some(data) = conn.recv().await {
        conn.send(data).await?;
    }
    Ok(())
}

async fn echo_tls(conn: Conn, server: TlsServer) -> Result<(), TlsError> {
    let mut conn = server.accept(conn).await?;
    while let Some(data) = conn.recv().await? {
        conn.send(data).await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let (mut options, signals) = service::begin::<Options>();
    if options.listen.is_empty() {
        options.listen.push(SocketAddr::from(([127, 0, 0, 1], 7000)));
    }
    let builder = service::builder(&options.shared, &options.listen, Timeout::seconds(60), false);
    let running = match (options.tls.server(&[]), options.api) {
        // Written one way only: an async function.
        (Some(server), _) => service::start(builder, move |_reactor| {
            let server = server.clone();
            slipring::tasks(move |conn| echo_tls(conn, server.clone()))
        }),
        (None, Api::Handler) => service::start(builder, |_reactor| Echo),
        (None, Api::Async) => service::start(builder, |_reactor| slipring::tasks(echo)),
    };
    service::announce(&running);
    service::run_until_signal(signals, vec![running], &options.shared)
}
