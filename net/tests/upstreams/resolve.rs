//! Names on reactors: one that is followed, and many that are kept for those who dial by name.

use crate::support;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use slipring::failure::{Kind, Phase, Resolve};
use slipring::resolve::{
    Answer, Chain, Fixed, Lookup, NameLimits, Query, ResolveLimits, Resolver, Source, Target,
    Unresolved, watch,
};
use slipring::{Serve, Serving, Spawner, now, sleep, spawn_local, timeout, yield_now};
use support::{PATIENCE, bounded, ms, one_reactor, two_reactors};

/// A runtime that nobody connects to.
fn idle(builder: slipring::Builder) -> (Serving, Spawner) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let serving = builder.listen(address).serve(async |_| {}).expect("it starts");
    let spawner = serving.spawner();
    (serving, spawner)
}

fn end(serving: Serving) {
    serving.handle().drain();
    let counters = serving.join().expect("a drain in order");
    let panics: u64 = counters.iter().map(|counters| counters.handler_panics).sum();
    assert_eq!(panics, 0, "a task panicked");
}

/// Runs one task on a reactor to its end.
fn run<T, F>(task: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (serving, spawner) = idle(one_reactor());
    let result = spawner.spawn(task).join().expect("it ends");
    end(serving);
    result
}

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

// ---------------------------------------------------------------------------------- many are kept

fn resolver(script: &Script, limits: ResolveLimits) -> Resolver {
    Resolver::with_rng(script.clone(), limits, fastrand::Rng::with_seed(1)).expect("limits")
}

async fn kind(resolver: &Resolver, text: &str) -> Result<Vec<Target>, Resolve> {
    resolver.resolve(&query(text)).await.map_err(|error| match error.kind() {
        Kind::Resolve(failure) => *failure,
        kind => panic!("{kind:?}"),
    })
}

#[test]
fn all_who_ask_at_once_share_one_lookup_on_whatever_reactor() {
    bounded(|| {
        let script = Script::new([Step::Late(ms(50), answer(&[1], Duration::from_secs(60)))]);
        let resolver = resolver(&script, limits());
        let (serving, spawner) = idle(two_reactors());
        let askers: Vec<_> = (0..50)
            .map(|asker: usize| {
                let resolver = resolver.clone();
                spawner.spawn_on(
                    asker % 2,
                    move || async move { kind(&resolver, "a.example:80").await },
                )
            })
            .collect();
        for asker in askers {
            assert_eq!(asker.join(), Ok(Ok(vec![target(1)])));
        }
        assert_eq!(script.asked(), 1);
        // Kept for its TTL.
        let again = spawner.spawn(move || async move { kind(&resolver, "A.example:80").await });
        assert_eq!(again.join(), Ok(Ok(vec![target(1)])));
        assert_eq!(script.asked(), 1);
        end(serving);
    });
}

#[test]
fn an_asker_that_is_dropped_takes_nothing_from_others() {
    bounded(|| {
        run(|| async {
            let script = Script::new([Step::Late(ms(100), answer(&[1], Duration::from_secs(60)))]);
            let resolver = resolver(&script, limits());
            let asked = query("a.example:80");
            assert!(timeout(ms(10), resolver.resolve(&asked)).await.is_err(), "it is given up");
            assert_eq!((script.asked(), script.given_up()), (1, 0));
            assert_eq!(kind(&resolver, "a.example:80").await, Ok(vec![target(1)]));
            assert_eq!((script.asked(), script.given_up()), (1, 0));
        });
    });
}

#[test]
fn who_waits_on_a_reactor_that_ends_asks_anew() {
    bounded(|| {
        let script = Script::new([Step::Silent, Step::Say(answer(&[1], Duration::from_secs(60)))]);
        let mut limits = limits();
        limits.lookup_timeout = Duration::from_secs(20);
        let resolver = resolver(&script, limits);
        let (first, of_first) = idle(one_reactor());
        let (second, of_second) = idle(one_reactor());
        let ask = |spawner: &Spawner| {
            let resolver = resolver.clone();
            spawner.spawn(move || async move {
                let asked = kind(&resolver, "a.example:80");
                timeout(ms(100), asked).await.unwrap_or(Err(Resolve::NotPublic))
            })
        };
        // It begins the look-up and goes; its reactor has it.
        assert_eq!(ask(&of_first).join(), Ok(Err(Resolve::NotPublic)));
        let (tell, told) = mpsc::channel();
        let waits = {
            let resolver = resolver.clone();
            of_second.spawn(move || async move {
                tell.send(()).expect("the test waits");
                kind(&resolver, "a.example:80").await
            })
        };
        told.recv_timeout(PATIENCE).expect("it asks");
        assert_eq!(script.asked(), 1);
        end(first);
        assert_eq!(waits.join(), Ok(Ok(vec![target(1)])));
        assert_eq!((script.asked(), script.given_up()), (2, 1));
        end(second);
    });
}

#[test]
fn who_waits_on_a_reactor_that_hangs_despairs() {
    bounded(|| {
        let script = Script::new([Step::Silent, Step::Say(answer(&[1], Duration::from_secs(60)))]);
        let resolver = resolver(&script, limits());
        let (serving, spawner) = idle(two_reactors());
        let (hang_on, hangs) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let hung = {
            let resolver = resolver.clone();
            spawner.spawn_on(0, move || async move {
                let asked = query("a.example:80");
                assert!(timeout(ms(10), resolver.resolve(&asked)).await.is_err());
                begun.send(()).expect("the test waits");
                hangs.recv_timeout(PATIENCE).expect("let go");
            })
        };
        has_begun.recv_timeout(PATIENCE).expect("it has begun");
        let waits = {
            let resolver = resolver.clone();
            spawner.spawn_on(1, move || async move {
                let begun = now();
                let found = kind(&resolver, "a.example:80").await;
                let took = now() - begun;
                assert_eq!(kind(&resolver, "a.example:80").await, Err(Resolve::Timeout));
                assert_eq!(now(), begun + took, "that is known now");
                sleep(ms(60)).await;
                (found, took, kind(&resolver, "a.example:80").await)
            })
        };
        let (found, took, later) = waits.join().expect("it ends");
        assert_eq!(found, Err(Resolve::Timeout));
        support::assert_kept("its patience", took, ms(1200));
        assert_eq!(later, Ok(vec![target(1)]), "it asks by itself");
        hang_on.send(()).expect("it hangs");
        hung.join().expect("it ends");
        end(serving);
    });
}

#[test]
fn failures_are_kept_and_an_old_answer_stands_in_for_them() {
    bounded(|| {
        run(|| async {
            let script = Script::new([Step::Say(Err(Resolve::NotFound))]);
            let mut limits = limits();
            limits.names.negative = ms(400);
            limits.names.stale = ms(1500);
            let resolver = resolver(&script, limits);
            for _ in 0..5 {
                assert_eq!(kind(&resolver, "a.example:80").await, Err(Resolve::NotFound));
            }
            assert_eq!(script.asked(), 1, "known not to be there");
            script.now_say(Step::Say(answer(&[1], ms(50))));
            sleep(ms(401)).await;
            assert_eq!(kind(&resolver, "a.example:80").await, Ok(vec![target(1)]));
            let answered = now();
            script.now_say(Step::Say(Err(Resolve::ServerFailure)));
            sleep(ms(60)).await;
            assert_eq!(kind(&resolver, "a.example:80").await, Ok(vec![target(1)]), "an old one");
            script.now_say(Step::Silent);
            sleep(ms(401)).await;
            let begun = now();
            assert_eq!(kind(&resolver, "a.example:80").await, Ok(vec![target(1)]));
            assert_eq!(now(), begun, "nobody waits for what fails");
            script.now_say(Step::Say(Err(Resolve::ServerFailure)));
            eventually("it is too old", || now() > answered + ms(1560)).await;
            assert_eq!(kind(&resolver, "a.example:80").await, Err(Resolve::ServerFailure));
        });
    });
}

#[test]
fn an_answer_whose_ttl_has_ended_is_not_given_unless_asking_fails() {
    bounded(|| {
        run(|| async {
            let script = Script::new([
                Step::Say(answer(&[1], ms(50))),
                Step::Late(ms(20), answer(&[2], Duration::from_secs(60))),
            ]);
            let resolver = resolver(&script, limits());
            assert_eq!(kind(&resolver, "a.example:80").await, Ok(vec![target(1)]));
            sleep(ms(60)).await;
            assert_eq!(script.asked(), 1, "nobody asked for it, so nobody is asked");
            assert_eq!(kind(&resolver, "a.example:80").await, Ok(vec![target(2)]));
            assert_eq!(script.asked(), 2);
        });
    });
}

#[test]
fn who_asks_often_never_waits_and_who_asks_no_more_is_not_asked_for() {
    bounded(|| {
        run(|| async {
            let ttl = ms(200);
            let script =
                Script::new([Step::Say(answer(&[1], ttl)), Step::Late(ms(3), answer(&[1], ttl))]);
            let resolver = resolver(&script, limits());
            assert_eq!(kind(&resolver, "a.example:80").await, Ok(vec![target(1)]));
            // Seldom enough that half of the questions would find it too old.
            let mut waited = 0;
            for _ in 0..12 {
                sleep(ms(150)).await;
                let begun = now();
                assert_eq!(kind(&resolver, "a.example:80").await, Ok(vec![target(1)]));
                waited += u32::from(now() > begun);
            }
            let asked = script.asked();
            assert!((8..=13).contains(&asked), "asked {asked} times in 9 TTLs");
            assert!(waited <= 2, "waited {waited} times");
            // The last one, which somebody asked for.
            sleep(2 * ttl).await;
            let asked = script.asked();
            sleep(2 * ttl).await;
            assert_eq!(script.asked(), asked);
        });
    });
}

#[test]
fn no_more_names_are_kept_than_may_be_and_the_one_not_used_for_longest_goes() {
    bounded(|| {
        run(|| async {
            let script = Script::new([Step::Say(answer(&[1], Duration::from_secs(60)))]);
            let mut limits = limits();
            limits.names_max = 3;
            let resolver = resolver(&script, limits);
            for name in ["a", "b", "c", "a", "d"] {
                assert!(kind(&resolver, &format!("{name}.example:80")).await.is_ok());
            }
            assert_eq!((resolver.names(), script.asked()), (3, 4));
            for name in ["a", "c", "d"] {
                assert!(kind(&resolver, &format!("{name}.example:80")).await.is_ok());
            }
            assert_eq!(script.asked(), 4, "they are kept");
            assert!(kind(&resolver, "b.example:80").await.is_ok());
            assert_eq!((resolver.names(), script.asked()), (3, 5));
        });
    });
}

#[test]
fn a_name_that_goes_while_it_is_asked_for_is_told_all_the_same() {
    bounded(|| {
        run(|| async {
            let script = Script::new([
                Step::Late(ms(50), answer(&[1], Duration::from_secs(60))),
                Step::Say(answer(&[2], Duration::from_secs(60))),
            ]);
            let mut limits = limits();
            limits.names_max = 1;
            let resolver = resolver(&script, limits);
            let other = resolver.clone();
            let first = spawn_local(async move { kind(&other, "a.example:80").await });
            eventually("it asks", || script.asked() == 1).await;
            assert_eq!(kind(&resolver, "b.example:80").await, Ok(vec![target(2)]));
            assert_eq!(first.await, Ok(Ok(vec![target(1)])));
            assert_eq!(resolver.names(), 1);
        });
    });
}

#[test]
fn an_error_names_what_was_asked_for_and_how_long_it_took() {
    bounded(|| {
        run(|| async {
            let script = Script::new([Step::Silent]);
            let resolver = resolver(&script, limits());
            let asked = query("srv:_http._tcp.a.example");
            let error = resolver.resolve(&asked).await.expect_err("nobody answers");
            assert!(matches!(error.kind(), Kind::Resolve(Resolve::Timeout)));
            assert_eq!((error.phase(), error.label()), (Phase::Resolve, "dns_timeout"));
            support::assert_kept("the look-up", error.elapsed(), ms(200));
            let source = std::error::Error::source(&error).expect("the name");
            assert_eq!(source.to_string(), "resolving srv:_http._tcp.a.example");
            let unresolved = source.downcast_ref::<Unresolved>().expect("its type");
            assert_eq!(unresolved.query, asked);
            assert_eq!(kind(&resolver, "192.0.2.3:80").await, Ok(vec![target(3)]));
            assert_eq!(script.asked(), 1);
        });
    });
}

#[test]
fn a_source_that_panics_has_failed_and_nobody_hangs() {
    bounded(|| {
        run(|| async {
            /// Before there is a look-up at all.
            struct AtOnce;
            impl Source for AtOnce {
                fn lookup(&self, _query: &Query) -> Lookup {
                    panic!("a source's own bug");
                }
            }
            let at_once = Resolver::new(AtOnce, limits()).expect("limits");
            let later = resolver(&Script::new([Step::Panic]), limits());
            for resolver in [at_once, later] {
                assert_eq!(kind(&resolver, "a.example:80").await, Err(Resolve::ServerFailure));
            }
        });
    });
}

#[test]
fn a_resolver_that_nobody_has_any_more_is_gone_though_a_name_was_kept() {
    bounded(|| {
        run(|| async {
            let script = Script::new([Step::Say(answer(&[1], Duration::from_secs(60)))]);
            let resolver = resolver(&script, limits());
            assert!(kind(&resolver, "a.example:80").await.is_ok());
            assert_eq!(Arc::strong_count(&script.steps), 2);
            drop(resolver);
            assert_eq!(Arc::strong_count(&script.steps), 1, "the source is dropped");
        });
    });
}

/// A future of `Send` sources is no matter of types: whoever gives one may give it.
#[test]
fn a_lookup_may_be_woken_by_another_thread() {
    struct Elsewhere;
    struct Woken(Arc<Mutex<bool>>, bool);
    impl Future for Woken {
        type Output = Result<Answer, Resolve>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            if *self.0.lock().expect("no panic") {
                return Poll::Ready(answer(&[1], ms(50)));
            }
            if !std::mem::replace(&mut self.1, true) {
                let (flag, waker) = (Arc::clone(&self.0), cx.waker().clone());
                support::spawn(move || {
                    *flag.lock().expect("no panic") = true;
                    waker.wake();
                });
            }
            Poll::Pending
        }
    }
    impl Source for Elsewhere {
        fn lookup(&self, _query: &Query) -> Lookup {
            Box::pin(Woken(Arc::default(), false))
        }
    }
    bounded(|| {
        let found = run(|| async {
            let resolver = Resolver::new(Elsewhere, limits()).expect("limits");
            kind(&resolver, "a.example:80").await
        });
        assert_eq!(found, Ok(vec![target(1)]));
    });
}
