//! Children under test: started, listened to, signalled, and ended with their test.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its share of this")]
#![expect(
    clippy::disallowed_methods,
    reason = "the one place of these tests with threads and a clock"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything that should happen at once may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn spawn(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(run)
}

/// A binary that serves.
pub(crate) struct Serving {
    child: Child,
    lines: mpsc::Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Serving {
    #[track_caller]
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary is there");
        let stdout = child.stdout.take().expect("piped");
        let mut stderr = child.stderr.take().expect("piped");
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self { child, lines, stderr: Some(stderr) }
    }

    /// The address in the next line of stdout, which comes while it serves.
    #[track_caller]
    pub(crate) fn address(&mut self) -> SocketAddr {
        let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
            let _ = self.child.kill();
            panic!("no line on stdout; stderr: {}", self.stderr());
        };
        let address = line.strip_prefix("listening on ").and_then(|text| text.parse().ok());
        address.unwrap_or_else(|| panic!("not the contract's line: {line}"))
    }

    /// Processor time that its threads have used.
    pub(crate) fn ran(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(tasks).expect("it runs").map_while(Result::ok);
        let ran =
            tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
        let nanoseconds = |text: String| text.split(' ').next()?.parse::<u64>().ok();
        Duration::from_nanos(ran.filter_map(nanoseconds).sum())
    }

    /// Memory that it has touched, KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.expect("procfs says so")
    }

    pub(crate) fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &line]).status().expect("a shell");
        assert!(status.success(), "{line}");
    }

    /// Waits for the end; what stderr said, and how stdout went on.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> (ExitStatus, String, Vec<String>) {
        let end = now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            assert!(now() < end, "it does not end");
            std::thread::park_timeout(Duration::from_millis(2));
        };
        (status, self.stderr(), self.lines.iter().collect())
    }

    fn stderr(&mut self) -> String {
        self.stderr.take().map(|reader| reader.join().expect("a reader")).unwrap_or_default()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that refuses to start: its exit code and its one line, within a second or so.
#[track_caller]
pub(crate) fn refusal(command: &mut Command) -> String {
    let started = now();
    let output = command.stdin(Stdio::null()).output().expect("the binary is there");
    let took = started.elapsed();
    let stderr = String::from_utf8(output.stderr).expect("plain text");
    assert_eq!(output.status.code(), Some(2), "{command:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{command:?} listened before it refused");
    assert_eq!(stderr.lines().count(), 1, "{command:?} should say one line: {stderr}");
    assert!(took < Duration::from_secs(1), "{command:?} takes {took:?} to refuse");
    let line = stderr.trim_end().strip_prefix("error: ");
    let line = line.unwrap_or_else(|| panic!("{command:?}: not an error: {stderr}")).to_owned();
    let (cause, remedy) = line.split_once("; ").expect("cause; remedy");
    assert!(!cause.is_empty() && !remedy.is_empty(), "{line}");
    line
}

#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    stream.set_nodelay(true).expect("an open socket");
    stream
}

/// One byte, however often the wait for it is interrupted: 0 at an orderly end.
pub(crate) fn read_one(mut stream: &TcpStream) -> std::io::Result<usize> {
    loop {
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A message there and back.
#[track_caller]
pub(crate) fn ping(mut stream: &TcpStream, message: &[u8]) {
    stream.write_all(message).expect("a ping is taken");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("a ping comes back");
    assert_eq!(back, message);
}
