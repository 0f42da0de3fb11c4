//! Faults that a service makes on purpose (`slipring::faults`), under simulation: the same rules, virtual time, and a
//! seed repeats the run.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use slipring::faults::Faults;
use slipring::{Conn, Dial, now, tasks};
use slipring_sim::{Script, SimBuilder, check};

fn upstream() -> SocketAddr {
    ([198, 51, 100, 1], 80).into()
}

type Log = Rc<RefCell<Vec<(Duration, String)>>>;

/// A proxy with these faults, and what became of its clients.
fn proxy(rules: &str, seed: u64, log: &Log) -> impl FnMut(Conn) -> futures::Serving + use<> {
    let faults = Faults::new(rules.parse().expect("rules"), seed).expect("sound");
    let log = Rc::clone(log);
    move |client: Conn| {
        let (faults, log) = (faults.clone(), Rc::clone(&log));
        Box::pin(async move {
            let Some(client) = faults.accepting(client, "front").await else { return };
            let became = match faults.dial(Dial::to(upstream()), "web").await {
                Ok(server) => {
                    let relayed = faults.relay(client, server, "front", "web").await;
                    format!("{relayed:?}")
                }
                Err(error) => error.to_string(),
            };
            log.borrow_mut().push((now(), became));
        })
    }
}

mod futures {
    pub(crate) type Serving = std::pin::Pin<Box<dyn Future<Output = ()>>>;
}

fn run(
    rules: &str,
    seed: u64,
    clients: usize,
    script: impl Fn() -> Script,
) -> (Vec<(Duration, String)>, u64) {
    let log = Log::default();
    let builder = SimBuilder::new(seed).patience(Duration::from_secs(2 * 3600));
    let mut sim = builder.start(|_| tasks(proxy(rules, seed, &log)));
    sim.serve(upstream(), |_| {
        Script::new().answer_to_end(|unread| Some((1, vec![unread[0].to_ascii_uppercase()])))
    });
    for _ in 0..clients {
        sim.connect(script());
    }
    sim.run();
    let hash = sim.trace_hash();
    sim.finish();
    let log = log.borrow().clone();
    (log, hash)
}

#[test]
fn a_chain_of_faults_loses_no_byte_and_comes_to_its_end() {
    let rules = "io latency=20ms jitter=30ms slice=1B..3B; io direction=from bandwidth=100B/s burst=4B slow-close=1s; \
                 connect share=50% delay=1s; accept share=50% delay=10ms";
    check(100, |seed| {
        let talk =
            || Script::new().send(b"hello, world").expect(b"HELLO, WORLD").shutdown().expect_end();
        let (log, _) = run(rules, seed, 3, talk);
        assert_eq!(log.len(), 3);
        for (at, became) in log {
            assert!(became.contains("PeerClosed"), "{became}");
            // Two ways, twelve bytes of which each piece waits, and the FIN.
            assert!(at > Duration::from_millis(1040), "{at:?}");
        }
    });
}

#[test]
fn a_seed_repeats_the_run() {
    let rules = "io share=50% latency=5ms jitter=90ms; connect share=30% refuse; io share=20% direction=from reset=3B; \
                 connect share=20% blackhole";
    let talk = || Script::new().send(b"hello").shutdown().expect_gone();
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let first = run(rules, seed, 4, talk);
        assert_eq!(first, run(rules, seed, 4, talk), "seed {seed}");
        outcomes.extend(first.0.into_iter().map(|(_, became)| became));
    }
    assert!(outcomes.len() >= 3, "{outcomes:?}");
}

#[test]
fn a_stall_ends_as_the_connections_own_timeouts_say() {
    let (log, _) = run("io stall", 5, 1, || Script::new().send(b"hello").expect_gone());
    let [(at, _)] = &log[..] else { panic!("{log:?}") };
    assert!(*at >= Duration::from_secs(3600), "{at:?}");
}
