//! What models share: threads, and bells that are waited for.

use std::sync::Arc;

use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::JoinHandle;

use crate::tokens::Tokens;

pub(crate) fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    shuttle::thread::spawn(run)
}

/// A bell for each reactor. One that rings before it is waited for is heard; several rings are one.
#[derive(Clone)]
pub(crate) struct Bells(Arc<Vec<(Mutex<bool>, Condvar)>>);

impl Bells {
    /// Rung by these tokens.
    pub(crate) fn of(tokens: &Tokens, reactors: usize) -> Self {
        let bells = Self::new(reactors);
        let rung = bells.clone();
        tokens.connect(move |reactor| rung.ring(reactor));
        bells
    }

    /// Rung by nobody yet.
    pub(crate) fn new(reactors: usize) -> Self {
        Self(Arc::new((0..reactors).map(|_| (Mutex::new(false), Condvar::new())).collect()))
    }

    pub(crate) fn ring(&self, reactor: usize) {
        let (rung, heard) = &self.0[reactor];
        *rung.lock().expect("no panic") = true;
        heard.notify_one();
    }

    pub(crate) fn wait(&self, reactor: usize) {
        let (rung, heard) = &self.0[reactor];
        let mut rung = rung.lock().expect("no panic");
        while !*rung {
            rung = heard.wait(rung).expect("no panic");
        }
        *rung = false;
    }
}
