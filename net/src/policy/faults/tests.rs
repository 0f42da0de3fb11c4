use proptest::prelude::*;

use super::*;

fn rules(text: &str) -> Rules {
    text.parse().expect("rules")
}

fn rng(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed)
}

fn plan(text: &str, listener: Option<&str>, upstream: Option<&str>) -> Plan {
    Plan::draw(&rules(text), listener, upstream, &mut rng(1))
}

// ------------------------------------------------------------------------------------------ texts

#[test]
fn the_example_is_read() {
    let text = "io upstream=web share=10% direction=from latency=100ms jitter=20ms";
    let latency = Delay::of(Duration::from_millis(100)).with_jitter(Duration::from_millis(20));
    let expected = Rule {
        upstream: Some("web".to_owned()),
        share: Share::of_millionths(100_000),
        ..Rule::io(Direction::From, [IoEffect::Latency(latency)])
    };
    assert_eq!(text.parse(), Ok(expected.clone()));
    assert_eq!(expected.to_string(), text);
}

/// Each as it is written, and as it comes back if that is another way.
#[test]
fn every_word_is_read_and_written() {
    for (text, canonical) in [
        ("resolve notfound", None),
        ("resolve timeout", Some("resolve timeout=5s")),
        (
            "resolve share=0% upstream=db timeout=100ms",
            Some("resolve upstream=db share=0% timeout=100ms"),
        ),
        ("resolve delay=1s jitter=1.5s", Some("resolve delay=1s jitter=1500ms")),
        ("connect refuse", None),
        ("connect blackhole", Some("connect blackhole=127s")),
        ("connect delay=0s jitter=2ms", None),
        ("accept listener=front fail", None),
        ("accept fail listener=front share=100%", Some("accept listener=front fail")),
        ("accept delay=60s", Some("accept delay=1m")),
        ("io latency=5ms", None),
        ("io direction=both latency=5ms", Some("io latency=5ms")),
        (
            "io direction=to bandwidth=1024KiB/s burst=512B",
            Some("io direction=to bandwidth=1MiB/s burst=512B"),
        ),
        ("io bandwidth=3B/s", None),
        ("io slice=64B", Some("io slice=64B pause=1ms")),
        ("io slice=32B..96B pause=10ms", None),
        ("io stall", None),
        ("io stall=0B", Some("io stall")),
        ("io stall=0s for=3s", None),
        ("io stall=4KiB for=3s", None),
        ("io stall=90s", None),
        ("io reset reset=1GiB reset=7us", None),
        ("io close close=5B close=1h", None),
        ("io slow-close=2s", None),
        ("io latency=1ms latency=2ms jitter=3ms bandwidth=1B/s stall close=5s", None),
        (
            "io share=0.0001% listener=a=b upstream=x latency=1ns",
            Some("io listener=a=b upstream=x share=0.0001% latency=1ns"),
        ),
    ] {
        let rule: Rule = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rule.to_string(), canonical.unwrap_or(text));
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
}

#[test]
fn rules_are_apart_by_lines_or_semicolons() {
    let text = "\n # none; of this\n io stall ;; accept fail\r\n\n  connect refuse;";
    assert_eq!(rules(text).to_string(), "io stall\naccept fail\nconnect refuse");
    assert!(rules(" \n;\n# nothing").is_empty());
    let error = "io stall; accept fail\n#\nio latnecy=5ms".parse::<Rules>().expect_err("a slip");
    assert_eq!(error.number, 3);
    assert!(error.to_string().starts_with("rule 3, `io latnecy=5ms`: `latnecy` is not known"));
}

/// Each is refused with a cause that holds the words and, behind a semicolon, a remedy that does.
#[test]
fn what_makes_no_sense_is_refused_with_cause_and_remedy() {
    for (text, cause, remedy) in [
        ("", "`` is no kind", "begin with resolve, connect, accept or io"),
        ("oi latency=5ms", "`oi` is no kind", "begin with"),
        ("io", "io without an effect", "say what happens"),
        ("io upstream=web share=10%", "without an effect", "leave the rule out"),
        ("connect share=10%", "connect without an effect", "say what happens"),
        ("connect stall", "`stall` is not known in a rule of connect", "refuse, blackhole"),
        ("accept direction=to fail", "`direction` is not known", "listener"),
        ("io refuse", "`refuse` is not known in a rule of io", "latency"),
        ("io jitter=5ms", "`jitter` stands behind nothing", "behind latency"),
        ("io latency=1ms stall jitter=5ms", "`jitter` stands behind nothing", "behind latency"),
        ("io stall burst=1B", "`burst` stands behind nothing", "behind bandwidth"),
        ("io stall pause=1s", "`pause` stands behind nothing", "behind slice"),
        ("io latency=1s for=1s", "`for` stands behind nothing", "behind stall"),
        ("io latency=1ms jitter=1ms jitter=2ms", "`jitter` is said twice", "once"),
        ("io share=1% share=2% stall", "`share` is said twice", "once"),
        ("io latency", "`latency` has no value", "latency=100ms"),
        ("io latency=", "`latency` has no value", "latency=100ms"),
        ("io reset=", "`reset` has no value", "reset=64KiB"),
        ("io upstream stall", "`upstream` has no value", "upstream=web"),
        ("connect refuse=5s", "`refuse` takes no value, and has `5s`", "`refuse` alone"),
        ("connect refuse delay=5s", "`delay` is a second effect", "a rule for each"),
        ("io latency=5", "`5` is no duration", "250ms"),
        ("io latency=5 ms", "`5` is no duration", "250ms"),
        ("io latency=.5s", "`.5s` is no duration", "250ms"),
        ("io latency=1.s", "`1.s` is no duration", "250ms"),
        ("io latency=1.2.3s", "`1.2.3s` is no duration", "250ms"),
        ("io latency=-5ms", "`-5ms` is no duration", "250ms"),
        ("io latency=0.5ns", "`0.5ns` is no duration", "250ms"),
        ("io latency=1001h", "1001h is too long", "1000h is the most"),
        ("io latency=99999999999999999999h", "is no duration", "250ms"),
        ("io stall=2000h", "2000h is too long", "1000h"),
        ("io stall=5", "`5` is neither bytes nor a time", "64KiB or 2s"),
        ("io stall=64KB", "`64KB` is neither", "64KiB"),
        ("io slice=64", "`64` is no size", "64KiB"),
        ("io slice=1.5KiB", "`1.5KiB` is no size", "whole numbers"),
        ("io slice=99999999999GiB", "is no size", "KiB"),
        ("io bandwidth=64KiB", "`64KiB` is no rate", "64KiB/s"),
        ("io bandwidth=0B/s", "bandwidth of nothing", "stall"),
        ("io bandwidth=1B/s burst=0B", "`burst` of nothing", "more than zero"),
        ("io slice=0B", "slices of 0 to 0", "at least 1 byte"),
        ("io slice=9B..8B", "slices of 9 to 8", "smaller first"),
        ("io slice=9B pause=0s", "a pause of 0ns", "1ms"),
        ("io latency=0s", "`latency` of nothing", "leave it out"),
        ("io stall for=0s", "`for` of nothing", "leave it out"),
        ("io slow-close=0s", "`slow-close` of nothing", "leave it out"),
        ("connect delay=0s", "`delay` of nothing", "leave it out"),
        ("connect blackhole=0s", "`blackhole` of nothing", "leave it out"),
        ("io share=0.1 stall", "`0.1` is no share", "10%"),
        ("io share=101% stall", "`101%` is no share", "up to 100%"),
        ("io share=% stall", "`%` is no share", "10%"),
        ("io share=0.00001% stall", "is no share", "10%"),
        ("io direction=up stall", "`up` is no direction", "to, from or both"),
        ("io upstream=* stall", "`*` cannot name", "leave it out for any"),
        (
            "connect listener=front refuse",
            "connect cannot know its listener",
            "leave `listener` out",
        ),
        ("accept upstream=web fail", "accept cannot know its upstream", "leave `upstream` out"),
    ] {
        let message = text.parse::<Rule>().expect_err(text).to_string();
        let (before, behind) = message.split_once("; ").unwrap_or_else(|| panic!("{message}"));
        assert!(before.contains(cause), "{text}: {message}");
        assert!(behind.contains(remedy), "{text}: {message}");
        assert!(!message.contains('\n'));
    }
}

#[test]
fn rules_that_nobody_could_write_are_refused() {
    for name in ["", "a b", "a;b", "a\nb", "*"] {
        let rule = Rule {
            upstream: Some(name.to_owned()),
            ..Rule::io(Direction::To, [IoEffect::Stall { after: After::NOTHING, lasts: None }])
        };
        assert!(matches!(rule.check(), Err(RuleError::Name { .. })), "{name:?}");
        let error = Rules::new([rule]).expect_err(name);
        assert_eq!(error.number, 1);
    }
    let too_long = Rule::io(Direction::To, [IoEffect::SlowClose { delay: Duration::MAX }]);
    assert!(matches!(too_long.check(), Err(RuleError::TooLong { .. })));
    for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert!(Share::new(ratio).is_err(), "{ratio}");
    }
    assert_eq!(Share::new(0.1).map(Share::millionths), Ok(100_000));
    assert_eq!(Share::of_millionths(u32::MAX), Share::ALL);
}

fn any_span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1_u64..4_000_000).prop_map(Duration::from_millis),
        (1_u64..3_600_000_000_000_000).prop_map(Duration::from_nanos),
    ]
}

fn any_effect() -> impl Strategy<Value = Effect> {
    let span = any_span;
    let delay = || {
        (any_span(), proptest::option::of(any_span()))
            .prop_map(|(least, jitter)| Delay::of(least).with_jitter(jitter.unwrap_or_default()))
    };
    let after = || prop_oneof![any::<u64>().prop_map(After::Bytes), span().prop_map(After::Time)];
    let io = prop_oneof![
        delay().prop_map(IoEffect::Latency),
        (1_u64.., proptest::option::of(1_u64..)).prop_map(|(bytes_per_s, burst_bytes)| {
            IoEffect::Bandwidth { bytes_per_s, burst_bytes }
        }),
        (1_u64..1 << 40, 0_u64..1 << 40, span()).prop_map(|(least_bytes, more, pause)| {
            let (most_bytes, pause) = (least_bytes + more, pause.max(PAUSE_MIN));
            IoEffect::Slice { least_bytes, most_bytes, pause }
        }),
        (after(), proptest::option::of(span()))
            .prop_map(|(after, lasts)| IoEffect::Stall { after, lasts }),
        after().prop_map(|after| IoEffect::Reset { after }),
        after().prop_map(|after| IoEffect::Close { after }),
        span().prop_map(|delay| IoEffect::SlowClose { delay }),
    ];
    let direction = prop_oneof![Just(Direction::To), Just(Direction::From), Just(Direction::Both)];
    prop_oneof![
        Just(Effect::Resolve(ResolveEffect::NotFound)),
        span().prop_map(|span| Effect::Resolve(ResolveEffect::Timeout(span))),
        delay().prop_map(|delay| Effect::Resolve(ResolveEffect::Delay(delay))),
        Just(Effect::Connect(ConnectEffect::Refuse)),
        span().prop_map(|span| Effect::Connect(ConnectEffect::Blackhole(span))),
        delay().prop_map(|delay| Effect::Connect(ConnectEffect::Delay(delay))),
        Just(Effect::Accept(AcceptEffect::Fail)),
        delay().prop_map(|delay| Effect::Accept(AcceptEffect::Delay(delay))),
        (direction, proptest::collection::vec(io, 1..5))
            .prop_map(|(direction, effects)| Effect::Io { direction, effects }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(
        effects in proptest::collection::vec((any_effect(), 0_u32..=1_000_000, any::<bool>()), 0..6),
    ) {
        let rules: Vec<_> = effects.into_iter().map(|(effect, share, is_named)| {
            let name = |is| is_named.then_some("a-name=1").filter(|_| is).map(str::to_owned);
            let is_io = matches!(effect, Effect::Io { .. });
            let is_accept = matches!(effect, Effect::Accept(_));
            let (listener, upstream) = (name(is_io || is_accept), name(!is_accept));
            Rule { listener, upstream, share: Share::of_millionths(share), effect }
        }).collect();
        let rules = Rules::new(rules).expect("they make sense");
        prop_assert_eq!(rules.to_string().parse(), Ok(rules));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", words in "(io|connect) ([a-z-]{1,9}=?[0-9.KMB/s%]{0,9} ){0,4}") {
        let _ = (text.parse::<Rules>(), words.parse::<Rules>());
    }
}

// ------------------------------------------------------------------------------------------ draws

#[test]
fn a_rule_applies_where_its_names_do() {
    let text = "io listener=a latency=1ms; io upstream=b latency=2ms; io latency=3ms; \
                io listener=a upstream=b latency=4ms";
    for (listener, upstream, expected) in [
        (None, None, vec![2]),
        (Some("a"), None, vec![0, 2]),
        (Some("a"), Some("c"), vec![0, 2]),
        (None, Some("b"), vec![1, 2]),
        (Some("b"), Some("a"), vec![2]),
        (Some("a"), Some("b"), vec![0, 1, 2, 3]),
    ] {
        assert_eq!(plan(text, listener, upstream).io_rules, expected);
    }
}

#[test]
fn effects_form_a_chain_in_the_order_given_and_by_direction() {
    let text =
        "io latency=1ms stall; io direction=to reset; io direction=from close; io slow-close=1s";
    let plan = plan(text, None, None);
    let words = |effects: &[IoEffect]| {
        effects.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words(&plan.to_upstream), "latency=1ms stall reset slow-close=1s");
    assert_eq!(words(&plan.from_upstream), "latency=1ms stall close slow-close=1s");
}

#[test]
fn delays_add_up_to_the_first_failure() {
    let text = "connect delay=1s; connect delay=2s; connect refuse; connect delay=4s; connect blackhole; \
                resolve delay=1s; resolve notfound; resolve timeout; accept delay=3s";
    let plan = plan(text, None, None);
    assert_eq!(plan.connect.delay, Duration::from_secs(3));
    assert_eq!(plan.connect.end, Some(ConnectEnd::Refused));
    assert_eq!(plan.connect.rules, [0, 1, 2]);
    assert_eq!(plan.resolve.end, Some(ResolveEnd::NotFound));
    assert_eq!(plan.resolve.rules, [5, 6]);
    assert_eq!((plan.accept.delay, plan.accept.end), (Duration::from_secs(3), None));
    assert!(plan.io_rules.is_empty());
}

#[test]
fn a_share_is_a_share() {
    let rules = rules("io share=50% stall; accept share=10% fail; io share=0% reset");
    let mut counts = [0; 4];
    let mut rng = rng(5);
    for _ in 0..10_000 {
        let plan = Plan::draw(&rules, None, None, &mut rng);
        let (io, accept) = (plan.io_rules.contains(&0), !plan.accept.is_nothing());
        counts[0] += u32::from(io);
        counts[1] += u32::from(accept);
        counts[2] += u32::from(io && accept);
        counts[3] += u32::from(plan.io_rules.contains(&2));
    }
    assert!((4800..5200).contains(&counts[0]), "{counts:?}");
    assert!((900..1100).contains(&counts[1]), "{counts:?}");
    assert!((400..600).contains(&counts[2]), "by itself each: {counts:?}");
    assert_eq!(counts[3], 0);
}

/// One that is added, or that is for somebody else, changes nothing for those before it.
#[test]
fn what_is_drawn_for_a_rule_does_not_depend_on_names_or_on_those_behind() {
    let few = rules("io share=50% upstream=a stall; connect delay=1s jitter=1s");
    let more =
        rules("io share=50% upstream=b stall; connect delay=1s jitter=1s; io share=50% reset");
    let mut drawn = 0;
    for seed in 0..200 {
        let one = Plan::draw(&few, None, Some("a"), &mut rng(seed));
        let other = Plan::draw(&more, None, Some("b"), &mut rng(seed));
        assert_eq!(one.connect, other.connect);
        assert_eq!(one.io_rules.contains(&0), other.io_rules.contains(&0));
        drawn += usize::from(one.io_rules.contains(&0));
        assert_eq!(one, Plan::draw(&few, None, Some("a"), &mut rng(seed)), "a seed repeats");
    }
    assert!((60..140).contains(&drawn));
}

#[test]
fn courses_of_a_plan_repeat_and_differ_by_direction() {
    let plan = plan("io latency=0s jitter=1s", None, None);
    let times = |mut course: Course| {
        let mut times = Vec::new();
        for second in 0..20 {
            let at = Duration::from_secs(2 * second);
            course.push(at, 1);
            times.push(course.next(at));
            course.next(at + Duration::from_secs(1));
        }
        times
    };
    let (to, from) = plan.courses(Duration::ZERO);
    let (again, _) = plan.courses(Duration::ZERO);
    assert_eq!(times(to.clone()), times(again));
    assert_ne!(times(to), times(from));
}
