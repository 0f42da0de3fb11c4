//! The life of a binary: options onto a runtime, what it says at its start, signals, the exit code.
//!
//! stdout carries one line for each listener, `listening on IP:PORT`, and nothing else, so that scripts can
//! read it; everything for people goes to stderr.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use slipring::{
    Access, Builder, Conn, Counters, Handler, Limits, Running, Runtime, SourceLimits, Timeout,
    Timeouts,
};

use crate::cli::{ServerOptions, SharedOptions, fail, parse};
use crate::stats::Stats;

/// What a binary begins with: its command line is read, log lines go to stderr, signals are caught.
#[must_use]
pub fn begin<P: Parser>() -> (P, Signals) {
    let options = parse();
    log_to_stderr();
    (options, catch_signals())
}

/// Warnings and errors, or what `SLIPRING_LOG` asks for.
fn log_to_stderr() {
    let level = std::env::var("SLIPRING_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(level.unwrap_or(tracing::Level::WARN))
        .with_target(false)
        .init();
}

/// Dials for so many clients: one for each, and a few for upstreams that close after their client.
fn dials_beside(accepted: u32) -> u32 {
    accepted.saturating_add((accepted / 8).max(64))
}

/// A runtime that listens on `listen`, with the options asked for. `idle` is the binary's own default;
/// `paired`: each accepted connection comes with a dialed one.
pub fn builder(
    options: &SharedOptions,
    listen: &[SocketAddr],
    idle: Timeout,
    paired: bool,
) -> Builder {
    let defaults = Limits::default();
    let dialed_for = |accepted| if paired { dials_beside(accepted) } else { 0 };
    let accepted_max = options.max_connections.unwrap_or(defaults.accepted_max);
    let limits = Limits {
        accepted_max,
        dialed_max: dialed_for(accepted_max),
        buffers: options.buffers.unwrap_or(defaults.buffers),
        buffer_bytes: options.buffer_size.unwrap_or(defaults.buffer_bytes),
        ..defaults
    };
    let defaults = Timeouts::default();
    let timeouts = Timeouts {
        idle: options.idle_timeout.unwrap_or(idle),
        first_byte: options.first_byte_timeout.unwrap_or(defaults.first_byte),
        ..defaults
    };
    let builder = Runtime::builder().limits(limits).timeouts(timeouts);
    let mut builder = builder.direct_descriptors(options.direct_descriptors);
    for &address in listen {
        builder = builder.listen(address);
    }
    if let Some(cores) = &options.cores {
        builder = builder.cores(cores.iter().copied());
    }
    if let Some(poll) = options.poll {
        builder = builder.poll(poll.into());
    }
    if !options.allow.is_empty() || !options.deny.is_empty() {
        let access = Access::new(options.allow.iter().copied(), options.deny.iter().copied());
        builder = builder.access(access.unwrap_or_else(|error| fail(error)));
    }
    if options.per_source.is_some() {
        let limits =
            SourceLimits { connections_max: options.per_source, ..SourceLimits::default() };
        builder = builder.per_source(limits);
    }
    if let Some(placement) = options.placement {
        builder = builder.placement(placement);
    }
    if let Some(rate) = options.accept_rate {
        builder = builder.accept_rate(rate);
    }
    if let Some(on_full) = options.on_full {
        builder = builder.on_full(on_full);
    }
    if let Some(deadline) = options.drain_deadline {
        builder = builder.drain_deadline(deadline);
    }
    if let Some(span) = options.not_ready {
        builder = builder.not_ready(span);
    }
    match options.max_connections {
        Some(_) => builder,
        None => builder.fit_connections(dialed_for).unwrap_or_else(|error| fail(error)),
    }
}

/// Starts the runtime, or ends the process with exit code 2 and one line that says why not.
pub fn start<H: Handler + 'static>(
    builder: Builder,
    make: impl Fn(usize) -> H + Send + Sync + 'static,
) -> Running {
    builder.start(make).unwrap_or_else(|error| fail(error))
}

/// The whole life of a server whose connections are served by tasks.
pub fn serve<S, F>(options: &ServerOptions, signals: Signals, service: S) -> ExitCode
where
    S: FnMut(Conn) -> F + Clone + Send + Sync + 'static,
    F: Future + 'static,
{
    let idle = Timeout::seconds(60);
    let builder = builder(&options.shared, &options.addresses(), idle, false);
    let running = start(builder, move |_reactor| slipring::tasks(service.clone()));
    announce(&running);
    run_until_signal(signals, vec![running], &options.shared)
}

/// Says what runs: addresses on stdout, tier and bounds on stderr.
pub fn announce(running: &Running) {
    let mut stderr = io::stderr().lock();
    // Whoever closed stderr does not want to know.
    let _ = writeln!(stderr, "tier: {}", running.features());
    let _ = writeln!(
        stderr,
        "limits: {} connections, {} reactor(s)",
        running.max_connections(),
        running.reactors()
    );
    let _ = writeln!(
        stderr,
        "memory bound: {:.1} MiB, touched as used",
        running.memory_bound() as f64 / f64::from(1 << 20)
    );
    let mut stdout = io::stdout().lock();
    for address in running.addresses() {
        let _ = writeln!(stdout, "listening on {address}");
    }
    let _ = stdout.flush();
}

/// Catches SIGTERM and SIGINT from now on: a signal must find its watcher as soon as an address has been printed.
fn catch_signals() -> Signals {
    Signals::new([SIGTERM, SIGINT]).unwrap_or_else(|error| {
        fail(format_args!("cannot watch for signals: {error}; report this"))
    })
}

/// Drains on the first signal and aborts on the second; returns when all is over. Meanwhile shows what happens,
/// if asked to.
#[must_use]
pub fn run_until_signal(
    mut signals: Signals,
    running: Vec<Running>,
    options: &SharedOptions,
) -> ExitCode {
    let handles: Vec<_> = running.iter().map(Running::handle).collect();
    let stats = options.stats.then(|| Stats::draw(handles.clone()));
    let _stats = stats.transpose().unwrap_or_else(|error| {
        fail(format_args!("cannot draw the table: {error}; leave --stats out"))
    });
    let watch = signals.handle();
    let watcher = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for (number, _) in signals.forever().enumerate() {
            let handles = handles.iter();
            match number {
                0 => handles.for_each(slipring::Handle::drain),
                _ => handles.for_each(slipring::Handle::abort),
            }
        }
    });
    let mut code = ExitCode::SUCCESS;
    for running in running {
        match running.join() {
            Ok(counters) => log_counters(&counters),
            Err(error) => {
                tracing::error!(%error, "stopped");
                code = ExitCode::FAILURE;
            }
        }
    }
    watch.close();
    if let Ok(watcher) = watcher {
        // It ends when its handle is closed; a panic in it would have ended the process by its own line.
        let _ = watcher.join();
    }
    code
}

fn log_counters(counters: &[Counters]) {
    for (reactor, counters) in counters.iter().enumerate() {
        tracing::info!(reactor, ?counters, "drained");
    }
}
