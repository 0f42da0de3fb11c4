//! Limits of blocking work are those of the process: two runtimes share its threads. A file of its own, since they can
//! be set once.

mod support;

use std::sync::mpsc;

use slipring::{
    BlockingLimits, BlockingLimitsError, BlockingSnapshot, blocking_snapshot, set_blocking_limits,
    unblock,
};
use support::{PATIENCE, bounded, connect, echo, eventually, ms, one_reactor, ping, serve};

#[test]
fn two_runtimes_have_the_threads_of_the_process_which_end_when_idle() {
    bounded(|| {
        let default = BlockingLimits::default();
        assert_eq!(default.idle, std::time::Duration::from_secs(10));
        assert_eq!(default.threads_max, (4 * support::cores().len()).min(64));
        let limits = BlockingLimits { threads_max: 2, idle: ms(50) };
        set_blocking_limits(limits).expect("nothing has run yet");

        let runtimes = [serve(one_reactor(), echo), serve(one_reactor(), echo)];
        let (tell, told) = mpsc::channel();
        let work: Vec<_> = (0..6)
            .map(|n| {
                let (tell, (gate, at_gate)) = (tell.clone(), mpsc::channel::<()>());
                let result = runtimes[n % 2].spawner().spawn(move || {
                    unblock(move || {
                        tell.send(()).expect("the test waits");
                        at_gate.recv_timeout(PATIENCE).expect("let go");
                        n
                    })
                });
                (result, gate)
            })
            .collect();
        let full = BlockingSnapshot { threads: 2, idle: 0, waiting: 4 };
        eventually("four wait for two threads", || blocking_snapshot() == full);
        eventually("both have begun", || told.try_recv().is_ok());
        eventually("both have begun", || told.try_recv().is_ok());
        assert!(told.try_recv().is_err(), "and no third");
        for runtime in &runtimes {
            ping(&connect(runtime.addresses()[0]), b"meanwhile");
        }
        // In whichever order they came in.
        work.iter().for_each(|(_, gate)| gate.send(()).expect("it waits"));
        for (n, (result, _)) in work.into_iter().enumerate() {
            assert_eq!(result.join(), Ok(Ok(n)));
        }
        eventually("they have ended", || blocking_snapshot().threads == 0);
        assert_eq!(set_blocking_limits(default), Err(BlockingLimitsError::InUse));
        for runtime in runtimes {
            runtime.handle().drain();
            runtime.join().expect("a drain in order");
        }
    });
}
