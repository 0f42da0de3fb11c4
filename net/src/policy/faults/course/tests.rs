use proptest::prelude::*;

use super::super::rules::Delay;
use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn course(effects: &[IoEffect]) -> Course {
    Course::new(effects, Duration::ZERO, fastrand::Rng::with_seed(3))
}

fn latency(least: u64, jitter: u64) -> IoEffect {
    IoEffect::Latency(Delay::of(ms(least)).with_jitter(ms(jitter)))
}

fn bandwidth(bytes_per_s: u64, burst: u64) -> IoEffect {
    IoEffect::Bandwidth { bytes_per_s, burst_bytes: Some(burst) }
}

fn slice(least_bytes: u64, most_bytes: u64, pause_ms: u64) -> IoEffect {
    IoEffect::Slice { least_bytes, most_bytes, pause: ms(pause_ms) }
}

fn stall(after: After, lasts_ms: Option<u64>) -> IoEffect {
    IoEffect::Stall { after, lasts: lasts_ms.map(ms) }
}

/// All steps with their times, as somebody takes them who asks whenever he was told to.
fn steps(course: &mut Course, mut now: Duration, until: Duration) -> Vec<(u64, Step)> {
    let mut steps = Vec::new();
    while now <= until {
        match course.next(now) {
            Step::WaitUntil(at) => {
                assert!(at > now, "a wait that is over");
                now = at;
            }
            Step::Nothing => break,
            step => steps.push((now.as_millis() as u64, step)),
        }
    }
    steps
}

fn all_steps(course: &mut Course) -> Vec<(u64, Step)> {
    steps(course, Duration::ZERO, Duration::MAX)
}

use Step::{Close, Deliver, End};

const RESET_BEHIND: Step = Step::Reset { is_behind_bytes: true };
const RESET_NOW: Step = Step::Reset { is_behind_bytes: false };

// ------------------------------------------------------------------------------- one effect each

#[test]
fn without_effects_all_passes_at_once() {
    let mut course = course(&[]);
    course.push(ms(1), 10);
    course.push_end(ms(1));
    assert_eq!(all_steps(&mut course), [(0, Deliver(10)), (0, End)]);
    assert!(course.is_over() && !course.wants());
    assert_eq!(course.next(ms(9)), Step::Nothing);
}

#[test]
fn latency_is_of_each_byte_and_of_the_fin() {
    let mut course = course(&[latency(100, 0)]);
    course.push(ms(0), 1);
    course.push(ms(30), 2);
    course.push_end(ms(40));
    let expected = [(100, Deliver(1)), (130, Deliver(2)), (140, End)];
    assert_eq!(steps(&mut course, ms(40), Duration::MAX), expected);
}

#[test]
fn latencies_in_a_row_add_up_exactly_however_late_somebody_asks() {
    let mut course = course(&[latency(100, 0), latency(50, 0)]);
    course.push(ms(0), 1);
    // Not 120 + 50.
    assert_eq!(course.next(ms(120)), Step::WaitUntil(ms(150)));
    assert_eq!(course.next(ms(150)), Deliver(1));
}

#[test]
fn jitter_is_drawn_for_each_and_never_changes_the_order() {
    let mut course = course(&[latency(10, 20)]);
    let mut times = Vec::new();
    for at in 0..200 {
        let at = ms(at * 100);
        course.push(at, 1);
        let Step::WaitUntil(until) = course.next(at) else { panic!("at least 10 ms") };
        assert_eq!(course.next(until), Deliver(1));
        times.push(until - at);
    }
    let (least, most) = (times.iter().min().copied(), times.iter().max().copied());
    assert!(least >= Some(ms(10)) && least < Some(ms(12)), "{least:?}");
    assert!(most <= Some(ms(30)) && most > Some(ms(28)), "{most:?}");
}

#[test]
fn a_bandwidth_gives_its_burst_and_then_its_rate() {
    let mut course = course(&[bandwidth(1000, 100)]);
    course.push(ms(0), 600);
    let steps = all_steps(&mut course);
    assert_eq!(steps[0], (0, Deliver(100)));
    // A hundredth of a second's at a time.
    assert!(steps[1..].iter().all(|(_, step)| *step == Deliver(10)), "{steps:?}");
    assert_eq!(steps.last(), Some(&(500, Deliver(10))));
}

#[test]
fn a_bandwidth_that_nobody_used_gives_no_more_than_its_burst() {
    let mut course = course(&[bandwidth(1000, 100)]);
    course.push(ms(60_000), 300);
    assert_eq!(course.next(ms(60_000)), Deliver(100));
    assert_eq!(course.next(ms(60_000)), Step::WaitUntil(ms(60_010)));
    // And who asks late is not given what was missed.
    assert_eq!(course.next(ms(61_000)), Deliver(100));
}

#[test]
fn a_last_byte_does_not_wait_for_more() {
    let mut course = course(&[bandwidth(1000, 100)]);
    course.push(ms(0), 101);
    course.push_end(ms(0));
    assert_eq!(all_steps(&mut course), [(0, Deliver(100)), (1, Deliver(1)), (1, End)]);
}

#[test]
fn slices_are_pieces_with_pauses() {
    let mut course = course(&[slice(3, 3, 5)]);
    course.push(ms(0), 7);
    course.push_end(ms(0));
    let expected = [(0, Deliver(3)), (5, Deliver(3)), (10, Deliver(1)), (10, End)];
    assert_eq!(all_steps(&mut course), expected);
}

#[test]
fn slices_have_all_sizes_between() {
    let mut course = course(&[slice(2, 5, 1)]);
    let mut seen = [0; 7];
    course.push(ms(0), 2000);
    for (_, step) in all_steps(&mut course) {
        let Deliver(bytes) = step else { panic!("{step:?}") };
        seen[bytes] += 1;
    }
    assert!(seen[2..=5].iter().all(|times| *times > 50), "{seen:?}");
    assert_eq!((seen[0], seen[6]), (0, 0));
}

#[test]
fn a_stall_behind_bytes_holds_the_rest_and_the_fin() {
    let mut for_ever = course(&[stall(After::Bytes(4), None)]);
    for_ever.push(ms(0), 6);
    for_ever.push_end(ms(0));
    assert_eq!(all_steps(&mut for_ever), [(0, Deliver(4))]);
    assert_eq!(for_ever.next(Duration::MAX), Step::Nothing);

    let mut for_a_while = course(&[stall(After::Bytes(4), Some(30))]);
    for_a_while.push(ms(0), 6);
    for_a_while.push_end(ms(0));
    assert_eq!(all_steps(&mut for_a_while), [(0, Deliver(4)), (30, Deliver(2)), (30, End)]);
}

#[test]
fn a_stall_at_a_time_lets_pass_what_came_before_and_behind_it() {
    let mut course = course(&[stall(After::Time(ms(10)), Some(20))]);
    for at in [9, 10, 29, 30] {
        course.push(ms(at), at as usize);
    }
    // Asked late: what came before the stall was due before it.
    assert_eq!(course.next(ms(15)), Deliver(9));
    assert_eq!(course.next(ms(30)), Deliver(10));
    assert_eq!(course.next(ms(30)), Deliver(29));
    assert_eq!(course.next(ms(30)), Deliver(30));
}

#[test]
fn what_is_before_a_stall_passes_though_it_is_asked_late() {
    let mut course = course(&[stall(After::Time(ms(10)), Some(20))]);
    course.push(ms(9), 1);
    assert_eq!(course.next(ms(10)), Deliver(1), "it came before");
    course.push(ms(12), 1);
    assert_eq!(course.next(ms(12)), Step::WaitUntil(ms(30)));
}

#[test]
fn what_waits_for_a_stall_is_reckoned_from_its_end() {
    let mut course = course(&[stall(After::NOTHING, Some(30)), latency(10, 0)]);
    course.push(ms(0), 5);
    assert_eq!(course.next(ms(0)), Step::WaitUntil(ms(30)));
    assert_eq!(course.next(ms(35)), Step::WaitUntil(ms(40)));
    assert_eq!(course.next(ms(40)), Deliver(5));
}

#[test]
fn an_end_behind_bytes_comes_with_the_last_of_them_and_not_before() {
    for (effect, end) in [
        (IoEffect::Reset { after: After::Bytes(5) }, RESET_BEHIND),
        (IoEffect::Close { after: After::Bytes(5) }, Close),
    ] {
        let mut few = course(&[effect]);
        few.push(ms(0), 4);
        assert_eq!(all_steps(&mut few), [(0, Deliver(4))]);
        assert!(few.wants());
        few.push(ms(0), 1);
        assert_eq!(all_steps(&mut few), [(0, Deliver(1)), (0, end)]);
        assert!(!few.wants());

        let mut many = course(&[effect]);
        many.push(ms(0), 400);
        assert_eq!(all_steps(&mut many), [(0, Deliver(5)), (0, end)]);

        let mut none = course(&[effect]);
        none.push(ms(0), 4);
        none.push_end(ms(0));
        assert_eq!(all_steps(&mut none), [(0, Deliver(4)), (0, End)]);
    }
}

#[test]
fn an_end_behind_nothing_comes_at_once() {
    let mut course = course(&[IoEffect::Reset { after: After::NOTHING }]);
    assert!(!course.wants());
    assert_eq!(course.next(ms(0)), RESET_BEHIND);
}

#[test]
fn an_end_behind_bytes_waits_with_them_in_what_comes_later() {
    let reset = IoEffect::Reset { after: After::Bytes(5) };
    let mut slow = course(&[reset, latency(100, 0)]);
    slow.push(ms(0), 9);
    assert_eq!(all_steps(&mut slow), [(100, Deliver(5)), (100, RESET_BEHIND)]);
    let mut narrow = course(&[reset, bandwidth(1000, 1)]);
    narrow.push(ms(0), 9);
    let steps = all_steps(&mut narrow);
    assert_eq!(steps.last(), Some(&(4, RESET_BEHIND)), "{steps:?}");
    assert_eq!(steps.len(), 6);
}

#[test]
fn an_end_at_a_time_comes_then_whatever_is_held() {
    let effects = [stall(After::NOTHING, None), IoEffect::Close { after: After::Time(ms(50)) }];
    let mut timeout = course(&effects);
    timeout.push(ms(0), 9);
    assert_eq!(all_steps(&mut timeout), [(50, Close)]);

    // Sooner than what else is waited for.
    let effects = [latency(100, 0), IoEffect::Close { after: After::Time(ms(50)) }];
    let mut sooner = course(&effects);
    sooner.push(ms(0), 9);
    assert_eq!(all_steps(&mut sooner), [(50, Close)]);

    // Of two, the first; and what was due before is delivered, however late that is asked.
    let effects = [
        IoEffect::Close { after: After::Time(ms(50)) },
        latency(10, 0),
        IoEffect::Reset { after: After::Time(ms(40)) },
    ];
    let mut late = course(&effects);
    late.push(ms(30), 1);
    late.push(ms(31), 2);
    assert_eq!(late.next(ms(90)), Deliver(1));
    assert_eq!(late.next(ms(90)), RESET_NOW);
    assert_eq!(late.next(ms(90)), Step::Nothing);
}

#[test]
fn a_slow_close_delays_the_fin_alone() {
    let mut course = course(&[IoEffect::SlowClose { delay: ms(70) }]);
    course.push(ms(0), 5);
    course.push_end(ms(0));
    assert_eq!(all_steps(&mut course), [(0, Deliver(5)), (70, End)]);
}

// ----------------------------------------------------------------------------------------- bounds

#[test]
fn it_wants_no_more_than_its_bound() {
    for (effects, bound) in [
        (vec![], 64 << 10),
        (vec![stall(After::NOTHING, None)], 64 << 10),
        (vec![latency(100, 0)], 1 << 20),
        // A tenth of 100 KiB.
        (vec![latency(60, 40), bandwidth(100 << 10, 1)], (64 << 10) + (10 << 10)),
    ] {
        let mut course = course(&[stall(After::NOTHING, None)]);
        course.bound_bytes = super::bound_bytes(&effects);
        assert_eq!(course.bound_bytes(), bound, "{effects:?}");
        let mut held = 0;
        while course.wants() {
            course.push(ms(0), 1000);
            held += 1000;
            assert!(held < 2 << 20);
        }
        assert!(held >= bound && held < bound + 1000, "{held} of {bound}");
        assert_eq!(course.held_bytes(), held);
    }
}

#[test]
fn it_wants_more_once_some_has_gone() {
    let mut course = course(&[latency(1, 0), bandwidth(1 << 20, 1 << 10)]);
    while course.wants() {
        course.push(ms(0), 1 << 10);
    }
    assert!(!course.wants());
    assert_eq!(course.next(ms(1)), Deliver(1 << 10));
    assert!(course.wants());
}

#[test]
fn many_small_ones_are_held_in_bounded_numbers() {
    let mut course = course(&[latency(1000, 0)]);
    let mut pushed = 0;
    while course.wants() {
        course.push(Duration::from_micros(pushed), 1);
        pushed += 1;
    }
    assert_eq!(pushed, BATCHES_MAX as u64);
}

#[test]
fn no_value_makes_it_panic() {
    let huge = [
        IoEffect::Latency(Delay::of(Duration::MAX).with_jitter(Duration::MAX)),
        bandwidth(u64::MAX, u64::MAX),
        bandwidth(0, 0),
        slice(0, 0, 0),
        slice(u64::MAX, 1, u64::MAX),
        slice(1, u64::MAX, 0),
        IoEffect::Slice { least_bytes: 1, most_bytes: 1, pause: Duration::MAX },
        stall(After::Bytes(u64::MAX), Some(u64::MAX)),
        IoEffect::Stall { after: After::Time(Duration::MAX), lasts: Some(Duration::MAX) },
        IoEffect::Stall { after: After::NOTHING, lasts: Some(Duration::MAX) },
        IoEffect::Reset { after: After::Bytes(u64::MAX) },
        IoEffect::Close { after: After::Time(Duration::MAX) },
        IoEffect::SlowClose { delay: Duration::MAX },
    ];
    for first in huge {
        for second in huge {
            let rng = fastrand::Rng::with_seed(1);
            let mut course = Course::new(&[first, second], Duration::ZERO, rng);
            for now in [ms(0), ms(1), Duration::MAX, ms(2), Duration::MAX] {
                course.push(now, usize::MAX);
                course.push(now, 1);
                for _ in 0..8 {
                    course.next(now);
                }
            }
            course.push_end(ms(3));
            course.push_end(Duration::MAX);
            for _ in 0..8 {
                course.next(Duration::MAX);
            }
            let _ = (course.wants(), course.held_bytes(), course.bound_bytes());
        }
    }
}

#[test]
fn time_that_goes_back_is_taken_for_the_latest() {
    let mut course = course(&[latency(10, 0)]);
    course.push(ms(100), 1);
    course.push(ms(50), 2);
    assert_eq!(course.next(ms(0)), Step::WaitUntil(ms(110)));
    assert_eq!(course.next(ms(110)), Deliver(3));
}

// ------------------------------------------------------------------------------------- any effects

/// Small ones, so that everything runs into everything.
fn effects() -> impl Strategy<Value = Vec<IoEffect>> {
    let after = prop_oneof![
        (0_u64..400).prop_map(After::Bytes),
        (0_u64..120).prop_map(|at| After::Time(ms(at)))
    ];
    let effect = prop_oneof![
        (0_u64..50, 0_u64..30).prop_map(|(least, jitter)| latency(least, jitter)),
        (100_u64..20_000, 1_u64..200).prop_map(|(rate, burst)| bandwidth(rate, burst)),
        (1_u64..40, 0_u64..40, 1_u64..9).prop_map(|(least, more, by)| slice(
            least,
            least + more,
            by
        )),
        (after.clone(), proptest::option::weighted(0.8, 1_u64..80))
            .prop_map(|(after, lasts)| stall(after, lasts)),
        after.clone().prop_map(|after| IoEffect::Reset { after }),
        after.prop_map(|after| IoEffect::Close { after }),
        (1_u64..50).prop_map(|delay| IoEffect::SlowClose { delay: ms(delay) }),
    ];
    proptest::collection::vec(effect, 0..4)
}

/// What was seen of a course, in microseconds.
#[derive(Debug, Default)]
struct Seen {
    pushed: Vec<(u64, u64)>,
    ended_us: Option<u64>,
    delivered: Vec<(u64, u64)>,
    end: Option<(u64, Step)>,
}

impl Seen {
    fn total(of: &[(u64, u64)]) -> u64 {
        of.iter().map(|(_, bytes)| bytes).sum()
    }

    /// When the byte of this number came, or went.
    fn time_of(of: &[(u64, u64)], byte: u64) -> u64 {
        let mut left = byte;
        for (at, bytes) in of {
            if left < *bytes {
                return *at;
            }
            left -= bytes;
        }
        panic!("byte {byte} of {}", Self::total(of))
    }
}

/// Pushes as told, asks as told and as late as told, to the end.
fn run(effects: &[IoEffect], moves: &[(u16, u16)], late_us: u64, seed: u64) -> Seen {
    let mut course = Course::new(effects, Duration::ZERO, fastrand::Rng::with_seed(seed));
    let (mut now, mut seen) = (0, Seen::default());
    let us = Duration::from_micros;
    let mut moves = moves.iter();
    let mut next_push = moves.next().map(|(after, bytes)| (u64::from(*after), u64::from(*bytes)));
    for _ in 0..100_000 {
        match course.next(us(now)) {
            Step::Deliver(bytes) => {
                assert!(bytes > 0, "a delivery of nothing");
                seen.delivered.push((now, bytes as u64));
                assert!(Seen::total(&seen.delivered) <= Seen::total(&seen.pushed), "made up");
                continue;
            }
            Step::WaitUntil(until) => {
                assert!(until > us(now));
                let until = until.as_nanos().div_ceil(1000) as u64 + late_us;
                match next_push {
                    Some((at, _)) if at <= until => now = now.max(at),
                    _ => {
                        now = until;
                        continue;
                    }
                }
            }
            Step::Nothing => match next_push {
                Some((at, _)) => now = now.max(at),
                None if seen.ended_us.is_some() => return seen,
                None => {}
            },
            step => {
                seen.end = Some((now, step));
                assert_eq!(course.next(Duration::MAX), Step::Nothing);
                assert!(!course.wants());
                return seen;
            }
        }
        match next_push {
            Some((_, bytes)) if bytes > 0 => {
                // Cut off, it takes nothing any more.
                if course.stages.first().is_some_and(Stage::is_open) {
                    course.push(us(now), bytes as usize);
                    seen.pushed.push((now, bytes));
                }
            }
            Some(_) => {}
            None => {
                course.push_end(us(now));
                seen.ended_us.get_or_insert(now);
            }
        }
        next_push = moves.next().map(|(after, bytes)| (now + u64::from(*after), u64::from(*bytes)));
    }
    panic!("it comes to no end: {effects:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn any_chain_keeps_what_its_effects_promise(
        effects in effects(),
        moves in proptest::collection::vec((0_u16..20_000, 0_u16..120), 0..30),
        late_us in prop_oneof![Just(0), 0_u64..5_000],
        seed in any::<u64>(),
    ) {
        let seen = run(&effects, &moves, late_us, seed);
        let total = Seen::total(&seen.delivered);

        // No byte before its time: all latencies together.
        let delay_us: u64 = effects.iter().map(|effect| match effect {
            IoEffect::Latency(delay) => delay.least.as_micros() as u64,
            _ => 0,
        }).sum();
        let mut byte = 0;
        for (at, bytes) in &seen.delivered {
            let came = Seen::time_of(&seen.pushed, byte + bytes - 1);
            prop_assert!(*at >= came + delay_us, "byte {} at {at}, came at {came}", byte + bytes - 1);
            byte += bytes;
        }

        // What an effect at the end of the chain promises holds for what is delivered.
        match effects.last() {
            Some(IoEffect::Bandwidth { bytes_per_s, burst_bytes: Some(burst) }) => {
                for first in 0..seen.delivered.len() {
                    for last in first..seen.delivered.len() {
                        let window = &seen.delivered[first..=last];
                        let took = window[window.len() - 1].0 - window[0].0;
                        let most = burst * 1_000_000 + took * bytes_per_s;
                        let bytes = Seen::total(window);
                        prop_assert!(bytes * 1_000_000 <= most, "{bytes} in {took} us");
                    }
                }
            }
            Some(IoEffect::Slice { most_bytes, pause, .. }) => {
                for pair in seen.delivered.windows(2) {
                    prop_assert!(pair[1].0 - pair[0].0 >= pause.as_micros() as u64);
                }
                prop_assert!(seen.delivered.iter().all(|(_, bytes)| bytes <= most_bytes));
            }
            _ => {}
        }

        // Nothing behind a cut, and the end that is its.
        let cuts = effects.iter().filter_map(|effect| match effect {
            IoEffect::Reset { after: After::Bytes(bytes) } => Some((*bytes, RESET_BEHIND)),
            IoEffect::Close { after: After::Bytes(bytes) } => Some((*bytes, Close)),
            _ => None,
        });
        let cut = cuts.min_by_key(|(bytes, _)| *bytes);
        let stalls = effects.iter().any(|effect| matches!(effect, IoEffect::Stall { lasts: None, .. }));
        let times = effects.iter().filter_map(|effect| match effect {
            IoEffect::Reset { after: After::Time(at) } => Some((at.as_micros() as u64, RESET_NOW)),
            IoEffect::Close { after: After::Time(at) } => Some((at.as_micros() as u64, Close)),
            _ => None,
        });
        let deadline = times.min_by_key(|(at, _)| *at);
        if let Some((bytes, _)) = cut {
            prop_assert!(total <= bytes);
        }
        match seen.end {
            // The end is behind all bytes.
            Some((at, End)) => {
                prop_assert_eq!(total, Seen::total(&seen.pushed));
                prop_assert!(cut.is_none_or(|(bytes, _)| bytes > total));
                let ended = seen.ended_us.expect("it was pushed");
                let slow: u64 = effects.iter().map(|effect| match effect {
                    IoEffect::SlowClose { delay } => delay.as_micros() as u64,
                    _ => 0,
                }).sum();
                prop_assert!(at >= ended + delay_us + slow);
            }
            Some((at, step)) => {
                let is_cut = cut.is_some_and(|(bytes, _)| bytes == total)
                    && [RESET_BEHIND, Close].contains(&step);
                let is_time = deadline.is_some_and(|(due, end)| at >= due && end == step);
                prop_assert!(is_cut || is_time, "{step:?} at {at} behind {total}");
            }
            None => prop_assert!(stalls && deadline.is_none(), "nothing holds it"),
        }
        if let Some((due, _)) = deadline {
            // Nothing passes behind an end at a time.
            let latest = due + late_us + 20_000;
            prop_assert!(seen.delivered.iter().all(|(at, _)| *at <= latest));
        }
    }
}
