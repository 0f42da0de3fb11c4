//! The clock of the harness, and the one place where it waits for time to pass.

use std::io;
use std::time::{Duration, Instant};

/// Now.
#[expect(clippy::disallowed_methods, reason = "a bench measures wall time; this is its clock")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets time pass, to look at a server that does nothing meanwhile.
#[expect(clippy::disallowed_methods, reason = "another process is watched, nothing completes here")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Tries until it answers, or for `patience`.
///
/// # Errors
/// `TimedOut`, naming what was waited for.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> io::Result<T> {
    let deadline = now() + patience;
    loop {
        if let Some(answer) = attempt() {
            return Ok(answer);
        }
        if now() >= deadline {
            let text = format!("{what}: not within {patience:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        pause(Duration::from_millis(5));
    }
}
