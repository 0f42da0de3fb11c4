//! A handler under observation: what it is told goes to the story, and its panics are remembered in
//! words, and which connections it has. Otherwise it is as it was: the same calls, in the same order.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use slipring_core::{CloseReason, Connections, Ctx, Handler, Key, Lease, Origin};

use super::story::{Excerpt, Said, SharedStory};
use super::text_of;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Watched<H> {
    pub(crate) handler: H,
    /// Connections that it has been told of, and not of their end.
    pub(super) open: BTreeSet<Key>,
    reactor: usize,
    story: SharedStory,
    /// Counts the panics that are no failure; none if all are.
    tolerated: Option<Rc<Cell<u64>>>,
}

impl<H: Handler> Watched<H> {
    pub(crate) fn new(
        handler: H,
        reactor: usize,
        story: &SharedStory,
        tolerated: Option<Rc<Cell<u64>>>,
    ) -> Self {
        Self { handler, open: BTreeSet::new(), reactor, story: Rc::clone(story), tolerated }
    }

    fn tell(&mut self, key: Option<Key>, said: Said, call: impl FnOnce(&mut H)) {
        self.story.borrow_mut().add_told(self.reactor, key, said);
        self.call(call);
    }

    fn call(&mut self, call: impl FnOnce(&mut H)) {
        let handler = &mut self.handler;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(handler))) {
            self.story.borrow_mut().add_panic(self.reactor, &text_of(panic.as_ref()));
            if let Some(count) = &self.tolerated {
                count.set(count.get() + 1);
            }
            resume_unwind(panic);
        }
    }
}

impl<H: Handler> Handler for Watched<H> {
    type State = H::State;

    fn on_start(&mut self, connections: &mut Connections<Self::State>) {
        self.tell(None, Said::Started, |handler| handler.on_start(connections));
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Self::State>, origin: Origin) {
        self.open.insert(ctx.key());
        self.tell(Some(ctx.key()), Said::Open(origin), |handler| handler.on_open(ctx, origin));
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, Self::State>, data: Lease) {
        let said = Said::Data(Excerpt::of(&data));
        self.tell(Some(ctx.key()), said, |handler| handler.on_data(ctx, data));
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        self.tell(Some(ctx.key()), Said::Eof, |handler| handler.on_eof(ctx));
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        self.tell(Some(ctx.key()), Said::Writable, |handler| handler.on_writable(ctx));
    }

    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        self.tell(Some(ctx.key()), Said::KeepAlive, |handler| handler.on_keep_alive(ctx));
    }

    fn on_turn(&mut self, connections: &mut Connections<Self::State>) {
        self.call(|handler| handler.on_turn(connections));
    }

    fn on_end(&mut self, connections: &mut Connections<Self::State>) {
        self.call(|handler| handler.on_end(connections));
    }

    fn next_turn_ms(&self) -> Option<u64> {
        self.handler.next_turn_ms()
    }

    fn is_idle(&self, state: &Self::State) -> bool {
        self.handler.is_idle(state)
    }

    fn is_busy(&self) -> bool {
        self.handler.is_busy()
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Self::State>, reason: CloseReason) {
        self.open.remove(&ctx.key());
        self.tell(Some(ctx.key()), Said::Closed(reason), |handler| handler.on_close(ctx, reason));
    }
}
