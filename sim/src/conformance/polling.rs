//! One-shot polls: what a watch for writability tells a blocked connection, and a watch of a listener.

use slipring_core::sys::bare::{Completion, File, Operation};

use super::arm::Time;
use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("poll-out", "a socket with room is writable at once", out),
    Case::new("poll-out-full", "a full socket is not writable until the peer has read", full),
    Case::new("poll-out-reset", "a reset ends the watch of a full socket", reset),
    Case::new(
        "poll-out-fin",
        "a FIN of the peer ends a watch for room, though there is none, as often as it is armed",
        peer_fin,
    ),
    Case::new(
        "poll-out-fin-many",
        "a multishot watch tells of the FIN once, and of room when there is some",
        many_fin,
    ),
    Case::new(
        "poll-out-again",
        "a multishot watch tells of room again once a send was refused, and not before",
        again,
    ),
    Case::new("poll-out-fresh", "a socket that was never connected has hung up", fresh),
    Case::new("poll-out-own-fin", "after our own FIN a watch ends at once", own_fin),
    Case::new("poll-out-connect", "a socket on its way is writable once it is connected", connect),
    Case::new("poll-in", "bytes end a watch for them", bytes),
    Case::new("poll-in-end", "a FIN ends a watch for bytes", fin),
    Case::new("poll-in-both", "with both FINs a socket has hung up", both),
    Case::new("poll-listener", "a client that waits ends the watch of a listener", listener),
    Case::new("poll-listener-none", "without a client the watch of a listener goes on", idle),
];

fn out(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.poll(ours, true);
    s.see(1);
}

fn full(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.poll(ours, true);
    s.see_quiet();
    s.arm.read(peer, usize::MAX, Time::Quiet);
    s.see(1);
    s.send(ours, b"more");
    s.see(1);
}

fn reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.poll(ours, true);
    s.see_quiet();
    s.arm.leave(peer, true);
    s.see(1);
}

fn peer_fin(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.poll(ours, true);
    s.arm.finish(peer);
    s.arm.ended(ours);
    s.see_quiet();
    s.send(ours, b"no room");
    s.see(1);
    s.poll(ours, true);
    s.see_quiet();
}

fn many_fin(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.arm.finish(peer);
    s.arm.ended(ours);
    let on = File::Descriptor(ours);
    s.push("poll", Operation::Poll { on, write: true, many: true });
    s.see(1);
    s.see_quiet();
    s.arm.read(peer, usize::MAX, Time::Quiet);
    // How often it is told of the room that comes bit by bit is nobody's business, nor what else it is told.
    let all = s.take(1);
    let room = all.iter().any(|one| one.result & i32::from(libc::POLLOUT) != 0);
    s.say(if room { "room" } else { "no room" });
}

fn again(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    let on = File::Descriptor(ours);
    s.push("poll", Operation::Poll { on, write: true, many: true });
    s.see_quiet();
    for _ in 0..2 {
        s.arm.read(peer, usize::MAX, Time::Quiet);
        // How often it tells of room that comes bit by bit is nobody's business.
        let all = s.take_at(0, 1, Time::Quiet);
        say_room(s, &all);
        // There was room all the while, and nobody missed any.
        s.send(ours, b"some");
        s.see(1);
        s.arm.read(peer, usize::MAX, Time::Quiet);
        s.see_quiet();
        // Until one is refused.
        s.fill(ours);
        s.see_quiet();
    }
}

fn say_room(s: &mut Script<'_>, all: &[Completion]) {
    let room = all.iter().any(|one| one.result & i32::from(libc::POLLOUT) != 0);
    let goes_on = all.iter().all(|one| one.more);
    s.say(match (room, goes_on) {
        (true, true) => "room, and it goes on",
        (true, false) => "room, and it ended",
        (false, _) => "no room",
    });
}

fn fresh(s: &mut Script<'_>) {
    s.small_ring();
    let socket = s.arm.socket();
    s.poll(socket, true);
    s.see(1);
}

fn own_fin(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.full_pair();
    s.poll(ours, true);
    s.see_quiet();
    s.shut(ours);
    s.see_in_any_order(2);
}

fn connect(s: &mut Script<'_>) {
    s.small_ring();
    let (_, at) = s.arm.listen(8, None);
    let socket = s.arm.socket();
    let on = File::Descriptor(socket);
    s.push("connect", Operation::Connect { on, to: at });
    s.see(1);
    s.poll(socket, true);
    s.see(1);
}

fn bytes(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.poll(ours, false);
    s.see_quiet();
    let _ = s.arm.write(peer, b"hello");
    s.see(1);
}

fn fin(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.finish(peer);
    s.arm.ended(ours);
    s.poll(ours, false);
    s.see(1);
}

fn both(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.shut(ours);
    s.see(1);
    s.arm.finish(peer);
    s.arm.ended(ours);
    s.poll(ours, false);
    s.see(1);
}

fn listener(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, _) = s.listen_to(8, 1);
    s.poll(listener, false);
    s.see(1);
}

fn idle(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _) = s.arm.listen(8, None);
    s.poll(listener, false);
    s.see_quiet();
}
