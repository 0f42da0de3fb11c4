//! P7 with tasks: from a completion through the task of its connection to the submission, no kernel in between.
//!
//! As `p7_dispatch`, whose handler is called; here a future is woken, polled, receives, sends and waits again. What the
//! two differ by is what async costs. An allocation in the steady state fails the bench.

mod dispatch;

use std::process::ExitCode;

use dispatch::{Counting, bench};
use slipring::{Conn, SendError, tasks};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

async fn echo(mut conn: Conn) -> Result<(), SendError> {
    while let Some(data) = conn.recv().await {
        conn.send(data).await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    bench("completion to task to submission, no kernel", None, || tasks(echo))
}
