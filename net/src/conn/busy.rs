//! What a drain cannot see: that something is under way on a connection whose reader waits.

use std::marker::PhantomData;

use slipring_core::Key;

use super::shell;

/// Says of a connection that something is under way on it: a drain does not ask it to go then, though nothing moves.
/// Its deadline holds all the same.
///
/// Only needed where somebody waits for bytes meanwhile, as protocol libraries do to hear of the peer's end: a task
/// that does anything but receive is taken to be at work. It does not hold the connection, which may have been given to
/// a library, or be gone; then it says nothing to nobody.
///
/// ```no_run
/// # async fn work() -> Vec<u8> { Vec::new() }
/// # async fn example(conn: slipring::Conn) -> Result<(), slipring::SendError> {
/// let busy = conn.busy_flag();
/// let (mut read, mut write) = conn.split();
/// let reader = slipring::spawn_local(async move { while read.recv().await.is_some() {} });
/// busy.set(true);
/// let answer = work().await; // a drain waits for this, though the reader does too
/// write.send(answer).await?;
/// busy.set(false);
/// # drop(reader);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BusyFlag {
    pub(super) key: Key,
    pub(super) reactor: u16,
    pub(super) _not_send: PhantomData<*const ()>,
}

impl BusyFlag {
    /// Whether something is under way from now on. Nothing is at the beginning.
    pub fn set(&self, is_busy: bool) {
        shell::with(|connections| {
            if connections.reactor() == usize::from(self.reactor)
                && let Some(shell) = connections.state_of(self.key)
            {
                shell.is_busy = is_busy;
            }
        });
    }
}
