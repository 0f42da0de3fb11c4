//! P14: a checkout of a kept connection and its return, of our pools and of others'; and 16 tasks over 4 connections.
//!
//! - *hit*: a task checks out and gives back, a million times; there is always an idle connection for it. Pieces of a
//!   hundred are timed, of which the median counts: one in which the CPU was another process's is not in the figure.
//!   Between them the reactor turns (a tokio task yields: see `peers/src/bin/peer-pools.rs`). Two tasks over two
//!   connections: one for each reactor, or each of tokio's workers, at the same time.
//! - *held*: each task holds its connection until its runtime has had a turn, so that twelve of the sixteen wait. Who
//!   gives out of turn has short waits, but for a few that are very long: the last column tells.
//!
//! The connections are real, to an echo on the other CPU, and nothing is sent on them. Ours are looked at when they
//! come back, and watched while they are idle; the managers of the peers look at nothing.
//!
//! An allocation by a hit fails the bench. `SLIPRING_BENCH_SECONDS` is of no effect: checkouts are counted.

use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use slipring::policy::pool::{Mode, PoolLimits};
use slipring::pool::{Plain, Pool};
use slipring::upstream::{Request, Upstream, UpstreamLimits};
use slipring::{
    Error, Idempotency, RemoteJoin, Runtime, SendError, Serve as _, Serving, spawn_local, yield_now,
};
use slipring_benches::measure::binaries::single_peer_with;
use slipring_benches::measure::clock::now;
use slipring_benches::measure::heap::{Counting, allocations};
use slipring_benches::measure::rounds::Spread;
use slipring_benches::measure::settings::Settings;
use slipring_benches::measure::{CLIENT_CPU, SERVER_CPU, note, say};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PEER: &str = "pools";
const AIM_NS: f64 = 150.0;
const HITS: u32 = 1_000_000;
/// As in the peer.
const PIECE: u32 = 100;
const HOLDERS: u32 = 16;
const HELD: u32 = 4;
/// By each of the holders.
const HOLDS: u32 = 20_000;
/// So many that each endpoint of an upstream has been chosen.
const WARM_UP: u32 = 5_000;

/// What one run of one contender measured.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// A checkout and its return, as its task sees it.
    ns: f64,
    /// Of all tasks.
    per_second: f64,
    p50_ns: f64,
    p99_ns: f64,
    most_ns: f64,
    /// By all hits together; the peers do not say.
    allocations: u64,
}

/// What is checked out, in a task of ours.
#[derive(Clone, Copy, Debug)]
enum What {
    /// `Pool::checkout`, with so many idle connections.
    Pool(u32),
    /// `Pool::try_checkout`.
    Try(u32),
    /// `Upstream::checkout`, with so many endpoints.
    Upstream(u32),
    /// `Upstream::call` that does nothing, with so many endpoints.
    Call(u32),
}

/// Who is compared.
#[derive(Clone, Copy, Debug)]
enum Who {
    Slipring(What),
    /// Two reactors with one connection each.
    TwoReactors,
    /// Crate, kind of runtime, connections, tasks.
    Peer(&'static str, &'static str, u32, u32),
}

/// The first is what the others are ratios of.
const HIT: [(&str, Who); 20] = [
    ("**slipring** pool, 1 idle", Who::Slipring(What::Pool(1))),
    ("slipring pool, 10 idle", Who::Slipring(What::Pool(10))),
    ("slipring pool, 100 idle", Who::Slipring(What::Pool(100))),
    ("slipring pool, `try_checkout`, 1 idle", Who::Slipring(What::Try(1))),
    ("slipring pool, two tasks, a reactor each", Who::TwoReactors),
    ("slipring upstream, 1 endpoint", Who::Slipring(What::Upstream(1))),
    ("slipring upstream, 100 endpoints", Who::Slipring(What::Upstream(100))),
    ("slipring upstream, an empty `call`, 1 endpoint", Who::Slipring(What::Call(1))),
    ("slipring upstream, an empty `call`, 100 endpoints", Who::Slipring(What::Call(100))),
    ("deadpool, current thread, 1 idle", Who::Peer("deadpool", "current", 1, 1)),
    ("deadpool, current thread, 10 idle", Who::Peer("deadpool", "current", 10, 1)),
    ("deadpool, current thread, 100 idle", Who::Peer("deadpool", "current", 100, 1)),
    ("deadpool, two workers, one task", Who::Peer("deadpool", "multi", 1, 1)),
    ("deadpool, two workers, two tasks", Who::Peer("deadpool", "multi", 2, 2)),
    ("bb8, current thread, 1 idle", Who::Peer("bb8", "current", 1, 1)),
    ("bb8, current thread, 10 idle", Who::Peer("bb8", "current", 10, 1)),
    ("bb8, current thread, 100 idle", Who::Peer("bb8", "current", 100, 1)),
    ("bb8, two workers, one task", Who::Peer("bb8", "multi", 1, 1)),
    ("bb8, two workers, two tasks", Who::Peer("bb8", "multi", 2, 2)),
    ("bb8, two workers, two tasks, 100 idle", Who::Peer("bb8", "multi", 100, 2)),
];

const HOLD: [(&str, Who); 5] = [
    ("**slipring**, one reactor", Who::Slipring(What::Pool(HELD))),
    ("deadpool, current thread", Who::Peer("deadpool", "current", HELD, HOLDERS)),
    ("deadpool, two workers", Who::Peer("deadpool", "multi", HELD, HOLDERS)),
    ("bb8, current thread", Who::Peer("bb8", "current", HELD, HOLDERS)),
    ("bb8, two workers", Who::Peer("bb8", "multi", HELD, HOLDERS)),
];

/// Not pinned as the other benches are: the reactors are within this process, and have to find both CPUs.
fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("p14_pool: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn compare() -> io::Result<()> {
    let settings = Settings::from_env()?;
    let peer = single_peer_with(PEER, &["pools"], &settings.peers)?;
    let echo = echo()?;
    let bench = Bench { rounds: settings.rounds, peer, port: echo.addresses()[0].port() };
    let hits = bench.compare("hit", &HIT, |who| bench.hit(who))?;
    print_hits(&hits);
    let held = bench.compare("held", &HOLD, |who| bench.hold(who))?;
    print_held(&held);
    end(echo)?;
    let allocated: u64 = hits.iter().flat_map(|row| &row.1).map(|one| one.allocations).sum();
    if allocated > 0 {
        return Err(io::Error::other(format!("{allocated} allocations by hits, which make none")));
    }
    Ok(())
}

struct Bench {
    rounds: usize,
    peer: Option<PathBuf>,
    port: u16,
}

type Rows = Vec<(&'static str, Vec<Sample>)>;

impl Bench {
    /// All of them in each round, each round beginning with another one.
    fn compare(
        &self,
        title: &str,
        contenders: &[(&'static str, Who)],
        measure: impl Fn(Who) -> io::Result<Sample>,
    ) -> io::Result<Rows> {
        let takes_part = |who: &Who| self.peer.is_some() || !matches!(who, Who::Peer(..));
        let all: Vec<_> = contenders.iter().filter(|(_, who)| takes_part(who)).collect();
        let mut rows: Rows = all.iter().map(|(name, _)| (*name, Vec::new())).collect();
        for round in 0..self.rounds {
            note(format_args!("P14, {title}: round {} of {}", round + 1, self.rounds));
            for turn in 0..all.len() {
                let index = (round + turn) % all.len();
                let (name, who) = all[index];
                let sample = measure(*who);
                let sample =
                    sample.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
                rows[index].1.push(sample);
            }
        }
        Ok(rows)
    }

    fn hit(&self, who: Who) -> io::Result<Sample> {
        match who {
            Who::Slipring(what) => self.ours(what),
            Who::TwoReactors => self.two_reactors(),
            Who::Peer(name, kind, connections, tasks) => {
                self.peer(name, kind, "hits", [connections, tasks, HITS / tasks])
            }
        }
    }

    fn hold(&self, who: Who) -> io::Result<Sample> {
        match who {
            Who::Peer(name, kind, connections, tasks) => {
                self.peer(name, kind, "held", [connections, tasks, HOLDS])
            }
            _ => self.our_holders(),
        }
    }

    fn peer(&self, name: &str, kind: &str, mode: &str, numbers: [u32; 3]) -> io::Result<Sample> {
        let peer = self.peer.as_deref().unwrap_or(Path::new(PEER));
        let mut command = Command::new(peer);
        command.args([name, kind, mode]).args(numbers.map(|number| number.to_string()));
        command.arg(self.endpoint(0).to_string()).stdin(Stdio::null());
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let figures: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
        let &[ns, per_second, p50_ns, p99_ns, most_ns] = &figures[..] else {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("said {text:?}, and {error:?}")));
        };
        Ok(Sample { ns, per_second, p50_ns, p99_ns, most_ns, allocations: 0 })
    }

    /// The echo, by as many addresses as are asked for.
    fn endpoint(&self, number: u32) -> SocketAddr {
        let address = u32::from(Ipv4Addr::new(127, 0, 0, 1)) + number;
        SocketAddr::from((Ipv4Addr::from(address), self.port))
    }

    fn pool(&self, connections: u32) -> io::Result<Pool<Plain>> {
        let limits = PoolLimits::of(Mode::Dynamic { min_idle: 0, max: connections });
        Pool::new(self.endpoint(0), Plain, limits).map_err(io::Error::other)
    }

    fn upstream(&self, endpoints: u32) -> io::Result<Upstream> {
        let mut builder = Upstream::builder("p14").limits(UpstreamLimits::default()).seed(14);
        for number in 0..endpoints {
            builder = builder.endpoint(self.endpoint(number));
        }
        builder.build().map_err(io::Error::other)
    }

    fn ours(&self, what: What) -> io::Result<Sample> {
        let serving = runtime([SERVER_CPU])?;
        let spawner = serving.spawner();
        let task = match what {
            What::Pool(idle) => {
                let pool = self.pool(idle)?;
                spawner.spawn(move || async move {
                    fill(&pool, idle).await?;
                    timed(async || drop(black_box(pool.checkout().await))).await
                })
            }
            What::Try(idle) => {
                let pool = self.pool(idle)?;
                spawner.spawn(move || async move {
                    fill(&pool, idle).await?;
                    timed(async || assert!(black_box(pool.try_checkout()).is_some())).await
                })
            }
            What::Upstream(endpoints) => {
                let upstream = self.upstream(endpoints)?;
                spawner.spawn(move || async move {
                    let request = Request::default();
                    for _ in 0..WARM_UP {
                        drop(upstream.checkout(&request).await?);
                    }
                    timed(async || drop(black_box(upstream.checkout(&request).await))).await
                })
            }
            What::Call(endpoints) => {
                let upstream = self.upstream(endpoints)?;
                spawner.spawn(move || async move {
                    let request = Request::default();
                    let call =
                        || upstream.call(&request, Idempotency::Idempotent, async |_| Ok(()));
                    for _ in 0..WARM_UP {
                        call().await?;
                    }
                    timed(async || assert!(black_box(call().await).is_ok())).await
                })
            }
        };
        let sample = joined(task)?;
        end(serving)?;
        Ok(sample)
    }

    fn two_reactors(&self) -> io::Result<Sample> {
        let serving = runtime([SERVER_CPU, CLIENT_CPU])?;
        let spawner = serving.spawner();
        let (pool, barrier) = (self.pool(2)?, Arc::new(Barrier::new(2)));
        let begun = [0, 1].map(|reactor| {
            let (pool, barrier) = (pool.clone(), Arc::clone(&barrier));
            spawner.spawn_on(reactor, move || async move {
                fill(&pool, 1).await?;
                // Holds the reactor up, once, and nobody is served by it.
                barrier.wait();
                timed(async || drop(black_box(pool.checkout().await))).await
            })
        });
        let [first, second] = begun.map(joined);
        let (first, second) = (first?, second?);
        end(serving)?;
        Ok(Sample {
            ns: f64::midpoint(first.ns, second.ns),
            per_second: first.per_second + second.per_second,
            allocations: first.allocations + second.allocations,
            ..Sample::default()
        })
    }

    fn our_holders(&self) -> io::Result<Sample> {
        let serving = runtime([SERVER_CPU])?;
        let pool = self.pool(HELD)?;
        let task = serving.spawner().spawn(move || async move {
            fill(&pool, HELD).await?;
            let start = now();
            let hold = |_| spawn_local(hold(pool.clone()));
            let holders: Vec<_> = (0..HOLDERS).map(hold).collect();
            let mut waits_ns = Vec::new();
            for holder in holders {
                waits_ns.extend(holder.await.expect("nobody cancels it")?);
            }
            let took = start.elapsed();
            waits_ns.sort_unstable();
            let at = |part: f64| waits_ns[(part * waits_ns.len() as f64) as usize] as f64;
            let checkouts = f64::from(HOLDERS * HOLDS);
            Ok(Sample {
                ns: took.as_nanos() as f64 / f64::from(HOLDS),
                per_second: checkouts / took.as_secs_f64(),
                p50_ns: at(0.5),
                p99_ns: at(0.99),
                most_ns: waits_ns.last().map_or(0.0, |ns| *ns as f64),
                allocations: 0,
            })
        });
        let sample = joined(task)?;
        end(serving)?;
        Ok(sample)
    }
}

/// What others connect to.
fn echo() -> io::Result<Serving> {
    let builder = Runtime::builder().listen(SocketAddr::from(([0, 0, 0, 0], 0)));
    let builder = builder.cores([CLIENT_CPU]).drain_deadline(Duration::from_secs(1));
    builder
        .serve(async |mut conn| {
            while let Some(data) = conn.recv().await {
                conn.send(data).await?;
            }
            Ok::<_, SendError>(())
        })
        .map_err(io::Error::other)
}

/// A runtime for tasks.
fn runtime<const N: usize>(cores: [usize; N]) -> io::Result<Serving> {
    let builder = Runtime::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    let builder = builder.cores(cores).max_dialed(256).drain_deadline(Duration::from_secs(1));
    builder.serve(async |_| {}).map_err(io::Error::other)
}

fn joined(task: RemoteJoin<Result<Sample, Error>>) -> io::Result<Sample> {
    task.join().map_err(io::Error::other)?.map_err(io::Error::other)
}

fn end(serving: Serving) -> io::Result<()> {
    serving.handle().drain();
    serving.join().map(drop).map_err(io::Error::other)
}

/// So many are there, and idle.
async fn fill(pool: &Pool<Plain>, connections: u32) -> Result<(), Error> {
    let mut all = Vec::new();
    for _ in 0..connections {
        all.push(pool.checkout().await?);
    }
    drop(all);
    yield_now().await;
    Ok(())
}

/// Does it so often, in pieces, between which the reactor turns; the median of the pieces.
async fn timed(mut hit: impl AsyncFnMut()) -> Result<Sample, Error> {
    let (mut took_ns, mut allocated) = (Vec::with_capacity((HITS / PIECE) as usize), 0);
    for _ in 0..HITS / PIECE {
        let (start, before) = (now(), allocations());
        for _ in 0..PIECE {
            hit().await;
        }
        took_ns.push(start.elapsed().as_nanos() as u64);
        allocated += allocations() - before;
        yield_now().await;
    }
    took_ns.sort_unstable();
    let ns = took_ns[took_ns.len() / 2] as f64 / f64::from(PIECE);
    Ok(Sample { ns, per_second: 1e9 / ns, allocations: allocated, ..Sample::default() })
}

/// One of those who share too few; how long each wait was.
async fn hold(pool: Pool<Plain>) -> Result<Vec<u64>, Error> {
    let mut waits_ns = Vec::with_capacity(HOLDS as usize);
    for _ in 0..HOLDS {
        let before = now();
        let connection = pool.checkout().await?;
        waits_ns.push(before.elapsed().as_nanos() as u64);
        yield_now().await;
        drop(connection);
    }
    Ok(waits_ns)
}

fn spread(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Spread {
    Spread::of(samples.iter().map(figure))
}

fn print_hits(rows: &Rows) {
    say(format_args!(
        "\n### P14: checkout of an idle connection and its return (aim: {AIM_NS} ns, no allocation)\n"
    ));
    say("| pool | ns | spread | relative | spread | allocations |");
    say("|---|---|---|---|---|---|");
    let [(_, reference), ..] = &rows[..] else { return };
    for (name, samples) in rows {
        let ns = spread(samples, |sample| sample.ns);
        let pairs = samples.iter().zip(reference);
        let ratio = Spread::of(pairs.map(|(own, reference)| own.ns / reference.ns));
        let allocated: u64 = samples.iter().map(|sample| sample.allocations).sum();
        let allocated =
            if name.contains("slipring") { allocated.to_string() } else { String::new() };
        say(format_args!(
            "| {name} | {:.0} | {:.0}..{:.0} | {:.2} | {:.2}..{:.2} | {allocated} |",
            ns.median, ns.min, ns.max, ratio.median, ratio.min, ratio.max,
        ));
    }
}

fn print_held(rows: &Rows) {
    say(format_args!("\n### P14: {HOLDERS} tasks over {HELD} connections, each held for a turn\n"));
    say("| pool | checkouts each second | spread | wait p50 us | p99 us | spread | most us |");
    say("|---|---|---|---|---|---|---|");
    for (name, samples) in rows {
        let rate = spread(samples, |sample| sample.per_second);
        let p99 = spread(samples, |sample| sample.p99_ns / 1e3);
        say(format_args!(
            "| {name} | {:.0} | {:.0}..{:.0} | {:.1} | {:.1} | {:.1}..{:.1} | {:.0} |",
            rate.median,
            rate.min,
            rate.max,
            spread(samples, |sample| sample.p50_ns / 1e3).median,
            p99.median,
            p99.min,
            p99.max,
            spread(samples, |sample| sample.most_ns / 1e3).max,
        ));
    }
}
