//! Sending: without waiting, as the runtime does, and waiting in the kernel, as it does not.

use slipring_core::sys::bare::{File, Manner};

use super::arm::{Open, Time};
use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("send-all", "a send of what fits says all of it, and the peer has it", all),
    Case::new("send-order", "sends that are queued one behind the other go in that order", order),
    Case::new("send-short", "a send of more than fits is short", short),
    Case::new("send-blocked", "a full socket says EAGAIN to a send that does not wait", blocked),
    Case::new("send-after-fin", "after our FIN a send is EPIPE", after_fin),
    Case::new("send-to-finished", "a peer's FIN alone stops no send", to_finished),
    Case::new(
        "send-to-closed",
        "to a peer that closed, the first send goes, the next is EPIPE",
        closed,
    ),
    Case::new("send-to-reset", "a send after a reset is ECONNRESET once, then EPIPE", reset),
    Case::new("send-fresh", "a socket that is not connected says EPIPE to a send", fresh),
    Case::new("send-connecting", "a socket on its way is like a full one to a send", connecting),
    Case::new("send-waits", "a waiting send goes once the peer has read", waits),
    Case::new(
        "send-waits-short",
        "a waiting send is short when only some room is there",
        waits_short,
    ),
    Case::new("send-waits-reset", "a reset ends a waiting send", waits_reset),
    Case::new("send-waits-fin", "our own FIN ends a waiting send", waits_fin),
    Case::new("send-waits-peer-fin", "a FIN of the peer ends no waiting send", waits_peer),
    Case::new("send-waits-cancel", "a waiting send that is cancelled says so", waits_cancel),
    Case::new("send-whole", "with MSG_WAITALL a waiting send goes on until all has gone", whole),
    Case::new(
        "send-whole-reset",
        "a reset under MSG_WAITALL leaves the count of what went",
        w_reset,
    ),
    Case::new(
        "send-whole-cancel",
        "a cancel under MSG_WAITALL leaves the count of what went",
        w_cancel,
    ),
    Case::new("send-whole-at-once", "MSG_WAITALL without waiting is short like any other", at_once),
];

const WAITS: Manner = Manner { zero_copy: false, waits: true, whole: false };
const WHOLE: Manner = Manner { zero_copy: false, waits: true, whole: true };
/// More than a narrow socket takes.
const MUCH: usize = 256 << 10;

fn all(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.send(ours, b"hello");
    s.see(1);
    s.see_peer_open(peer);
}

fn order(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    for piece in [&b"one "[..], b"two ", b"three"] {
        s.send(ours, piece);
    }
    s.see(3);
    s.see_peer_open(peer);
}

fn short(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.arm.pair(Open::Narrow);
    s.send(ours, &vec![b'.'; MUCH]);
    s.see(1);
}

fn blocked(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.full_pair();
    s.send(ours, b"more");
    s.see(1);
}

fn after_fin(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.shut(ours);
    s.see(1);
    s.send(ours, b"late");
    s.see(1);
    s.send(ours, b"later");
    s.see(1);
}

fn to_finished(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.finish(peer);
    s.arm.ended(ours);
    s.send(ours, b"still here");
    s.see(1);
    s.see_peer_open(peer);
}

fn closed(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.leave(peer, false);
    s.arm.ended(ours);
    s.send(ours, b"first");
    s.see(1);
    s.take_at(0, 1, Time::Quiet);
    for _ in 0..2 {
        s.send(ours, b"next");
        s.see(1);
    }
}

fn reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    for _ in 0..3 {
        s.send(ours, b"anybody?");
        s.see(1);
    }
}

fn fresh(s: &mut Script<'_>) {
    s.small_ring();
    let socket = s.arm.socket();
    s.send(socket, b"hello");
    s.see(1);
}

fn connecting(s: &mut Script<'_>) {
    let (on, _) = s.dial_to_full();
    let File::Descriptor(socket) = on else { return };
    s.send(socket, b"too early");
    s.see(1);
}

fn waits(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.send_so(ours, b"at last", WAITS);
    s.see_quiet();
    s.arm.read(peer, usize::MAX, Time::Quiet);
    s.see(1);
}

fn waits_short(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.send_so(ours, &vec![b'.'; MUCH], WAITS);
    s.see_quiet();
    s.arm.read(peer, usize::MAX, Time::Quiet);
    s.see(1);
}

fn waits_reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.send_so(ours, b"never", WAITS);
    s.see_quiet();
    s.arm.leave(peer, true);
    s.see(1);
}

fn waits_fin(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.full_pair();
    s.send_so(ours, b"never", WAITS);
    s.see_quiet();
    s.shut(ours);
    s.see_in_any_order(2);
}

fn waits_peer(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.send_so(ours, b"at last", WAITS);
    s.see_quiet();
    s.arm.finish(peer);
    s.arm.ended(ours);
    s.see_quiet();
    s.arm.read(peer, usize::MAX, Time::Quiet);
    s.see(1);
}

fn waits_cancel(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.full_pair();
    let token = s.send_so(ours, b"never", WAITS);
    s.see_quiet();
    s.cancel(token);
    s.see_in_any_order(2);
}

fn whole(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.arm.pair(Open::Narrow);
    s.send_so(ours, &vec![b'.'; MUCH / 4], WHOLE);
    s.see_quiet();
    let mut read = 0;
    for _ in 0..10_000 {
        read += s.arm.read(peer, usize::MAX, Time::Within(1)).bytes.len();
        let all = s.take_at(0, 1, Time::Within(1));
        s.say_all(&all);
        if !all.is_empty() || read >= MUCH / 4 {
            break;
        }
    }
    read += s.arm.read(peer, MUCH / 4 - read, Time::Long).bytes.len();
    s.say(format!("peer: {read} bytes"));
    let all = s.take_at(0, 1, Time::Quiet);
    s.say_all(&all);
}

fn w_reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.arm.pair(Open::Narrow);
    s.send_so(ours, &vec![b'.'; MUCH], WHOLE);
    s.see_quiet();
    s.arm.leave(peer, true);
    s.see(1);
}

fn w_cancel(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.arm.pair(Open::Narrow);
    let token = s.send_so(ours, &vec![b'.'; MUCH], WHOLE);
    s.see_quiet();
    s.cancel(token);
    s.see_in_any_order(2);
}

fn at_once(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.arm.pair(Open::Narrow);
    s.send_so(ours, &vec![b'.'; MUCH], Manner { whole: true, ..Manner::default() });
    s.see(1);
}
