//! Whether listeners keep to their accept rates: a count of its own of who came in, and when.
//!
//! Is: the model, a vessel that each client adds a drop to and that leaks at the rate; it must not run over. So in
//! any window at all no more come in than the burst and the rate allow. Is not: a second `SharedBucket`: it knows
//! nothing of arrivals and units, counts in millionths of a drop and rounds nothing.
//!
//! What counts is what the kernel handed out, at the time at which it did. A drain keeps to no rate, and a client
//! that is refused for want of a place has not come in.

use std::net::SocketAddr;

use slipring_core::{Listen, Rate};

use crate::kernel::FileId;

const DROP: u128 = 1_000_000;

#[derive(Debug)]
struct Vessel {
    rate: Rate,
    level: u128,
    at_us: u64,
}

impl Vessel {
    fn new(rate: Rate) -> Self {
        Self { rate, level: 0, at_us: 0 }
    }

    /// A drop more; whether it has room.
    fn add(&mut self, now_us: u64) -> bool {
        let leaked = u128::from(now_us - self.at_us) * u128::from(self.rate.per_second());
        self.level = self.level.saturating_sub(leaked) + DROP;
        self.at_us = now_us;
        self.level <= u128::from(self.rate.burst()) * DROP
    }
}

/// A client that the kernel handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) client: FileId,
    /// At which listener.
    pub(crate) at: SocketAddr,
    pub(crate) now_us: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Paced {
    process: Option<Vessel>,
    listeners: Vec<(SocketAddr, Option<Vessel>)>,
}

impl Paced {
    pub(crate) fn new(process: Option<Rate>, listen: &[SocketAddr], listen_as: &[Listen]) -> Self {
        let rate = |number: usize| listen_as.get(number).and_then(|how| how.accept_rate);
        let own = |(number, at): (usize, &SocketAddr)| (*at, rate(number).map(Vessel::new));
        Self {
            process: process.map(Vessel::new),
            listeners: listen.iter().enumerate().map(own).collect(),
        }
    }

    /// Somebody came in.
    ///
    /// # Errors
    /// In words, if that is more than some rate allows.
    pub(crate) fn add(&mut self, at: SocketAddr, now_us: u64) -> Result<(), String> {
        let own = self.listeners.iter_mut().find(|(listener, _)| *listener == at);
        let own = own.and_then(|(_, vessel)| vessel.as_mut());
        for vessel in own.into_iter().chain(&mut self.process) {
            if !vessel.add(now_us) {
                let rate = vessel.rate;
                return Err(format!(
                    "a client came in at {at}, at {now_us} us, too soon for {rate}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_too_many_in_a_window_is_found() {
        let at = SocketAddr::from(([192, 0, 2, 10], 7000));
        let rate = Rate::with_burst(10, 2).expect("a rate");
        let of = |process| match process {
            true => Paced::new(Some(rate), &[at], &[]),
            false => Paced::new(None, &[at], &[Listen::new().accept_rate(rate)]),
        };
        for process in [true, false] {
            let mut good = of(process);
            for now_us in [5, 5, 100_005, 400_000, 400_000] {
                assert_eq!(good.add(at, now_us), Ok(()));
            }
            let mut bad = of(process);
            assert_eq!((bad.add(at, 5), bad.add(at, 5)), (Ok(()), Ok(())));
            let said = bad.add(at, 100_004).expect_err("a microsecond too soon");
            assert!(said.contains("at 100004 us, too soon for 10/s:2"), "{said}");
        }
    }
}
