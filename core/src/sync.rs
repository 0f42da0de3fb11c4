//! The atomics of what several threads change without a lock, by one name.
//!
//! Is: a re-export, and the slips below. Is not: a wrapper; in every build of this crate these are the
//! standard library's. `core/tests/models.rs` compiles a file that imports from here once more, with atomics
//! that let a model of threads decide who moves next, and then tries every order.
//!
//! A slip is what a canary (`canary`) is to simulation: a deliberate mistake, of the kind that one thread
//! alone cannot show. A simulation runs in one thread, so they have to be found by the models instead; there
//! each is made once, and the model has to find it.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// How often somebody who finds nothing looks again while others are moving things.
pub(crate) const LOOKS_MAX: u32 = 64;

/// A mistake that takes two threads to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    /// Who found nothing leaves a note, and does not try again.
    OneTry,
    /// Who gives looks for notes first, and gives then.
    NotesFirst,
    /// A block on its way is not noticed.
    MovesUnmarked,
    /// What was given while somebody looked is not noticed.
    LooksOnce,
    /// A look and a change are two steps.
    TornTake,
    /// Who posts asks whether the owner sleeps, and posts then.
    AsksFirst,
    /// Who falls asleep looks for messages, and says that it sleeps then.
    LooksFirst,
    /// Who makes a place looks whether it is asked for, and says that it makes it then.
    MakesUnasked,
    /// Who closes looks whether somebody borrows, and says that it closes then.
    ClosesUnseen,
}

/// Whether this mistake is made: not in a build of this crate.
#[inline(always)]
pub(crate) const fn slips(_: Slip) -> bool {
    false
}
