//! Limits hold exactly and cost nobody who is in: clients beyond the cap wait in the kernel's backlog and are
//! served as others leave; without descriptors accepting pauses, quietly, and goes on when there are some.

mod support;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use slipring::{
    Builder, CloseReason, Ctx, Handler, Lease, Limits, Listen, OnFull, Origin, Placement,
};
use support::{
    Echo, Rng, Server, bounded, connect, eventually, expect_eof, expect_reset, hears_within, ms,
    now, one_reactor, ping, read_bytes, try_connect, two_reactors,
};

/// Greets every client, echoes, and knows how many there are and ever were at once.
struct Greets {
    open: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
}

impl Handler for Greets {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _origin: Origin) {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
        ctx.send("!");
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }

    fn on_close(&mut self, _ctx: &mut Ctx<'_, ()>, _reason: CloseReason) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn greeting(builder: Builder) -> (Server, Arc<AtomicU32>) {
    let open = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&most);
    let make = move |_| Greets { open: Arc::clone(&open), most: Arc::clone(&seen) };
    (Server::start(builder, make), most)
}

fn greeted(clients: &[TcpStream]) -> Vec<usize> {
    let hears = |client: &TcpStream| {
        client.set_nonblocking(true).expect("an open socket");
        let heard = client.peek(&mut [0]).is_ok_and(|bytes| bytes == 1);
        client.set_nonblocking(false).expect("an open socket");
        heard
    };
    (0..clients.len()).filter(|&n| hears(&clients[n])).collect()
}

fn beyond_the_cap_clients_wait(builder: Builder) {
    let (server, most) = greeting(builder.max_connections(3));
    let mut clients: Vec<_> = (0..10).map(|_| connect(server.address)).collect();
    while !clients.is_empty() {
        let due = clients.len().min(3);
        eventually("as many are served as may be", || greeted(&clients).len() >= due);
        // Nobody else for a while: a wait on one that is not served.
        let served = greeted(&clients);
        if let Some(waiting) = (0..clients.len()).find(|n| !served.contains(n)) {
            assert!(!hears_within(&clients[waiting], ms(30)), "one more than may be was served");
        }
        assert_eq!(greeted(&clients).len(), due);
        let client = clients.swap_remove(served[0]);
        assert_eq!(read_bytes(&client, 1), b"!");
        ping(&client, b"served");
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    server.wait_until_over(10);
    assert_eq!(server.finish().accepted, 10);
}

#[test]
fn clients_beyond_the_cap_wait_in_the_backlog() {
    bounded(|| beyond_the_cap_clients_wait(one_reactor()));
}

#[test]
fn clients_beyond_the_cap_of_two_reactors_wait_in_the_backlog() {
    bounded(|| beyond_the_cap_clients_wait(two_reactors()));
}

#[test]
fn a_listener_at_its_cap_keeps_nobody_from_another() {
    bounded(|| {
        for builder in [one_reactor(), two_reactors()] {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let builder =
                builder.max_connections(5).listen_with(any, Listen::new().max_connections(2));
            let (server, most) = greeting(builder);
            let capped = server.running().addresses()[1];
            let mut clients: Vec<_> = (0..4).map(|_| connect(capped)).collect();
            eventually("as many are served as may be", || greeted(&clients).len() == 2);
            // Three places are left, and nobody of those that wait may have one.
            let others: Vec<_> = (0..3).map(|_| connect(server.address)).collect();
            others.iter().for_each(|other| assert_eq!(read_bytes(other, 1), b"!"));
            assert_eq!(greeted(&clients).len(), 2);
            let waiting = connect(server.address);
            assert!(!hears_within(&waiting, ms(30)), "one more than the process may hold");
            // One of the capped leaves: the place at its listener and that of the process are two things.
            clients.remove(greeted(&clients)[0]);
            eventually("one of them is served", || {
                greeted(&clients).len() == 2 || !greeted(std::slice::from_ref(&waiting)).is_empty()
            });
            drop(others);
            eventually("and then the other", || {
                greeted(&clients).len() == 2 && !greeted(std::slice::from_ref(&waiting)).is_empty()
            });
            assert_eq!(greeted(&clients).len(), 2, "one more than the listener may hold");
            assert!(most.load(Ordering::SeqCst) <= 5);
            drop((clients, waiting));
            server.wait_until_over(8);
            assert_eq!(server.finish().accepted, 8);
        }
    });
}

fn on_full(builder: Builder, on_full: OnFull) -> (Server, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let builder = builder.listen_with(any, Listen::new().max_connections(2).on_full(on_full));
    let (server, _) = greeting(builder);
    let address = server.running().addresses()[1];
    (server, address)
}

#[test]
fn who_finds_no_place_is_reset_if_the_listener_refuses() {
    bounded(|| {
        for builder in [one_reactor(), two_reactors()] {
            let (server, address) = on_full(builder, OnFull::Reject);
            let mut clients: Vec<_> = (0..2).map(|_| connect(address)).collect();
            clients.iter().for_each(|client| assert_eq!(read_bytes(client, 1), b"!"));
            for _ in 0..50 {
                // The reset may come before the connect returns.
                if let Ok(refused) = try_connect(address) {
                    assert_eq!(expect_reset(&refused), 0, "greeted, and then reset");
                }
            }
            eventually("each was counted", || server.counters().refused_full == 50);
            clients.iter().for_each(|client| ping(client, b"still here"));
            // A place that comes back is had by the next.
            drop(clients.pop());
            eventually("it is over", || server.counters().closed == 1);
            let next = connect(address);
            assert_eq!(read_bytes(&next, 1), b"!");
            drop((clients, next));
            server.wait_until_over(3);
            let counters = server.finish();
            assert_eq!((counters.accepted, counters.refused_full), (3, 50));
        }
    });
}

#[test]
fn who_is_idle_for_longest_makes_room_if_the_listener_evicts() {
    bounded(|| {
        let (server, address) = on_full(one_reactor(), OnFull::EvictIdle);
        let idle = connect(address);
        assert_eq!(read_bytes(&idle, 1), b"!");
        let busy = connect(address);
        assert_eq!(read_bytes(&busy, 1), b"!");
        let waiting = connect(address);
        // Nobody has been idle for a second yet.
        assert!(!hears_within(&waiting, ms(300)), "somebody was ended who had just come");
        ping(&busy, b"still here");
        expect_eof(&idle);
        drop(idle);
        ping_greeted(&waiting);
        ping(&busy, b"still here");
        drop((busy, waiting));
        server.wait_until_over(3);
        let counters = server.finish();
        assert_eq!((counters.accepted, counters.evicted, counters.refused_full), (3, 1, 0));
    });
}

#[test]
fn who_is_idle_makes_room_on_whichever_reactor() {
    bounded(|| {
        // The kernel's choice stays, for some to wait at a reactor that has nobody.
        let (server, address) =
            on_full(two_reactors().placement(Placement::Kernel), OnFull::EvictIdle);
        let mut inside = VecDeque::from([connect(address), connect(address)]);
        inside.iter().for_each(|client| assert_eq!(read_bytes(client, 1), b"!"));
        for _ in 0..5 {
            let waiting = connect(address);
            ping_greeted(&waiting);
            inside.push_back(waiting);
            // One has made room; which one, its reactor has chosen.
            let gone = inside.iter().position(|client| hears_within(client, ms(50)));
            let gone = inside.remove(gone.expect("somebody was ended")).expect("just found");
            expect_eof(&gone);
        }
        drop(inside);
        server.wait_until_over(7);
        let counters = server.finish();
        assert_eq!((counters.accepted, counters.evicted, counters.refused_full), (7, 5, 0));
    });
}

fn ping_greeted(client: &TcpStream) {
    assert_eq!(read_bytes(client, 1), b"!");
    ping(client, b"hello");
}

/// So many client threads come and go, each with one connection at a time, and stay a random moment.
fn churn(builder: Builder, cap: u32, threads: u64, rounds: u64) {
    let (server, most) = greeting(builder);
    let address = server.address;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                for _ in 0..rounds {
                    let mut client = connect(address);
                    // First, so that the kernel notices when it dropped the connection from a full backlog.
                    client.write_all(b"served").expect("the kernel takes it");
                    assert_eq!(read_bytes(&client, 7), b"!served");
                    assert!(!hears_within(&client, ms(rng.up_to(4) as u64)), "a byte too many");
                }
            });
        }
    });
    let most = most.load(Ordering::SeqCst);
    assert!(most <= cap, "{most} at once, {cap} may be");
    assert!(most > cap / 2, "never more than {most} of {cap} at once: nothing was tested");
    server.wait_until_over(threads * rounds);
    assert_eq!(server.finish().accepted, threads * rounds);
}

#[test]
fn the_cap_is_never_passed_under_churn() {
    bounded(|| {
        churn(one_reactor().max_connections(8), 8, 24, 40);
        churn(two_reactors().max_connections(8), 8, 24, 40);
        churn(two_reactors().max_connections(1), 1, 6, 30);
    });
}

#[test]
fn a_hundred_at_once_of_five_thousand() {
    bounded(|| {
        for placement in [Placement::LeastLoaded, Placement::Kernel] {
            churn(two_reactors().max_connections(100).placement(placement), 100, 200, 25);
        }
    });
}

/// With a short backlog there is room for multishot accepts, which take clients in without asking.
#[test]
fn the_cap_is_never_passed_by_multishot_accepts() {
    bounded(|| {
        let limits = Limits { accepted_max: 64, backlog: 40, ..Limits::default() };
        churn(one_reactor().limits(limits), 64, 76, 20);
    });
}

#[test]
fn the_cap_is_never_passed_by_multishot_accepts_of_two_reactors() {
    bounded(|| {
        let limits = Limits { accepted_max: 64, backlog: 40, ..Limits::default() };
        churn(two_reactors().limits(limits), 64, 76, 20);
    });
}

/// A place that comes back is given to a client of whichever reactor has one waiting.
#[test]
fn a_place_moves_between_reactors() {
    bounded(|| {
        let (server, _) = greeting(two_reactors().max_connections(1));
        for _ in 0..40 {
            let holder = connect(server.address);
            assert_eq!(read_bytes(&holder, 1), b"!");
            let next = connect(server.address);
            assert!(greeted(std::slice::from_ref(&next)).is_empty());
            drop(holder);
            assert_eq!(read_bytes(&next, 1), b"!");
            drop(next);
        }
        let reactors: std::collections::BTreeSet<usize> =
            server.journal.entries().iter().map(|entry| entry.reactor).collect();
        assert_eq!(reactors.len(), 2, "the kernel gave all clients to one of them");
        server.wait_until_over(80);
        server.finish();
    });
}

#[test]
fn a_client_that_left_the_backlog_harms_nobody() {
    bounded(|| {
        let (server, most) = greeting(one_reactor().max_connections(1));
        let holder = connect(server.address);
        assert_eq!(read_bytes(&holder, 1), b"!");
        for n in 0..20 {
            let waiting = connect(server.address);
            if n % 2 == 0 {
                support::reset(waiting);
            }
        }
        let patient = connect(server.address);
        drop(holder);
        assert_eq!(read_bytes(&patient, 1), b"!");
        ping(&patient, b"served");
        assert_eq!(most.load(Ordering::SeqCst), 1);
        drop(patient);
        server.finish();
    });
}

// ------------------------------------------------------------------------------------------- EMFILE

/// Descriptors the child may have: enough for what the runtime says it needs, not for what is opened then.
const DESCRIPTORS: &str = "160";

/// Runs the test below in a process of its own, with few descriptors.
#[test]
fn without_descriptors_accepting_pauses_and_resumes() {
    bounded(|| {
        let program = std::env::current_exe().expect("procfs");
        let limit = format!("ulimit -Sn {DESCRIPTORS} && ulimit -Hn {DESCRIPTORS} && exec \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &limit, "sh"])
            .arg(program)
            .args(["--ignored", "--exact", "in_a_child_out_of_descriptors", "--nocapture"])
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("1 passed"), "the child tested nothing: {text}");
    });
}

/// Time the reactor's thread has been on a core, from a file that is open already.
fn busy(schedstat: &mut File) -> Duration {
    let mut text = [0; 100];
    schedstat.seek(SeekFrom::Start(0)).expect("procfs");
    let bytes = schedstat.read(&mut text).expect("procfs");
    let text = str::from_utf8(&text[..bytes]).expect("digits");
    let nanoseconds = text.split(' ').next().and_then(|digits| digits.parse().ok());
    Duration::from_nanos(nanoseconds.expect("schedstat starts with a number"))
}

fn open_schedstat(thread: &str) -> File {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let task = tasks
        .map(|task| task.expect("procfs").path())
        .find(|task| std::fs::read_to_string(task.join("comm")).expect("procfs").trim() == thread)
        .expect("the reactor's thread");
    File::open(task.join("schedstat")).expect("procfs")
}

fn prepared_sockets(count: usize) -> Vec<socket2::Socket> {
    use socket2::{Domain, Socket, Type};
    (0..count).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")).collect()
}

fn connect_prepared(sockets: Vec<socket2::Socket>, address: SocketAddr) -> Vec<TcpStream> {
    sockets
        .into_iter()
        .map(|socket| {
            socket.connect(&address.into()).expect("the backlog takes it");
            socket.set_read_timeout(Some(support::PATIENCE)).expect("an open socket");
            TcpStream::from(socket)
        })
        .collect()
}

#[test]
#[ignore = "takes all descriptors of its process: without_descriptors_accepting_pauses_and_resumes runs it"]
fn in_a_child_out_of_descriptors() {
    bounded(|| {
        let server = Server::start(one_reactor().max_connections(64), |_| Echo);
        let established = connect(server.address);
        ping(&established, b"before");
        let mut schedstat = open_schedstat("slipring-0");
        let sockets = prepared_sockets(5);
        let mut hoard = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        assert!(!hoard.is_empty());
        let clients = connect_prepared(sockets, server.address);
        for mut client in &clients {
            client.write_all(b"here").expect("the kernel takes it");
        }
        eventually("accepting pauses", || server.counters().accept_pauses > 0);

        // Established connections notice nothing, and nobody burns a core over it.
        let (busy_before, started) = (busy(&mut schedstat), now());
        for _ in 0..10 {
            ping(&established, b"meanwhile");
            assert!(!hears_within(&clients[0], ms(100)), "accepted without a descriptor");
        }
        let share =
            (busy(&mut schedstat) - busy_before).as_secs_f64() / started.elapsed().as_secs_f64();
        assert!(share < 0.05, "the reactor uses {:.1} % of a core", share * 100.0);
        assert!(server.counters().accept_pauses < 100, "it asks too often");

        // One place comes back, by a file of the process: one client is served, after the pause at most.
        drop(hoard);
        for client in &clients {
            assert_eq!(read_bytes(client, 4), b"here");
        }

        // And one by the end of one of its own connections: at once.
        let sockets = prepared_sockets(1);
        let mut hoard = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        let pauses = server.counters().accept_pauses;
        let next = connect_prepared(sockets, server.address);
        eventually("accepting pauses again", || server.counters().accept_pauses > pauses);
        established.shutdown(std::net::Shutdown::Write).expect("an open socket");
        expect_eof(&established);
        (&next[0]).write_all(b"next").expect("the kernel takes it");
        assert_eq!(read_bytes(&next[0], 4), b"next");
        drop((hoard, next, clients));
        server.finish();
    });
}
