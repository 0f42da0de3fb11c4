//! Sending without a copy: the result, the notification behind it, and what an error leaves of either.

use slipring_core::sys::bare::Manner;

use super::arm::{Open, Time};
use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("zc-send", "the result has F_MORE, the notification follows; loopback copies", send),
    Case::new("zc-short", "a short send has its notification too", short),
    Case::new("zc-blocked", "a full socket says EAGAIN, with a notification or without", blocked),
    Case::new("zc-reset", "after a reset the errors are those of any send", reset),
    Case::new("zc-after-fin", "after our FIN it is EPIPE", after_fin),
    Case::new("zc-bad-descriptor", "on a closed descriptor there is nothing to notify of", bad),
    Case::new("zc-close", "a close behind the send does not keep the notification back", close),
    Case::new("zc-waits", "a waiting send goes once the peer has read, and is notified of", waits),
    Case::new(
        "zc-cancel",
        "a waiting send that is cancelled says ECANCELED with F_MORE, then the notification",
        cancel,
    ),
];

const AT_ONCE: Manner = Manner { zero_copy: true, waits: false, whole: false };
const WAITS: Manner = Manner { zero_copy: true, waits: true, whole: false };

/// Sees the result of a send, and its notification if it has one.
fn see_both(s: &mut Script<'_>) {
    let all = s.see(1);
    if all.len() == 1 && all[0].more {
        s.see(1);
    }
}

fn send(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.send_so(ours, b"hello", AT_ONCE);
    see_both(s);
    s.see_peer_open(peer);
}

fn short(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.arm.pair(Open::Narrow);
    s.send_so(ours, &vec![b'.'; 256 << 10], AT_ONCE);
    let all = s.take(1);
    s.say_all(&all[..all.len().min(1)]);
    // What is not copied is let go of when the peer has it.
    s.arm.read(peer, usize::MAX, Time::Quiet);
    if all.len() < 2 {
        s.see(1);
    } else {
        s.say_all(&all[1..]);
    }
}

fn blocked(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.full_pair();
    s.send_so(ours, b"more", AT_ONCE);
    see_both(s);
}

fn reset(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.arm.leave(peer, true);
    s.arm.ended(ours);
    for _ in 0..2 {
        s.send_so(ours, b"anybody?", AT_ONCE);
        see_both(s);
    }
}

fn after_fin(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.shut(ours);
    s.see(1);
    s.send_so(ours, b"late", AT_ONCE);
    see_both(s);
}

fn bad(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.arm.close(ours);
    s.send_so(ours, b"nobody", AT_ONCE);
    see_both(s);
    s.see_quiet();
}

fn close(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    s.send_so(ours, b"goodbye", AT_ONCE);
    s.close(ours);
    s.see_in_any_order(3);
    s.see_peer(peer);
}

fn waits(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.full_pair();
    s.send_so(ours, b"at last", WAITS);
    s.see_quiet();
    s.arm.read(peer, usize::MAX, Time::Quiet);
    see_both(s);
}

fn cancel(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.full_pair();
    let token = s.send_so(ours, b"never", WAITS);
    s.see_quiet();
    s.cancel(token);
    let all = s.take(3);
    // The cancel's own completion may stand anywhere among them.
    let sends: Vec<_> = all.iter().filter(|one| one.token == token).cloned().collect();
    s.say_all(&sends);
    let others: Vec<_> = all.iter().filter(|one| one.token != token).cloned().collect();
    s.say_all(&others);
}
