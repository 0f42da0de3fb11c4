//! The TLS machine without a socket: against itself and against rustls' own record layer, cut in every way.
//!
//! One topic a file, in `tls/`. What needs a kernel stands in `tls_real.rs`.

#[path = "tls/attacks.rs"]
mod attacks;
#[path = "tls/pki.rs"]
mod pki;
#[path = "tls/resumption.rs"]
mod resumption;
#[path = "tls/setup.rs"]
mod setup;
#[path = "tls/strangers.rs"]
mod strangers;
#[path = "tls/streams.rs"]
mod streams;
#[path = "tls/trust.rs"]
mod trust;
#[path = "tls/world.rs"]
mod world;
