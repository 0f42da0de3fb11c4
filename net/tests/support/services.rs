//! Services of `async` code, started, asked, and checked at their end.

use std::sync::mpsc;

use slipring::{Builder, Conn, Counters, SendError, Serve, Serving};

use super::sum;

/// Sends every byte back.
pub(crate) async fn echo(mut conn: Conn) -> Result<(), SendError> {
    while let Some(data) = conn.recv().await {
        conn.send(data).await?;
    }
    Ok(())
}

#[track_caller]
pub(crate) fn serve<S, F>(builder: Builder, service: S) -> Serving
where
    S: FnMut(Conn) -> F + Clone + Send + 'static,
    F: Future + 'static,
{
    builder.serve(service).expect("it starts")
}

/// Runs a service that reports to the test.
#[track_caller]
pub(crate) fn reporting<T, S, F>(builder: Builder, service: S) -> (Serving, mpsc::Receiver<T>)
where
    T: Send + 'static,
    S: Fn(Conn, mpsc::Sender<T>) -> F + Clone + Send + 'static,
    F: Future + 'static,
{
    let (tell, told) = mpsc::channel();
    let serving = serve(builder, move |conn| service(conn, tell.clone()));
    (serving, told)
}

/// Drains it. No task may have panicked.
#[track_caller]
pub(crate) fn end(serving: Serving) {
    assert_eq!(drained(serving).handler_panics, 0, "a task panicked");
}

/// The same where tasks may panic. Every connection that began has ended.
#[track_caller]
pub(crate) fn drained(serving: Serving) -> Counters {
    serving.handle().drain();
    let counters = sum(&serving.join().expect("a drain in order"));
    assert_eq!(counters.accepted + counters.dialed, counters.closed, "a connection is lost");
    counters
}
