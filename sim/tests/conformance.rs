//! All scripts on both arms: the outcome of this machine's kernel is among those of the simulation.
//!
//! One test, since what the scripts do to the process's limits concerns every thread of it.

use slipring_core::sys::probe;
use slipring_sim::conformance;

#[test]
fn the_real_outcome_is_allowed() {
    let features = probe().expect("io_uring can be used here");
    let mut unforeseen = Vec::new();
    for case in conformance::cases() {
        let outcome = match conformance::real(&case, &features) {
            Ok(outcome) => outcome,
            Err(reason) => {
                unforeseen.push(format!("{}: could not run: {reason}", case.name));
                continue;
            }
        };
        let allowed = conformance::allowed(&case);
        if !allowed.contains(&outcome) {
            let calm = conformance::calm(&case);
            unforeseen.push(format!("{}:\n  real {outcome:#?}\n  calm {calm:#?}", case.name));
        }
    }
    assert!(unforeseen.is_empty(), "\n{}\n", unforeseen.join("\n"));
}
