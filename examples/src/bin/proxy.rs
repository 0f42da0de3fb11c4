//! `proxy`: relays every client to an endpoint of one upstream that works.
//!
//! Without arguments it is its own demonstration: two echo upstreams in the same process, and a proxy before
//! them.

use std::future::poll_fn;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Duration;

use clap::Parser;
use slipring::connector::{ConnectLimits, Connector};
use slipring::faults::Faults;
use slipring::health::Check;
use slipring::policy::balancer::BalancerLimits;
use slipring::policy::breaker::BreakerLimits;
use slipring::policy::budget::BudgetLimits;
use slipring::policy::faults::{Rule, Rules};
use slipring::policy::health::HealthLimits;
use slipring::policy::outlier::OutlierLimits;
use slipring::policy::retry::RetryPolicy;
use slipring::resolve::{Dns, Query, ResolveLimits};
use slipring::upstream::{Connected, Request, Upstream, UpstreamError, UpstreamLimits};
use slipring::{Conn, Ctx, Error, Handler, Lease, Limits, Running, Serve, Timeout, relay};
use slipring_examples::cli::{self, Balance, SharedOptions, Upstreams, fail};
use slipring_examples::service;

/// Relays every client to an endpoint that works: one that refuses or does not answer costs no client an error while
/// another lives. Without --listen and --to: a demonstration on 127.0.0.1:7000, with two echo upstreams inside.
#[derive(Parser, Debug)]
#[command(name = "proxy", version)]
struct Options {
    /// Where to listen, `IP:PORT`; port 0 takes a free one
    #[arg(long, value_name = "ADDR", value_parser = cli::address, requires = "to")]
    listen: Option<SocketAddr>,

    /// The upstreams, `HOST:PORT[,HOST:PORT...]`; of a name, all addresses that it leads to. `srv:NAME` asks for SRV
    #[arg(long, value_name = "ADDR[,ADDR...]", value_parser = cli::upstreams, requires = "listen")]
    to: Option<Upstreams>,

    #[command(flatten)]
    relaying: Relaying,

    #[command(flatten)]
    shared: SharedOptions,
}

/// How upstreams are chosen, dialed and judged.
#[derive(clap::Args, Clone, Debug)]
struct Relaying {
    /// Which upstream a client goes to: `p2c` (the one of two with fewer clients), `round-robin`, `random`, `ewma` (the
    /// one of two that connects faster) or `maglev` (the same for the same client address)
    #[arg(
        long,
        value_enum,
        value_name = "ALGORITHM",
        default_value = "p2c",
        hide_possible_values = true
    )]
    balance: Balance,

    /// How long an upstream may take to accept a connection, until another is tried; from 1ms to 1h
    #[arg(long, value_name = "DUR", value_parser = cli::connect_timeout, default_value = "3s")]
    connect_timeout: Duration,

    /// How often each upstream is checked by a connection, whether clients come or not; one that fails three times is
    /// left alone until two succeed [default: no checks; one that fails clients is left alone until it can be reached]
    #[arg(long, value_name = "DUR", value_parser = cli::interval)]
    health_interval: Option<Duration>,

    /// How often a client is tried again, at another upstream if there is one
    #[arg(long, value_name = "N", default_value_t = 3)]
    retries: u32,

    /// Make trouble, for tests of clients and services: `io latency=100ms jitter=20ms`, `connect share=5% refuse`,
    /// `io direction=from bandwidth=64KiB/s`, `resolve timeout`, and others: docs/guide/upstreams.md has them. May be
    /// given several times [default: none]
    #[arg(long, value_name = "RULE")]
    fault: Vec<Rule>,

    /// Connections to the upstreams at once, over all cores; clients beyond wait for one, and are reset when that takes
    /// longer than all attempts to connect might, and 10 s [default: as many as clients]
    #[arg(long, value_name = "N", value_parser = cli::count)]
    upstream_max: Option<u32>,
}

impl Relaying {
    /// What suits connections that are relayed as they come. Refused and unanswered dials are what a relay sees of an
    /// endpoint, and a probe finds out when they are over: so there is no breaker, which would keep clients out for
    /// half a minute after the endpoints are back, endpoints that cannot be reached are never used for want of better
    /// ones, and one that is back has its share at once.
    fn limits(&self, clients_max: u32) -> UpstreamLimits {
        let attempts_max = self.retries.saturating_add(1);
        let all_attempts = self.connect_timeout.saturating_mul(attempts_max);
        let health = self.health_interval.map(|interval| {
            let fast_interval = interval.min(HealthLimits::default().fast_interval);
            let limits = HealthLimits { interval, fast_interval, ..HealthLimits::default() };
            Check { limits, ..Check::default() }
        });
        UpstreamLimits {
            connections_max: self.upstream_max.unwrap_or(clients_max),
            pending_max: clients_max,
            connect_within: all_attempts.saturating_add(Duration::from_secs(10)),
            algorithm: self.balance.into(),
            balancer: BalancerLimits {
                healthy_min_percent: 0,
                slow_start: Duration::ZERO,
                failure: self.connect_timeout,
                ..BalancerLimits::default()
            },
            breaker: BreakerLimits::never(),
            outlier: OutlierLimits { ejected_max_percent: 100, ..OutlierLimits::default() },
            retry: RetryPolicy {
                attempts_max,
                budget: BudgetLimits { percent: 100, per_second: 100, ..BudgetLimits::default() },
                ..RetryPolicy::default()
            },
            health,
            ..UpstreamLimits::default()
        }
    }

    fn faults(&self) -> Option<Faults> {
        if self.fault.is_empty() {
            return None;
        }
        let rules = Rules::new(self.fault.clone()).unwrap_or_else(|error| fail(error));
        Some(Faults::new(rules, FAULTS_SEED).unwrap_or_else(|error| fail(error)))
    }

    fn upstream(&self, to: &[Query], clients_max: u32, faults: Option<&Faults>) -> Upstream {
        let limits = self.limits(clients_max);
        let connect = ConnectLimits {
            attempt: self.connect_timeout,
            total: self.connect_timeout.max(ConnectLimits::default().total),
            ..ConnectLimits::default()
        };
        let mut connector = Connector::builder().limits(connect);
        if let Some(faults) = faults {
            connector = connector.faults(faults.clone(), NAME);
        }
        let connector = connector.build().unwrap_or_else(|error| fail(error));
        let builder = Upstream::builder(NAME).connector(connector).limits(limits);
        let dns = Dns::system();
        let builder = to.iter().fold(builder, |builder, query| {
            let (query, limits) = (query.clone(), ResolveLimits::default());
            match faults {
                Some(faults) => builder.name(query, faults.source(dns.clone(), NAME), limits),
                None => builder.name(query, dns.clone(), limits),
            }
        });
        builder.build().unwrap_or_else(|error| match error {
            UpstreamError::Twice(endpoint) => {
                fail(format_args!("--to names {endpoint} twice; leave one of them out"))
            }
            error => fail(error),
        })
    }
}

/// Whether who is dialed there is accepted by whoever listens here. Of names, only `localhost` is known to lead
/// somewhere.
fn leads_to(query: &Query, listen: SocketAddr) -> bool {
    let ip = match (query.address(), query.name()) {
        (Some(address), _) => address.ip().to_canonical(),
        (None, Some("localhost")) => match listen.ip() {
            at if at.is_loopback() => at,
            _ => Ipv4Addr::LOCALHOST.into(),
        },
        _ => return false,
    };
    // To the kernel, no address at all is the loopback.
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let is_reached = match listen.ip() {
        // An address that can be bound is one of this host.
        at if at.is_unspecified() => {
            (at.is_ipv6() || ip.is_ipv4()) && UdpSocket::bind((ip, 0)).is_ok()
        }
        at => at.to_canonical() == ip,
    };
    is_reached && query.port() == Some(listen.port())
}

/// Refuses an upstream that is the proxy itself: one client would become as many as there is room for.
fn refuse_loop(listen: SocketAddr, to: &[Query]) {
    if let Some(query) = to.iter().find(|query| leads_to(query, listen)) {
        fail(format_args!(
            "--to {query} is where the proxy listens itself (--listen {listen}), so a client would be relayed in a \
             circle; name another upstream, or listen elsewhere"
        ));
    }
}

/// One client: connected to an upstream, it is relayed until both have ended.
async fn serve(client: Conn, upstream: Upstream, is_by_address: bool, faults: Option<Faults>) {
    let client = match &faults {
        Some(faults) => Box::pin(faults.accepting(client, NAME)).await,
        None => Some(client),
    };
    let Some(mut client) = client else { return };
    let mut request = Request::default();
    if is_by_address {
        request.hash = client.peer().map(|peer| hash_of(peer.ip()));
    }
    // Nothing moves while it waits, and it is not idle for that.
    let busy = client.busy_flag();
    busy.set(true);
    // On the heap, and only for as long as it takes: what is needed to get a connection is many times what is needed
    // to relay over it, and a task is as large as the largest of what it awaits.
    let connected = Box::pin(connect(&mut client, &upstream, &request)).await;
    busy.set(false);
    let Some(connected) = connected else { return };
    match connected {
        Ok(connected) => {
            let endpoint = connected.endpoint();
            let (stream, held) = connected.into_parts();
            if let Ok(server) = stream.into_conn() {
                let relayed = match &faults {
                    Some(faults) => Box::pin(faults.relay(client, server, NAME, NAME)).await,
                    None => relay(client, server).await,
                };
                if !relayed.is_orderly() {
                    let (client, upstream) = (relayed.first, relayed.second);
                    tracing::info!(%endpoint, %client, %upstream, "a relay was torn");
                }
            }
            drop(held);
        }
        Err(error) => {
            tracing::warn!(%error, "a client could not be served");
            client.abort();
        }
    }
}

/// Connects to an upstream; `None` if the client is gone before.
async fn connect(
    client: &mut Conn,
    upstream: &Upstream,
    request: &Request,
) -> Option<Result<Connected, Error>> {
    let mut connecting = pin!(upstream.connect(request));
    poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(Some(connected));
        }
        client.poll_closed(cx).map(|_| None)
    })
    .await
}

/// Equal for the clients of one address.
fn hash_of(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        // The host's half is drawn anew all the time.
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
    }
}

/// The demonstration's upstream.
struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

/// What rules of faults call the listener, and the upstream.
const NAME: &str = "proxy";
/// What is drawn for faults is the same in each run.
const FAULTS_SEED: u64 = 1;

const DEMO: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);

fn main() -> ExitCode {
    let (options, signals) = service::begin::<Options>();
    let (listen, to, mut running) = match (options.listen, options.to) {
        (Some(listen), Some(to)) => {
            refuse_loop(listen, &to);
            (listen, to, Vec::new())
        }
        _ => {
            let upstreams = [demo_upstream(&options.shared), demo_upstream(&options.shared)];
            let of = |upstream: &Running| upstream.addresses()[0].to_string();
            let to = upstreams.iter().map(|upstream| of(upstream).parse().expect("an address"));
            let to = to.collect();
            (DEMO, to, Vec::from(upstreams))
        }
    };
    let demo = !running.is_empty();
    let builder = service::builder(&options.shared, &[listen], Timeout::seconds(3600), true);
    let clients_max = options.shared.max_connections.unwrap_or(Limits::default().accepted_max);
    let faults = options.relaying.faults();
    let upstream = options.relaying.upstream(&to, clients_max, faults.as_ref());
    let is_by_address = matches!(options.relaying.balance, Balance::Maglev);
    let of_clients = upstream.clone();
    let serving = builder
        .serve(move |client| serve(client, of_clients.clone(), is_by_address, faults.clone()));
    let (proxy, spawner) = serving.unwrap_or_else(|error| fail(error)).into_parts();
    upstream.start(&spawner);
    service::announce(&proxy);
    if demo {
        explain(&proxy, &to);
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

fn explain(proxy: &Running, upstreams: &[Query]) {
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
