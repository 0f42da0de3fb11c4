//! P7: from a completion through the handler to the submission, with no kernel in between.
//!
//! The handler is an echo. One message is a receive completion, the handler's call, the send's submission and the
//! send's completion; see `dispatch/mod.rs` for what is in the figure and what is not.
//!
//! An allocation in the steady state fails the bench.

mod dispatch;

use std::process::ExitCode;

use dispatch::{Counting, bench};
use slipring_core::{Ctx, Handler, Lease};

const AIM_NS: f64 = 40.0;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

fn main() -> ExitCode {
    bench("completion to handler to submission, no kernel", Some(AIM_NS), || Echo)
}
