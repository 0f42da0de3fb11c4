//! A name server of a few lines: by UDP and TCP, with what each test puts into it.
//!
//! A name that is not known is NXDOMAIN; a known one without records of a kind that was asked for is NODATA, unless it
//! was never mentioned with that kind: then it is NXDOMAIN, as some servers have it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::support;

pub(crate) const A: u16 = 1;
const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;
pub(crate) const SRV: u16 = 33;

pub(crate) const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
pub(crate) const REFUSED: u8 = 5;

/// One record of an answer.
#[derive(Clone)]
pub(crate) struct Record {
    /// Whose it is, if not that of the question.
    owner: Option<String>,
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

fn record(kind: u16, ttl: u32, data: Vec<u8>) -> Record {
    Record { owner: None, kind, ttl, data }
}

pub(crate) fn a(address: [u8; 4], ttl: u32) -> Record {
    record(A, ttl, address.to_vec())
}

pub(crate) fn aaaa(address: &str, ttl: u32) -> Record {
    let address: Ipv6Addr = address.parse().expect("an address");
    record(AAAA, ttl, address.octets().to_vec())
}

pub(crate) fn cname(to: &str, ttl: u32) -> Record {
    record(CNAME, ttl, name(to))
}

pub(crate) fn srv(priority: u16, weight: u16, port: u16, host: &str, ttl: u32) -> Record {
    let mut data: Vec<u8> =
        [priority, weight, port].into_iter().flat_map(u16::to_be_bytes).collect();
    data.extend(name(host));
    record(SRV, ttl, data)
}

/// Of another name.
pub(crate) fn at(owner: &str, record: Record) -> Record {
    Record { owner: Some(owner.to_owned()), ..record }
}

/// As it stands in a message. The empty one is the root.
fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[derive(Clone)]
enum Saying {
    Records(Vec<Record>),
    Code(u8),
    Silence,
}

#[derive(Clone)]
struct Entry {
    saying: Saying,
    late: Duration,
    /// By UDP it says that the answer does not fit.
    is_truncated: bool,
    /// So many questions are lost first.
    lost: u32,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<(String, u16), Entry>,
    questions: Vec<(String, u16)>,
}

struct Shared {
    state: Mutex<State>,
    is_over: AtomicBool,
}

impl Shared {
    fn with<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        call(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Answers on a port of loopback, until it is dropped.
pub(crate) struct NameServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        // The same port for both.
        let (socket, listener) = loop {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
            let address = socket.local_addr().expect("bound");
            if let Ok(listener) = TcpListener::bind(address) {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().expect("bound");
        let shared = Arc::new(Shared { state: Mutex::default(), is_over: AtomicBool::new(false) });
        let of_udp = Arc::clone(&shared);
        support::spawn(move || serve_udp(&of_udp, socket));
        let of_tcp = Arc::clone(&shared);
        support::spawn(move || serve_tcp(&of_tcp, &listener));
        Self { shared, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn say(&self, name: &str, kind: u16, records: impl IntoIterator<Item = Record>) {
        self.say_late(name, kind, Duration::ZERO, records);
    }

    pub(crate) fn say_late(
        &self,
        name: &str,
        kind: u16,
        late: Duration,
        records: impl IntoIterator<Item = Record>,
    ) {
        self.set(name, kind, Saying::Records(records.into_iter().collect()), late);
    }

    pub(crate) fn fail(&self, name: &str, kind: u16, code: u8) {
        self.set(name, kind, Saying::Code(code), Duration::ZERO);
    }

    pub(crate) fn silent(&self, name: &str, kind: u16) {
        self.set(name, kind, Saying::Silence, Duration::ZERO);
    }

    pub(crate) fn truncate(&self, name: &str, kind: u16) {
        self.shared.with(|state| {
            let entry = state.entries.get_mut(&(name.to_owned(), kind));
            entry.expect("it is said").is_truncated = true;
        });
    }

    pub(crate) fn lose(&self, name: &str, kind: u16, lost: u32) {
        self.shared.with(|state| {
            let entry = state.entries.get_mut(&(name.to_owned(), kind));
            entry.expect("it is said").lost = lost;
        });
    }

    pub(crate) fn forget(&self, name: &str) {
        self.shared.with(|state| state.entries.retain(|(known, _), _| known != name));
    }

    fn set(&self, name: &str, kind: u16, saying: Saying, late: Duration) {
        let entry = Entry { saying, late, is_truncated: false, lost: 0 };
        self.shared.with(|state| state.entries.insert((name.to_owned(), kind), entry));
    }

    /// How often it was asked for this.
    pub(crate) fn asked(&self, name: &str, kind: u16) -> usize {
        self.shared.with(|state| {
            let is_it = |(asked, of): &&(String, u16)| asked == name && *of == kind;
            state.questions.iter().filter(is_it).count()
        })
    }

    pub(crate) fn questions(&self) -> usize {
        self.shared.with(|state| state.questions.len())
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Both wake and see it.
        if let Ok(socket) = UdpSocket::bind(("127.0.0.1", 0)) {
            let _ = socket.send_to(&[0], self.address);
        }
        let _ = TcpStream::connect(self.address);
    }
}

fn serve_udp(shared: &Arc<Shared>, socket: UdpSocket) {
    let mut bytes = [0; 4096];
    let socket = Arc::new(socket);
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        let Some((answer, late)) = answer(shared, &bytes[..length], true) else { continue };
        if late.is_zero() {
            let _ = socket.send_to(&answer, from);
            continue;
        }
        let socket = Arc::clone(&socket);
        support::spawn(move || {
            let until = support::now() + late;
            while support::now() < until {
                std::thread::park_timeout(until.saturating_duration_since(support::now()));
            }
            let _ = socket.send_to(&answer, from);
        });
    }
}

fn serve_tcp(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming() {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        let shared = Arc::clone(shared);
        support::spawn(move || {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut question).is_err() {
                    return;
                }
                let Some((answer, _)) = answer(&shared, &question, false) else { continue };
                let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
                framed.extend(answer);
                if stream.write_all(&framed).is_err() {
                    return;
                }
            }
        });
    }
}

/// The answer to one message, and how late it is; `None` is silence.
fn answer(shared: &Shared, question: &[u8], is_udp: bool) -> Option<(Vec<u8>, Duration)> {
    // Header, name, type, class.
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let asked = labels.join(".");
    let kind = u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?);
    let end = at + 4;
    let entry = shared.with(|state| {
        state.questions.push((asked.clone(), kind));
        let entry = state.entries.get_mut(&(asked.clone(), kind))?;
        let now = entry.clone();
        entry.lost = entry.lost.saturating_sub(1);
        Some(now)
    });
    let entry = entry.unwrap_or(Entry {
        saying: Saying::Code(NXDOMAIN),
        late: Duration::ZERO,
        is_truncated: false,
        lost: 0,
    });
    if entry.lost > 0 {
        return None;
    }
    let is_truncated = is_udp && entry.is_truncated;
    let (code, records) = match entry.saying {
        Saying::Silence => return None,
        Saying::Code(code) => (code, Vec::new()),
        Saying::Records(_) if is_truncated => (0, Vec::new()),
        Saying::Records(records) => (0, records),
    };
    let mut bytes = question[..2].to_vec();
    // An answer, recursion desired and available; one question, so many answers.
    bytes.extend([0x81 | u8::from(is_truncated) << 1, 0x80 | code, 0, 1]);
    bytes.extend((records.len() as u16).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&question[12..end]);
    for record in records {
        match record.owner {
            Some(owner) => bytes.extend(name(&owner)),
            // That of the question.
            None => bytes.extend([0xc0, 12]),
        }
        bytes.extend(record.kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(record.ttl.to_be_bytes());
        bytes.extend((record.data.len() as u16).to_be_bytes());
        bytes.extend(record.data);
    }
    Some((bytes, entry.late))
}
