//! A busy echo's reactor makes one system call: `io_uring_enter`.
//!
//! Watched with ptrace itself, so that the test needs no tool beside the kernel.
#![expect(unsafe_code, reason = "ptrace has no safe form; each block is one call")]
#![expect(clippy::disallowed_methods, reason = "clients are threads")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
fn reactor_thread(child: &Child) -> libc::pid_t {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("its threads");
    for task in tasks {
        let path = task.expect("a thread").path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.starts_with("slipring-") {
            let id = path.file_name().expect("a number").to_string_lossy().parse();
            return id.expect("a number");
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

fn request(what: libc::c_uint, thread: libc::pid_t, data: usize) {
    // SAFETY: none of the requests made here reads or writes our memory.
    let done = unsafe { libc::ptrace(what, thread, 0, data) };
    assert!(done >= 0, "ptrace {what:#x}: {}", std::io::Error::last_os_error());
}

/// Waits for the next stop of the thread.
fn await_stop(thread: libc::pid_t) {
    let mut status = 0;
    // SAFETY: the status is a live integer.
    let stopped = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    assert_eq!(stopped, thread, "waitpid: {}", std::io::Error::last_os_error());
    assert!(libc::WIFSTOPPED(status), "the reactor ended: {status:#x}");
}

/// The number of the system call that the thread stopped at the entry of, if it is one.
fn entered(thread: libc::pid_t) -> Option<u64> {
    // SAFETY: plain integers, for which zero is a value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the size given to a live structure.
    let written = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            thread,
            size_of::<libc::ptrace_syscall_info>(),
            &raw mut info,
        )
    };
    assert!(written > 0, "ptrace info: {}", std::io::Error::last_os_error());
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that this member of the union is the one written.
    Some(unsafe { info.u.entry }.nr)
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
    request(libc::PTRACE_SEIZE, thread, libc::PTRACE_O_TRACESYSGOOD as usize);
    request(libc::PTRACE_INTERRUPT, thread, 0);
    await_stop(thread);
    let mut calls = BTreeMap::new();
    while calls.values().sum::<usize>() < WATCHED {
        request(libc::PTRACE_SYSCALL, thread, 0);
        await_stop(thread);
        if let Some(number) = entered(thread) {
            *calls.entry(number).or_insert(0) += 1;
        }
    }
    request(libc::PTRACE_DETACH, thread, 0);

    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("every byte came back");
    }
    let only = BTreeMap::from([(libc::SYS_io_uring_enter as u64, WATCHED)]);
    assert_eq!(calls, only, "system calls of the reactor, by number");
}
