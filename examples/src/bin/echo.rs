//! `echo`: sends every byte back to where it came from.
//!
//! The smallest complete server: ten lines are the service, the rest is its command line.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use slipring::{Ctx, Handler, Lease, Timeout};
use slipring_examples::cli::{self, SharedOptions};
use slipring_examples::service;

/// Sends every byte back to where it came from.
#[derive(Parser, Debug)]
#[command(name = "echo", version)]
struct Options {
    /// Where to listen, `IP:PORT`; port 0 takes a free one. May be given several times
    /// [default: 127.0.0.1:7000]
    #[arg(long, value_name = "ADDR", value_parser = cli::address)]
    listen: Vec<SocketAddr>,

    #[command(flatten)]
    shared: SharedOptions,
}

struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

fn main() -> ExitCode {
    let (mut options, signals) = service::begin::<Options>();
    if options.listen.is_empty() {
        options.listen.push(SocketAddr::from(([127, 0, 0, 1], 7000)));
    }
    let builder = service::builder(&options.shared, &options.listen, Timeout::seconds(60), false);
    let running = service::start(builder, |_reactor| Echo);
    service::announce(&running);
    service::run_until_signal(signals, vec![running], &options.shared)
}
