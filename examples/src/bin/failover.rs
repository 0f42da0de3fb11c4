//! `failover`: a client of two tiers, whose first is stopped and started again.
//!
//! The idea: as long as the primary lives, the standby is asked nothing; when the primary goes, one failure is enough
//! to leave it alone, and it is tried again until it is back. A line for each change says who answers and how long
//! the switch took. Try it:
//!
//! ```text
//! cargo run --release --bin failover -- --for 10s --switch-every 2s
//! ```
//!
//! Exit codes: 0; 1 if a request failed; 2 when it cannot start.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use slipring::policy::names::Target;
use slipring::policy::outlier::OutlierLimits;
use slipring::upstream::{Request, Upstream, UpstreamLimits};
use slipring::{
    Error, Idempotency, JoinHandle, Runtime, Serve, now, sleep_until, spawn_local, unblock,
};
use slipring_examples::cli::{self, fail};
use slipring_examples::numbered::{Endpoint, Temper, ask};

/// How often it asks.
const EVERY: Duration = Duration::from_millis(50);
/// When a request has to be over, its retries included.
const WITHIN: Duration = Duration::from_secs(2);

/// Asks a primary and its standby, and prints who answers.
#[derive(Parser, Debug)]
#[command(name = "failover", version)]
struct Options {
    /// How long it asks
    #[arg(long = "for", value_name = "DUR", value_parser = cli::duration, default_value = "10s")]
    lasts: Duration,

    /// The primary is stopped, and started again, each after so long
    #[arg(long, value_name = "DUR", value_parser = cli::duration, default_value = "2s")]
    switch_every: Duration,
}

/// An upstream whose second endpoint is asked only when the first is down.
fn upstream(primary: SocketAddr, standby: SocketAddr) -> Upstream {
    let outlier = OutlierLimits {
        // There is somebody else who can answer: why ask five times.
        failures: 1,
        // After a request that was reset, too, and not only after dials, it is tried again soon.
        base: Duration::from_secs(1),
        longest: Duration::from_secs(5),
        ..OutlierLimits::default()
    };
    let limits = UpstreamLimits {
        outlier,
        probe_interval: Duration::from_millis(100),
        ..UpstreamLimits::default()
    };
    let upstream = Upstream::builder("pair")
        .target(Target::new(primary))
        .target(Target { tier: 1, ..Target::new(standby) })
        .limits(limits);
    upstream.build().unwrap_or_else(|error| fail(error))
}

/// Who answered this request.
async fn asked(upstream: &Upstream, number: u64) -> Result<SocketAddr, Error> {
    let request = Request { within: Some(WITHIN), ..Request::default() };
    let answer = upstream.call(&request, Idempotency::Idempotent, async |stream| {
        let is_its_own = ask(stream, number).await?;
        assert!(is_its_own, "an answer came to the wrong request");
        Ok(stream.peer())
    });
    answer.await
}

/// Stops or starts the primary, beside the reactor: both wait for a thread.
fn switch(mut primary: Endpoint, is_up: bool) -> JoinHandle<Endpoint> {
    spawn_local(async move {
        let switched = unblock(move || {
            if is_up {
                primary.come_back().unwrap_or_else(|error| fail(error));
            } else {
                primary.die();
            }
            primary
        });
        switched.await.unwrap_or_else(|error| fail(format_args!("{error}; report this")))
    })
}

async fn ended(switching: JoinHandle<Endpoint>) -> Endpoint {
    switching.await.unwrap_or_else(|error| fail(format_args!("{error}; report this")))
}

/// A line with the time since the beginning.
fn say(since: Duration, what: &str) {
    // Whoever closed stdout does not want to know.
    let _ = writeln!(io::stdout(), "{:>7.3} s  {what}", since.as_secs_f64());
}

/// Asks until it is over. How many requests failed, and the primary, to be dropped outside of reactors.
async fn client(upstream: Upstream, options: Options, primary: Endpoint) -> (u64, Endpoint) {
    let (begun, first) = (now(), primary.address());
    let name = |at| if at == first { "the primary" } else { "the standby" };
    let (mut is_up, mut switched_at, mut answers) = (true, begun, None);
    let (mut number, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    let mut switching = spawn_local(async move { primary });
    while now() - begun < options.lasts {
        if now() - switched_at >= options.switch_every {
            is_up = !is_up;
            switched_at = now();
            say(
                switched_at - begun,
                if is_up { "the primary is started" } else { "the primary is stopped" },
            );
            switching = switch(ended(switching).await, is_up);
        }
        let asked_at = now();
        match asked(&upstream, number).await {
            Ok(at) if answers != Some(at) => {
                let took = (now() - switched_at).as_millis();
                say(now() - begun, &format!("{} answers, {took} ms after that", name(at)));
                answers = Some(at);
            }
            Ok(_) => {}
            Err(error) => {
                failed += 1;
                say(now() - begun, &format!("a request failed: {error}"));
            }
        }
        slowest = slowest.max(now() - asked_at);
        number += 1;
        sleep_until(asked_at + EVERY).await;
    }
    let slowest = slowest.as_millis();
    say(
        now() - begun,
        &format!("{number} requests, {failed} failed, the slowest took {slowest} ms"),
    );
    (failed, ended(switching).await)
}

fn main() -> ExitCode {
    let options: Options = cli::parse();
    let start = || Endpoint::start(Temper::Well).unwrap_or_else(|error| fail(error));
    let (primary, standby) = (start(), start());
    let upstream = upstream(primary.address(), standby.address());
    let builder = Runtime::builder().cores([0]).max_connections(0).max_dialed(64);
    let serving = builder.serve(async |_nobody| {}).unwrap_or_else(|error| fail(error));
    let client = serving.spawner().spawn(move || client(upstream, options, primary));
    let (failed, _primary) =
        client.join().unwrap_or_else(|error| fail(format_args!("{error}; report this")));
    serving.handle().drain();
    match (failed, serving.join()) {
        (0, Ok(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
