//! Where io_uring is forbidden, as in a container with a default seccomp profile, the binaries say so at once,
//! in one line that names the cause and the remedy.
#![expect(unsafe_code, reason = "a seccomp filter is installed by two calls without a safe form")]

mod support;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use support::refusal;

/// Answers `io_uring_setup` with an errno, and lets everything else through.
fn forbid_io_uring(errno: u16) -> io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let number = libc::SYS_io_uring_setup as u32;
    let is_setup = libc::sock_filter {
        jf: 1,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number)
    };
    let mut filter = [
        // The first word of what a filter sees is the system call's number.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        is_setup,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | u32::from(errno)),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain integers; the call changes a flag of this process, a child about to exec.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program and the filter it points to live until the call returns; the kernel copies them.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }
        != 0
    {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn refused_with(errno: i32) {
    let proxy = [env!("CARGO_BIN_EXE_proxy"), "--to", "127.0.0.1:9"];
    for line in [&[env!("CARGO_BIN_EXE_echo")][..], &proxy[..]] {
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).args(["--listen", "127.0.0.1:0"]);
        let forbid = move || forbid_io_uring(errno as u16);
        // SAFETY: between fork and exec it makes two system calls and allocates nothing.
        unsafe { command.pre_exec(forbid) };
        let said = refusal(&mut command);
        for word in ["io_uring is forbidden", "seccomp", "allow io_uring_setup", "unconfined"] {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
    }
}

#[test]
fn by_a_profile_that_answers_eperm() {
    refused_with(libc::EPERM);
}

#[test]
fn by_a_profile_that_answers_enosys() {
    refused_with(libc::ENOSYS);
}
