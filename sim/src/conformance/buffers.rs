//! The buffer ring: the order of use, the wrap of its counter, who takes a buffer and when.

use slipring_core::sys::bare::{Completion, Setup};

use super::{Case, Peer, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("buffers-order", "buffers are filled in the order they were given back", order),
    Case::new(
        "buffers-whole",
        "each receive takes a whole buffer, however few bytes it has",
        whole,
    ),
    Case::new("buffers-untouched", "a receive that waits has taken no buffer", untouched),
    Case::new("buffers-wrap", "the ring's counter wraps without anybody noticing", wrap),
    Case::new("buffers-shared", "one busy socket takes all buffers, and another has none", shared),
];

const FOUR: Setup = Setup { buffers: 4, ..Setup::SMALL };

/// Receives so many buffers full.
fn fill(s: &mut Script<'_>, (ours, peer): (u32, Peer), buffers: usize) -> Vec<Completion> {
    let bytes = vec![b'.'; buffers * Setup::SMALL.buffer_bytes as usize];
    let _ = s.arm.write(peer, &bytes);
    s.arm.arrived(ours, bytes.len());
    let mut all = Vec::new();
    for _ in 0..buffers {
        s.receive_once(ours);
        all.extend(s.take(1));
    }
    all
}

fn order(s: &mut Script<'_>) {
    s.arm.ring(FOUR);
    let pair = s.pair();
    let first: Vec<u16> = fill(s, pair, 4).iter().filter_map(|one| one.buffer).collect();
    s.say(format!("{} buffers", first.len()));
    if first.len() < 4 {
        return;
    }
    let back = [first[2], first[0], first[3], first[1]];
    back.into_iter().for_each(|buffer| s.arm.recycle(0, buffer));
    let again: Vec<u16> = fill(s, pair, 4).iter().filter_map(|one| one.buffer).collect();
    s.say(if again == back { "in the order they came back" } else { "in another order" });
}

fn whole(s: &mut Script<'_>) {
    s.arm.ring(FOUR);
    let (ours, peer) = s.pair();
    for _ in 0..4 {
        let _ = s.arm.write(peer, b"ab");
        s.arm.arrived(ours, 2);
        s.receive_once(ours);
        s.see(1);
    }
    s.receive_once(ours);
    s.see(1);
}

fn untouched(s: &mut Script<'_>) {
    s.arm.ring(Setup { buffers: 1, ..Setup::SMALL });
    let (first, _) = s.pair();
    let (second, peer) = s.pair();
    s.receive(first);
    s.see_quiet();
    s.receive_once(second);
    let _ = s.arm.write(peer, b"hello");
    s.see(1);
}

fn wrap(s: &mut Script<'_>) {
    s.arm.ring_near_wrap(Setup::SMALL);
    let (ours, peer) = s.pair();
    let token = s.receive(ours);
    for round in 0..24 {
        let text = format!("round {round:02}");
        let _ = s.arm.write(peer, text.as_bytes());
        s.see_bytes(token, text.len());
    }
}

fn shared(s: &mut Script<'_>) {
    s.arm.ring(FOUR);
    let busy = s.pair();
    let (other, peer) = s.pair();
    fill(s, busy, 4);
    let _ = s.arm.write(peer, b"hello");
    s.arm.arrived(other, 5);
    s.receive(other);
    s.see(1);
}
