//! One run of the load generator against one server, and what came of it.
//!
//! The generator is a child process, so that its memory, descriptors and CPU are its own. Of its
//! JSON only a few numbers are wanted, each under a key of its own, so they are picked out by key;
//! this is not a JSON parser, and answers nothing when a key is missing.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::CLIENT_CPU;
use super::binaries::Binaries;
use super::process::{Server, spawn_bound};
use crate::load::tls::Handshakes;

/// Seconds before what counts: connections made, caches and polling settled.
pub const WARMUP: Duration = Duration::from_millis(500);

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of a message.
    pub size: usize,
    /// A new connection for every message.
    pub churn: bool,
    /// Messages that a connection has in flight at most.
    pub depth: usize,
    /// TLS, and with which handshakes if connections are made anew.
    pub tls: Option<Handshakes>,
    /// How long is measured.
    pub seconds: f64,
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU time of the server a message (or a connection, with churn), in microseconds.
    pub cpu_us: f64,
    /// Messages a second.
    pub rate: f64,
    /// Round-trip time, in microseconds: the median.
    pub p50_us: f64,
    /// Round-trip time, in microseconds: the 99th percentile.
    pub p99_us: f64,
    /// Megabytes a second that came back and were right.
    pub mb_per_s: f64,
    /// Messages that failed, were answered wrongly, or not at all.
    pub failed: u64,
    /// TLS, with churn: full handshakes.
    pub full: u64,
    /// TLS, with churn: resumptions.
    pub resumed: u64,
}

/// A load under way. Dropping it ends it.
#[derive(Debug)]
pub struct Loading(Option<Child>);

impl Load {
    /// Runs the load against a server.
    ///
    /// # Errors
    /// When the generator fails or does not say what it should.
    pub fn run(&self, binaries: &Binaries, server: &Server) -> io::Result<Sample> {
        self.start(binaries, server)?.finish()
    }

    /// Starts the load, for whoever has something to do meanwhile. It connects, loads for
    /// [`WARMUP`] without measuring, then measures.
    ///
    /// # Errors
    /// When the generator cannot be started.
    pub fn start(&self, binaries: &Binaries, server: &Server) -> io::Result<Loading> {
        let mut command = Command::new(binaries.own("load"));
        command.arg(server.address.to_string());
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--size", &self.size.to_string()]);
        command.args(["--depth", &self.depth.to_string()]);
        let warmup = WARMUP.as_secs_f64().to_string();
        command.args(["--seconds", &self.seconds.to_string(), "--warmup", &warmup]);
        command.args(["--server-pid", &server.pid().to_string()]);
        command.args(["--cpu", &CLIENT_CPU.to_string(), "--json"]);
        if self.churn {
            command.arg("--churn");
        }
        if let Some(handshakes) = self.tls {
            command.arg("--tls");
            if handshakes == Handshakes::Resumed {
                command.arg("--resume");
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        spawn_bound(&mut command, CLIENT_CPU).map(|child| Loading(Some(child)))
    }
}

impl Loading {
    /// Waits for its end, and for what it measured.
    ///
    /// # Errors
    /// When the generator fails or does not say what it should.
    ///
    /// # Panics
    /// Never: only this takes the child.
    pub fn finish(mut self) -> io::Result<Sample> {
        let child = self.0.take().expect("only this takes it");
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let sample = Sample::parse(&text).ok_or_else(|| {
            io::Error::other(format!("load ended with {}, and said {text:?}", output.status))
        })?;
        if sample.rate > 0.0 { Ok(sample) } else { Err(io::Error::other("answered nothing")) }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Sample {
    fn parse(json: &str) -> Option<Self> {
        let errors = object(json, "errors")?;
        let failed = sum_of_numbers(errors) + number(json, "corrupted")? as u64;
        Some(Self {
            cpu_us: number(json, "server_cpu_us_per_message")?,
            rate: number(json, "rate_per_s")?,
            p50_us: number(json, "p50")?,
            p99_us: number(json, "p99")?,
            mb_per_s: number(json, "mb_per_s")?,
            failed,
            full: number(json, "full_handshakes")? as u64,
            resumed: number(json, "resumed_handshakes")? as u64,
        })
    }
}

/// What follows `"key":`.
fn value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{key}\""))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn number(json: &str, key: &str) -> Option<f64> {
    let text = value(json, key)?;
    let end = text.find([',', '}', ' ', '\n']).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The inside of a flat object.
fn object<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (inside, _) = value(json, key)?.strip_prefix('{')?.split_once('}')?;
    Some(inside)
}

fn sum_of_numbers(object: &str) -> u64 {
    let fields = object.split(',').filter_map(|field| field.rsplit_once(':'));
    fields.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"mode": "closed", "completed": 10, "errors": {"reset": 2, "eof": 1},
        "corrupted": 1, "rate_per_s": 1234.5, "mb_per_s": 80.5, "latency_us": {"p50": 41, "p90": 50, "p99": 97.5,
        "p999": 120, "max": 300, "mean": 44.1}, "full_handshakes": 7,
        "resumed_handshakes": 8, "server_cpu_us_per_message": 4.25}"#;

    #[test]
    fn a_sample_is_picked_out_of_the_json() {
        let sample = Sample::parse(JSON).expect("every key is there");
        assert_eq!(sample.failed, 4);
        assert_eq!((sample.rate, sample.cpu_us), (1234.5, 4.25));
        assert_eq!((sample.full, sample.resumed), (7, 8));
        assert_eq!((sample.p50_us, sample.p99_us, sample.mb_per_s), (41.0, 97.5, 80.5));
    }

    #[test]
    fn a_missing_or_empty_figure_is_no_sample() {
        assert!(Sample::parse(&JSON.replace("4.25", "null")).is_none());
        assert!(Sample::parse("").is_none());
        assert_eq!(object(r#"{"errors":{}}"#, "errors"), Some(""));
    }
}
