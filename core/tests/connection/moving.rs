//! What of a connection goes along to another reactor, and when it may.

use slipring_core::Fault;
use slipring_core::connection::{Action, Connection, Pause, State};
use slipring_core::token::Op;

use super::world::{Answer, World};
use super::{Step, rules, take};

/// What it was told, and what it has moved, goes along; what it was asked for here does not.
#[test]
fn a_connection_that_is_moved_is_as_it_was() {
    let mut world = World::new(false, rules(true, 0));
    world.connection.set_idle_ms(7_000);
    world.connection.set_keep_alive_ms(2_000);
    world.wait(1_000);
    world.complete(Op::Receive, Answer::Good { share: 1, more: true });
    world.poll();
    assert!(world.connection.is_quiet() && !world.connection.is_loose(), "its receive is armed");
    take(&mut world, &Step::Pause { who: Pause::Move, on: true });
    world.poll();
    world.complete(Op::Receive, Answer::Bad(Fault::Cancelled));
    assert!(!world.connection.is_loose(), "its cancel is to be answered");
    world.complete(Op::Cancel, Answer::Good { share: 0, more: false });
    assert!(world.connection.is_loose());
    let (before, now_ms) = (&world.connection, world.now_ms + 500);
    let mut after = Connection::unpacked(&before.pack(), &world.rules, now_ms);
    assert_eq!(after.state(), State::Established);
    assert_eq!(after.descriptor(), before.descriptor());
    assert_eq!(after.active_at_ms(), before.active_at_ms());
    assert_eq!(after.deadline_ms(&world.rules), before.deadline_ms(&world.rules));
    assert_eq!(after.poll_action(&world.rules), Some(Action::Receive), "and it reads again");
    assert!(matches!(after.poll_action(&world.rules), Some(Action::SetTimer(_))));
}
