//! `proxy`: relays every client to one of several upstreams, in turn.
//!
//! Without arguments it is its own demonstration: two echo upstreams in the same process, and a proxy before
//! them.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use slipring::{Ctx, Handler, Lease, Relay, Running, Timeout};
use slipring_examples::cli::{self, Addresses, SharedOptions};
use slipring_examples::service;

/// Relays every client to one of several upstreams, in turn. Without --listen and --to: a demonstration on
/// 127.0.0.1:7000, with two echo upstreams inside.
#[derive(Parser, Debug)]
#[command(name = "proxy", version)]
struct Options {
    /// Where to listen, `IP:PORT`; port 0 takes a free one
    #[arg(long, value_name = "ADDR", value_parser = cli::address, requires = "to")]
    listen: Option<SocketAddr>,

    /// The upstreams, `IP:PORT[,IP:PORT...]`
    #[arg(long, value_name = "ADDR[,ADDR...]", value_parser = cli::addresses, requires = "listen")]
    to: Option<Addresses>,

    #[command(flatten)]
    shared: SharedOptions,
}

/// The demonstration's upstream.
struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

const DEMO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7000);

fn main() -> ExitCode {
    let (options, signals) = service::begin::<Options>();
    let (listen, to, mut running) = match (options.listen, options.to) {
        (Some(listen), Some(to)) => (listen, to, Vec::new()),
        _ => {
            let upstreams = [demo_upstream(&options.shared), demo_upstream(&options.shared)];
            let to = upstreams.iter().map(|upstream| upstream.addresses()[0]).collect();
            (DEMO, to, Vec::from(upstreams))
        }
    };
    let demo = !running.is_empty();
    let builder = service::builder(&options.shared, &[listen], Timeout::seconds(3600), true);
    let upstreams: Arc<[SocketAddr]> = to.into();
    let proxy = service::start(builder, {
        let upstreams = Arc::clone(&upstreams);
        move |reactor| Relay::new(Arc::clone(&upstreams), reactor)
    });
    service::announce(&proxy);
    if demo {
        explain(&proxy, &upstreams);
    }
    // The proxy first: it has to be over before its upstreams are waited for.
    running.insert(0, proxy);
    service::run_until_signal(signals, running, &options.shared)
}

/// One reactor that echoes, on a free port.
fn demo_upstream(shared: &SharedOptions) -> Running {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let one_core = shared.cores.as_ref().map(|cores| vec![cores[0]]);
    let shared = SharedOptions { cores: one_core, max_connections: Some(1024), ..shared.clone() };
    let builder = service::builder(&shared, &[free], Timeout::seconds(3600), false);
    service::start(builder, |_reactor| Echo)
}

fn explain(proxy: &Running, upstreams: &[SocketAddr]) {
    let address = proxy.addresses()[0];
    let upstreams: Vec<_> = upstreams.iter().map(ToString::to_string).collect();
    // Whoever closed stderr does not want to know.
    let _ = writeln!(
        std::io::stderr(),
        "\nDemonstration: {address} relays to two echo upstreams in this process ({}).\n\
         In another terminal type\n\n    nc {} {}\n\nand then anything: it comes back. Ctrl-C drains and ends.\n",
        upstreams.join(", "),
        address.ip(),
        address.port()
    );
}
