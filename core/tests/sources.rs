//! The table of sources against one that forgets nothing: forgetting may lend a token, never a connection.
//!
//! The model is a map from source to open connections and a bucket. Where the table has room to remember,
//! both have to agree on everything; where it has none, the table may only be kinder about rates.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::sample::Index;
use slipring_core::rates::Bucket;
use slipring_core::sources::{REMEMBERED_MAX, Refused, Source, SourceLimits, Sources};
use slipring_core::{Prefix, Rate};

fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn rate(text: &str) -> Option<Rate> {
    Some(text.parse().expect(text))
}

fn of_connections(connections_max: u32) -> SourceLimits {
    SourceLimits { connections_max: Some(connections_max), ..SourceLimits::default() }
}

fn table(limits: SourceLimits) -> Sources {
    Sources::new(limits, 0x5eed).expect("limits that fit")
}

// --------------------------------------------------------------------------------------- boundaries

#[test]
fn a_source_has_its_connections_and_no_more() {
    let sources = table(of_connections(2));
    let first = sources.admit(address("192.0.2.1"), 0).expect("the first");
    let second = sources.admit(address("192.0.2.1"), 0).expect("the second");
    assert_eq!(sources.admit(address("192.0.2.1"), 0), Err(Refused::Full));
    let other = sources.admit(address("192.0.2.2"), 0).expect("somebody else");
    sources.release(first, 1);
    let third = sources.admit(address("192.0.2.1"), 1).expect("a place came free");
    assert_eq!(sources.admit(address("192.0.2.1"), 1), Err(Refused::Full));
    for source in [second, third, other] {
        sources.release(source, 2);
    }
    assert_eq!(sources.known(), 0, "without a rate there is nothing to remember");
}

#[test]
fn a_source_comes_as_often_as_it_may_and_a_refusal_costs_it_nothing() {
    let sources = table(SourceLimits { rate: rate("1:2"), ..SourceLimits::default() });
    let client = address("192.0.2.1");
    for _ in 0..2 {
        let source = sources.admit(client, 0).expect("the burst");
        sources.release(source, 0);
    }
    for _ in 0..9 {
        assert_eq!(sources.admit(client, 0), Err(Refused::Rate { wait_us: 1_000_000 }));
    }
    assert_eq!(sources.admit(client, 999_999), Err(Refused::Rate { wait_us: 1 }));
    let source = sources.admit(client, 1_000_000).expect("a token has grown");
    assert_eq!(sources.known(), 1);
    sources.release(source, 10_000_000);
    assert_eq!(sources.known(), 0, "a full bucket is not worth remembering");
}

#[test]
fn a_source_without_a_place_takes_no_token() {
    let limits = SourceLimits { rate: rate("1:2"), ..of_connections(1) };
    let sources = table(limits);
    let client = address("192.0.2.1");
    let first = sources.admit(client, 0).expect("the first");
    for _ in 0..9 {
        assert_eq!(sources.admit(client, 0), Err(Refused::Full));
    }
    sources.release(first, 0);
    let second = sources.admit(client, 0).expect("the second token is still there");
    sources.release(second, 0);
}

/// Whether one connection of `first` leaves none for `second`.
fn same(limits: SourceLimits, first: &str, second: &str) -> bool {
    let sources = table(SourceLimits { connections_max: Some(1), ..limits });
    let held = sources.admit(address(first), 0).expect("the first of all");
    match sources.admit(address(second), 0) {
        Ok(source) => {
            sources.release(source, 0);
            sources.release(held, 0);
            false
        }
        Err(refused) => {
            assert_eq!(refused, Refused::Full);
            sources.release(held, 0);
            true
        }
    }
}

#[test]
fn sources_are_addresses_in_ipv4_and_subscribers_in_ipv6() {
    let limits = SourceLimits::default();
    assert!(same(limits, "192.0.2.1", "192.0.2.1"));
    assert!(!same(limits, "192.0.2.1", "192.0.2.0"));
    assert!(same(limits, "192.0.2.1", "::ffff:192.0.2.1"), "on a dual-stack listener");
    assert!(!same(limits, "::ffff:192.0.2.1", "::ffff:192.0.2.2"), "not one /64 of all IPv4");
    assert!(same(limits, "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
    assert!(!same(limits, "2001:db8::1", "2001:db8:0:1::1"));
    assert!(!same(limits, "0.0.0.0", "::"), "families do not meet");
    assert!(!same(limits, "::1", "::ffff:0.0.0.0"));
}

#[test]
fn how_much_of_an_address_is_a_source_can_be_said() {
    let limits = SourceLimits { ipv4_bits: 24, ipv6_bits: 128, ..SourceLimits::default() };
    assert!(same(limits, "192.0.2.1", "192.0.2.255"));
    assert!(!same(limits, "192.0.2.1", "192.0.3.1"));
    assert!(!same(limits, "2001:db8::1", "2001:db8::2"));
    let limits = SourceLimits { ipv4_bits: 1, ipv6_bits: 1, ..limits };
    assert!(same(limits, "0.0.0.0", "127.255.255.255"));
    assert!(!same(limits, "0.0.0.0", "128.0.0.0"));
    assert!(same(limits, "8000::", "ffff::"));
}

#[test]
fn limits_that_do_not_fit_are_refused_with_cause_and_remedy() {
    let good = SourceLimits { rate: rate("10"), ..of_connections(1) };
    for (limits, cause, remedy) in [
        (SourceLimits { connections_max: Some(0), ..good }, "0 connections", "at least 1"),
        (SourceLimits { ipv4_bits: 0, ..good }, "0 bits in IPv4", "between 1 and 32"),
        (SourceLimits { ipv4_bits: 33, ..good }, "33 bits in IPv4", "between 1 and 32"),
        (SourceLimits { ipv6_bits: 0, ..good }, "0 bits in IPv6", "between 1 and 128"),
        (SourceLimits { ipv6_bits: 129, ..good }, "129 bits in IPv6", "between 1 and 128"),
        (SourceLimits { remembered_max: 0, ..good }, "0 to remember", "or leave the rate out"),
        (
            SourceLimits { remembered_max: REMEMBERED_MAX + 1, ..good },
            "16777217 to remember",
            "between 1 and 16777216",
        ),
    ] {
        let error = Sources::new(limits, 0).expect_err(cause).to_string();
        let (said_cause, said_remedy) = error.split_once("; ").expect("a cause and a remedy");
        assert!(said_cause.contains(cause), "{error}");
        assert!(said_remedy.contains(remedy), "{error}");
    }
    good.check().expect("it fits");
    for (limits, sources_max) in [
        (SourceLimits { remembered_max: 1, ..good }, 100 + 16),
        (SourceLimits { remembered_max: REMEMBERED_MAX, ..good }, 100 + (1 << 24)),
        (SourceLimits { rate: None, ..good }, 100),
        (SourceLimits { ipv4_bits: 1, ipv6_bits: 1, ..good }, 100 + 65_536),
    ] {
        limits.check().expect("it fits");
        assert_eq!(limits.sources_max(100), sources_max);
        // An allocator that counts said 141 to 149 of a full table.
        assert!((150..=256).contains(&(limits.memory_bytes_max(100) / sources_max)));
    }
    SourceLimits { remembered_max: 0, rate: None, ..good }.check().expect("nothing to remember");
    assert!(!SourceLimits::default().is_limit() && good.is_limit());
    assert!(of_connections(1).is_limit());
    assert!(SourceLimits { connections_max: None, ..good }.is_limit());
}

#[test]
fn what_a_connection_keeps_is_small_and_the_table_can_be_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Sources>();
    shared::<Source>();
    assert_eq!(size_of::<Option<Source>>(), 4);
}

// ------------------------------------------------------------------------------------- any history

#[derive(Debug, Clone)]
enum Step {
    Admit { client: u8 },
    Release(Index),
    Pass { us: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_u8).prop_map(|client| Step::Admit { client }),
        4 => any::<Index>().prop_map(Step::Release),
        2 => prop_oneof![0..1000_u64, 0..400_000_u64, 0..20_000_000_u64]
            .prop_map(|us| Step::Pass { us }),
    ]
}

/// Two clients of each of four sources in IPv4, and as many in IPv6; or 24 sources of one.
fn client(number: u8) -> IpAddr {
    let (low, high) = (u16::from(number % 2), u16::from(number / 2 % 4));
    match number {
        0..8 => Ipv4Addr::new(192, 0, high as u8, low as u8).into(),
        8..16 => Ipv6Addr::new(0x2001, 0xdb8, 0, high, 0, 0, 0, low).into(),
        _ => Ipv4Addr::new(198, 51, number, 1).into(),
    }
}

/// Never forgets.
struct Model {
    limits: SourceLimits,
    sources: BTreeMap<Prefix, (u32, Option<Bucket>)>,
}

impl Model {
    fn prefix(&self, client: IpAddr) -> Prefix {
        let bits = if client.is_ipv4() { self.limits.ipv4_bits } else { self.limits.ipv6_bits };
        Prefix::covering(client, bits)
    }

    fn admit(&mut self, client: IpAddr, now_us: u64) -> Result<(), Refused> {
        let prefix = self.prefix(client);
        let fresh = (0, self.limits.rate.map(|rate| Bucket::new(rate, now_us)));
        let (open, bucket) = self.sources.entry(prefix).or_insert(fresh);
        if Some(*open) == self.limits.connections_max {
            return Err(Refused::Full);
        }
        if let Some(bucket) = bucket {
            bucket.take(now_us).map_err(|wait_us| Refused::Rate { wait_us })?;
        }
        *open += 1;
        Ok(())
    }

    fn release(&mut self, client: IpAddr) {
        let prefix = self.prefix(client);
        self.sources.get_mut(&prefix).expect("admitted").0 -= 1;
    }

    fn open_sources(&self) -> usize {
        self.sources.values().filter(|(open, _)| *open > 0).count()
    }
}

fn any_limits() -> impl Strategy<Value = SourceLimits> {
    let rate = prop_oneof![
        Just(None),
        prop::sample::select(vec!["1", "1:3", "7:2", "100:1", "999:5"]).prop_map(rate),
    ];
    let connections = prop_oneof![Just(None), (1..4_u32).prop_map(Some)];
    (connections, rate).prop_map(|(connections_max, rate)| SourceLimits {
        connections_max,
        rate,
        ipv4_bits: 24,
        ..SourceLimits::default()
    })
}

/// What both have in common: the time, and the connections that are open.
struct Course {
    sources: Sources,
    held: Vec<(IpAddr, Source)>,
    now_us: u64,
}

impl Course {
    fn new(limits: SourceLimits, seed: u64) -> Self {
        let sources = Sources::new(limits, seed).expect("limits that fit");
        Self { sources, held: Vec::new(), now_us: 0 }
    }

    /// Carries a step out. The client that came, and how it was received; or the one that left.
    fn step(&mut self, step: &Step) -> (Option<(IpAddr, Option<Refused>)>, Option<IpAddr>) {
        match step {
            Step::Admit { client: number } => {
                let client = client(*number);
                let admitted = self.sources.admit(client, self.now_us);
                let refused = admitted.as_ref().err().copied();
                self.held.extend(admitted.map(|source| (client, source)));
                (Some((client, refused)), None)
            }
            Step::Release(index) if !self.held.is_empty() => {
                let (client, source) = self.held.swap_remove(index.index(self.held.len()));
                self.sources.release(source, self.now_us);
                (None, Some(client))
            }
            Step::Release(_) => (None, None),
            Step::Pass { us } => {
                self.now_us += us;
                (None, None)
            }
        }
    }

    fn end(self) {
        for (_, source) in self.held {
            self.sources.release(source, self.now_us);
        }
    }
}

/// A bucket that can be in debt: it is charged for every client that was let in, by right or not.
struct Ledger {
    level: i128,
    now_us: u64,
}

impl Ledger {
    /// Microseconds until it would have a token.
    fn wait_us(&mut self, rate: Rate, now_us: u64) -> u64 {
        let grown = i128::from(now_us - self.now_us) * i128::from(rate.per_second());
        self.level = (self.level + grown).min(i128::from(rate.burst()) * 1_000_000);
        self.now_us = now_us;
        let missing = (1_000_000 - self.level).max(0) as u64;
        missing.div_ceil(rate.per_second().into())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn nobody_can_tell_that_full_buckets_are_forgotten(
        limits in any_limits(),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut course = Course::new(limits, seed);
        let mut model = Model { limits, sources: BTreeMap::new() };
        for step in steps {
            let now_us = course.now_us;
            let (came, left) = course.step(&step);
            if let Some((client, refused)) = came {
                prop_assert_eq!(refused, model.admit(client, now_us).err(), "{}", client);
            }
            if let Some(client) = left {
                model.release(client);
            }
            let known = course.sources.known();
            prop_assert!(known >= model.open_sources() && known <= model.sources.len());
            prop_assert!(limits.rate.is_some() || known == model.open_sources());
        }
        course.end();
    }

    #[test]
    fn a_table_too_small_forgets_rates_and_never_connections(
        limits in any_limits(),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let limits = SourceLimits { remembered_max: 1, ..limits };
        let mut course = Course::new(limits, seed);
        let unrated = SourceLimits { rate: None, ..limits };
        let mut model = Model { limits: unrated, sources: BTreeMap::new() };
        let mut ledgers: BTreeMap<Prefix, Ledger> = BTreeMap::new();
        for step in steps {
            let now_us = course.now_us;
            let (came, left) = course.step(&step);
            if let Some(client) = left {
                model.release(client);
            }
            if let Some((client, refused)) = came {
                let owed = limits.rate.map(|rate| {
                    let full = Ledger { level: i128::from(rate.burst()) * 1_000_000, now_us };
                    ledgers.entry(model.prefix(client)).or_insert(full)
                });
                match (refused, owed, limits.rate) {
                    // It may know less than the ledger does, and has no other reason to refuse.
                    (Some(Refused::Rate { wait_us }), Some(ledger), Some(rate)) => {
                        let owed_us = ledger.wait_us(rate, now_us);
                        prop_assert!((1..=owed_us).contains(&wait_us), "{}: {}", wait_us, owed_us);
                    }
                    (Some(_), ..) => prop_assert_eq!(refused, model.admit(client, now_us).err()),
                    (None, ledger, rate) => {
                        prop_assert_eq!(model.admit(client, now_us), Ok(()));
                        if let (Some(ledger), Some(rate)) = (ledger, rate) {
                            ledger.wait_us(rate, now_us);
                            ledger.level -= 1_000_000;
                        }
                    }
                }
            }
            let (known, open) = (course.sources.known(), model.open_sources());
            prop_assert!(known >= open && known <= open + 16, "{} known, {} open", known, open);
        }
        course.end();
    }
}

/// Sources next to each other share all parts of the table alike, whatever the seed.
#[test]
fn neighbours_are_spread() {
    for seed in 0..8 {
        let limits =
            SourceLimits { rate: rate("1:1"), remembered_max: 4096, ..SourceLimits::default() };
        let sources = Sources::new(limits, seed).expect("limits that fit");
        for number in 0..4096_u32 {
            let source = sources.admit(active(number), 0).expect("all are new");
            sources.release(source, 0);
        }
        let known = sources.known();
        assert!(known > 4096 * 9 / 10, "with seed {seed} {known} of 4096 found a place");
    }
}

/// The same seed forgets the same sources; another one others.
#[test]
fn a_seed_decides_what_is_forgotten() {
    let outcome = |seed: u64| {
        let limits =
            SourceLimits { rate: rate("1:1"), remembered_max: 64, ..SourceLimits::default() };
        let sources = Sources::new(limits, seed).expect("limits that fit");
        let clients = || (0..128_u32).map(|number| IpAddr::V4(Ipv4Addr::from(number)));
        for client in clients() {
            let source = sources.admit(client, 0).expect("all are new");
            sources.release(source, 0);
        }
        let remembered = |client| sources.admit(client, 0).map(|source| sources.release(source, 0));
        clients().map(|client| remembered(client).is_err()).collect::<Vec<_>>()
    };
    assert_eq!(outcome(1), outcome(1));
    assert_ne!(outcome(1), outcome(2));
    assert!(outcome(1).contains(&true));
}

// ------------------------------------------------------------------------------------------ floods

/// A million subscribers that were never seen before, each once, within a second.
fn flood(sources: &Sources, from_us: u64, mut each: impl FnMut(u32)) {
    for number in 0..1_000_000_u32 {
        let (high, low) = ((number >> 16) as u16, number as u16);
        let client = Ipv6Addr::new(0x2001, 0xdb8, high, low, 0, 0, 0, 1).into();
        let now_us = from_us + u64::from(number);
        let source = sources.admit(client, now_us).expect("a new source has a full bucket");
        sources.release(source, now_us);
        each(number);
    }
}

fn active(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

#[test]
fn a_flood_of_new_sources_moves_nobody_who_is_there() {
    const ACTIVE: u32 = 1000;
    const REMEMBERED: u32 = 4096;
    let limits =
        SourceLimits { rate: rate("1:3"), remembered_max: REMEMBERED, ..of_connections(2) };
    let sources = table(limits);
    let held: Vec<_> = (0..ACTIVE * 2)
        .map(|number| sources.admit(active(number / 2), 0).expect("two each"))
        .collect();
    // One that has used up its burst, and holds no connection: it would like to be forgotten.
    let greedy = address("192.0.2.66");
    for _ in 0..3 {
        let source = sources.admit(greedy, 0).expect("its burst");
        sources.release(source, 0);
    }

    let bound = limits.sources_max(ACTIVE) as usize;
    assert_eq!(bound, (ACTIVE + REMEMBERED) as usize);
    flood(&sources, 0, |number| {
        if number % 4096 == 0 {
            let known = sources.known();
            assert!(known <= bound, "{known} known");
            assert_eq!(sources.admit(active(number % ACTIVE), 0), Err(Refused::Full));
        }
    });
    assert_eq!(sources.known(), bound, "it fills up, and that is all");
    let refused = sources.admit(greedy, 999_999);
    assert_eq!(refused, Err(Refused::Rate { wait_us: 1 }), "a million others do not hide it");

    // Those that were there have lost nothing and won nothing: one token of three is left to each.
    let mut held = held.into_iter();
    for number in 0..ACTIVE {
        assert_eq!(sources.admit(active(number), 999_999), Err(Refused::Full), "{number}");
        sources.release(held.next().expect("two each"), 999_999);
        let source = sources.admit(active(number), 999_999).expect("its third token");
        sources.release(held.next().expect("two each"), 999_999);
        sources.release(source, 999_999);
        let refused = sources.admit(active(number), 999_999);
        assert_eq!(refused, Err(Refused::Rate { wait_us: 1 }), "{number}");
    }
}

#[test]
fn a_flood_that_is_over_leaves_as_others_come() {
    let limits = SourceLimits { rate: rate("1000"), ..SourceLimits::default() };
    let sources = table(limits);
    flood(&sources, 0, |_| {});
    let after = sources.known();
    assert!(after < 10_000, "buckets are full again after a millisecond, and {after} are known");
    for round in 0..10_000_u32 {
        let now_us = 10_000_000 + u64::from(round);
        let source = sources.admit(active(round % 100), now_us).expect("often enough");
        sources.release(source, now_us);
    }
    assert!(sources.known() <= 100, "{} known", sources.known());
}

#[test]
fn without_a_rate_a_flood_leaves_nothing() {
    let sources = table(of_connections(1));
    flood(&sources, 0, |_| {});
    assert_eq!(sources.known(), 0);
}

// ----------------------------------------------------------------------------------------- threads

/// Reactors hold at most eight connections each of four sources, whose cap is three.
#[test]
fn threads_never_hold_more_than_the_cap() {
    const CAP: u32 = 3;
    const THREADS: u64 = 4;
    let limits = SourceLimits { rate: rate("1000000:1000000"), ..of_connections(CAP) };
    let sources = table(limits);
    let open: [AtomicU32; 4] = Default::default();
    let refusals = AtomicU32::new(0);
    let client = |number: usize| IpAddr::from(Ipv4Addr::new(192, 0, 2, number as u8));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sources, open, refusals) = (&sources, &open, &refusals);
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut held: Vec<(usize, Source)> = Vec::new();
                for now_us in 0..50_000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let number = (random >> 33) as usize % 4;
                    if held.len() == 8 || random >> 60 < 5 && !held.is_empty() {
                        let (number, source) = held.swap_remove(number % held.len());
                        open[number].fetch_sub(1, Ordering::SeqCst);
                        sources.release(source, now_us);
                        continue;
                    }
                    match sources.admit(client(number), now_us) {
                        Ok(source) => {
                            let before = open[number].fetch_add(1, Ordering::SeqCst);
                            assert!(before < CAP, "{} open", before + 1);
                            held.push((number, source));
                        }
                        Err(refused) => {
                            assert_eq!(refused, Refused::Full);
                            refusals.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                for (number, source) in held {
                    open[number].fetch_sub(1, Ordering::SeqCst);
                    sources.release(source, 50_000);
                }
            });
        }
    });
    assert!(refusals.into_inner() > 0, "the cap was never reached");
    // All of them are back: each source has its places, and no more.
    for number in 0..4 {
        let held: Vec<_> =
            (0..CAP).map(|_| sources.admit(client(number), 60_000_000).expect("free")).collect();
        assert_eq!(sources.admit(client(number), 60_000_000), Err(Refused::Full));
        held.into_iter().for_each(|source| sources.release(source, 120_000_000));
    }
    assert_eq!(sources.known(), 0);
}
