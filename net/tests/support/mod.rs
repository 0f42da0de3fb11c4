//! What the tests on real sockets share: servers that are checked at their end, a journal of what a
//! handler was told, clients that compare every byte, and the only places that wait or read the clock.
//!
//! Nothing here decides whether a test passes, but for two promises that hold in every test: a server's
//! counters balance when it is over (`Server::finish`), and no test runs longer than `bounded` lets it.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its share of this")]
#![expect(
    clippy::disallowed_methods,
    reason = "the one place of the tests with threads and a clock"
)]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slipring::{
    Builder, CloseReason, Connections, Counters, Ctx, Handle, Handler, Key, Lease, Origin, Running,
    Runtime,
};

/// What a timer, a busy machine and a scheduler may add to a deadline beside its 30 %.
pub(crate) const SLACK: Duration = Duration::from_millis(400);
/// How long anything that should happen at once may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(run)
}

/// Runs a test, and fails it when it has not ended after 30 s: a test that hangs says nothing.
#[track_caller]
pub(crate) fn bounded(test: impl FnOnce() + Send + 'static) {
    bounded_by(Duration::from_secs(30), test);
}

#[track_caller]
pub(crate) fn bounded_by(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let thread = spawn(move || {
        // Told by its drop, after a panic too.
        let _done = done;
        test();
    });
    if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the test hangs: not over after {limit:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Waits until something is so. For what nobody can be asked to tell; everything else blocks on a socket
/// or on the journal.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = now() + PATIENCE;
    while !is_so() {
        assert!(now() < end, "never so: {what}");
        std::thread::park_timeout(ms(2));
    }
}

/// Asserts that a deadline of `timeout` was kept: not before it, and not long after.
#[track_caller]
pub(crate) fn assert_kept(what: &str, took: Duration, timeout: Duration) {
    // The reactor's clock and ours may round apart by a millisecond each.
    assert!(took + ms(2) >= timeout, "{what}: {took:?} is before its deadline of {timeout:?}");
    let latest = timeout.mul_f64(1.3) + SLACK;
    assert!(took <= latest, "{what}: {took:?} is long after its deadline of {timeout:?}");
}

/// Holds the file's other tests off, for a test that counts what belongs to the process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count() - 1
}

/// Bytes of this process in memory.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("statm has a second number");
    pages * 4096
}

/// The cores this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let parse = |text: &str| text.trim().parse::<usize>().expect("a core's number");
    let mut cores = Vec::new();
    for part in line.expect("the list of cores").split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(parse(first)..=parse(last));
    }
    cores
}

// ---------------------------------------------------------------------------------------- the bytes

/// Numbers that look random and are the same in each run (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x6a09_e667_f3bc_c909)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 1 to `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize + 1
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// An endless stream of random bytes, the same for the same seed however it is cut.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    rng: Rng,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), word: [0; 8], used: 8 }
    }

    pub(crate) fn fill(&mut self, into: &mut [u8]) {
        let carried = into.len().min(8 - self.used);
        let (head, rest) = into.split_at_mut(carried);
        head.copy_from_slice(&self.word[self.used..self.used + carried]);
        self.used += carried;
        let mut words = rest.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.rng.next().to_le_bytes());
        }
        let tail = words.into_remainder();
        if !tail.is_empty() {
            self.word = self.rng.next().to_le_bytes();
            tail.copy_from_slice(&self.word[..tail.len()]);
            self.used = tail.len();
        }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut taken = vec![0; bytes];
        self.fill(&mut taken);
        taken
    }
}

/// Compares a stream with a pattern, byte by byte.
#[derive(Debug)]
pub(crate) struct Check {
    pattern: Pattern,
    expected: Vec<u8>,
    pub(crate) bytes: u64,
}

impl Check {
    pub(crate) fn new(seed: u64) -> Self {
        Self { pattern: Pattern::new(seed), expected: Vec::new(), bytes: 0 }
    }

    #[track_caller]
    pub(crate) fn next(&mut self, received: &[u8]) {
        self.expected.resize(received.len(), 0);
        self.pattern.fill(&mut self.expected);
        if self.expected != received {
            let same = self.expected.iter().zip(received).take_while(|(a, b)| a == b).count();
            panic!("byte {} is not what was sent", self.bytes + same as u64);
        }
        self.bytes += received.len() as u64;
    }
}

// -------------------------------------------------------------------------------------- the clients

/// A call again that was interrupted: a wait with a time limit is, when the host stops its guests for a
/// moment, though nobody sent a signal.
pub(crate) fn again<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A client that waits 10 s at most for anything.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).expect("the server is there")
}

/// The same for a server that may reset at once: the reset can come before the connect returns.
pub(crate) fn try_connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    patient(&stream);
    Ok(stream)
}

fn patient(stream: &TcpStream) {
    stream.set_nodelay(true).expect("an open socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
}

/// A client whose kernel takes few bytes that it has not read.
#[track_caller]
pub(crate) fn connect_narrow(address: SocketAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an open socket");
    socket.connect_timeout(&address.into(), PATIENCE).expect("the server is there");
    let stream = TcpStream::from(socket);
    patient(&stream);
    stream
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    let linger = Some(Duration::ZERO);
    socket2::SockRef::from(&stream).set_linger(linger).expect("an open socket");
}

/// Writes so many bytes of the pattern, cut at random.
pub(crate) fn write_pattern(
    mut stream: &TcpStream,
    seed: u64,
    bytes: u64,
    most: usize,
) -> std::io::Result<()> {
    let mut rng = Rng::new(!seed);
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; most];
    let mut left = bytes;
    while left > 0 {
        let piece = rng.up_to(most).min(usize::try_from(left).unwrap_or(usize::MAX));
        pattern.fill(&mut buffer[..piece]);
        stream.write_all(&buffer[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

/// Reads to the end of the stream, comparing; how many bytes came.
pub(crate) fn read_pattern(mut stream: &TcpStream, seed: u64) -> std::io::Result<u64> {
    let mut check = Check::new(seed);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match again(|| stream.read(&mut buffer))? {
            0 => return Ok(check.bytes),
            bytes => check.next(&buffer[..bytes]),
        }
    }
}

/// Sends a pattern through a peer that echoes, ends its own direction, and compares all that comes back.
#[track_caller]
pub(crate) fn echo_pattern(stream: &TcpStream, seed: u64, bytes: u64, most: usize) {
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            write_pattern(stream, seed, bytes, most).expect("the server takes everything");
            stream.shutdown(Shutdown::Write).expect("an open socket");
        });
        let came = read_pattern(stream, seed).expect("the server sends everything");
        assert_eq!(came, bytes, "bytes lost or made up");
        writer.join().expect("the writer");
    });
}

/// Writes without reading until the peer takes no more for 300 ms; how many bytes of the pattern it took.
pub(crate) fn stuff(mut stream: &TcpStream, seed: u64) -> u64 {
    let mut pattern = Pattern::new(seed);
    stream.set_write_timeout(Some(ms(300))).expect("an open socket");
    let mut taken = 0;
    'all: loop {
        let piece = pattern.take(64 << 10);
        let mut rest = &piece[..];
        while !rest.is_empty() {
            match again(|| stream.write(rest)) {
                Ok(bytes) => {
                    taken += bytes as u64;
                    rest = &rest[bytes..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 'all,
                Err(error) => panic!("writing without reading: {error}"),
            }
        }
    }
    stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
    taken
}

/// One message there and back.
#[track_caller]
pub(crate) fn ping(mut stream: &TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the server takes a ping");
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).expect("the server answers a ping");
    assert_eq!(back, message);
}

#[track_caller]
pub(crate) fn read_bytes(mut stream: &TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).expect("the bytes come");
    read
}

/// Whether a byte, or an end, can be read within the time.
pub(crate) fn hears_within(mut stream: &TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).expect("an open socket");
    let heard = again(|| stream.read(&mut [0])).is_ok();
    stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    heard
}

#[track_caller]
pub(crate) fn expect_eof(mut stream: &TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(0) => {}
        other => panic!("an orderly end was expected, without a byte before it: {other:?}"),
    }
}

/// Reads what comes before a reset; fails if the stream ends in order, or not at all.
#[track_caller]
pub(crate) fn expect_reset(mut stream: &TcpStream) -> u64 {
    let mut buffer = vec![0; 64 << 10];
    let mut before = 0;
    loop {
        match again(|| stream.read(&mut buffer)) {
            Ok(0) => panic!("a reset was expected, but the stream ended in order after {before} B"),
            Ok(bytes) => before += bytes as u64,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return before,
            Err(error) => panic!("a reset was expected: {error}"),
        }
    }
}

/// A listener of the test's own, to be an upstream.
pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// An accept that does not wait for ever.
#[track_caller]
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("an open socket");
    let mut accepted = None;
    eventually("somebody dials the upstream", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.expect("just seen");
    stream.set_nonblocking(false).expect("an open socket");
    patient(&stream);
    stream
}

/// An address where nobody listens, and nobody will: its port stays bound as long as the socket lives.
pub(crate) fn refusing() -> (socket2::Socket, SocketAddr) {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("it is bound");
    (socket, address)
}

/// A listener whose backlog is full: who dials it gets no answer.
#[derive(Debug)]
pub(crate) struct BlackHole {
    _listener: TcpListener,
    _fillers: Vec<socket2::Socket>,
    pub(crate) address: SocketAddr,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a free port");
        socket.listen(1).expect("a bound socket");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("it is bound");
        let mut fillers = Vec::new();
        for _ in 0..16 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let full = filler.connect_timeout(&address.into(), ms(100)).is_err();
            fillers.push(filler);
            if full {
                return Self { _listener: listener, _fillers: fillers, address };
            }
        }
        panic!("a backlog of 1 takes more than 16 connections");
    }
}

// -------------------------------------------------------------------------------------- the servers

/// What a handler was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Open(Origin),
    Eof,
    Writable,
    KeepAlive,
    Close(CloseReason),
    /// Something of the test's own.
    Note(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    pub(crate) reactor: usize,
    pub(crate) key: Key,
    pub(crate) what: What,
}

/// What all handlers of a server were told, in order, and a way to wait for more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    shared: Arc<(Mutex<Vec<Entry>>, Condvar)>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, reactor: usize, key: Key, what: What) {
        self.lock().push(Entry { at: now(), reactor, key, what });
        self.shared.1.notify_all();
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// Waits until the journal answers.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut find: impl FnMut(&[Entry]) -> Option<T>) -> T {
        let end = now() + PATIENCE;
        let mut entries = self.lock();
        loop {
            if let Some(found) = find(&entries) {
                return found;
            }
            let left = end.saturating_duration_since(now());
            assert!(!left.is_zero(), "never seen: {what}; seen: {:?}", Tail(&entries));
            let waited = self.shared.1.wait_timeout(entries, left);
            entries = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the `n`th entry, from zero, of a kind.
    #[track_caller]
    pub(crate) fn nth(&self, n: usize, wanted: impl Fn(What) -> bool, what: &str) -> Entry {
        self.wait(what, |entries| entries.iter().filter(|e| wanted(e.what)).nth(n).copied())
    }

    #[track_caller]
    pub(crate) fn nth_open(&self, n: usize) -> Entry {
        self.nth(n, |what| matches!(what, What::Open(_)), "another open connection")
    }

    /// Waits for the `n`th end, from zero; why it ended.
    #[track_caller]
    pub(crate) fn nth_close(&self, n: usize) -> (Entry, CloseReason) {
        let entry = self.nth(n, |what| matches!(what, What::Close(_)), "another end");
        let What::Close(reason) = entry.what else { unreachable!("just matched") };
        (entry, reason)
    }

    pub(crate) fn count(&self, wanted: impl Fn(What) -> bool) -> usize {
        self.lock().iter().filter(|entry| wanted(entry.what)).count()
    }

    /// Every connection that was opened ended exactly once, and after its opening.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        let mut lives: BTreeMap<(usize, Key), (usize, usize)> = BTreeMap::new();
        for entry in self.lock().iter() {
            let life = lives.entry((entry.reactor, entry.key)).or_default();
            assert_eq!(life.1, 0, "told of {:?} after its end", entry);
            match entry.what {
                What::Open(_) => life.0 += 1,
                What::Close(_) => life.1 += 1,
                _ => {}
            }
        }
        for (key, (opens, closes)) in lives {
            assert!(opens <= 1, "{key:?} was opened {opens} times");
            assert_eq!(closes, 1, "{key:?} ended {closes} times");
        }
    }
}

struct Tail<'a>(&'a [Entry]);

impl std::fmt::Debug for Tail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.0;
        let shown = entries.iter().rev().take(20).rev();
        f.debug_list().entries(shown.map(|e| (e.reactor, e.key, e.what))).finish()
    }
}

/// A handler whose calls are noted before it gets them.
#[derive(Debug)]
pub(crate) struct Logged<H> {
    pub(crate) handler: H,
    pub(crate) journal: Journal,
    pub(crate) reactor: usize,
}

impl<H: Handler> Handler for Logged<H> {
    type State = H::State;

    fn on_start(&mut self, connections: &mut Connections<H::State>) {
        self.handler.on_start(connections);
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, H::State>, origin: Origin) {
        self.journal.note(self.reactor, ctx.key(), What::Open(origin));
        self.handler.on_open(ctx, origin);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, H::State>, data: Lease) {
        assert!(!data.is_empty(), "data without a byte");
        self.handler.on_data(ctx, data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, H::State>) {
        self.journal.note(self.reactor, ctx.key(), What::Eof);
        self.handler.on_eof(ctx);
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, H::State>) {
        self.journal.note(self.reactor, ctx.key(), What::Writable);
        self.handler.on_writable(ctx);
    }

    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, H::State>) {
        self.journal.note(self.reactor, ctx.key(), What::KeepAlive);
        self.handler.on_keep_alive(ctx);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, H::State>, reason: CloseReason) {
        self.journal.note(self.reactor, ctx.key(), What::Close(reason));
        self.handler.on_close(ctx, reason);
    }
}

/// Sends every byte back.
#[derive(Debug)]
pub(crate) struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A runtime with one reactor and one listener, whose drain is short. Reactors of tests that run side by
/// side stand on different cores.
pub(crate) fn one_reactor() -> Builder {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cores = cores();
    let core = cores[NEXT.fetch_add(1, Ordering::Relaxed) % cores.len()];
    small(Runtime::builder().cores([core]))
}

/// The same with two reactors, on one core if there is only one.
pub(crate) fn two_reactors() -> Builder {
    let cores = cores();
    small(Runtime::builder().cores([cores[0], cores[1 % cores.len()]]))
}

fn small(builder: Builder) -> Builder {
    builder.listen(loopback()).max_connections(1024).drain_deadline(Duration::from_secs(2))
}

/// A running server, its journal, and its end.
#[derive(Debug)]
pub(crate) struct Server {
    running: Option<Running>,
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
    pub(crate) journal: Journal,
}

impl Server {
    #[track_caller]
    pub(crate) fn start<H: Handler + 'static>(
        builder: Builder,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(builder, Journal::new(), make)
    }

    /// With a journal that the handlers know too.
    #[track_caller]
    pub(crate) fn start_with<H: Handler + 'static>(
        builder: Builder,
        journal: Journal,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Self {
        let log = journal.clone();
        let make = move |reactor| Logged { handler: make(reactor), journal: log.clone(), reactor };
        let running = builder.start(make).expect("the server starts");
        let address = running.addresses().first().copied().unwrap_or_else(loopback);
        Self { handle: running.handle(), address, running: Some(running), journal }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs until it is finished")
    }

    /// The counters of all reactors, summed, as of now or shortly before.
    pub(crate) fn counters(&self) -> Counters {
        sum(&self.handle.counters())
    }

    /// Waits until so many clients were accepted and all connections are over.
    #[track_caller]
    pub(crate) fn wait_until_over(&self, clients: u64) {
        let asked_at: Vec<u64> = self.handle.counters().iter().map(|one| one.turns).collect();
        eventually("all connections are over", || {
            let all = self.handle.counters();
            // A report from before the question tells nothing.
            let fresh = all.iter().zip(&asked_at).all(|(one, before)| one.turns > *before);
            let sum = sum(&all);
            fresh && sum.accepted >= clients && sum.accepted + sum.dialed == sum.closed
        });
    }

    /// Waits for the end of a drain that somebody ordered; what was counted.
    #[track_caller]
    pub(crate) fn join(mut self) -> Counters {
        let running = self.running.take().expect("it runs until it is finished");
        let counters = sum(&running.join().expect("no reactor fails"));
        assert_eq!(counters.accepted + counters.dialed, counters.closed, "a connection is lost");
        self.journal.assert_whole();
        counters
    }

    /// Drains it and waits; what was counted.
    #[track_caller]
    pub(crate) fn finish(self) -> Counters {
        self.handle.drain();
        self.join()
    }
}

impl Drop for Server {
    /// A failed test leaves no reactor behind that would disturb the next.
    fn drop(&mut self) {
        self.handle.abort();
    }
}

pub(crate) fn sum(counters: &[Counters]) -> Counters {
    let mut sum = Counters::default();
    for one in counters {
        sum.accepted += one.accepted;
        sum.dialed += one.dialed;
        sum.closed += one.closed;
        sum.bytes_received += one.bytes_received;
        sum.bytes_sent += one.bytes_sent;
        sum.stale_completions += one.stale_completions;
        sum.receives_parked += one.receives_parked;
        sum.completions_deferred += one.completions_deferred;
        sum.sends_blocked += one.sends_blocked;
        sum.buffers_spilled += one.buffers_spilled;
        sum.zero_copy_sends += one.zero_copy_sends;
        sum.zero_copy_copied += one.zero_copy_copied;
        sum.accept_errors += one.accept_errors;
        sum.accept_pauses += one.accept_pauses;
        sum.handler_panics += one.handler_panics;
        sum.drain_aborted += one.drain_aborted;
        sum.turns += one.turns;
    }
    sum
}
