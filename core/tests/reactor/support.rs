//! A handler that notes what it is told and reacts as the test says.

use slipring_core::{CloseReason, Connections, Ctx, Handler, Key, Lease, Limits, Origin};
use slipring_sim::{Conditions, Stage};

/// What a handler is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Open(Origin),
    Data(Vec<u8>),
    Eof,
    Writable,
    KeepAlive,
    Close(CloseReason),
}

type React = Box<dyn FnMut(&mut Ctx<'_, ()>, &Told, Option<Lease>)>;
type OnStart = Box<dyn FnOnce(&mut Connections<()>)>;

pub(crate) struct Noting {
    told: Vec<(Key, Told)>,
    /// Every connection that was opened, in order.
    pub(crate) keys: Vec<Key>,
    react: React,
    on_start: Option<OnStart>,
}

impl Noting {
    /// What was told since the last call.
    pub(crate) fn take_told(&mut self) -> Vec<(Key, Told)> {
        std::mem::take(&mut self.told)
    }

    /// The same, of one connection.
    pub(crate) fn take_told_of(&mut self, number: usize) -> Vec<Told> {
        let key = self.keys[number];
        self.take_told().into_iter().filter(|(of, _)| *of == key).map(|(_, told)| told).collect()
    }

    fn note(&mut self, ctx: &mut Ctx<'_, ()>, told: Told, lease: Option<Lease>) {
        self.told.push((ctx.key(), told.clone()));
        (self.react)(ctx, &told, lease);
    }
}

impl Handler for Noting {
    type State = ();

    fn on_start(&mut self, connections: &mut Connections<()>) {
        if let Some(on_start) = self.on_start.take() {
            on_start(connections);
        }
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, origin: Origin) {
        self.keys.push(ctx.key());
        self.note(ctx, Told::Open(origin), None);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        self.note(ctx, Told::Data(data.to_vec()), Some(data));
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, ()>) {
        self.note(ctx, Told::Eof, None);
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, ()>) {
        self.note(ctx, Told::Writable, None);
    }

    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, ()>) {
        self.note(ctx, Told::KeepAlive, None);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, ()>, reason: CloseReason) {
        self.note(ctx, Told::Close(reason), None);
    }
}

pub(crate) type Noted = Stage<Noting>;

fn noting(react: React, on_start: Option<OnStart>) -> Noting {
    Noting { told: Vec::new(), keys: Vec::new(), react, on_start }
}

/// A reactor whose handler reacts so.
pub(crate) fn stage(
    conditions: &Conditions,
    react: impl FnMut(&mut Ctx<'_, ()>, &Told, Option<Lease>) + 'static,
) -> Noted {
    Stage::with(noting(Box::new(react), None), conditions)
}

/// A reactor whose handler starts so, and reacts so.
pub(crate) fn stage_started(
    conditions: &Conditions,
    on_start: impl FnOnce(&mut Connections<()>) + 'static,
    react: impl FnMut(&mut Ctx<'_, ()>, &Told, Option<Lease>) + 'static,
) -> Noted {
    Stage::with(noting(Box::new(react), Some(Box::new(on_start))), conditions)
}

/// Sends everything back, closes when the peer does.
pub(crate) fn echo(ctx: &mut Ctx<'_, ()>, told: &Told, lease: Option<Lease>) {
    match (told, lease) {
        (_, Some(lease)) => ctx.send(lease),
        (Told::Eof, _) => ctx.close(),
        _ => {}
    }
}

/// Does nothing at all.
pub(crate) fn ignore(_: &mut Ctx<'_, ()>, _: &Told, _: Option<Lease>) {}

/// The default conditions with other sizes.
pub(crate) fn limited(change: impl FnOnce(&mut Limits)) -> Conditions {
    let mut conditions = Conditions::default();
    change(&mut conditions.limits);
    conditions
}

/// Buffers that nobody holds.
pub(crate) fn buffers_free(stage: &mut Noted) -> u32 {
    use slipring_core::driver::Driver as _;
    stage.driver().memory().buffers_free()
}
