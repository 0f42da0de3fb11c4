//! P10: how evenly 10,000 connections stand on two reactors, while they come and go, and while one reactor is busy.
//!
//! ```text
//!   this process (CPU 1): holds the connections ──> `serve`, this program again: a reactor on each CPU
//!   hogs: three of them, found on reactor 0 ──────>        "
//! ```
//! The server tells each connection the number of its reactor with its first byte, so the clients know exactly who
//! serves whom; nothing is sampled. The figure is the most that one reactor has, divided by the mean: after
//! opening, and the worst seen during the churn, which closes one connection in twenty at random and opens as
//! many, twenty times.
//!
//! With hogs, three connections of reactor 0 stream for all that time.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use slipring_benches::measure::clock::now;
use slipring_benches::measure::contenders::Contender;
use slipring_benches::measure::held::connect;
use slipring_benches::measure::rounds::Spread;
use slipring_benches::measure::settings::Settings;
use slipring_benches::measure::{CLIENT_CPU, SERVER_CPU, note, run_bench, say};
use slipring_benches::pin::pin_to_cpus;
use slipring_core::{Ctx, Handler, Lease, Origin, Placement, Runtime};

const CORES: [usize; 2] = [SERVER_CPU, CLIENT_CPU];
const CONNECTIONS: usize = 10_000;
/// Room for the hogs and those looked at on the way to them.
const ROOM: u32 = 11_000;
/// The churn: so often, so many.
const CHURNS: usize = 20;
const CHURNED: usize = CONNECTIONS / 20;
const HOGS: usize = 3;
/// The reactor that the hogs keep busy.
const BUSY: u8 = 0;
/// What a hog sends before it reads as much back.
const HOG_BYTES: usize = 128 * 1024;
/// The first argument of the server's process.
const SERVE: &str = "serve";

/// Tells every connection the number of its reactor, then echoes.
struct Numbered(u8);

impl Handler for Numbered {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _origin: Origin) {
        ctx.send(vec![self.0]);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

fn serve(placement: Placement) -> io::Result<()> {
    pin_to_cpus(&CORES)?;
    let builder = Runtime::builder()
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .cores(CORES)
        .max_connections(ROOM)
        .placement(placement);
    let running = builder.start(|reactor| Numbered(reactor as u8)).map_err(io::Error::other)?;
    say(format_args!("listening on {}", running.addresses()[0]));
    running.join().map(drop).map_err(io::Error::other)
}

/// What one run came to, each as most to mean.
#[derive(Clone, Copy)]
struct Sample {
    opened: f64,
    churned_worst: f64,
    hogs_gb_per_s: f64,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SERVE) {
        let placement = arguments.next().unwrap_or_default().parse().map_err(io::Error::other);
        return match placement.and_then(serve) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                note(format_args!("the server: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    run_bench("p10_placement", || {
        let settings = Settings::from_env()?;
        say(format_args!("\n### P10: {CONNECTIONS} connections over two reactors, most to mean\n"));
        say(
            "| placement | hogs on reactor 0 | opened | spread | churned, worst | spread | hogs GB/s |",
        );
        say("|---|---|---|---|---|---|---|");
        for placement in [Placement::LeastLoaded, Placement::RoundRobin, Placement::Kernel] {
            for hogs in [0, HOGS] {
                let runs = (0..settings.rounds).map(|round| measure(placement, hogs, round as u64));
                print(placement, hogs, &runs.collect::<io::Result<Vec<_>>>()?);
            }
        }
        say("\nAim: <= 1.05 by default (least-loaded), with churn and with one busy reactor.");
        Ok(())
    })
}

fn measure(placement: Placement, hogs: usize, seed: u64) -> io::Result<Sample> {
    note(format_args!("P10: {placement}, {hogs} hogs, round {}", seed + 1));
    let program = std::env::current_exe()?;
    let server = Contender::new("server", program, &[SERVE, placement.name()]);
    let server = server.recipe.start(SERVER_CPU)?;
    let (stopped, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    let hogs = find_hogs(server.address, hogs)?;
    thread::scope(|scope| {
        let began = now();
        for stream in hogs {
            let (stopped, bytes) = (&stopped, &bytes);
            thread::Builder::new()
                .spawn_scoped(scope, move || stream_through(stream, stopped, bytes))?;
        }
        let result = churn(server.address, seed);
        stopped.store(true, Ordering::Relaxed);
        let seconds = began.elapsed().as_secs_f64();
        let (opened, churned_worst) = result?;
        let hogs_gb_per_s = bytes.load(Ordering::Relaxed) as f64 / seconds / 1e9;
        Ok(Sample { opened, churned_worst, hogs_gb_per_s })
    })
}

/// A connection, and the reactor that serves it.
fn open(server: SocketAddr, index: usize) -> io::Result<(TcpStream, u8)> {
    let mut stream = connect(server, index)?;
    let mut number = [0];
    stream.read_exact(&mut number)?;
    Ok((stream, number[0]))
}

/// Connections of the reactor that is to be busy. Those of others are closed.
fn find_hogs(server: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let mut found = Vec::new();
    let mut others = Vec::new();
    while found.len() < count {
        let (stream, reactor) = open(server, found.len() + others.len())?;
        if reactor == BUSY {
            found.push(stream);
        } else {
            others.push(stream);
        }
        if others.len() > 1000 {
            return Err(io::Error::other("of 1000 connections none is for reactor 0"));
        }
    }
    Ok(found)
}

fn stream_through(mut stream: TcpStream, stopped: &AtomicBool, total: &AtomicU64) {
    let mut buffer = vec![7; HOG_BYTES];
    while !stopped.load(Ordering::Relaxed) {
        let there_and_back =
            stream.write_all(&buffer).and_then(|()| stream.read_exact(&mut buffer));
        if let Err(error) = there_and_back {
            return note(format_args!("a hog ended: {error}"));
        }
        total.fetch_add(HOG_BYTES as u64, Ordering::Relaxed);
    }
}

/// Most to mean when all are open, and the worst of the churn.
fn churn(server: SocketAddr, seed: u64) -> io::Result<(f64, f64)> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut held = Vec::with_capacity(CONNECTIONS);
    while held.len() < CONNECTIONS {
        held.push(open(server, held.len())?);
    }
    let opened = most_to_mean(&held);
    let mut worst = opened;
    for churn in 0..CHURNS {
        for _ in 0..CHURNED {
            held.swap_remove(dice.usize(..held.len()));
        }
        while held.len() < CONNECTIONS {
            held.push(open(server, churn + held.len())?);
        }
        worst = f64::max(worst, most_to_mean(&held));
    }
    Ok((opened, worst))
}

fn most_to_mean(held: &[(TcpStream, u8)]) -> f64 {
    let of = |number| held.iter().filter(|(_, reactor)| *reactor == number).count();
    let most = (0..CORES.len() as u8).map(of).max().unwrap_or(0);
    most as f64 * CORES.len() as f64 / held.len() as f64
}

fn print(placement: Placement, hogs: usize, samples: &[Sample]) {
    let opened = Spread::of(samples.iter().map(|sample| sample.opened));
    let churned = Spread::of(samples.iter().map(|sample| sample.churned_worst));
    let hogs_gb_per_s = Spread::of(samples.iter().map(|sample| sample.hogs_gb_per_s)).median;
    say(format_args!(
        "| {placement} | {hogs} | {:.3} | {:.3}..{:.3} | {:.3} | {:.3}..{:.3} | {hogs_gb_per_s:.2} |",
        opened.median, opened.min, opened.max, churned.median, churned.min, churned.max,
    ));
}
