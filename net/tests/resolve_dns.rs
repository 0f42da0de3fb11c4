//! Names asked of a name server: a small one, here, which says what each test wants.

mod support;

#[path = "resolve_dns/server.rs"]
mod server;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slipring::failure::{Kind, Resolve};
use slipring::resolve::{
    Answer, Chain, Dns, DnsConfig, Fixed, NameLimits, Query, ResolveLimits, Resolver, Source,
    Target, watch,
};
use slipring::{Serve, Serving, Spawner, now, sleep, spawn_local, timeout};
use support::{PATIENCE, TempFile, alone, bounded, bounded_by, eventually, ms, one_reactor};

use server::{A, AAAA, NameServer, SRV, a, aaaa, cname, srv};

fn idle() -> (Serving, Spawner) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let serving = one_reactor().listen(address).serve(async |_| {}).expect("it starts");
    let spawner = serving.spawner();
    (serving, spawner)
}

/// Runs one task on a reactor to its end.
fn run<T, F>(task: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (serving, spawner) = idle();
    let result = spawner.spawn(task).join().expect("it ends");
    support::end(serving);
    result
}

fn query(text: &str) -> Query {
    text.parse().expect("a query")
}

fn target(address: &str) -> Target {
    Target::new(address.parse().expect("an address"))
}

fn dns(server: &NameServer) -> Dns {
    Dns::new(DnsConfig::of_servers([server.address()])).expect("it makes sense")
}

/// Asks on a reactor; targets are sorted, as name servers may say them in any order.
fn look_up(dns: &Dns, text: &str) -> Result<Answer, Resolve> {
    let (dns, query) = (dns.clone(), query(text));
    let mut found = run(move || async move { dns.lookup(&query).await });
    if let Ok(answer) = &mut found {
        answer.targets.sort_unstable();
    }
    found
}

/// What the system says of each thread that asks name servers.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs");
    let status = |task: std::io::Result<fs::DirEntry>| {
        // One may end meanwhile.
        fs::read_to_string(task.expect("a thread").path().join("status")).unwrap_or_default()
    };
    tasks.map(status).filter(|status| status.starts_with("Name:\tslipring-dns\n")).collect()
}

/// The cores it may run on.
fn cores_of(status: &str) -> Option<&str> {
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
}

// ------------------------------------------------------------------------------------------ hosts

#[test]
fn a_and_aaaa_are_one_answer_with_the_least_ttl() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say("web.example", A, [a([192, 0, 2, 1], 300), a([192, 0, 2, 2], 20)]);
        server.say("web.example", AAAA, [aaaa("2001:db8::1", 60)]);
        let found = look_up(&dns(&server), "Web.example:80").expect("an answer");
        let expected = ["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"].map(target);
        assert_eq!(found, Answer { targets: expected.to_vec(), ttl: Duration::from_secs(20) });
        assert_eq!(server.asked("web.example", A), 1);
        assert_eq!(server.asked("web.example", AAAA), 1);
        assert_eq!(server.questions(), 2, "nothing else is asked for");
    });
}

#[test]
fn nothing_is_kept_beneath() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say("web.example", A, [a([192, 0, 2, 1], 3600)]);
        let dns = dns(&server);
        for times in 1..=3 {
            assert!(look_up(&dns, "web.example:80").is_ok());
            assert_eq!(look_up(&dns, "none.example:80"), Err(Resolve::NotFound));
            assert_eq!(server.asked("web.example", A), times);
            assert_eq!(server.asked("none.example", A), times);
        }
    });
}

#[test]
fn the_ttl_of_an_alias_counts_too() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say(
            "web.example",
            A,
            [cname("host.example", 7), server::at("host.example", a([192, 0, 2, 1], 300))],
        );
        let found = look_up(&dns(&server), "web.example:80").expect("an answer");
        assert_eq!(found.targets, [target("192.0.2.1:80")]);
        assert_eq!(found.ttl, Duration::from_secs(7));
        // One that has to be asked for apart.
        server.say("alias.example", A, [cname("apart.example", 9)]);
        server.say("apart.example", A, [a([192, 0, 2, 2], 300)]);
        let found = look_up(&dns(&server), "alias.example:80").expect("an answer");
        assert_eq!(found.targets, [target("192.0.2.2:80")]);
        assert_eq!(found.ttl, Duration::from_secs(9));
    });
}

#[test]
fn each_way_not_to_answer_is_its_own_failure() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.fail("refused.example", A, server::REFUSED);
        server.fail("refused.example", AAAA, server::REFUSED);
        server.fail("servfail.example", A, server::SERVFAIL);
        server.fail("servfail.example", AAAA, server::SERVFAIL);
        server.say("nodata.example", A, []);
        server.say("nodata.example", AAAA, []);
        server.say("v6.example", AAAA, [aaaa("2001:db8::1", 60)]);
        server.fail("half.example", A, server::SERVFAIL);
        server.say("half.example", AAAA, [aaaa("2001:db8::1", 60)]);
        server.silent("silent.example", A);
        server.silent("silent.example", AAAA);
        let mut config = DnsConfig::of_servers([server.address()]);
        (config.attempt_timeout, config.attempts) = (Some(ms(300)), Some(1));
        let dns = Dns::new(config).expect("it makes sense");
        for (name, expected) in [
            ("none", Err(Resolve::NotFound)),
            ("nodata", Err(Resolve::NoAddress)),
            ("servfail", Err(Resolve::ServerFailure)),
            ("refused", Err(Resolve::ServerFailure)),
            ("silent", Err(Resolve::Timeout)),
            // NXDOMAIN for A, which some servers say where they mean that there is none of the kind.
            ("v6", Ok(60)),
            // Half an answer, which does not count for long.
            ("half", Ok(5)),
        ] {
            let found = look_up(&dns, &format!("{name}.example:80"));
            assert_eq!(found.map(|answer| answer.ttl.as_secs()), expected, "{name}");
        }
    });
}

#[test]
fn a_server_that_is_not_there_has_failed() {
    bounded(|| {
        let _alone = alone();
        let gone = NameServer::start().address();
        let mut config = DnsConfig::of_servers([gone]);
        (config.attempt_timeout, config.attempts) = (Some(ms(300)), Some(1));
        let found = look_up(&Dns::new(config).expect("it makes sense"), "web.example:80");
        assert!(matches!(found, Err(Resolve::ServerFailure | Resolve::Timeout)), "{found:?}");
    });
}

#[test]
fn one_kind_waits_for_the_other_a_little_and_no_longer() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        for (name, late) in [("soon", ms(20)), ("late", ms(2000))] {
            let name = format!("{name}.example");
            server.say(&name, A, [a([192, 0, 2, 1], 60)]);
            server.say_late(&name, AAAA, late, [aaaa("2001:db8::1", 60)]);
            let name = format!("v6.{name}");
            server.say(&name, AAAA, [aaaa("2001:db8::1", 60)]);
            server.say_late(&name, A, late, [a([192, 0, 2, 1], 60)]);
        }
        server.say_late("only.example", AAAA, ms(300), [aaaa("2001:db8::1", 60)]);
        let mut config = DnsConfig::of_servers([server.address()]);
        config.resolution_delay = ms(600);
        let dns = Dns::new(config).expect("it makes sense");
        let took = |text: &str| {
            let (dns, query) = (dns.clone(), query(text));
            run(move || async move {
                let begun = now();
                let found = dns.lookup(&query).await.expect("an answer");
                (found.targets.len(), found.ttl.as_secs(), now() - begun)
            })
        };
        for name in ["soon.example:80", "v6.soon.example:80"] {
            let (found, ttl, took) = took(name);
            assert_eq!((found, ttl), (2, 60), "{name}");
            assert!((ms(20)..ms(590)).contains(&took), "{took:?}");
        }
        for name in ["late.example:80", "v6.late.example:80"] {
            let (found, ttl, took) = took(name);
            assert_eq!((found, ttl), (1, 5), "{name}: half an answer does not count for long");
            support::assert_kept("the other kind", took, ms(600));
        }
        // What has no address of one kind is no reason not to wait for the other.
        server.say("only.example", A, []);
        let (found, ttl, took) = took("only.example:80");
        assert_eq!((found, ttl), (1, 60));
        assert!(took >= ms(300));
    });
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_by_tcp() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say("many.example", A, (0..200).map(|octet| a([198, 51, 100, octet], 60)));
        server.truncate("many.example", A);
        let found = look_up(&dns(&server), "many.example:80").expect("an answer");
        assert_eq!(found.targets.len(), 200);
    });
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say("web.example", A, [a([192, 0, 2, 1], 60)]);
        server.lose("web.example", A, 1);
        let found = look_up(&dns(&server), "web.example:80").expect("an answer");
        assert_eq!(found.targets, [target("192.0.2.1:80")]);
        assert_eq!(server.asked("web.example", A), 2);
    });
}

#[test]
fn names_are_searched_for_whole_and_in_order() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        let file = TempFile::of("search", "nameserver 127.0.0.1\nsearch one.example two.example\n");
        let config = DnsConfig {
            resolv_conf: Some(file.path().into()),
            ..DnsConfig::of_servers([server.address()])
        };
        let dns = Dns::new(config).expect("it makes sense");
        // Two hosts: what one lacks must not be taken from the other.
        server.say("web.one.example", A, [a([192, 0, 2, 1], 60)]);
        server.say("web.one.example", AAAA, []);
        server.say("web.two.example", A, [a([192, 0, 2, 2], 60)]);
        server.say("web.two.example", AAAA, [aaaa("2001:db8::2", 60)]);
        let found = look_up(&dns, "web:80").expect("an answer");
        assert_eq!(found.targets, [target("192.0.2.1:80")]);
        server.say("db.two.example", A, [a([192, 0, 2, 3], 60)]);
        let found = look_up(&dns, "db:80").expect("an answer");
        assert_eq!(found.targets, [target("192.0.2.3:80")]);
        assert_eq!(server.asked("db.one.example", A), 1);
        // A dot at its end: it is whole.
        assert_eq!(look_up(&dns, "db.:80"), Err(Resolve::NotFound));
        assert_eq!(server.asked("db", A), 1);
        // A failure in between is no reason to go on: the name may be there.
        server.fail("mail.one.example", A, server::SERVFAIL);
        server.fail("mail.one.example", AAAA, server::SERVFAIL);
        server.say("mail.two.example", A, [a([192, 0, 2, 4], 60)]);
        assert_eq!(look_up(&dns, "mail:80"), Err(Resolve::ServerFailure));
        // Another file.
        file.replace("nameserver 127.0.0.1\nsearch two.example\n");
        let found = look_up(&dns, "mail:80").expect("an answer");
        assert_eq!(found.targets, [target("192.0.2.4:80")]);
        // Lines that say nothing are passed over.
        file.replace("nonsense\nsearch two.example\n");
        assert!(look_up(&dns, "mail:80").is_ok());
        // None at all: what was good still counts.
        fs::remove_file(file.path()).expect("removed");
        assert!(look_up(&dns, "mail:80").is_ok());
    });
}

#[test]
fn hosts_of_the_file_are_not_asked_for() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say("web.example", A, [a([192, 0, 2, 1], 60)]);
        server.say("_http._tcp.example", SRV, [srv(0, 1, 81, "web.example", 60)]);
        let file = TempFile::of("hosts", "192.0.2.9 web.example # ours\nfe80::1%lo0 web.example\n");
        let config = DnsConfig {
            hosts_file: Some(file.path().into()),
            ..DnsConfig::of_servers([server.address()])
        };
        let dns = Dns::new(config).expect("it makes sense");
        let found = look_up(&dns, "WEB.example:80").expect("an answer");
        let expected = vec![target("192.0.2.9:80")];
        assert_eq!(found, Answer { targets: expected, ttl: Duration::from_secs(2) });
        assert_eq!(server.questions(), 0);
        let found = look_up(&dns, "srv:_http._tcp.example").expect("an answer");
        assert_eq!(found.targets, [target("192.0.2.9:81")]);
        file.replace("192.0.2.9 other.example\n");
        let found = look_up(&dns, "web.example:80").expect("an answer");
        assert_eq!(found.targets, [target("192.0.2.1:80")]);
    });
}

// --------------------------------------------------------------------------------------- services

#[test]
fn a_service_leads_to_the_addresses_of_its_hosts() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        let service = "_http._tcp.example.com";
        server.say(
            service,
            SRV,
            [
                srv(10, 60, 8080, "big.example", 300),
                srv(10, 20, 8081, "Small.example", 300),
                srv(20, 0, 8082, "spare.example", 300),
                srv(10, 1, 8083, "gone.example", 300),
                srv(10, 1, 0, "big.example", 300),
            ],
        );
        server.say("big.example", A, [a([192, 0, 2, 1], 300)]);
        server.say("big.example", AAAA, [aaaa("2001:db8::1", 40)]);
        server.say("small.example", A, [a([192, 0, 2, 2], 300)]);
        server.say("spare.example", A, [a([192, 0, 2, 3], 300)]);
        let dns = dns(&server);
        let found = look_up(&dns, &format!("srv:{service}")).expect("an answer");
        let to = |tier, address: &str, weight| Target { tier, weight, ..target(address) };
        let expected = vec![
            to(10, "192.0.2.1:8080", 60),
            to(10, "192.0.2.2:8081", 20),
            to(10, "[2001:db8::1]:8080", 60),
            to(20, "192.0.2.3:8082", 0),
        ];
        assert_eq!(found, Answer { targets: expected, ttl: Duration::from_secs(40) });

        // A host whose name server fails is missing, but not for long.
        server.fail("gone.example", A, server::SERVFAIL);
        server.fail("gone.example", AAAA, server::SERVFAIL);
        let found = look_up(&dns, &format!("srv:{service}")).expect("an answer");
        assert_eq!((found.targets.len(), found.ttl.as_secs()), (4, 5));

        server.say("_none._tcp.example.com", SRV, [srv(0, 0, 80, "", 300)]);
        server.say("_gone._tcp.example.com", SRV, [srv(0, 0, 80, "none.example", 300)]);
        server.say("_fails._tcp.example.com", SRV, [srv(0, 0, 80, "gone.example", 300)]);
        server.say("_nodata._tcp.example.com", SRV, []);
        for (name, expected) in [
            ("none", Resolve::NoAddress),
            ("gone", Resolve::NoAddress),
            ("fails", Resolve::ServerFailure),
            ("nodata", Resolve::NoAddress),
            ("nxdomain", Resolve::NotFound),
        ] {
            let found = look_up(&dns, &format!("srv:_{name}._tcp.example.com"));
            assert_eq!(found, Err(expected), "{name}");
        }
        assert_eq!(server.asked("", A), 0, "the root is no host");
    });
}

// ----------------------------------------------------------------------------- the thread, the line

#[test]
fn the_thread_comes_with_the_first_lookup_and_goes_with_the_last_handle() {
    bounded(|| {
        let _alone = alone();
        eventually("no thread", || threads().is_empty());
        let server = NameServer::start();
        server.say("web.example", A, [a([192, 0, 2, 1], 60)]);
        let dns = dns(&server);
        let clone = dns.clone();
        assert!(threads().is_empty(), "nothing was asked for");
        for _ in 0..3 {
            assert!(look_up(&dns, "web.example:80").is_ok());
        }
        assert_eq!(threads().len(), 1);
        let of_process = fs::read_to_string("/proc/self/status").expect("procfs");
        let cores = cores_of(&threads()[0]).map(str::to_owned);
        assert_eq!(cores.as_deref(), cores_of(&of_process), "not that of the reactor alone");
        drop(dns);
        assert!(look_up(&clone, "web.example:80").is_ok());
        assert_eq!(threads().len(), 1);
        drop(clone);
        eventually("it ends", || threads().is_empty());
    });
}

#[test]
fn who_drops_the_last_handle_still_gets_the_answer_waited_for() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say_late("web.example", A, ms(100), [a([192, 0, 2, 1], 60)]);
        let dns = dns(&server);
        let found = run(move || async move {
            let lookup = dns.lookup(&query("web.example:80"));
            drop(dns);
            lookup.await
        });
        assert_eq!(found.map(|answer| answer.targets), Ok(vec![target("192.0.2.1:80")]));
        eventually("it ends", || threads().is_empty());
    });
}

#[test]
fn lookups_wait_in_line_and_who_goes_leaves_the_line() {
    bounded_by(Duration::from_secs(60), || {
        let _alone = alone();
        let server = NameServer::start();
        for name in 0..2 {
            server.silent(&format!("silent{name}.example"), A);
            server.silent(&format!("silent{name}.example"), AAAA);
        }
        server.say("web.example", A, [a([192, 0, 2, 1], 60)]);
        let mut config = DnsConfig::of_servers([server.address()]);
        (config.lookups_max, config.attempt_timeout) = (2, Some(Duration::from_secs(30)));
        let dns = Dns::new(config).expect("it makes sense");
        let (found, in_line) = run(move || async move {
            let silent: Vec<_> = (0..2)
                .map(|name| {
                    let lookup = dns.lookup(&query(&format!("silent{name}.example:80")));
                    spawn_local(lookup)
                })
                .collect();
            sleep(ms(100)).await;
            let asked = query("web.example:80");
            // The line is full: nothing is asked for.
            let in_line = timeout(ms(200), dns.lookup(&asked)).await.is_err();
            let waits = spawn_local(dns.lookup(&asked));
            sleep(ms(50)).await;
            let is_waiting = !waits.is_finished();
            silent[0].cancel();
            let found = timeout(PATIENCE, waits).await.expect("it has a place now").expect("ends");
            silent[1].cancel();
            (found, in_line && is_waiting)
        });
        assert!(in_line, "they waited");
        assert_eq!(found.map(|answer| answer.targets), Ok(vec![target("192.0.2.1:80")]));
        assert_eq!(server.asked("web.example", A), 1, "who left the line is not asked for");
        eventually("given up, they end with the thread", || threads().is_empty());
    });
}

#[test]
fn many_at_once_are_all_answered() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        for host in 0..250_u8 {
            server.say(&format!("h{host}.example"), A, [a([192, 0, 2, host], 60)]);
        }
        let dns = dns(&server);
        let failures = run(move || async move {
            let asking: Vec<_> = (0..250_u8)
                .map(|host| (host, dns.lookup(&query(&format!("h{host}.example:80")))))
                .map(|(host, lookup)| (host, spawn_local(lookup)))
                .collect();
            let mut failures = Vec::new();
            for (host, asking) in asking {
                let found = asking.await.expect("it ends").map(|answer| answer.targets);
                if found != Ok(vec![target(&format!("192.0.2.{host}:80"))]) {
                    failures.push((host, found));
                }
            }
            failures
        });
        assert_eq!(failures, []);
    });
}

// ------------------------------------------------------------------------------- the whole of it

#[test]
fn a_name_is_followed_through_a_change_a_failure_and_its_end() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say("web.example", A, [a([192, 0, 2, 1], 0)]);
        let dns = dns(&server);
        run(move || async move {
            let names = NameLimits {
                ttl_min: ms(30),
                negative: ms(30),
                stale: ms(400),
                ..NameLimits::default()
            };
            let limits = ResolveLimits { names, ..ResolveLimits::default() };
            let (tell, told) = std::sync::mpsc::channel();
            let rng = fastrand::Rng::with_seed(1);
            let following = watch(query("web.example:80"), dns, limits, rng, move |to| {
                tell.send((now(), to.map(<[Target]>::to_vec))).expect("the test listens");
            });
            let following = spawn_local(following);
            let next = async || {
                let until = now() + PATIENCE;
                loop {
                    if let Ok(told) = told.try_recv() {
                        return told;
                    }
                    assert!(now() < until, "nothing is published");
                    sleep(ms(1)).await;
                }
            };
            assert_eq!(next().await.1, Ok(vec![target("192.0.2.1:80")]));
            server.say("web.example", A, [a([192, 0, 2, 2], 0)]);
            assert_eq!(next().await.1, Ok(vec![target("192.0.2.2:80")]));
            let failed = now();
            server.fail("web.example", A, server::SERVFAIL);
            server.fail("web.example", AAAA, server::SERVFAIL);
            let (at, failure) = next().await;
            assert_eq!(failure, Err(Resolve::ServerFailure));
            assert!(at - failed > ms(300), "the old answer stood in for it");
            server.forget("web.example");
            assert_eq!(next().await.1, Err(Resolve::NotFound));
            following.cancel();
        });
    });
}

#[test]
fn private_addresses_of_a_public_upstream_are_refused_through_the_whole_path() {
    bounded(|| {
        let _alone = alone();
        let server = NameServer::start();
        server.say("rebound.example", A, [a([127, 0, 0, 1], 60), a([169, 254, 169, 254], 60)]);
        server.say("mixed.example", A, [a([10, 0, 0, 1], 60), a([9, 9, 9, 9], 60)]);
        server.say("mixed.example", AAAA, [aaaa("::ffff:10.0.0.1", 60), aaaa("fe80::1", 60)]);
        let names = NameLimits { is_public: true, ..NameLimits::default() };
        let limits = ResolveLimits { names, ..ResolveLimits::default() };
        let fixed = Fixed::new();
        fixed.set("fixed.example", [IpAddr::from([192, 168, 0, 1])]).expect("a name");
        let chain = Chain::new().then(fixed).then(dns(&server));
        let resolver = Resolver::new(chain, limits).expect("limits");
        run(move || async move {
            for name in ["rebound.example:80", "fixed.example:80", "localhost:80"] {
                let error = resolver.resolve(&query(name)).await.expect_err("all are private");
                assert!(matches!(error.kind(), Kind::Resolve(Resolve::NotPublic)), "{error:?}");
            }
            let found = resolver.resolve(&query("mixed.example:80")).await.expect("one is public");
            assert_eq!(found, [target("9.9.9.9:80")]);
        });
    });
}
