//! No server: what tokio-util's `DelayQueue` takes to disarm and arm a timer with a million armed.
//!
//! Prints one line, nanoseconds of one `remove` and `insert_at` together: the median of `ROUNDS` walks
//! over all timers in order, with the deadlines of the P6 bench. `insert_at` is used and not `insert`, which
//! would read the clock each time.

use std::io::{self, Write as _};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::time::DelayQueue;

const TIMERS: u32 = 1 << 20;
const ROUNDS: usize = 15;

/// As in the P6 bench: from one second to a minute, in no order.
fn deadline_ms(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    1_000 + (*random >> 32) % 59_000
}

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let _guard = runtime.enter();
    let mut random = 0x2545_F491_4F6C_DD1D;
    let mut queue = DelayQueue::with_capacity(TIMERS as usize);
    let start = Instant::now();
    let mut arm = |queue: &mut DelayQueue<u32>, timer: u32| {
        queue.insert_at(timer, start + Duration::from_millis(deadline_ms(&mut random)))
    };
    let mut keys: Vec<_> = (0..TIMERS).map(|timer| arm(&mut queue, timer)).collect();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let before = Instant::now();
            for (timer, key) in keys.iter_mut().enumerate() {
                queue.remove(key);
                *key = arm(&mut queue, timer as u32);
            }
            before.elapsed().as_nanos() as f64 / f64::from(TIMERS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    assert_eq!(queue.len(), TIMERS as usize);
    writeln!(io::stdout(), "{:.1}", rounds[ROUNDS / 2])
}
