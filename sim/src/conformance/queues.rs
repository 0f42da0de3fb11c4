//! The queues of a ring: waits with a timeout, bad submissions among good ones, overflow and its flush.

use slipring_core::sys::bare::{Operation, Setup};

use super::arm::Time;
use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("enter-time", "an enter that waits for nothing to come ends with ETIME", time),
    Case::new("enter-enough", "an enter ends once so many completions are there", enough),
    Case::new(
        "enter-too-few",
        "a timeout with fewer completions than were waited for is no ETIME",
        too_few,
    ),
    Case::new("submit-unfit", "a bad submission in the middle holds up none behind it", unfit),
    Case::new("submit-bad-descriptor", "one bad descriptor in the middle is EBADF, alone", bad),
    Case::new(
        "overflow-flush",
        "what overflowed is flushed by an enter, in order, none lost",
        flush,
    ),
    Case::new("overflow-again", "a flush that does not fit goes on with the next enter", again),
    Case::new(
        "overflow-shot",
        "while something stands behind the queue no multishot goes on",
        shot,
    ),
];

/// Two places on either side.
const TWO: Setup = Setup { submissions: 2, completions: 2, ..Setup::SMALL };

fn time(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.receive(ours);
    s.see_enter(1, Time::Within(20));
}

fn enough(s: &mut Script<'_>) {
    s.small_ring();
    s.push("first", Operation::Nop);
    s.push("second", Operation::Nop);
    s.see_enter(2, Time::Long);
    s.see(2);
}

fn too_few(s: &mut Script<'_>) {
    s.small_ring();
    s.push("only", Operation::Nop);
    s.see_enter(2, Time::Within(20));
    s.see(1);
}

fn unfit(s: &mut Script<'_>) {
    s.small_ring();
    s.push("before", Operation::Nop);
    s.push("bad", Operation::Unfit);
    s.push("behind", Operation::Nop);
    s.see(3);
}

fn bad(s: &mut Script<'_>) {
    s.small_ring();
    let (first, _) = s.pair();
    let (second, peer) = s.pair();
    s.arm.close(first);
    s.push("before", Operation::Nop);
    s.send(first, b"nobody");
    s.send(second, b"hello");
    s.see(3);
    s.see_peer_open(peer);
}

/// Overflows a queue of two with so many times two completions.
fn overflow(s: &mut Script<'_>, times: usize) {
    const NAMES: [&str; 6] = ["first", "second", "third", "fourth", "fifth", "sixth"];
    s.arm.ring(TWO);
    for pair in NAMES.chunks(2).take(times) {
        pair.iter().for_each(|name| {
            s.push(name, Operation::Nop);
        });
        s.arm.enter(0, 0, Time::Long);
    }
}

fn flush(s: &mut Script<'_>) {
    overflow(s, 2);
    s.see(2);
    s.see(2);
}

fn again(s: &mut Script<'_>) {
    overflow(s, 3);
    s.see(2);
    s.see(2);
    s.see(2);
}

fn shot(s: &mut Script<'_>) {
    overflow(s, 2);
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, b"hello");
    s.arm.arrived(ours, 5);
    s.receive(ours);
    s.arm.enter(0, 0, Time::Long);
    s.see(2);
    s.see(2);
    s.see(1);
}
