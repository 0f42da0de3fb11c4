//! Names on reactors: one that is followed; in `resolve/kept.rs` many, kept for those who dial by name.

#[path = "resolve/kept.rs"]
mod kept;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::setting::{run, runtime};
use crate::support::{self, PATIENCE, bounded, end, ms, one_reactor, two_reactors};
use slipring::failure::{Kind, Phase, Resolve};
use slipring::resolve::{
    Answer, Chain, Fixed, Lookup, NameLimits, Query, ResolveLimits, Resolver, Source, Target,
    Unresolved, watch,
};
use slipring::{Spawner, now, sleep, spawn_local, timeout, yield_now};

/// What a scripted source does about one question.
#[derive(Clone, Debug)]
enum Step {
    Say(Result<Answer, Resolve>),
    /// After a while.
    Late(Duration, Result<Answer, Resolve>),
    /// Never.
    Silent,
    Panic,
}

/// Does one step after the other, and the last one for ever.
#[derive(Clone)]
struct Script {
    steps: Arc<Mutex<VecDeque<Step>>>,
    /// Questions that came, and look-ups that were dropped before they ended.
    asked: Arc<AtomicU32>,
    given_up: Arc<AtomicU32>,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = Arc::new(Mutex::new(steps.into_iter().collect()));
        Self { steps, asked: Arc::default(), given_up: Arc::default() }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    fn given_up(&self) -> u32 {
        self.given_up.load(Ordering::SeqCst)
    }

    fn now_say(&self, step: Step) {
        *self.steps.lock().expect("no panic") = VecDeque::from([step]);
    }
}

impl Source for Script {
    fn lookup(&self, query: &Query) -> Lookup {
        assert_eq!(query.address(), None, "an address never reaches a source");
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut steps = self.steps.lock().expect("no panic");
        let step = match steps.len() {
            0 => Step::Silent,
            1 => steps[0].clone(),
            _ => steps.pop_front().expect("there are some"),
        };
        drop(steps);
        let mut guard = Guard { given_up: Arc::clone(&self.given_up), is_over: false };
        Box::pin(async move {
            let said = match step {
                Step::Say(said) => said,
                Step::Late(after, said) => {
                    sleep(after).await;
                    said
                }
                Step::Silent => std::future::pending().await,
                Step::Panic => {
                    yield_now().await;
                    guard.end();
                    panic!("a source's own bug");
                }
            };
            guard.end();
            said
        })
    }
}

struct Guard {
    given_up: Arc<AtomicU32>,
    is_over: bool,
}

impl Guard {
    fn end(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_over {
            self.given_up.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn query(text: &str) -> Query {
    text.parse().expect("a query")
}

fn target(octet: u8) -> Target {
    Target::new(([192, 0, 2, octet], 80).into())
}

fn answer(octets: &[u8], ttl: Duration) -> Result<Answer, Resolve> {
    Ok(Answer { targets: octets.iter().map(|octet| target(*octet)).collect(), ttl })
}

/// Short enough to see answers end.
fn limits() -> ResolveLimits {
    let names =
        NameLimits { ttl_min: ms(50), negative: ms(50), stale: ms(300), ..NameLimits::default() };
    ResolveLimits { names, lookup_timeout: ms(200), ..ResolveLimits::default() }
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = now() + PATIENCE;
    while !is_so() {
        assert!(now() < until, "never so: {what}");
        sleep(ms(1)).await;
    }
}

type Told = (Duration, Result<Vec<Target>, Resolve>);

/// Follows a name; what is published comes with the time.
fn follow(
    text: &str,
    script: &Script,
    limits: ResolveLimits,
) -> (slipring::JoinHandle<std::convert::Infallible>, mpsc::Receiver<Told>) {
    let (tell, told) = mpsc::channel();
    let rng = fastrand::Rng::with_seed(1);
    let following = watch(query(text), script.clone(), limits, rng, move |targets| {
        let targets = targets.map(<[Target]>::to_vec);
        tell.send((now(), targets)).expect("the test listens");
    });
    (spawn_local(following), told)
}

/// Waits for what is published next.
async fn next(told: &mpsc::Receiver<Told>) -> Told {
    let until = now() + PATIENCE;
    loop {
        if let Ok(told) = told.try_recv() {
            return told;
        }
        assert!(now() < until, "nothing is published");
        sleep(ms(1)).await;
    }
}

// --------------------------------------------------------------------------------- one is followed

#[test]
fn what_a_name_leads_to_is_published_when_it_changes_and_only_then() {
    bounded(|| {
        run(|| async {
            let ttl = ms(50);
            let script = Script::new([
                Step::Say(answer(&[2, 1], ttl)),
                Step::Say(answer(&[1, 2], ttl)),
                Step::Say(Err(Resolve::Timeout)),
                Step::Say(answer(&[1, 2, 2], ttl)),
                Step::Say(answer(&[3], ttl)),
                Step::Say(Err(Resolve::NotFound)),
                Step::Say(Err(Resolve::NotFound)),
                Step::Say(Err(Resolve::NoAddress)),
                Step::Say(answer(&[3], ttl)),
            ]);
            let (task, told) = follow("a.example:80", &script, limits());
            assert_eq!(next(&told).await.1, Ok(vec![target(1), target(2)]));
            assert_eq!(next(&told).await.1, Ok(vec![target(3)]));
            assert_eq!(next(&told).await.1, Err(Resolve::NotFound));
            assert_eq!(next(&told).await.1, Err(Resolve::NoAddress));
            assert_eq!(next(&told).await.1, Ok(vec![target(3)]));
            let asked = script.asked();
            assert!(asked >= 9, "{asked}");
            eventually("it goes on", || script.asked() > asked + 2).await;
            assert!(told.try_recv().is_err(), "nothing is new");
            task.cancel();
        });
    });
}

#[test]
fn a_first_failure_is_published_too() {
    bounded(|| {
        run(|| async {
            for (step, failure) in [
                (Step::Silent, Resolve::Timeout),
                (Step::Say(Err(Resolve::Timeout)), Resolve::Timeout),
                (Step::Say(Err(Resolve::NotFound)), Resolve::NotFound),
                (Step::Panic, Resolve::ServerFailure),
            ] {
                let (task, told) = follow("a.example:80", &Script::new([step]), limits());
                assert_eq!(next(&told).await.1, Err(failure));
                sleep(ms(150)).await;
                assert!(told.try_recv().is_err(), "once");
                task.cancel();
            }
        });
    });
}

#[test]
fn a_lookup_has_its_time_and_is_dropped_then_and_with_the_task() {
    bounded(|| {
        run(|| async {
            let script = Script::new([Step::Silent]);
            let begun = now();
            let (task, told) = follow("a.example:80", &script, limits());
            let (at, failure) = next(&told).await;
            assert_eq!(failure, Err(Resolve::Timeout));
            support::assert_kept("the look-up", at - begun, ms(200));
            assert_eq!(script.given_up(), 1);
            eventually("the next one", || script.asked() == 2).await;
            task.cancel();
            assert_eq!(script.given_up(), 2);
        });
    });
}

#[test]
fn an_old_answer_runs_out_by_time_alone_though_nobody_answers() {
    bounded(|| {
        run(|| async {
            // Its look-ups take longer than the old answer counts: no answer comes to tell of its end.
            let mut limits = limits();
            limits.lookup_timeout = Duration::from_secs(20);
            let ttl = ms(50);
            let script = Script::new([
                Step::Say(answer(&[1], ttl)),
                Step::Say(Err(Resolve::ServerFailure)),
                Step::Silent,
            ]);
            let (task, told) = follow("a.example:80", &script, limits);
            let (answered, targets) = next(&told).await;
            assert_eq!(targets, Ok(vec![target(1)]));
            let (ran_out, failure) = next(&told).await;
            assert_eq!(failure, Err(Resolve::ServerFailure));
            support::assert_kept("what is old", ran_out - answered, ttl + limits.names.stale);
            assert_eq!((script.asked(), script.given_up()), (3, 0), "it is still being asked");

            // And while nobody is asked, who would be again in an hour only.
            limits.names.negative = Duration::from_secs(3600);
            let script =
                Script::new([Step::Say(answer(&[1], ttl)), Step::Say(Err(Resolve::Timeout))]);
            let (other, told) = follow("a.example:80", &script, limits);
            let (answered, _) = next(&told).await;
            let (ran_out, failure) = next(&told).await;
            assert_eq!(failure, Err(Resolve::Timeout));
            support::assert_kept("what is old", ran_out - answered, ttl + limits.names.stale);
            assert_eq!(script.asked(), 2);
            task.cancel();
            other.cancel();
        });
    });
}

#[test]
fn an_address_needs_no_source() {
    bounded(|| {
        run(|| async {
            let script = Script::new([Step::Panic]);
            let (task, told) = follow("192.0.2.7:80", &script, limits());
            assert_eq!(next(&told).await.1, Ok(vec![target(7)]));
            let mut public = limits();
            public.names.is_public = true;
            let (other, told) = follow("127.0.0.1:80", &script, public);
            assert_eq!(next(&told).await.1, Err(Resolve::NotPublic));
            assert_eq!(script.asked(), 0);
            task.cancel();
            other.cancel();
        });
    });
}

#[test]
fn addresses_that_are_not_public_are_left_out_or_fail() {
    bounded(|| {
        run(|| async {
            let (fixed, mut limits) = (Fixed::new(), limits());
            limits.names.is_public = true;
            let [private, public] = [[10, 0, 0, 1], [9, 9, 9, 9]].map(IpAddr::from);
            fixed.set("a.example", [private, public]).expect("a name");
            fixed.set("b.example", [private]).expect("a name");
            let resolver = Resolver::new(Chain::new().then(fixed), limits).expect("limits");
            let found = resolver.resolve(&query("a.example:80")).await.expect("one is public");
            assert_eq!(found, [Target::new(SocketAddr::new(public, 80))]);
            for text in ["b.example:80", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
                let error = resolver.resolve(&query(text)).await.expect_err("it is private");
                assert!(matches!(error.kind(), Kind::Resolve(Resolve::NotPublic)), "{error}");
            }
        });
    });
}

#[test]
fn limits_that_make_no_sense_neither_panic_nor_ask_without_end() {
    bounded(|| {
        run(|| async {
            for span in [Duration::ZERO, Duration::MAX] {
                let names = NameLimits {
                    ttl_min: span,
                    ttl_max: Duration::ZERO,
                    negative: span,
                    stale: span,
                    is_public: false,
                };
                let limits = ResolveLimits { names, lookup_timeout: span, names_max: 0 };
                let steps = [answer(&[1], span), Err(Resolve::Timeout)].map(Step::Say);
                let script = Script::new(steps);
                let (task, told) = follow("a.example:80", &script, limits);
                assert_eq!(next(&told).await.1, Ok(vec![target(1)]));
                sleep(ms(50)).await;
                assert!(script.asked() <= 110, "{} in 50 ms", script.asked());
                task.cancel();
                assert!(Resolver::new(script, limits).is_err());
            }
        });
    });
}
