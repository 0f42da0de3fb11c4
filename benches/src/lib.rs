//! Shared by the benches.

pub mod floor;
pub mod load;
pub mod measure;
pub mod pin;
