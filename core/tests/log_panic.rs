//! A panic where no handler is called ends the reactor, and leaves nothing open.
//!
//! By itself in its process: which subscribers a log statement concerns is settled when any thread meets it
//! for the first time, and one that came with another test's thread might not hear of ours.

use slipring_core::{CloseReason, Ctx, Handler, Lease};
use slipring_sim::{Conditions, Stage};

/// Panics at the first bytes; its panic is logged, which is where the subscriber comes in.
#[derive(Default)]
struct Buggy {
    ends: Vec<CloseReason>,
}

impl Handler for Buggy {
    type State = ();

    fn on_data(&mut self, _: &mut Ctx<'_, ()>, _: Lease) {
        panic!("a bug of the user's");
    }

    fn on_close(&mut self, _: &mut Ctx<'_, ()>, reason: CloseReason) {
        self.ends.push(reason);
    }
}

/// Whoever listens to what slipring logs is the user's too, and is not called under any guard.
struct Deaf;

impl tracing::Subscriber for Deaf {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("a bug of the user's");
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn where_no_handler_is_called_it_ends_the_reactor_and_leaves_nothing_open() {
    let mut stage = Stage::with(Buggy::default(), &Conditions::default());
    let (bad, _) = (stage.accept(), stage.accept());
    stage.driver().receive(bad, b"bad");
    let run = || stage.reactor().run();
    let run = std::panic::AssertUnwindSafe(|| tracing::subscriber::with_default(Deaf, run));
    assert!(std::panic::catch_unwind(run).is_err(), "a bug is not hidden");
    assert_eq!((stage.driver().open_descriptors(), stage.admission().open()), (0, 0));
    assert_eq!(stage.handler().ends, [CloseReason::DriverFailed; 2]);
}
