//! Ends of a connection: FIN, half-close, close with and without unread bytes, reset, what is in flight then.

use super::arm::Time;
use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("shutdown", "a half-close is a FIN to the peer", shutdown),
    Case::new("shutdown-data", "bytes sent before the half-close come before the FIN", data),
    Case::new("shutdown-armed", "a receive that is armed outlives our half-close", armed),
    Case::new("shutdown-twice", "a second half-close says nothing new", twice),
    Case::new("shutdown-both", "with both FINs the stream has ended both ways", both),
    Case::new("shutdown-after-end", "a half-close after the peer's is as good as any", after_end),
    Case::new("shutdown-reset", "a half-close after a reset is ENOTCONN", reset),
    Case::new("shutdown-fresh", "a socket that is not connected has nothing to half-close", fresh),
    Case::new("close", "a close with nothing unread is a FIN", close),
    Case::new("close-data", "bytes sent before the close arrive", close_data),
    Case::new("close-unread", "a close with bytes unread is a reset", unread),
    Case::new("close-abortive", "a close with a linger of zero is a reset", abortive),
    Case::new("close-abortive-data", "a reset takes back what was sent and not yet arrived", lost),
    Case::new(
        "close-pending",
        "a close under an armed receive sends no FIN until that ends",
        pending,
    ),
    Case::new(
        "close-pending-fin",
        "after a half-close the peer has its FIN, receive or not",
        with_fin,
    ),
    Case::new("close-twice", "a descriptor can be closed once", close_twice),
    Case::new("close-after-reset", "after a reset a close is as good as any", after_reset),
    Case::new(
        "close-peer-unread",
        "a peer that closes with our bytes unread resets us",
        peer_unread,
    ),
];

fn shutdown(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.shut(ours);
    s.see(1);
    s.see_peer(peer);
}

fn data(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.send(ours, b"last words");
    s.see(1);
    s.shut(ours);
    s.see(1);
    s.see_peer(peer);
}

fn armed(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let token = s.receive(ours);
    s.see_quiet();
    s.shut(ours);
    s.see(1);
    let _ = s.arm.write(peer, b"hello");
    s.see_bytes(token, 5);
    s.arm.finish(peer);
    s.see(1);
}

fn twice(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    for _ in 0..2 {
        s.shut(ours);
        s.see(1);
    }
}

fn both(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.receive(ours);
    s.see_quiet();
    s.arm.finish(peer);
    s.see(1);
    s.shut(ours);
    s.see(1);
    s.see_peer(peer);
    s.close(ours);
    s.see(1);
}

fn after_end(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.finish(peer);
    s.arm.ended(ours);
    s.send(ours, b"hello");
    s.see(1);
    s.shut(ours);
    s.see(1);
    s.see_peer(peer);
}

fn reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    s.shut(ours);
    s.see(1);
}

fn fresh(s: &mut Script<'_>) {
    s.small_ring();
    let socket = s.arm.socket();
    s.shut(socket);
    s.see(1);
}

fn close(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.close(ours);
    s.see(1);
    s.see_peer(peer);
}

fn close_data(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.send(ours, b"last words");
    s.see(1);
    s.close(ours);
    s.see(1);
    s.see_peer(peer);
}

fn unread(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let _ = s.arm.write(peer, b"hello");
    s.arm.arrived(ours, 5);
    s.close(ours);
    s.see(1);
    s.see_peer(peer);
}

fn abortive(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.set_abortive(ours);
    s.close(ours);
    s.see(1);
    s.see_peer(peer);
}

fn lost(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.arm.set_abortive(ours);
    s.close(ours);
    s.see(1);
    let seen = s.arm.read(peer, usize::MAX, Time::Long);
    s.say(format!("peer: {:?}", seen.ending));
}

fn pending(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let token = s.receive(ours);
    s.see_quiet();
    s.close(ours);
    s.see(1);
    s.see_peer_open(peer);
    s.cancel(token);
    s.see_in_any_order(2);
    s.see_peer(peer);
}

fn with_fin(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.receive(ours);
    s.see_quiet();
    s.shut(ours);
    s.see(1);
    s.close(ours);
    s.see(1);
    s.see_peer(peer);
}

fn close_twice(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.close(ours);
    s.close(ours);
    s.see(2);
}

fn after_reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    s.close(ours);
    s.see(1);
}

fn peer_unread(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.send(ours, b"hello");
    s.see(1);
    // It has them once it can read one.
    s.arm.read(peer, 1, Time::Long);
    s.arm.leave(peer, false);
    s.arm.ended(ours);
    s.receive_once(ours);
    s.see(1);
}
