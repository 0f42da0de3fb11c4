//! Few descriptors and many clients: nobody who was accepted is dropped, nothing is burnt while all wait, and who
//! waits is served as soon as there is room.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::{Serving, connect, now, ping};

const ECHO: &str = env!("CARGO_BIN_EXE_echo");

/// Descriptors the server may have, and clients that come to it.
const DESCRIPTORS: u32 = 256;
const CLIENTS: usize = 1000;
/// Within this time of room there being some, it is used.
const PROMPT: Duration = Duration::from_secs(1);

/// Echo in a shell's limit of descriptors.
fn limited(more: &[&str]) -> Serving {
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$@\"");
    let mut arguments = vec!["-c", &script, "sh", ECHO, "--listen", "127.0.0.1:0"];
    arguments.extend(more);
    Serving::start("sh", &arguments)
}

/// A client that has said something and waits for the answer.
struct Waiting {
    stream: TcpStream,
    heard: bool,
}

impl Waiting {
    fn come(address: SocketAddr) -> Self {
        let mut stream = connect(address);
        stream.write_all(b"here").expect("the kernel takes it");
        stream.set_nonblocking(true).expect("an open socket");
        Self { stream, heard: false }
    }

    /// Whether it has its answer.
    #[track_caller]
    fn is_served(&mut self) -> bool {
        if self.heard {
            return true;
        }
        let mut bytes = [0; 8];
        match (&self.stream).read(&mut bytes) {
            Ok(0) => panic!("a client was accepted and dropped"),
            Ok(count) => {
                assert_eq!(&bytes[..count], b"here");
                self.heard = true;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("a client was accepted and dropped: {error}"),
        }
        self.heard
    }
}

fn served(clients: &mut [Waiting]) -> usize {
    clients.iter_mut().filter_map(|client| client.is_served().then_some(())).count()
}

/// Waits until so many are served; how long that took.
#[track_caller]
fn wait_for(clients: &mut [Waiting], count: usize) -> Duration {
    let begun: Instant = now();
    while served(clients) < count {
        let waited = begun.elapsed();
        let have = served(clients);
        assert!(waited < support::PATIENCE, "{have} of {count} are served after {waited:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    begun.elapsed()
}

fn all_are_served_in_turn(more: &[&str]) {
    let mut echo = limited(more);
    let address = echo.address();
    let mut clients: Vec<Waiting> = (0..CLIENTS).map(|_| Waiting::come(address)).collect();
    wait_for(&mut clients, 1);
    // So many fit: what it says of itself, and what is seen.
    let quiet = now();
    let mut fits = served(&mut clients);
    while quiet.elapsed() < Duration::from_millis(300) {
        fits = served(&mut clients);
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert!(fits >= 64 && fits < DESCRIPTORS as usize, "{fits} of {CLIENTS} are served at once");

    // Full, and quiet: those who are in are served, and the rest costs nothing.
    let (before, begun) = (echo.ran(), now());
    let insider = clients.iter_mut().find(|client| client.heard).expect("one is in");
    insider.stream.set_nonblocking(false).expect("an open socket");
    ping(&insider.stream, b"still");
    insider.stream.set_nonblocking(true).expect("an open socket");
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(served(&mut clients), fits, "more are served than fit");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let share = (echo.ran() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(share < 0.05, "{:.1} % of a CPU while it is full", share * 100.0);

    while !clients.is_empty() {
        // Those who have been served leave, and as many others come in.
        clients.retain(|client| !client.heard);
        let next = clients.len().min(fits);
        let took = wait_for(&mut clients, next);
        assert!(took < PROMPT, "room for {next}, and it took {took:?}");
    }
    echo.signal("TERM");
    assert_eq!(echo.ended().0.code(), Some(0));
}

#[test]
fn a_thousand_clients_and_few_descriptors() {
    all_are_served_in_turn(&[]);
}

#[test]
fn a_cap_that_the_descriptors_have_no_room_for_is_refused() {
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$@\"");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script, "sh", ECHO, "--listen", "127.0.0.1:0"]);
    let line = support::refusal(command.args(["--max-connections", "1000"]));
    assert!(line.contains("RLIMIT_NOFILE") && line.contains("lower --max-connections"), "{line}");
}

/// Whether the kernel has what direct descriptors take (6.13); on others a start with them is refused.
fn has_direct_descriptors() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (parts.next(), parts.next()) >= (Some(6), Some(13_u32))
}

/// The table of each reactor has as many places as there are descriptors, and costs none.
#[test]
fn direct_descriptors_are_as_many_for_each_reactor() {
    if !has_direct_descriptors() {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
    let places = cores * DESCRIPTORS as usize;
    let mut echo = limited(&["--direct-descriptors", "--drain-deadline", "1s"]);
    let address = echo.address();
    let mut clients: Vec<Waiting> = (0..places).map(|_| Waiting::come(address)).collect();
    wait_for(&mut clients, places);
    // Closed in order, and each once.
    echo.signal("TERM");
    for client in &mut clients {
        client.stream.set_nonblocking(false).expect("an open socket");
        assert_eq!(client.stream.read(&mut [0]).expect("no reset"), 0);
    }
    let (status, said, _) = echo.ended();
    assert_eq!(status.code(), Some(0));
    // What fits, if nobody says how many.
    let limits = said.lines().find_map(|line| line.strip_prefix("limits: ")).expect("a line");
    let numbers = limits.split(' ').filter_map(|word| word.parse::<u32>().ok());
    let numbers: Vec<u32> = numbers.collect();
    assert!(matches!(numbers[..], [n, reactors] if n == reactors * DESCRIPTORS), "{limits}");
}

#[test]
fn a_cap_that_the_tables_have_no_room_for_is_refused() {
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$@\"");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script, "sh", ECHO, "--listen", "127.0.0.1:0", "--direct-descriptors"]);
    let line = support::refusal(command.args(["--max-connections", "1000000"]));
    assert!(line.contains("RLIMIT_NOFILE (places of each"), "{line}");
    assert!(line.contains("lower --max-connections"), "{line}");
}

#[test]
fn the_same_with_every_placement() {
    for placement in ["kernel", "round-robin"] {
        all_are_served_in_turn(&["--placement", placement]);
    }
}
