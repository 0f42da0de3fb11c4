//! Small handlers, right and wrong.

use std::cell::RefCell;
use std::rc::Rc;

use slipring_core::{CloseReason, Ctx, Handler, Lease, Origin};

/// Sends everything back, as in production.
#[derive(Debug, Default)]
pub(crate) struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

/// Drops everything, and answers nothing.
#[derive(Debug, Default)]
pub(crate) struct Mute;

impl Handler for Mute {
    type State = ();

    fn on_data(&mut self, _: &mut Ctx<'_, ()>, _: Lease) {}
}

/// Bytes that [`Obedient`] gives.
pub(crate) const GIVEN: usize = 30_000;

/// Does what it is told by the first byte that comes: `e`nd, `a`bort, `p`anic, `g`ive much, `k`eep
/// the bytes for ever. Anything else is sent back.
#[derive(Debug, Default)]
pub(crate) struct Obedient {
    kept: Vec<Lease>,
    pub(crate) told: Vec<&'static str>,
}

impl Handler for Obedient {
    type State = ();

    fn on_open(&mut self, _: &mut Ctx<'_, ()>, origin: Origin) {
        self.told.push(match origin {
            Origin::Accepted(0) => "opened at the first",
            _ => "opened elsewhere",
        });
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        match data[0] {
            b'e' => ctx.close(),
            b'a' => ctx.abort(),
            b'k' => self.kept.push(data),
            b'g' => ctx.send(vec![b'g'; GIVEN]),
            b'p' => panic!("told to panic"),
            _ => ctx.send(data),
        }
    }

    fn on_close(&mut self, _: &mut Ctx<'_, ()>, reason: CloseReason) {
        self.told.push(match reason {
            CloseReason::IdleTimeout => "idle",
            CloseReason::HandlerPanic => "panicked",
            CloseReason::Drained => "drained",
            CloseReason::WriteStall => "stalled",
            CloseReason::Reset => "reset",
            CloseReason::LocalClosed => "left",
            CloseReason::PeerClosed => "closed",
            _ => "ended otherwise",
        });
    }
}

/// Notes how long each lease was.
#[derive(Debug, Default)]
pub(crate) struct Pieces(pub(crate) Vec<usize>);

impl Handler for Pieces {
    type State = ();

    fn on_data(&mut self, _: &mut Ctx<'_, ()>, data: Lease) {
        self.0.push(data.len());
    }
}

/// Which reactors served somebody.
pub(crate) type Served = Rc<RefCell<Vec<usize>>>;

/// Greets with the number of its reactor, and closes.
#[derive(Debug)]
pub(crate) struct Greeter {
    pub(crate) reactor: usize,
    pub(crate) served: Served,
}

impl Handler for Greeter {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _: Origin) {
        self.served.borrow_mut().push(self.reactor);
        ctx.send("welcome");
        ctx.close();
    }

    fn on_data(&mut self, _: &mut Ctx<'_, ()>, _: Lease) {}
}
