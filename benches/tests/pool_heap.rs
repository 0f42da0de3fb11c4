//! What a checkout of a kept connection and its return allocate: nothing.
//!
//! On the real kernel, and by the thread of the reactor alone: see `measure::heap`. A file of its own, since a process
//! has one allocator.

use std::net::{Ipv4Addr, SocketAddr};

use slipring::policy::pool::{Mode, PoolLimits};
use slipring::pool::{Plain, Pool};
use slipring::upstream::{Request, Upstream};
use slipring::{Error, RemoteJoin, Runtime, SendError, Serve as _, Serving, Spawner, yield_now};
use slipring_benches::measure::heap::{Counting, allocations};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CHECKOUTS: u64 = 1_000;
/// Of the upstream; all of them on loopback.
const ENDPOINTS: u32 = 10;
/// So many that each endpoint has been chosen, and what grows has grown.
const WARM_UP: u32 = 2_000;

/// A runtime whose tasks use pools, and an echo for them to connect to.
fn runtime() -> (Serving, Spawner, u16) {
    let builder = Runtime::builder().listen(SocketAddr::from(([0, 0, 0, 0], 0)));
    let serving = builder
        .cores([0])
        .max_connections(64)
        .max_dialed(64)
        .serve(async |mut conn| {
            while let Some(data) = conn.recv().await {
                conn.send(data).await?;
            }
            Ok::<_, SendError>(())
        })
        .expect("it starts");
    let (spawner, port) = (serving.spawner(), serving.addresses()[0].port());
    (serving, spawner, port)
}

fn endpoint(number: u32, port: u16) -> SocketAddr {
    let address = u32::from(Ipv4Addr::LOCALHOST) + number;
    SocketAddr::from((Ipv4Addr::from(address), port))
}

/// What so many of these allocate in one turn, and as many with a turn after each.
async fn allocated(mut once: impl AsyncFnMut() -> Result<(), Error>) -> Result<[u64; 2], Error> {
    for _ in 0..WARM_UP {
        once().await?;
        yield_now().await;
    }
    let before = allocations();
    for _ in 0..CHECKOUTS {
        once().await?;
    }
    let in_one_turn = allocations() - before;
    let before = allocations();
    for _ in 0..CHECKOUTS {
        once().await?;
        yield_now().await;
    }
    Ok([in_one_turn, allocations() - before])
}

#[track_caller]
fn assert_none(serving: Serving, task: RemoteJoin<Result<[u64; 2], Error>>) {
    let allocated = task.join().expect("it ends").expect("connections to loopback");
    serving.handle().drain();
    serving.join().expect("a drain in order");
    assert_eq!(allocated, [0, 0], "by {CHECKOUTS} hits in one turn, and in as many turns");
}

#[test]
fn the_allocator_counts() {
    let before = allocations();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(allocations() - before, 1);
}

#[test]
fn a_hit_of_a_pool_allocates_nothing() {
    let (serving, spawner, port) = runtime();
    let limits = PoolLimits::of(Mode::Dynamic { min_idle: 0, max: 4 });
    let pool = Pool::new(endpoint(0, port), Plain, limits).expect("sound limits");
    let task = spawner.spawn(move || async move {
        let all = [pool.checkout().await?, pool.checkout().await?, pool.checkout().await?];
        drop(all);
        allocated(async || pool.checkout().await.map(drop)).await
    });
    assert_none(serving, task);
}

#[test]
fn a_hit_of_an_upstream_allocates_nothing() {
    let (serving, spawner, port) = runtime();
    let endpoints = (0..ENDPOINTS).map(|number| endpoint(number, port));
    let builder = Upstream::builder("test").seed(7);
    let builder = endpoints.fold(builder, |builder, address| builder.endpoint(address));
    let upstream = builder.build().expect("sound");
    let task = spawner.spawn(move || async move {
        let request = Request::default();
        allocated(async || upstream.checkout(&request).await.map(drop)).await
    });
    assert_none(serving, task);
}
