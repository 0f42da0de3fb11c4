//! Dialing, and listeners with clients in their queue: full backlogs, closed listeners.

use slipring_core::sys::bare::{File, Operation};

use super::arm::Time;
use super::{Case, Need, Script};

pub(super) const CASES: &[Case] = &[
    Case::new("connect", "a connect ends with zero, and bytes go both ways", connect),
    Case::new("connect-refused", "where nobody listens a connect is refused", refused),
    Case::new("connect-again", "a connected socket cannot be connected again", again),
    Case::new("connect-twice", "a socket on its way cannot be connected again", twice),
    Case::new(
        "connect-failed-again",
        "after a refusal a socket can be dialed with again",
        failed_again,
    ),
    Case::new(
        "connect-backlog",
        "a backlog of N holds N + 1 clients; another has no answer",
        backlog,
    ),
    Case::new(
        "connect-backlog-later",
        "a client beyond the backlog comes in once there is room",
        later,
    ),
    Case::new(
        "connect-unaccepted",
        "what a client sends before it is accepted is kept",
        unaccepted,
    ),
    Case::new("connect-reset-queued", "a client that is gone again is accepted all the same", gone),
    Case::new("listener-close", "a listener that closes resets who queues at it", close),
    Case::new("listener-close-accept", "an accept that is armed keeps its listener open", armed),
    Case::new(
        "reuseport-close",
        "closing one of two listeners resets who queues at it only",
        beside,
    )
    .needs(Need::NoMigration),
    Case::new("reuseport-both", "two listeners share the clients of their port", both),
];

fn connect(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, at) = s.arm.listen(8, None);
    let socket = s.arm.socket();
    s.push("connect", Operation::Connect { on: File::Descriptor(socket), to: at });
    s.see(1);
    s.accept(listener, false);
    let accepted = s.see(1);
    let Some(client) = accepted.first().and_then(|one| u32::try_from(one.result).ok()) else {
        return;
    };
    s.send(socket, b"ping");
    s.take(1);
    let token = s.receive(client);
    s.see_bytes(token, 4);
}

fn refused(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, at) = s.arm.listen(8, None);
    s.arm.close(listener);
    let socket = s.arm.socket();
    s.push("connect", Operation::Connect { on: File::Descriptor(socket), to: at });
    s.see(1);
}

fn again(s: &mut Script<'_>) {
    s.small_ring();
    let (_, at) = s.arm.listen(8, None);
    let on = File::Descriptor(s.arm.socket());
    s.push("connect", Operation::Connect { on, to: at });
    s.see(1);
    s.push("connect", Operation::Connect { on, to: at });
    s.see(1);
}

fn twice(s: &mut Script<'_>) {
    let (on, _) = s.dial_to_full();
    let (_, to) = s.arm.listen(8, None);
    s.push("again", Operation::Connect { on, to });
    s.see(1);
}

fn failed_again(s: &mut Script<'_>) {
    s.small_ring();
    let (gone, at) = s.arm.listen(8, None);
    s.arm.close(gone);
    let (_, there) = s.arm.listen(8, None);
    let on = File::Descriptor(s.arm.socket());
    for to in [at, there] {
        s.push("connect", Operation::Connect { on, to });
        s.see(1);
    }
}

fn backlog(s: &mut Script<'_>) {
    s.small_ring();
    let (_, at, clients) = s.listen_to(1, 2);
    for client in clients {
        s.see_dial(client, Time::Long);
    }
    let beyond = s.arm.dial(at);
    s.see_dial(beyond, Time::Within(50));
}

fn later(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, at, _) = s.listen_to(0, 1);
    let beyond = s.arm.dial(at);
    s.see_dial(beyond, Time::Within(50));
    s.accept(listener, false);
    s.see(1);
    s.see_dial(beyond, Time::Long);
}

fn unaccepted(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, clients) = s.listen_to(8, 1);
    let _ = s.arm.write(clients[0], b"early");
    s.accept(listener, false);
    let accepted = s.see(1);
    let Some(client) = accepted.first().and_then(|one| u32::try_from(one.result).ok()) else {
        return;
    };
    let token = s.receive(client);
    s.see_bytes(token, 5);
}

fn gone(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, clients) = s.listen_to(8, 1);
    s.arm.leave(clients[0], true);
    s.accept(listener, false);
    let accepted = s.see(1);
    let Some(client) = accepted.first().and_then(|one| u32::try_from(one.result).ok()) else {
        return;
    };
    s.arm.ended(client);
    s.receive(client);
    s.see(1);
}

fn close(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, _, clients) = s.listen_to(8, 2);
    s.arm.close(listener);
    for client in clients {
        s.see_peer(client);
    }
}

fn armed(s: &mut Script<'_>) {
    s.small_ring();
    let (listener, at) = s.arm.listen(8, None);
    let token = s.accept(listener, true);
    s.see_quiet();
    s.close(listener);
    s.see(1);
    let client = s.arm.dial(at);
    s.see_dial(client, Time::Long);
    s.see(1);
    s.cancel(token);
    s.see_in_any_order(2);
    let late = s.arm.dial(at);
    s.see_dial(late, Time::Long);
}

/// Two listeners with clients at both of them, and the clients.
fn share(s: &mut Script<'_>) -> ([u32; 2], Vec<super::Peer>) {
    s.small_ring();
    let (first, at) = s.arm.listen(64, None);
    let (second, _) = s.arm.listen(64, Some(at));
    let clients: Vec<_> = (0..32).map(|_| s.arm.dial(at)).collect();
    for client in &clients {
        s.arm.dialed(*client, Time::Long);
    }
    ([first, second], clients)
}

fn beside(s: &mut Script<'_>) {
    let ([first, _], clients) = share(s);
    s.arm.close(first);
    let (mut reset, mut open, mut other) = (0, 0, 0);
    for client in clients {
        match s.arm.read(client, 1, Time::Within(2)).ending {
            super::Ending::Failed(libc::ECONNRESET) => reset += 1,
            super::Ending::Open => open += 1,
            _ => other += 1,
        }
    }
    let some = |count: usize| if count > 0 { "some" } else { "none" };
    s.say(format!("reset: {}, open: {}, other: {other}", some(reset), some(open)));
}

fn both(s: &mut Script<'_>) {
    let (listeners, _) = share(s);
    for listener in listeners {
        s.accept(listener, false);
        s.see(1);
    }
}
