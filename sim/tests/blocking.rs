//! Blocking work under simulation: in the one thread there is, in virtual time, the same in every run.

use std::time::Duration;

use slipring::{Conn, JoinError, blocking_snapshot, tasks, timeout, unblock};
use slipring_sim::{Knobs, Script, Sim, SimBuilder, check};

const TAKES: Duration = Duration::from_millis(40);

/// Answers each line by work that blocks; says so when it took too long.
async fn shout(mut conn: Conn, patience: Duration) {
    while let Some(data) = conn.recv().await {
        let bytes = data.to_vec();
        drop(data);
        let answer = match timeout(patience, unblock(move || bytes.to_ascii_uppercase())).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => format!("{error}").into_bytes(),
            Err(_) => b"too late".to_vec(),
        };
        if conn.send(answer).await.is_err() {
            return;
        }
    }
}

fn run(conditions: SimBuilder, patience: Duration, expected: &'static [u8]) -> (u64, Duration) {
    let mut sim = conditions
        .start(move |_| tasks(move |conn| shout(conn, patience)).with_inline_blocking(TAKES));
    let script = Script::new().send("h").expect(expected).shutdown().expect_end();
    let peers = [sim.connect(script), {
        let script = Script::new().send("h").expect(expected).shutdown().expect_end();
        sim.connect(script)
    }];
    sim.run();
    for peer in peers {
        assert_eq!(sim.received(peer), expected);
    }
    let now = sim.now();
    sim.finish();
    (sim.trace_hash(), now)
}

#[test]
fn it_takes_the_time_it_is_said_to_take_and_no_thread() {
    check(50, |seed| {
        let (hash, took) = run(SimBuilder::new(seed), TAKES * 100, b"H");
        assert!(took >= TAKES, "{took:?}");
        assert_eq!(
            run(SimBuilder::new(seed), TAKES * 100, b"H"),
            (hash, took),
            "one seed, one run"
        );
        assert_eq!(blocking_snapshot().threads, 0);
    });
}

#[test]
fn a_deadline_before_its_end_is_met_there_as_it_would_be_beside_threads() {
    // Without stalls: a reactor that wakes behind both finds the work done, which comes first.
    check(50, |seed| {
        run(SimBuilder::new(seed).faults(Knobs::calm()), TAKES / 2, b"too late");
    });
}

#[test]
fn its_panic_is_its_own() {
    check(20, |seed| {
        let mut sim = Sim::new(seed, |_| {
            tasks(async |mut conn: Conn| {
                let panicked = unblock(|| panic!("on purpose")).await;
                assert_eq!(panicked, Err::<(), _>(JoinError::Panicked));
                let _ = conn.send("still here").await;
            })
            .with_inline_blocking(Duration::ZERO)
        });
        let peer = sim.connect(Script::new().expect("still here").expect_end());
        sim.run();
        assert_eq!(sim.received(peer), b"still here");
        sim.finish();
    });
}
