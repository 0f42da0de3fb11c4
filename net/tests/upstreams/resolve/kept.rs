//! Many names, kept for those who dial by name.

use super::*;

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
        let (serving, spawner) = runtime(two_reactors());
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
        let (first, of_first) = runtime(one_reactor());
        let (second, of_second) = runtime(one_reactor());
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
        let (serving, spawner) = runtime(two_reactors());
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
