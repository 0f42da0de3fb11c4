//! Connectors under the simulator: dials that are refused, unreachable or never answered, futures that are dropped at
//! any time; and nothing is left, and no time limit is passed.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use slipring::connector::{About, ConnectLimits, Connector};
use slipring::failure::{Kind, Phase};
use slipring::policy::names::Target;
use slipring::proxy_protocol::Version;
use slipring::{Census, Conn, Error, tasks};
use slipring_sim::{Knobs, Script, SimBuilder, check};

const CLIENTS: usize = 4;
const CONNECTS_EACH: usize = 4;

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 80))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80))
}

/// What came of everything that was begun.
#[derive(Debug, Default)]
struct Tally {
    connected: usize,
    failed: usize,
    dropped: usize,
}

fn limits() -> ConnectLimits {
    ConnectLimits { attempt: Duration::from_millis(800), ..ConnectLimits::default() }
}

/// A turn may take half a second, and what has been due since then is only seen after it.
const STALLS: Duration = Duration::from_millis(1_500);

/// Connects, or is dropped meanwhile; talks a little if it has connected.
async fn once(connector: &Connector, rng: &mut fastrand::Rng, tally: &RefCell<Tally>) {
    let about = About::default();
    let all = [v4(1), v6(1), v4(2), v6(2)].map(Target::new);
    let (is_race, one) = (rng.bool(), all[rng.usize(..4)].address);
    let patience = Duration::from_millis([1, 20, 260, 30_000][rng.usize(..4)]);
    let most = if is_race { limits().total } else { limits().attempt };
    let begun = slipring::now();
    let connecting = async {
        match is_race {
            true => connector.race(&all, &about).await,
            false => connector.connect(one, &about).await,
        }
    };
    let Ok(connected) = slipring::timeout(patience, connecting).await else {
        tally.borrow_mut().dropped += 1;
        return;
    };
    let took = slipring::now() - begun;
    match connected {
        Ok(mut stream) => {
            assert!(took <= most + STALLS, "connected after {took:?}");
            tally.borrow_mut().connected += 1;
            if stream.send("hello").await.is_ok() && stream.shutdown().await.is_ok() {
                let mut heard = Vec::new();
                while let Ok(Some(lease)) = stream.recv().await {
                    heard.extend_from_slice(&lease);
                }
                assert!(b"PROXY UNKNOWN\r\nhello".starts_with(&heard), "{heard:?}");
            }
        }
        Err(error) => {
            tally.borrow_mut().failed += 1;
            look_at(&error, took, most);
        }
    }
}

fn look_at(error: &Error, took: Duration, most: Duration) {
    assert!(matches!(error.kind(), Kind::Dial(_) | Kind::Resource(_)), "{error}");
    assert_eq!(error.phase(), Phase::Dial, "{error}");
    assert!(error.endpoint().is_some(), "{error}");
    assert!(error.elapsed() <= took && took <= most + STALLS, "{error} after {took:?}");
}

#[test]
fn nothing_is_left_of_connections_that_come_about_fail_or_are_dropped() {
    let all = Rc::new(RefCell::new(Tally::default()));
    let tally = Rc::clone(&all);
    check(300, move |seed| {
        let tally = Rc::clone(&tally);
        let seeds = Rc::new(RefCell::new(fastrand::Rng::with_seed(seed)));
        let service = move |mut conn: Conn| {
            let (tally, mut rng) = (Rc::clone(&tally), seeds.borrow_mut().fork());
            async move {
                let builder = Connector::builder().limits(limits()).proxy_header(Version::V1);
                let connector = builder.build().expect("limits that make sense");
                for _ in 0..CONNECTS_EACH {
                    once(&connector, &mut rng, &tally).await;
                }
                while conn.recv().await.is_some() {}
            }
        };
        let builder = SimBuilder::new(seed).tolerate_lingering().turn(|knobs| {
            knobs.failed_dial = 250;
            knobs.lost_dial = 250;
        });
        let mut sim = builder.start(|_reactor| tasks(service.clone()));
        for served in [v4(1), v6(2)] {
            let echo = |unread: &[u8]| Some((unread.len(), unread.to_vec()));
            sim.serve(served, move |_| Script::new().answer_to_end(echo));
        }
        for _ in 0..CLIENTS {
            sim.connect(Script::new().send(b"go").shutdown().expect_end());
        }
        sim.finish();
        assert_eq!(sim.handler(0).census(), Census::default());
        assert_eq!(sim.open_connections(), 0);
    });
    let Tally { connected, failed, dropped } = &*all.borrow();
    assert!(*connected > 100 && *failed > 100 && *dropped > 100, "{all:?}");
}

/// What becomes of connections where nobody ever answers: the errors of one to the first address, and of a race to all.
fn in_silence(limits: ConnectLimits) -> (Error, Error) {
    let told = Rc::new(RefCell::new(None));
    let tell = Rc::clone(&told);
    let mut knobs = Knobs::calm();
    knobs.lost_dial = 1_000;
    let mut sim =
        SimBuilder::new(1).faults(knobs).patience(Duration::from_secs(60)).start(move |_reactor| {
            let tell = Rc::clone(&tell);
            tasks(move |conn: Conn| {
                let tell = Rc::clone(&tell);
                async move {
                    // So long the client waits.
                    let _conn = conn;
                    let connector = Connector::builder().limits(limits).build().expect("sane");
                    let about = About::default();
                    let all = [v4(1), v6(1), v4(2)].map(Target::new);
                    let one = connector.connect(v4(1), &about).await.err();
                    let raced = connector.race(&all, &about).await.err();
                    *tell.borrow_mut() = one.zip(raced);
                }
            })
        });
    sim.serve(v4(1), |_| Script::new());
    sim.connect(Script::new().expect_end());
    sim.finish();
    told.take().expect("both have failed")
}

/// Time is virtual, so that it is seen to the millisecond.
#[test]
fn limits_are_kept_to_the_millisecond() {
    let s = Duration::from_secs;
    let is_at = |error: &Error, at: Duration| {
        let late = error.elapsed().checked_sub(at);
        assert!(
            late.is_some_and(|late| late <= Duration::from_millis(2)),
            "{error}, not at {at:?}"
        );
        assert_eq!(error.label(), "connect_timeout");
    };
    // The third of the race begins after 500 ms.
    let (one, raced) = in_silence(ConnectLimits::default());
    is_at(&one, s(3));
    is_at(&raced, s(3) + Duration::from_millis(500));
    let short = ConnectLimits { attempt: s(20), total: s(20), ..ConnectLimits::default() };
    let (one, raced) = in_silence(short);
    is_at(&one, s(20));
    is_at(&raced, s(20));
}
