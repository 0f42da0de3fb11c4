//! Receiving: once and many times, what a multishot ends with, what comes before a FIN or a reset.

use slipring_core::sys::bare::{File, Operation, Setup};

use super::{Case, Need, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("receive-many", "a multishot receive goes on after bytes", many),
    Case::new("receive-once", "a single receive ends with its bytes, without F_MORE", once),
    Case::new("receive-once-waits", "a single receive without bytes waits for them", once_waits),
    Case::new(
        "receive-late",
        "bytes that came before the receive are brought when it is armed",
        late,
    ),
    Case::new(
        "receive-enobufs-arm",
        "with no buffer a receive fails on arming, bytes or not",
        at_arm,
    ),
    Case::new(
        "receive-enobufs-once",
        "with no buffer a single receive fails on arming too",
        at_once,
    ),
    Case::new(
        "receive-enobufs-mid",
        "a receive that runs out of buffers ends, after what fits",
        mid,
    ),
    Case::new(
        "receive-enobufs-exact",
        "a receive that takes the last buffer with the last byte waits",
        exact,
    ),
    Case::new(
        "receive-enobufs-rearm",
        "what did not fit waits, and comes once a buffer is back",
        rearm,
    ),
    Case::new(
        "receive-overflow",
        "a full completion queue ends a multishot receive with bytes and F_MORE clear",
        overflow,
    ),
    Case::new("receive-overflow-rest", "what an overflow left behind comes after re-arming", rest),
    Case::new("receive-cap", "a cap ends a multishot receive, with the last of its bytes", cap)
        .needs(Need::ReceiveCap),
    Case::new(
        "receive-cap-odd",
        "a cap is looked at behind each buffer: the last may go beyond it",
        cap_odd,
    )
    .needs(Need::ReceiveCap),
    Case::new("receive-cap-rest", "what is behind the cap comes after re-arming", cap_rest)
        .needs(Need::ReceiveCap),
    Case::new("receive-hint", "a receive says whether more bytes wait", hint),
    Case::new("receive-end", "a FIN ends a receive with zero and no buffer", end),
    Case::new("receive-data-end", "bytes before a FIN come before the end", data_end),
    Case::new(
        "receive-end-again",
        "the end of a stream is told as often as it is asked for",
        again,
    ),
    Case::new(
        "receive-data-reset",
        "bytes before a reset are not lost to who reads them",
        data_reset,
    ),
    Case::new("receive-reset", "a reset that came before the receive is told on arming", reset),
    Case::new("receive-reset-armed", "a reset ends an armed receive, or is not told to it", armed),
    Case::new("receive-reset-once", "the error of a reset is told once, then the end", reset_once),
    Case::new("receive-fresh", "a socket that is not connected cannot be received from", fresh),
    Case::new(
        "receive-connecting",
        "a receive on a socket on its way waits for the connection",
        connecting,
    ),
    Case::new("receive-closed", "a closed descriptor cannot be received from", closed),
];

/// Two buffers of sixteen bytes.
const TWO: Setup = Setup { buffers: 2, ..Setup::SMALL };
/// A completion queue of four places, and buffers enough.
const SHORT_QUEUE: Setup = Setup { submissions: 4, completions: 4, buffers: 16, ..Setup::SMALL };

fn many(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let token = s.receive(ours);
    let _ = s.arm.write(peer, b"one");
    s.see_bytes(token, 3);
    let _ = s.arm.write(peer, b"two");
    s.see_bytes(token, 3);
}

fn once(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, b"one");
    s.arm.arrived(ours, 3);
    s.receive_once(ours);
    s.see(1);
    let _ = s.arm.write(peer, b"two");
    s.see_quiet();
}

fn once_waits(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.receive_once(ours);
    s.see_quiet();
    let _ = s.arm.write(peer, b"one");
    s.see(1);
}

fn late(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, b"early");
    s.arm.arrived(ours, 5);
    s.receive(ours);
    s.see(1);
}

/// Takes the only buffers of a ring, and keeps them.
fn exhaust(s: &mut Script<'_>) -> (u32, super::Peer) {
    s.arm.ring(Setup { buffers: 1, ..Setup::SMALL });
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, b"a");
    s.arm.arrived(ours, 1);
    s.receive_once(ours);
    s.take(1);
    (ours, peer)
}

fn at_arm(s: &mut Script<'_>) {
    let (ours, _) = exhaust(s);
    s.receive(ours);
    s.see(1);
}

fn at_once(s: &mut Script<'_>) {
    let (ours, _) = exhaust(s);
    s.receive_once(ours);
    s.see(1);
}

fn mid(s: &mut Script<'_>) {
    s.arm.ring(TWO);
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, &[b'.'; 40]);
    s.arm.arrived(ours, 40);
    s.receive(ours);
    s.see(3);
}

fn exact(s: &mut Script<'_>) {
    s.arm.ring(TWO);
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, &[b'.'; 32]);
    s.arm.arrived(ours, 32);
    s.receive(ours);
    s.see(2);
    s.see_quiet();
    let _ = s.arm.write(peer, b"more");
    s.see(1);
}

fn rearm(s: &mut Script<'_>) {
    s.arm.ring(TWO);
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, b"................................the rest");
    s.arm.arrived(ours, 40);
    s.receive(ours);
    let all = s.take(3);
    for buffer in all.iter().filter_map(|one| one.buffer) {
        s.arm.recycle(0, buffer);
    }
    s.receive(ours);
    s.see(1);
}

fn overflow(s: &mut Script<'_>) {
    s.arm.ring(SHORT_QUEUE);
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, &[b'.'; 128]);
    s.arm.arrived(ours, 128);
    s.receive(ours);
    s.see(4);
    s.see(1);
    s.see_quiet();
}

fn rest(s: &mut Script<'_>) {
    s.arm.ring(SHORT_QUEUE);
    let (ours, peer) = s.pair();
    let sent: Vec<u8> = (0..128).collect();
    let _ = s.arm.write(peer, &sent);
    s.arm.arrived(ours, 128);
    let mut received = Vec::new();
    for _ in 0..super::script::PIECES_MAX {
        s.receive(ours);
        let mut over = false;
        for _ in 0..super::script::PIECES_MAX {
            let all = s.take(1);
            over |= all.is_empty() || all.iter().any(|one| !one.more);
            for one in all {
                received.extend_from_slice(&one.bytes);
                if let Some(buffer) = one.buffer {
                    s.arm.recycle(0, buffer);
                }
            }
            if over || received.len() >= sent.len() {
                break;
            }
        }
        if received.len() >= sent.len() {
            break;
        }
    }
    s.say(if received == sent { "all, in order" } else { "not what was sent" });
}

fn receive_capped(s: &mut Script<'_>, descriptor: u32, cap: u32) -> u64 {
    let on = File::Descriptor(descriptor);
    s.push("receive", Operation::Receive { on, many: true, cap })
}

fn with_cap(s: &mut Script<'_>, cap: u32) -> u32 {
    s.small_ring();
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, &[b'.'; 64]);
    s.arm.arrived(ours, 64);
    receive_capped(s, ours, cap);
    ours
}

fn cap(s: &mut Script<'_>) {
    with_cap(s, 32);
    s.see(2);
    s.see_quiet();
}

fn cap_odd(s: &mut Script<'_>) {
    with_cap(s, 20);
    s.see(2);
    s.see_quiet();
}

fn cap_rest(s: &mut Script<'_>) {
    let ours = with_cap(s, 32);
    s.take(2);
    receive_capped(s, ours, 32);
    s.see(2);
}

fn hint(s: &mut Script<'_>) {
    s.small_ring();
    s.hints = true;
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, &[b'.'; 20]);
    s.arm.arrived(ours, 20);
    s.receive_once(ours);
    s.see(1);
    s.receive_once(ours);
    s.see(1);
}

fn end(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.receive(ours);
    s.see_quiet();
    s.arm.finish(peer);
    let all = s.see(1);
    s.say(format!("a buffer: {}", all.iter().any(|one| one.buffer.is_some())));
}

fn data_end(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, b"last words");
    s.arm.leave(peer, false);
    s.arm.ended(ours);
    s.receive(ours);
    s.see(2);
}

fn again(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.leave(peer, false);
    s.arm.ended(ours);
    for _ in 0..3 {
        s.receive(ours);
        s.see(1);
    }
}

fn data_reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, b"last words");
    s.arm.arrived(ours, 10);
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    s.receive(ours);
    s.see(2);
}

fn reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    s.receive(ours);
    s.see(1);
}

fn armed(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.receive(ours);
    s.see_quiet();
    s.arm.leave(peer, true);
    s.see_quiet();
}

fn reset_once(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    for _ in 0..3 {
        s.receive_once(ours);
        s.see(1);
    }
}

fn fresh(s: &mut Script<'_>) {
    s.small_ring();
    let socket = s.arm.socket();
    s.receive(socket);
    s.see(1);
}

fn connecting(s: &mut Script<'_>) {
    let (on, _) = s.dial_to_full();
    let File::Descriptor(socket) = on else { return };
    s.receive(socket);
    let all = s.take_at(0, 1, super::Time::Within(20));
    s.say(if all.is_empty() { "nothing completes" } else { "" });
    s.say_all(&all);
}

fn closed(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.arm.close(ours);
    s.receive(ours);
    s.see(1);
}
