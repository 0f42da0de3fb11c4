//! Dials and lookups that go wrong.

use std::time::Duration;

use slipring::failure::Resolve;
use slipring::{Dial, DialError, Fault, Timeout, dial, now, timeout};

use super::faults;
use crate::support::{
    accept, bounded, connect, end, listener, ms, one_reactor, refusing, reporting,
};

/// What a task of a reactor came to.
#[track_caller]
fn in_a_task<T, F>(act: impl Fn() -> F + Clone + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (serving, told) = reporting(one_reactor().max_dialed(8), move |_client, tell| {
        let acts = act();
        async move { tell.send(acts.await).expect("the test waits") }
    });
    let client = connect(serving.addresses()[0]);
    let done = told.recv_timeout(super::PATIENCE).expect("it is done");
    drop(client);
    end(serving);
    done
}

#[test]
fn a_dial_fails_as_a_real_one_would() {
    bounded(|| {
        let (_socket, refusing) = refusing();
        let faults = faults(
            "connect upstream=refuses refuse; connect upstream=silent blackhole; \
             connect upstream=short blackhole=50ms; connect upstream=slow delay=100ms; \
             connect upstream=slow-refuses delay=100ms; connect upstream=slow-refuses refuse",
        );
        let of_task = faults.clone();
        in_a_task(move || {
            let faults = of_task.clone();
            async move {
                let to = Dial::to(refusing);
                let within = |after| to.within(Timeout::After(ms(after)));
                let real = dial(refusing).await.expect_err("nobody listens");
                assert_eq!(faults.dial(to, "refuses").await.expect_err("refused"), real);
                assert_eq!(faults.dial(to, "nobody's").await.expect_err("refused"), real);

                let check = |began: Duration, least: u64| {
                    let took = now() - began;
                    assert!(took >= ms(least) && took < ms(least + 80), "{took:?} for {least} ms");
                };
                for (dial, upstream, error, least) in [
                    (within(150), "silent", DialError::Timeout, 150),
                    (within(150), "short", DialError::Failed(Fault::TimedOut), 50),
                    (within(20), "short", DialError::Timeout, 20),
                    (to, "slow", real, 100),
                    (to.within(Timeout::Never), "slow", real, 100),
                    (within(30), "slow", DialError::Timeout, 30),
                    (within(150), "slow-refuses", real, 100),
                    (within(30), "slow-refuses", DialError::Timeout, 30),
                ] {
                    let began = now();
                    assert_eq!(faults.dial(dial, upstream).await.expect_err(upstream), error);
                    check(began, least);
                }
                // The runtime's timeout is that of a dial without its own: 3 s.
                assert!(timeout(ms(500), faults.dial(to, "silent")).await.is_err());
                let began = now();
                let silent = faults.dial(to, "silent").await.expect_err("nobody answers");
                assert_eq!(silent, DialError::Timeout);
                check(began, 3000);
            }
        });
        assert_eq!(faults.hits(), [1, 3, 2, 3, 2, 2]);
    });
}

#[test]
fn what_is_left_of_the_timeout_is_for_the_dial_itself() {
    bounded(|| {
        let hole = super::support::BlackHole::new();
        let address = hole.address;
        let took = in_a_task(move || async move {
            let faults = faults("connect delay=150ms");
            let began = now();
            let dial = Dial::to(address).within(Timeout::After(ms(300)));
            assert_eq!(faults.dial(dial, "web").await.expect_err("silence"), DialError::Timeout);
            now() - began
        });
        assert!(took >= ms(300) && took < ms(420), "{took:?}");
    });
}

#[test]
fn a_dial_without_faults_connects() {
    bounded(|| {
        let (listener, address) = listener();
        let dials = move || async move {
            let faults = faults("connect upstream=other refuse; connect delay=20ms");
            for upstream in ["web", "db"] {
                let conn = faults.dial(Dial::to(address), upstream).await.expect("it listens");
                drop(conn);
            }
            faults.turn_off();
            assert!(faults.dial(Dial::to(address), "other").await.is_ok());
            faults.hits()
        };
        assert_eq!(in_a_task(dials), [0, 2]);
        (0..3).for_each(|_| drop(accept(&listener)));
    });
}

#[test]
fn lookups_fail_and_wait() {
    bounded(|| {
        in_a_task(|| async {
            let faults = faults(
                "resolve upstream=none notfound; resolve upstream=silent timeout=80ms; \
                 resolve upstream=silent delay=1h; resolve upstream=slow delay=60ms",
            );
            assert_eq!(faults.resolving("web"), None);
            for (upstream, least, outcome) in [
                ("none", 0, Err(Resolve::NotFound)),
                ("silent", 80, Err(Resolve::Timeout)),
                ("slow", 60, Ok(())),
            ] {
                let began = now();
                let resolving = faults.resolving(upstream).expect("something happens");
                assert_eq!(resolving.pass().await, outcome);
                let took = now() - began;
                assert!(took >= ms(least) && took < ms(least + 80), "{took:?}");
            }
            assert_eq!(faults.hits(), [1, 1, 0, 1]);
            faults.turn_off();
            assert_eq!(faults.resolving("none"), None);
        });
    });
}

#[test]
fn a_share_of_a_half_is_a_half_and_a_seed_repeats() {
    let drawn = |seed| {
        let rules = "resolve share=50% notfound".parse().expect("rules");
        let faults = slipring::faults::Faults::new(rules, seed).expect("sound");
        let all: Vec<_> = (0..1000).map(|_| faults.resolving("web").is_some()).collect();
        let hits = all.iter().filter(|is_hit| **is_hit).count();
        assert_eq!(faults.hits(), [hits as u64]);
        // Four and a half standard deviations.
        assert!((430..=570).contains(&hits), "{hits}");
        all
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    // Neighbours have nothing to do with each other.
    let (mut all, mut same) = (drawn(3), 0);
    all.extend(drawn(4));
    same += all.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((850..1150).contains(&same), "{same}");
}
