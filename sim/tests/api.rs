//! The public simulation, seen by somebody who tests a handler with it: one topic each.
//! `support/handlers.rs` has the handlers; what the protocol of a user looks like in it shows
//! `length_prefixed.rs`.

#[path = "api/addresses.rs"]
mod addresses;
#[path = "api/answers.rs"]
mod answers;
#[path = "api/conditions.rs"]
mod conditions;
#[path = "api/failures.rs"]
mod failures;
#[path = "api/handlers.rs"]
mod handlers;
#[path = "api/placement.rs"]
mod placement;
#[path = "api/scripts.rs"]
mod scripts;
#[path = "api/services.rs"]
mod services;
