//! A busy echo's reactor makes one system call: `io_uring_enter`.
//!
//! Watched with ptrace itself, so that the test needs no tool beside the kernel.
#![expect(clippy::disallowed_methods, reason = "clients are threads")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const CLIENTS: usize = 8;
/// System calls looked at.
const WATCHED: usize = 2000;

/// The binary, ended with its test.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The thread of the child's one reactor.
fn reactor_thread(child: &Child) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("its threads");
    for task in tasks {
        let path = task.expect("a thread").path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.starts_with("slipring-") {
            let id = path.file_name().expect("a number").to_string_lossy().parse();
            return Pid::from_raw(id.expect("a number"));
        }
    }
    panic!("no reactor thread in the child");
}

/// Sends and awaits, until told to stop; counts the round trips of the warm-up.
fn ping(address: &str, stop: &AtomicBool, warm: &std::sync::Barrier) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let mut back = [0; 64];
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if round == 500 {
            warm.wait();
        }
        stream.write_all(&[7; 64]).expect("send");
        stream.read_exact(&mut back).expect("receive");
    }
}

/// Waits for the next stop of the thread; whether that is at a system call.
fn await_stop(thread: Pid) -> bool {
    match waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it is traced") {
        WaitStatus::PtraceSyscall(_) => true,
        WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => false,
        status => panic!("the reactor ended: {status:?}"),
    }
}

/// The number of the system call that the thread has stopped at.
fn number(process: u32, thread: Pid) -> u64 {
    let line = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall"));
    let line = line.expect("who traces it may ask");
    let number = line.split_whitespace().next().and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no system call: {line:?}"))
}

#[test]
fn a_busy_reactor_only_enters_its_ring() {
    let echo = Command::new(env!("CARGO_BIN_EXE_echo"))
        .args(["--listen", "127.0.0.1:0", "--cores", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut echo = Echo(echo);
    let mut line = String::new();
    let stdout = echo.0.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let Some(address) = line.trim().strip_prefix("listening on ").map(str::to_owned) else {
        let mut said = String::new();
        let _ = echo.0.stderr.take().expect("piped").read_to_string(&mut said);
        panic!("no listener: {line:?}, and on stderr: {said}");
    };

    let stop = Arc::new(AtomicBool::new(false));
    let warm = Arc::new(std::sync::Barrier::new(CLIENTS + 1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, stop, warm) = (address.clone(), Arc::clone(&stop), Arc::clone(&warm));
            std::thread::spawn(move || ping(&address, &stop, &warm))
        })
        .collect();
    warm.wait();

    let thread = reactor_thread(&echo.0);
    ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).expect("a child may be traced");
    ptrace::interrupt(thread).expect("it is traced");
    await_stop(thread);
    let mut calls = BTreeMap::new();
    let mut stops = 0;
    while calls.values().sum::<usize>() < WATCHED {
        ptrace::syscall(thread, None).expect("it has stopped");
        if await_stop(thread) {
            stops += 1;
            // It stops at the entry of each and at its end.
            if stops % 2 == 1 {
                *calls.entry(number(echo.0.id(), thread)).or_insert(0) += 1;
            }
        }
    }
    ptrace::detach(thread, None).expect("it has stopped");

    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("every byte came back");
    }
    let only = BTreeMap::from([(libc::SYS_io_uring_enter as u64, WATCHED)]);
    assert_eq!(calls, only, "system calls of the reactor, by number");
}
