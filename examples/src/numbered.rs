//! A protocol of numbered lines, and endpoints that speak it, die and come back: what the examples of upstreams play
//! with.
//!
//! ```text
//!   client  "17\n"  ------------------>  endpoint
//!           <------------------  "done 17\n"
//! ```
//!
//! The number tells whose answer it is: one that came to the wrong request would be seen. An endpoint is a runtime of
//! its own with one reactor, so it dies as a process does: what was under way is reset, who comes is refused.

use std::net::SocketAddr;
use std::time::Duration;

use slipring::connector::Stream;
use slipring::{Conn, Error, Runtime, Serve, Serving, SetupError, sleep};

/// How an endpoint serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// Each request is answered at once.
    Well,
    /// Each takes 20 ms, and with every tenth of a connection that is reset instead.
    Troubled,
}

/// An endpoint that can be stopped and started. Stopping and starting wait for its thread: in a task, by `unblock`.
pub struct Endpoint {
    address: SocketAddr,
    temper: Temper,
    serving: Option<Serving>,
}

impl Endpoint {
    /// Starts one at a free port of this host.
    ///
    /// # Errors
    /// [`SetupError`]: the cause and the remedy.
    pub fn start(temper: Temper) -> Result<Self, SetupError> {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut endpoint = Self { address: free, temper, serving: None };
        endpoint.come_back()?;
        Ok(endpoint)
    }

    /// Where it listens, also when it comes back.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves again, at the same address.
    ///
    /// # Errors
    /// [`SetupError`]: the cause and the remedy.
    pub fn come_back(&mut self) -> Result<(), SetupError> {
        let temper = self.temper;
        let builder = Runtime::builder().cores([0]).max_connections(256).max_dialed(0);
        let serving = builder.listen(self.address).serve(move |conn| answer(conn, temper))?;
        self.address = serving.addresses()[0];
        self.serving = Some(serving);
        Ok(())
    }

    /// Resets all that is under way, and listens no more.
    pub fn die(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.handle().abort();
            // What its counters were nobody asks.
            drop(serving.join());
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.die();
    }
}

/// One client of an endpoint.
async fn answer(mut conn: Conn, temper: Temper) {
    let (mut received, mut served) = (Vec::new(), 0);
    while let Some(data) = conn.recv().await {
        received.extend_from_slice(&data);
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let request: Vec<u8> = received.drain(..=end).collect();
            served += 1;
            if temper == Temper::Troubled {
                sleep(Duration::from_millis(20)).await;
                if served % 10 == 0 {
                    conn.abort();
                    return;
                }
            }
            if conn.send([b"done ".as_slice(), &request].concat()).await.is_err() {
                return;
            }
        }
    }
}

/// Asks, and says whether the answer was to this request. For a call of an upstream: an error of the stream is passed
/// on as it is, since it knows whether anything was sent, and so whether the request may be made again.
///
/// # Errors
/// [`Error`], of the stream.
pub async fn ask(stream: &mut Stream, number: u64) -> Result<bool, Error> {
    stream.send(format!("{number}\n").into_bytes()).await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.extend_from_slice(&stream.recv_some().await?);
    }
    Ok(line == format!("done {number}\n").into_bytes())
}
