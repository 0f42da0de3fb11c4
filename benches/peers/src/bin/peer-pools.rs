//! No server: what a checkout of other runtimes' pools costs, for the P14 bench.
//!
//! `peer-pools deadpool|bb8 current|multi hits|held CONNECTIONS TASKS CHECKOUTS IP:PORT`
//!
//! - `hits`: each task checks out and gives back in turn; there is always a connection for it. Pieces of `PIECE` are
//!   timed, of which the median counts, and the task yields between them, untimed: tokio makes a task that takes more
//!   than 128 permits in one poll give way, and that is its scheduler's price.
//! - `held`: each holds its connection until the scheduler has had its turn, so that others have to wait.
//!
//! Prints one line: nanoseconds of a checkout with its return, as its task sees it; checkouts a second of all
//! tasks; the median, the 99th percentile and the most of the waits, nanoseconds.
//!
//! Connections are tokio's, to that address; the managers look at nothing, neither when one is given out nor when it
//! comes back. All else is as the crates have it by default.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures, and stands apart from what it measures"
)]

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, RecycleResult};
use slipring_peers::pin_to_cpus;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;
use tokio::task::yield_now;

/// As in the P14 bench; below the permits that tokio lets a task take in one poll.
const PIECE: u32 = 100;
const WORKERS: usize = 2;

/// How a connection comes about.
#[derive(Debug)]
struct Dial(SocketAddr);

impl managed::Manager for Dial {
    type Type = TcpStream;
    type Error = io::Error;

    async fn create(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.0).await
    }

    async fn recycle(&self, _: &mut TcpStream, _: &Metrics) -> RecycleResult<io::Error> {
        Ok(())
    }
}

impl bb8::ManageConnection for Dial {
    type Connection = TcpStream;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.0).await
    }

    async fn is_valid(&self, _: &mut TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn has_broken(&self, _: &mut TcpStream) -> bool {
        false
    }
}

/// What the two have in common.
trait Pool: Send + Sync + 'static {
    type Guard<'a>: Send;

    fn checkout(&self) -> impl Future<Output = Self::Guard<'_>> + Send;
}

impl Pool for managed::Pool<Dial> {
    type Guard<'a> = managed::Object<Dial>;

    async fn checkout(&self) -> Self::Guard<'_> {
        self.get().await.expect("a connection to loopback")
    }
}

impl Pool for bb8::Pool<Dial> {
    type Guard<'a> = bb8::PooledConnection<'a, Dial>;

    async fn checkout(&self) -> Self::Guard<'_> {
        self.get().await.expect("a connection to loopback")
    }
}

/// What one task measured.
struct Measured {
    took: Duration,
    waits_ns: Vec<u64>,
}

async fn hits<P: Pool>(pool: Arc<P>, checkouts: u32) -> Measured {
    let mut pieces = Vec::with_capacity((checkouts / PIECE) as usize);
    for _ in 0..checkouts / PIECE {
        let start = Instant::now();
        for _ in 0..PIECE {
            drop(pool.checkout().await);
        }
        pieces.push(start.elapsed());
        yield_now().await;
    }
    pieces.sort_unstable();
    let took = pieces[pieces.len() / 2] * (checkouts / PIECE);
    Measured { took, waits_ns: Vec::new() }
}

async fn held<P: Pool>(pool: Arc<P>, checkouts: u32) -> Measured {
    let mut waits_ns = Vec::with_capacity(checkouts as usize);
    let start = Instant::now();
    for _ in 0..checkouts {
        let before = Instant::now();
        let connection = pool.checkout().await;
        waits_ns.push(before.elapsed().as_nanos() as u64);
        yield_now().await;
        drop(connection);
    }
    Measured { took: start.elapsed(), waits_ns }
}

async fn measure<P: Pool>(
    pool: P,
    is_held: bool,
    connections: usize,
    tasks: u32,
    checkouts: u32,
) -> Vec<Measured> {
    let pool = Arc::new(pool);
    let mut all = Vec::new();
    for _ in 0..connections {
        all.push(pool.checkout().await);
    }
    drop(all);
    let barrier = Arc::new(Barrier::new(tasks as usize));
    let begun: Vec<_> = (0..tasks)
        .map(|_| {
            let (pool, barrier) = (Arc::clone(&pool), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                if is_held { held(pool, checkouts).await } else { hits(pool, checkouts).await }
            })
        })
        .collect();
    let mut measured = Vec::new();
    for task in begun {
        measured.push(task.await.expect("it does not panic"));
    }
    measured
}

fn runtime(kind: &str) -> io::Result<Runtime> {
    match kind {
        "current" => {
            pin_to_cpus(&[0])?;
            Builder::new_current_thread().enable_all().build()
        }
        "multi" => {
            pin_to_cpus(&[0, 1])?;
            Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()
        }
        other => Err(invalid(other)),
    }
}

fn invalid(what: &str) -> io::Error {
    let want = "deadpool|bb8 current|multi hits|held CONNECTIONS TASKS CHECKOUTS IP:PORT";
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: want {want}"))
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pool, kind, mode, connections, tasks, checkouts, address] = &arguments[..] else {
        return Err(invalid("arguments"));
    };
    let number = |text: &String| text.parse::<u32>().map_err(|_| invalid(text));
    let (connections, tasks) = (number(connections)?, number(tasks)?);
    let (checkouts, is_held) = (number(checkouts)?, mode == "held");
    let dial = Dial(address.parse().map_err(|_| invalid(address))?);
    let size = connections as usize;
    let measured = runtime(kind)?.block_on(async {
        match pool.as_str() {
            "deadpool" => {
                let pool = managed::Pool::builder(dial).max_size(size).build();
                let pool = pool.map_err(io::Error::other)?;
                Ok(measure(pool, is_held, size, tasks, checkouts).await)
            }
            "bb8" => {
                let pool = bb8::Pool::builder().max_size(connections).build(dial).await?;
                Ok(measure(pool, is_held, size, tasks, checkouts).await)
            }
            other => Err(invalid(other)),
        }
    })?;
    let mut waits: Vec<u64> = measured.iter().flat_map(|one| &one.waits_ns).copied().collect();
    waits.sort_unstable();
    let at = |part: f64| waits.get((part * waits.len() as f64) as usize).copied().unwrap_or(0);
    let all: Duration = measured.iter().map(|one| one.took).sum();
    let ns = all.as_nanos() as f64 / f64::from(tasks * checkouts);
    let rate = f64::from(tasks) / ns * 1e9;
    let most = waits.last().copied().unwrap_or(0);
    writeln!(io::stdout(), "{ns:.1} {rate:.0} {} {} {most}", at(0.5), at(0.99))
}
