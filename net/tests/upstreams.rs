//! Upstreams on the real kernel, and all that they stand on: names, connectors, pools, faults on purpose.
//!
//! One binary for all of them: each one more is the library, its features and the runtime linked once more.

mod support;

#[path = "upstreams/connector.rs"]
mod connector;
#[path = "upstreams/faults.rs"]
mod faults;
#[path = "upstreams/named.rs"]
mod named;
#[path = "upstreams/pool.rs"]
mod pool;
#[path = "upstreams/pool_corners.rs"]
mod pool_corners;
#[path = "upstreams/resolve.rs"]
mod resolve;
#[path = "upstreams/resolve_files.rs"]
mod resolve_files;
#[path = "upstreams/scenarios.rs"]
mod scenarios;
#[path = "upstreams/secured.rs"]
mod secured;
#[path = "upstreams/setting.rs"]
mod setting;
#[path = "upstreams/upstream.rs"]
mod upstream;
#[path = "upstreams/upstream_caps.rs"]
mod upstream_caps;
#[path = "upstreams/upstream_corners.rs"]
mod upstream_corners;
#[path = "upstreams/upstream_swaps.rs"]
mod upstream_swaps;
