//! Dials for one caller alone, and what is distrusted.

use super::*;

impl Rig {
    pub(super) fn dial_fresh(&mut self, at: &'static Location<'static>) {
        let (free, mut asked) = (self.free, false);
        let said = self.book.dial_fresh(self.model.now, at, || {
            asked = true;
            free > 0
        });
        let model = &mut self.model;
        let has_room = model.has_room();
        assert_eq!(asked, has_room && model.spare == 0, "asked for a token");
        assert_eq!(said.is_some(), has_room && (model.spare > 0 || free > 0));
        let Some(place) = said else { return };
        assert!(!self.gone_places.contains(&place), "{place:?} once more");
        self.fresh += 1;
        model.begin(place, Some(at));
        if asked {
            self.free -= 1;
            self.taken += 1;
        } else {
            model.spare -= 1;
        }
    }

    pub(super) fn leave_fresh(&mut self, place: Place) {
        let has_failed = self.book.last_dial_error().is_some();
        let said = self.book.leave_fresh(place, self.now());
        if self.fits(place, said, |conn| conn.state == State::Dialing && conn.is_fresh) {
            self.fresh_left += 1;
            self.free_place(place);
            assert_eq!(self.book.last_dial_error().is_some(), has_failed);
        }
    }

    pub(super) fn distrust(&mut self, ago: Duration) {
        let since = self.now().saturating_sub(ago);
        self.book.distrust(self.now(), since);
        for place in self.model.idle.clone() {
            if self.model.conns[&place].seen <= since {
                self.model.close(place, Cause::Distrusted);
            }
        }
    }

    /// Their callers go, or have them and give them back.
    pub(super) fn end_fresh(&mut self) {
        for place in self.model.conns.keys().copied().collect::<Vec<_>>() {
            let Conn { state, is_fresh, .. } = self.model.conns[&place];
            if state != State::Dialing {
                continue;
            }
            assert!(is_fresh, "a drain cancels all others");
            if place.index.is_multiple_of(2) {
                self.leave_fresh(place);
            } else {
                self.dialed(place);
            }
        }
        self.settle();
    }
}
