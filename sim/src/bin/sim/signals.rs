//! Signals that end the program, and what has to be done before.
//!
//! A run of many seeds: the first signal stops it, so that what it found is told; the second ends it at once.
//! A build with canaries, made and run by cargo: compilers end with the program that wanted them. They are a
//! process group of their own, since cargo does not end its children, and a script's signal reaches one
//! process only.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

/// Set by the first SIGINT or SIGTERM from now on.
///
/// # Errors
/// If they cannot be caught.
pub(crate) fn stop_on_signal() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second of them finds what the first has set.
        flag::register_conditional_default(signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Runs a program to its end. It and all that it starts end with this one, if a signal ends this one.
///
/// # Errors
/// If it cannot be started, or signals not be caught.
pub(crate) fn run_group(command: &mut Command) -> io::Result<ExitStatus> {
    // First, so that no signal falls between the start of the program and its watcher.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let mut child = command.process_group(0).spawn()?;
    let group = Pid::from_child(&child);
    let watch = signals.handle();
    let watcher = thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // If it fails nobody is left.
            let _ = kill_process_group(group, Signal::TERM);
            let _ = low_level::emulate_default_handler(signal);
        }
    });
    let status = child.wait();
    watch.close();
    if let Ok(watcher) = watcher {
        // It ends when its handle is closed, or ends the program.
        let _ = watcher.join();
    }
    status
}
