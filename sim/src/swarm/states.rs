//! What a handler keeps of a connection, and what may be wrong with it: making it panics, or dropping it.
//!
//! [`Default`] takes no parameters, so the chances stand beside: they are those of the thread, from the
//! beginning of a run until it is healed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::book::Book;
use crate::dice::Dice;
use crate::marks::Mark;

struct Chances {
    dice: Dice,
    permille: u32,
    /// Panics that were meant.
    meant: Rc<Cell<u64>>,
    book: Rc<RefCell<Book>>,
}

thread_local! {
    static CHANCES: RefCell<Option<Chances>> = const { RefCell::new(None) };
}

/// From now on states fail, so many in a thousand.
pub(super) fn begin(seed: u64, permille: u32, meant: &Rc<Cell<u64>>, book: &Rc<RefCell<Book>>) {
    let (meant, book) = (Rc::clone(meant), Rc::clone(book));
    let chances = Chances { dice: Dice::new(seed), permille, meant, book };
    CHANCES.set(Some(chances));
}

/// None fails any more.
pub(super) fn end() {
    CHANCES.set(None);
}

/// Whether something is to go wrong with a state.
fn fails() -> bool {
    CHANCES.with_borrow_mut(|chances| {
        chances.as_mut().is_some_and(|chances| chances.dice.permille(chances.permille))
    })
}

/// A panic that is meant, without the message that the hook would print.
fn panic_meant(mark: Mark) {
    let meant = CHANCES.with_borrow(|chances| {
        let chances = chances.as_ref()?;
        chances.meant.set(chances.meant.get() + 1);
        chances.book.borrow_mut().marks.meet(mark);
        Some(())
    });
    if meant.is_some() {
        std::panic::resume_unwind(Box::new("meant"));
    }
}

/// Part of a state.
#[derive(Debug)]
pub(super) struct Fragile {
    ends_badly: bool,
}

impl Default for Fragile {
    fn default() -> Self {
        if fails() {
            panic_meant(Mark::StateNotMade);
        }
        Self { ends_badly: fails() }
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        // A second panic would take the process.
        if self.ends_badly && !std::thread::panicking() {
            panic_meant(Mark::StateEndedBadly);
        }
    }
}
