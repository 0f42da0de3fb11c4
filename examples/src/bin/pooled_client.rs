//! `pooled_client`: requests over the pools of an upstream whose endpoints die, come back, dawdle and reset.
//!
//! The idea: all that goes wrong is the upstream's to deal with, and it counts what it did. Three endpoints run in this
//! process: one is well; one dies and comes back, each for a second; one takes 20 ms and resets a tenth of what it is
//! asked. A request may be made again (`Idempotency::Idempotent`), so hardly any fails. Try it:
//!
//! ```text
//! cargo run --release --bin pooled_client -- --for 10s --rate 200
//! ```
//!
//! After that time it ends by itself, and prints what each policy did. Exit codes: 0; 1 if an answer came to the wrong
//! request, which would be a bug; 2 when it cannot start.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use slipring::policy::pool::Cause;
use slipring::upstream::{Request, Upstream, UpstreamSnapshot};
use slipring::{Idempotency, Runtime, Scope, Serve, now, sleep_until, spawn_local, unblock};
use slipring_examples::cli::{self, fail};
use slipring_examples::numbered::{Endpoint, Temper, ask};

/// How long the flapping endpoint is there, and then is not.
const FLAP: Duration = Duration::from_secs(1);
/// When a request has to be over, its retries included.
const WITHIN: Duration = Duration::from_secs(2);

/// Asks an upstream that is in trouble, and prints what its policies did about it.
#[derive(Parser, Debug)]
#[command(name = "pooled_client", version)]
struct Options {
    /// How long it asks
    #[arg(long = "for", value_name = "DUR", value_parser = cli::duration, default_value = "10s")]
    lasts: Duration,

    /// Requests in a second, from 1 to 100000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), default_value = "200")]
    rate: u32,
}

/// What the client saw of it.
#[derive(Default)]
struct Tally {
    answered: u64,
    mixed_up: u64,
    /// By the label of the error.
    failed: BTreeMap<&'static str, u64>,
    /// The longest it took until a request had its first connection, and until it had its answer.
    slowest: (Duration, Duration),
}

/// One request: a call over a connection of a pool, again elsewhere if it fails.
async fn request(upstream: Upstream, tally: Rc<RefCell<Tally>>, number: u64) {
    let (begun, mut waited) = (now(), None);
    let request = Request { within: Some(WITHIN), ..Request::default() };
    let answer = upstream
        .call(&request, Idempotency::Idempotent, async |stream| {
            waited.get_or_insert_with(|| now() - begun);
            ask(stream, number).await
        })
        .await;
    let took = now() - begun;
    let tally = &mut *tally.borrow_mut();
    tally.slowest.0 = tally.slowest.0.max(waited.unwrap_or(took));
    tally.slowest.1 = tally.slowest.1.max(took);
    match answer {
        Ok(true) => tally.answered += 1,
        Ok(false) => tally.mixed_up += 1,
        Err(error) => *tally.failed.entry(error.label()).or_default() += 1,
    }
}

/// Lets an endpoint die and come back until it is over. Both wait for a thread: so they are done beside the reactor.
async fn flap(mut endpoint: Endpoint, end: Duration) -> Endpoint {
    let mut is_up = true;
    loop {
        sleep_until(end.min(now() + FLAP)).await;
        if now() >= end {
            return endpoint;
        }
        is_up = !is_up;
        let flapped = unblock(move || {
            if is_up {
                endpoint.come_back().unwrap_or_else(|error| fail(error));
            } else {
                endpoint.die();
            }
            endpoint
        });
        endpoint = flapped.await.unwrap_or_else(|error| fail(format_args!("{error}; report this")));
    }
}

/// Asks at this rate, whether answers come or not, until it is over and the last has ended.
async fn client(upstream: Upstream, options: Options, flapping: Endpoint) -> Outcome {
    let (begun, tally) = (now(), Rc::new(RefCell::new(Tally::default())));
    let flapping = spawn_local(flap(flapping, begun + options.lasts));
    let (mut requests, mut number) = (Scope::new(), 0);
    loop {
        let at = begun + Duration::from_secs(number) / options.rate;
        if at >= begun + options.lasts {
            break;
        }
        sleep_until(at).await;
        requests.spawn(request(upstream.clone(), Rc::clone(&tally), number));
        number += 1;
    }
    while requests.join_next().await.is_some() {}
    let endpoint = flapping.await;
    // Pools tell what they counted once a second.
    sleep_until(now() + Duration::from_millis(1100)).await;
    Outcome { tally: tally.take(), snapshot: upstream.snapshot(), _endpoint: endpoint.ok() }
}

/// What is left at the end.
struct Outcome {
    tally: Tally,
    snapshot: UpstreamSnapshot,
    /// It ends with a thread's end, so it is dropped outside of reactors.
    _endpoint: Option<Endpoint>,
}

/// What each policy did.
fn print(upstream: &Upstream, Outcome { tally, snapshot, .. }: &Outcome) -> io::Result<()> {
    let (mut to, ms) = (io::stdout().lock(), |span: Duration| span.as_secs_f64() * 1e3);
    let (counters, pools) = (snapshot.counters, upstream.pool_counters());
    let failed: u64 = tally.failed.values().sum();
    writeln!(to, "requests: {} answered, {failed} failed", tally.answered)?;
    for (label, count) in &tally.failed {
        writeln!(to, "  failed by {label}: {count}")?;
    }
    let (retries, left) = (counters.retries, snapshot.retries_left);
    writeln!(
        to,
        "retries: {retries}, {} refused by the budget, {left} left",
        counters.out_of_budget
    )?;
    writeln!(to, "ejections: {}, {} back before their time", counters.ejections, counters.returns)?;
    let (opened, closed) = (counters.breaker_opened, counters.breaker_closed);
    writeln!(
        to,
        "breaker: opened {opened}, closed {closed}, refused {}",
        counters.refused_by_breaker
    )?;
    let (hits, waits) = (pools.hits, pools.waits);
    let dials = (pools.dials, pools.dials_failed);
    writeln!(
        to,
        "checkouts: {hits} hit, {waits} waited; {} dialed, {} of them failed",
        dials.0, dials.1
    )?;
    let causes = Cause::ALL.into_iter().filter(|cause| pools.closed(*cause) > 0);
    let causes: Vec<_> =
        causes.map(|cause| format!("{} {}", cause.label(), pools.closed(cause))).collect();
    writeln!(to, "connections closed: {}", causes.join(", "))?;
    let (connection, answer) = tally.slowest;
    writeln!(
        to,
        "slowest: {:.1} ms for a connection, {:.1} ms for an answer",
        ms(connection),
        ms(answer)
    )?;
    writeln!(to, "at the end, {snapshot}")
}

fn main() -> ExitCode {
    let options: Options = cli::parse();
    let start = |temper| Endpoint::start(temper).unwrap_or_else(|error| fail(error));
    let [well, flapping, troubled] = [Temper::Well, Temper::Well, Temper::Troubled].map(start);
    let endpoints = [&well, &flapping, &troubled].map(Endpoint::address);
    // The defaults, as they are: what they do is what is shown.
    let upstream =
        endpoints.iter().fold(Upstream::builder("trouble"), |upstream, at| upstream.endpoint(*at));
    let upstream = upstream.build().unwrap_or_else(|error| fail(error));

    let builder = Runtime::builder().cores([0]).max_connections(0).max_dialed(256);
    let serving = builder.serve(async |_nobody| {}).unwrap_or_else(|error| fail(error));
    let of_client = upstream.clone();
    let client = serving.spawner().spawn(move || client(of_client, options, flapping));
    let outcome = client.join().unwrap_or_else(|error| fail(format_args!("{error}; report this")));
    let printed = print(&upstream, &outcome);
    drop(upstream);
    serving.handle().drain();
    match (printed, serving.join(), outcome.tally.mixed_up) {
        (Ok(()), Ok(_), 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
