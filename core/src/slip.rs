//! Slips: deliberate mistakes of the kind that takes two threads to show.
//!
//! A slip is what a canary (`canary`) is to simulation. A simulation runs in one thread, so they have to be found by
//! the models of threads instead (`core/tests/models.rs`, which compiles this file once more): there each is made once,
//! and the model has to find it. Where one stands, the code reads as if the condition were not there.

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
