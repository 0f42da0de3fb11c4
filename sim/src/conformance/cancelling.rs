//! Cancelling: by token, by file, all; what is found, what is not, and the two ends.

use slipring_core::sys::bare::{File, Operation, Target};

use super::{Case, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("cancel-accept", "an armed accept can be cancelled", accept),
    Case::new("cancel-receive", "an armed multishot receive can be cancelled", receive),
    Case::new("cancel-poll", "an armed poll can be cancelled", poll),
    Case::new("cancel-connect", "a connect under way can be cancelled", connect),
    Case::new("cancel-nothing", "a cancel of what never was is ENOENT", nothing),
    Case::new("cancel-finished", "a cancel of what has ended is ENOENT", finished),
    Case::new(
        "cancel-twice",
        "a second cancel finds the operation or not, and ends it no second time",
        twice,
    ),
    Case::new("cancel-order", "the cancel and its target complete in either order", order),
    Case::new("cancel-same-enter", "a cancel finds what was pushed just before it", same_enter),
    Case::new("cancel-arrived", "bytes that came before the cancel are not lost by it", arrived),
    Case::new("cancel-rearm", "after a cancel the next receive has all bytes", rearm),
    Case::new("cancel-one-on-file", "a cancel by file ends one operation on it", one_on_file),
    Case::new("cancel-all-on-file", "a cancel of all on a file says how many", all_on_file),
    Case::new("cancel-all-none", "a cancel of all where there is none says zero", all_none),
    Case::new("cancel-everything", "a cancel of everything ends what is on any file", everything),
    Case::new("cancel-other-file", "a cancel by file leaves other files alone", other_file),
    Case::new("cancel-bad-file", "a cancel by a closed descriptor is EBADF", bad_file),
];

fn accept(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _) = s.arm.listen(8, None);
    let token = s.accept(listener, true);
    s.see_quiet();
    s.cancel(token);
    s.see_in_any_order(2);
}

fn receive(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    let token = s.receive(ours);
    s.see_quiet();
    s.cancel(token);
    s.see_in_any_order(2);
}

fn poll(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    let token = s.poll(ours, false);
    s.see_quiet();
    s.cancel(token);
    s.see_in_any_order(2);
}

fn connect(s: &mut Script<'_>) {
    let (_, token) = s.dial_to_full();
    s.cancel(token);
    s.see_in_any_order(2);
}

fn nothing(s: &mut Script<'_>) {
    s.small_ring();
    s.cancel(77);
    s.see(1);
}

fn finished(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    let token = s.send(ours, b"hello");
    s.see(1);
    s.cancel(token);
    s.see(1);
}

fn twice(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    let token = s.receive(ours);
    s.see_quiet();
    s.cancel(token);
    s.cancel(token);
    s.see_in_any_order(3);
}

fn order(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    let token = s.receive(ours);
    s.see_quiet();
    s.cancel(token);
    s.see(2);
}

fn same_enter(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    let token = s.receive(ours);
    s.cancel(token);
    s.see_in_any_order(2);
}

fn arrived(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let token = s.receive(ours);
    s.see_quiet();
    let _ = s.arm.write(peer, b"hello");
    s.arm.arrived(ours, 5);
    s.cancel(token);
    s.see_in_any_order(2);
    s.receive(ours);
    s.see_quiet();
}

fn rearm(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, peer) = s.pair();
    let token = s.receive(ours);
    s.cancel(token);
    s.see_in_any_order(2);
    let token = s.receive(ours);
    let _ = s.arm.write(peer, b"hello");
    s.see_bytes(token, 5);
}

fn one_on_file(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.receive(ours);
    s.poll(ours, false);
    s.see_quiet();
    s.push("cancel", Operation::Cancel(Target::OneOn(File::Descriptor(ours))));
    let all = s.take(2);
    let ended = all.iter().filter(|one| one.result == -libc::ECANCELED).count();
    s.say(format!("{ended} ended"));
    s.see_quiet();
}

fn all_on_file(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.receive(ours);
    s.poll(ours, false);
    s.see_quiet();
    s.push("cancel", Operation::Cancel(Target::AllOn(File::Descriptor(ours))));
    s.see_in_any_order(3);
}

fn all_none(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.push("cancel", Operation::Cancel(Target::AllOn(File::Descriptor(ours))));
    s.see(1);
}

fn everything(s: &mut Script<'_>) {
    s.small_ring();
    let (first, _) = s.pair();
    let (second, _) = s.pair();
    let (listener, _) = s.arm.listen(8, None);
    s.receive(first);
    s.poll(second, false);
    s.accept(listener, true);
    s.see_quiet();
    s.push("cancel", Operation::Cancel(Target::Everything));
    s.see_in_any_order(4);
}

fn other_file(s: &mut Script<'_>) {
    s.small_ring();
    let (first, _) = s.pair();
    let (second, peer) = s.pair();
    s.receive(first);
    let token = s.receive(second);
    s.see_quiet();
    s.push("cancel", Operation::Cancel(Target::AllOn(File::Descriptor(first))));
    s.see_in_any_order(2);
    let _ = s.arm.write(peer, b"hello");
    s.see_bytes(token, 5);
}

fn bad_file(s: &mut Script<'_>) {
    s.small_ring();
    let (ours, _) = s.pair();
    s.arm.close(ours);
    s.push("cancel", Operation::Cancel(Target::OneOn(File::Descriptor(ours))));
    s.see(1);
}
