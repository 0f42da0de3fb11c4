//! What a reactor with too much does: it accepts nobody, and then closes who is idle.
//!
//! When that is so says `shedding`. While it is, somebody looks again ten times a second, also if nothing happens: a
//! level that nobody ends would keep clients out for ever.

use super::{Reactor, TIMER_SHED};
use crate::acceptor::PAUSE_MS;
use crate::canary::{Canary, sings};
use crate::config::SHED_PER_LOOK_MAX;
use crate::connection::Input;
use crate::driver::Driver;
use crate::error::CloseReason;
use crate::handler::Handler;
use crate::shedding::{Level, Strain};

/// How often a strained reactor looks, milliseconds.
const LOOK_MS: u64 = 100;

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Looks, if there is any need to: once a turn.
    #[inline]
    pub(super) fn watch_strain(&mut self) {
        let strain = self.strain();
        if self.shedding.is_due(&strain) {
            self.take_level(&strain);
        }
    }

    fn strain(&self) -> Strain {
        let memory = &self.connections.memory;
        Strain {
            owned_bytes: memory.owned_bytes() - memory.spilled_bytes(),
            short_since_ms: self.short.map(|(since_ms, _)| since_ms),
            now_ms: self.connections.now_ms(),
        }
    }

    #[cold]
    fn take_level(&mut self, strain: &Strain) {
        if self.shedding.look(strain) {
            let level = self.shedding.level();
            self.acceptor.hold(level >= Level::Hold || sings(Canary::HeldForEver));
            self.front.loads().set_strained(self.number, level >= Level::Hold);
            self.connections.counters.strained += u64::from(level >= Level::Hold);
        }
        if self.shedding.level() > Level::Calm || strain.short_since_ms.is_some() {
            let timer = self.own_timer(TIMER_SHED);
            if !self.wheel.is_armed(timer) {
                self.wheel.arm(timer, strain.now_ms + LOOK_MS);
            }
        }
    }

    /// A strained reactor looks again.
    pub(super) fn on_shed_timer(&mut self) {
        let now_ms = self.connections.now_ms();
        // It has been tried again since, and did not fail.
        self.short = self.short.filter(|(_, last_ms)| now_ms < last_ms + 3 * PAUSE_MS);
        if self.shedding.sheds(&self.strain()) {
            let mut idle = self.idle_in_part(None);
            idle.sort_unstable();
            for (_, key) in idle.into_iter().take(SHED_PER_LOOK_MAX as usize) {
                self.connections.counters.shed += 1;
                self.connections.ask(key, Input::Close(CloseReason::Shed));
            }
        }
        let strain = self.strain();
        self.take_level(&strain);
    }
}
