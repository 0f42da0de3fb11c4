//! `beside_tokio`: a program on tokio, with a runtime of slipring in it.
//!
//! ```text
//!   tokio                                                    slipring
//!   registry: names and how often each was said  <-- ask --  a task for each client, on its reactor
//!                                                -- oneshot ->
//!   timer, ctrl-c                                -- Spawner ->  how many lines has this reactor had?
//! ```
//!
//! Each side keeps its own threads, and waits for the other without blocking one: whatever is a future works on both.
//! What does not cross is what belongs to a reactor, a `Conn` above all. Clients say names, one a line, and hear how
//! often each was said. Takes one argument, where to listen; ends with ctrl-c. docs/guide/embedding-in-tokio.md tells
//! more.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use slipring::{Conn, JoinError, Runtime, Serve, Spawner};
use slipring_examples::cli::fail;
use tokio::sync::{mpsc, oneshot};

/// Questions that wait for the registry; with more, the tasks that ask wait, and so do their clients.
const QUESTIONS_MAX: usize = 64;
/// Bytes of a name; who sends more without an end of line is cut off.
const NAME_MAX: usize = 256;
const REPORT_EVERY: Duration = Duration::from_secs(1);

struct Question {
    name: String,
    answer: oneshot::Sender<u64>,
}

thread_local! {
    /// Lines that this reactor has had: its own, without a lock.
    static LINES: Cell<u64> = const { Cell::new(0) };
}

#[tokio::main]
async fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let Ok(address) = address.parse() else { fail("not an address; say IP:PORT") };
    match run(address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

async fn run(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
    let registry = tokio::spawn(keep(questions));

    let drain = Duration::from_secs(5);
    let builder = Runtime::builder().listen(address).drain_deadline(drain);
    let serving = builder.serve(move |conn| serve(conn, ask.clone()))?;
    say(&format!("listening on {}", serving.addresses()[0]));

    let spawner = serving.spawner();
    let mut timer = tokio::time::interval(REPORT_EVERY);
    let mut before = 0;
    loop {
        tokio::select! {
            ordered = tokio::signal::ctrl_c() => break ordered?,
            _ = timer.tick() => {
                let lines = count(&spawner).await?;
                if lines != before {
                    tracing::info!(lines, "lines so far");
                }
                before = lines;
            }
        }
    }
    let lines = count(&spawner).await?;

    serving.handle().drain();
    // `join` blocks until every connection is closed: not on a thread of tokio's own.
    tokio::task::spawn_blocking(move || serving.join()).await??;
    // The last who could ask has gone with its reactor.
    let names = registry.await?;
    say(&format!("{lines} lines, {names} names"));
    Ok(())
}

/// On tokio: answers until nobody is left who could ask; how many names there are.
async fn keep(mut questions: mpsc::Receiver<Question>) -> usize {
    let mut names = BTreeMap::<String, u64>::new();
    while let Some(Question { name, answer }) = questions.recv().await {
        let count = names.entry(name).or_default();
        *count += 1;
        // Who asked may have gone.
        let _ = answer.send(*count);
    }
    names.len()
}

/// On a reactor: a client. `None` when it goes, or anything else does.
async fn serve(mut conn: Conn, ask: mpsc::Sender<Question>) -> Option<()> {
    let mut pending = Vec::new();
    loop {
        let data = conn.recv().await?;
        pending.extend_from_slice(&data);
        drop(data); // not held while the registry is asked
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let name = String::from_utf8_lossy(&line).trim().to_owned();
            let (answer, answered) = oneshot::channel();
            ask.send(Question { name, answer }).await.ok()?;
            let count = answered.await.ok()?;
            LINES.set(LINES.get() + 1);
            conn.send(format!("{count}\n").into_bytes()).await.ok()?;
        }
        if pending.len() > NAME_MAX {
            conn.abort();
        }
    }
}

/// On tokio: asks each reactor for what it keeps.
async fn count(reactors: &Spawner) -> Result<u64, JoinError> {
    let mut lines = 0;
    for reactor in 0..reactors.reactors() {
        lines += reactors.spawn_on(reactor, || async { LINES.get() }).await?;
    }
    Ok(lines)
}

fn say(line: &str) {
    // A closed stdout is nobody's failure here.
    let _ = writeln!(std::io::stdout(), "{line}");
}
