//! Where io_uring is forbidden, as in a container with a default seccomp profile, the binaries say so at once,
//! in one line that names the cause and the remedy.

mod support;

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use support::refusal;

/// Answers `io_uring_setup` with an errno, and lets everything else through.
fn forbidding_io_uring(errno: i32) -> BpfProgram {
    let number = libc::SYS_io_uring_setup;
    let filter = SeccompFilter::new(
        BTreeMap::from([(number, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        ARCH.try_into().expect("one that filters are made for"),
    );
    filter.and_then(TryInto::try_into).expect("a sound filter")
}

fn refused_with(errno: i32) {
    let proxy = [env!("CARGO_BIN_EXE_proxy"), "--to", "127.0.0.1:9"];
    for line in [&[env!("CARGO_BIN_EXE_echo")][..], &proxy[..]] {
        let said = std::thread::scope(|scope| {
            // A filter is for good: on a thread that ends, and on whatever it starts.
            let starter = scope.spawn(|| {
                seccompiler::apply_filter(&forbidding_io_uring(errno)).expect("applied");
                let mut command = Command::new(line[0]);
                refusal(command.args(&line[1..]).args(["--listen", "127.0.0.1:0"]))
            });
            starter.join().expect("it is refused")
        });
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
