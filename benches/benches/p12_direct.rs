//! P12: 36,000 idle connections on two reactors, with 20,000 descriptors: what direct descriptors are for.
//!
//! ```text
//!   this process ──── orders, by lines ───> `hold`, this program again, three times: 12,000 connections each
//!        |                                          |
//!        +── memory, descriptors ──> `serve`, this program again: a reactor on each CPU, direct descriptors
//! ```
//! The server tells each connection the number of its reactor, then echoes. Each connection is opened, echoes 64 B,
//! echoes again when all are open, and has to end with a FIN when the server drains: a reset is a failure. Memory is
//! read as in P3: before any connection, with one on each reactor that has used the buffers all share, and with all.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use slipring_benches::measure::clock::pause;
use slipring_benches::measure::contenders::Contender;
use slipring_benches::measure::held::{check_echo, connect};
use slipring_benches::measure::process::{Server, spawn_bound};
use slipring_benches::measure::usage::memory_bytes;
use slipring_benches::measure::{CLIENT_CPU, SERVER_CPU, note, run_bench, say};
use slipring_benches::pin::pin_to_cpus;
use slipring_core::{Ctx, Handle, Handler, Lease, Origin, Runtime};

const CORES: [usize; 2] = [SERVER_CPU, CLIENT_CPU];
const CONNECTIONS: usize = 36_000;
/// Processes that hold them: one has too few descriptors for all.
const HOLDERS: usize = 3;
/// Room for those that warm the server up.
const ROOM: u32 = CONNECTIONS as u32 + 100;
/// Echoes that touch every shared buffer of a reactor at least once.
const WARMUP_ECHOES: usize = 10_000;
const SETTLE: Duration = Duration::from_millis(300);
/// What a drain may take: quiet connections are asked to go over half of it.
const DRAIN: Duration = Duration::from_secs(10);
/// What one end of a connection may take to come.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// First arguments of the other processes.
const SERVE: &str = "serve";
const HOLD: &str = "hold";
/// What orders the drain.
const ORDER: &[u8] = b"drain";

static RUNNING: OnceLock<Handle> = OnceLock::new();

struct Numbered(u8);

impl Handler for Numbered {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _origin: Origin) {
        ctx.send(vec![self.0]);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        if &*data == ORDER
            && let Some(running) = RUNNING.get()
        {
            return running.drain();
        }
        ctx.send(data);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some(SERVE) => serve(),
        Some(HOLD) => hold(&arguments[1..]),
        _ => return run_bench("p12_direct", bench),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("{}: {error}", arguments[0]));
            ExitCode::FAILURE
        }
    }
}

// ------------------------------------------------------------------------------------- the server

fn serve() -> io::Result<()> {
    pin_to_cpus(&CORES)?;
    let builder = Runtime::builder()
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .cores(CORES)
        .max_connections(ROOM)
        .direct_descriptors(true)
        .drain_deadline(DRAIN);
    let running = builder.start(|reactor| Numbered(reactor as u8)).map_err(io::Error::other)?;
    let _ = RUNNING.set(running.handle());
    say(format_args!("listening on {}", running.addresses()[0]));
    running.join().map(drop).map_err(io::Error::other)
}

fn open(server: SocketAddr, index: usize) -> io::Result<(TcpStream, u8)> {
    let mut stream = connect(server, index)?;
    let mut number = [0];
    stream.read_exact(&mut number)?;
    Ok((stream, number[0]))
}

// ------------------------------------------------------------------------------------ the holders

/// Opens `COUNT` connections to `SERVER`, then does as the lines of its input say.
fn hold(arguments: &[String]) -> io::Result<()> {
    let wrong = || io::Error::other("want SERVER COUNT");
    let [server, count] = arguments else { return Err(wrong()) };
    let server: SocketAddr = server.parse().map_err(io::Error::other)?;
    let count: usize = count.parse().map_err(io::Error::other)?;
    let mut held = Vec::with_capacity(count);
    let mut on_first = 0;
    for index in 0..count {
        let (mut stream, reactor) = open(server, index)?;
        check_echo(&mut stream, index as u8)?;
        on_first += usize::from(reactor == 0);
        held.push(stream);
    }
    say(on_first);
    for line in io::stdin().lines() {
        match line?.as_str() {
            "echo" => {
                for (index, stream) in held.iter_mut().enumerate() {
                    check_echo(stream, index as u8)?;
                }
                say(held.len());
            }
            _ => say(held.iter_mut().filter_map(|stream| ends_in_order(stream).ok()).count()),
        }
    }
    Ok(())
}

fn ends_in_order(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(END_PATIENCE))?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("bytes that nobody asked for")),
    }
}

struct Holder {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Holder {
    fn start(server: SocketAddr) -> io::Result<Self> {
        let count = (CONNECTIONS / HOLDERS).to_string();
        let mut command = Command::new(std::env::current_exe()?);
        command.args([HOLD, &server.to_string(), &count]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_bound(&mut command, CLIENT_CPU)?;
        let piped = || io::Error::other("a pipe is missing");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or_else(piped)?);
        Ok(Self { child, orders, answers })
    }

    fn order(&mut self, what: &str) -> io::Result<()> {
        let gone = || io::Error::other("a holder is gone");
        writeln!(self.orders.as_mut().ok_or_else(gone)?, "{what}")
    }

    /// A number that it says.
    fn answer(&mut self) -> io::Result<usize> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().map_err(|_| io::Error::other("a holder could not do it"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It ends when its orders do; should it hang, it is ended.
        self.orders = None;
        if self.answers.fill_buf().is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

// -------------------------------------------------------------------------------------- the bench

fn bench() -> io::Result<()> {
    let server = Contender::new("server", std::env::current_exe()?, &[SERVE]);
    let server = server.recipe.start(SERVER_CPU)?;
    pause(SETTLE);
    let base = memory_bytes(server.pid())?;
    let mut warm_ups = warm_up(server.address)?;
    let warm = memory_bytes(server.pid())?;
    let mut holders = Vec::new();
    for _ in 0..HOLDERS {
        holders.push(Holder::start(server.address)?);
    }
    let on_first = total(&mut holders)?;
    pause(SETTLE);
    let loaded = memory_bytes(server.pid())?;
    let descriptors = descriptors_of(&server)?;
    let echoed = ask(&mut holders, "echo")?;
    let order = warm_ups.values_mut().next();
    order.map_or(Ok(()), |stream| stream.write_all(ORDER))?;
    let ended = ask(&mut holders, "end")?;
    print(Seen { base, warm, loaded, descriptors, on_first, echoed, ended });
    Ok(())
}

/// A connection on each reactor, each of which has used the buffers that all share.
fn warm_up(server: SocketAddr) -> io::Result<BTreeMap<u8, TcpStream>> {
    let mut each = BTreeMap::new();
    for index in 0..ROOM as usize {
        let (mut stream, reactor) = open(server, index)?;
        if let Entry::Vacant(place) = each.entry(reactor) {
            for echo in 0..WARMUP_ECHOES {
                check_echo(&mut stream, echo as u8)?;
            }
            place.insert(stream);
        }
        if each.len() == CORES.len() {
            return Ok(each);
        }
    }
    Err(io::Error::other("one reactor gets no client"))
}

fn ask(holders: &mut [Holder], what: &str) -> io::Result<usize> {
    holders.iter_mut().try_for_each(|holder| holder.order(what))?;
    total(holders)
}

fn total(holders: &mut [Holder]) -> io::Result<usize> {
    holders.iter_mut().map(Holder::answer).sum()
}

fn descriptors_of(server: &Server) -> io::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", server.pid()))?.count())
}

struct Seen {
    base: u64,
    warm: u64,
    loaded: u64,
    descriptors: usize,
    on_first: usize,
    echoed: usize,
    ended: usize,
}

fn print(seen: Seen) {
    let Seen { base, warm, loaded, descriptors, on_first, echoed, ended } = seen;
    let each = |before: u64| (loaded as f64 - before as f64) / CONNECTIONS as f64;
    let most = on_first.max(CONNECTIONS - on_first);
    say(format_args!(
        "\n### P12: {CONNECTIONS} idle connections, direct descriptors, two reactors\n"
    ));
    say("| descriptors | most to mean | echoed | ended in order | each, from warm | from base |");
    say("|---|---|---|---|---|---|");
    say(format_args!(
        "| {descriptors} | {:.3} | {echoed} | {ended} | {:.0} B | {:.0} B |",
        most as f64 * CORES.len() as f64 / CONNECTIONS as f64,
        each(warm),
        each(base),
    ));
    say("\nAim: all of them, with few descriptors; memory as in P3.");
}
