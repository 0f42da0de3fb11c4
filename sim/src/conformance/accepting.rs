//! Accepting: one and many, the limit of descriptors, what ends a multishot.

use slipring_core::sys::bare::{File, Operation, Setup};

use super::arm::Time;
use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("accept-one", "an accept of one client ends with it, without F_MORE", one),
    Case::new("accept-one-waits", "an accept without a client waits for one", one_waits),
    Case::new("accept-many", "a multishot accept goes on after each client", many),
    Case::new("accept-many-queued", "a multishot accept takes all who queue in one enter", queued),
    Case::new("accept-hint", "an accept says whether more clients wait", hint),
    Case::new(
        "accept-emfile",
        "without a descriptor left an accept fails; no client is lost",
        emfile,
    ),
    Case::new(
        "accept-emfile-idle",
        "without a descriptor left an accept fails at once, though no client waits",
        emfile_idle,
    ),
    Case::new(
        "accept-emfile-many",
        "a multishot accept ends when descriptors run out",
        emfile_many,
    ),
    Case::new(
        "accept-rearm-emfile",
        "re-arming after EMFILE at once fails again, and again",
        rearm,
    ),
    Case::new(
        "accept-overflow",
        "a full completion queue ends a multishot accept, with a client",
        overflow,
    ),
];

fn one(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, peers) = s.listen_to(8, 1);
    s.accept(listener, false);
    s.see(1);
    s.see_quiet();
    s.see_dial(peers[0], Time::Long);
}

fn one_waits(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, at) = s.arm.listen(8, None);
    s.accept(listener, false);
    s.see_quiet();
    s.arm.dial(at);
    s.see(1);
}

fn many(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, at) = s.arm.listen(8, None);
    s.accept(listener, true);
    for _ in 0..3 {
        s.arm.dial(at);
        s.see(1);
    }
}

fn queued(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, _) = s.listen_to(8, 4);
    s.accept(listener, true);
    s.see(4);
}

fn hint(s: &mut Script<'_>) {
    s.small_ring();
    s.hints = true;
    let (listener, _, _) = s.listen_to(8, 2);
    s.accept(listener, false);
    s.see(1);
    s.accept(listener, false);
    s.see(1);
}

fn emfile(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, peers) = s.listen_to(8, 1);
    s.arm.shortage(0);
    s.accept(listener, false);
    s.see(1);
    s.arm.relent();
    s.accept(listener, false);
    s.see(1);
    s.see_peer_open(peers[0]);
}

fn emfile_idle(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _) = s.arm.listen(8, None);
    s.arm.shortage(0);
    s.accept(listener, false);
    s.see(1);
}

fn emfile_many(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, peers) = s.listen_to(8, 3);
    s.arm.shortage(2);
    s.accept(listener, true);
    s.see(3);
    s.see_peer_open(peers[2]);
}

fn rearm(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, _) = s.listen_to(8, 1);
    s.arm.shortage(0);
    for _ in 0..3 {
        s.accept(listener, true);
        s.see(1);
    }
}

fn overflow(s: &mut Script<'_>) {
    s.arm.ring(Setup { submissions: 2, completions: 2, ..Setup::SMALL });
    let (listener, _, _) = s.listen_to(8, 4);
    let on = File::Descriptor(listener);
    s.push("accept", Operation::Accept { on, many: true, direct: false });
    s.see(2);
    s.see(1);
    s.see_quiet();
}
