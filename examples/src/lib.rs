//! What the binaries share, so that each of them shows its one idea and nothing else.
//!
//! Is not a library to build on: it is not published, and its shape follows the binaries.

#![forbid(unsafe_code)]

pub mod cli;
pub mod http;
pub mod numbered;
pub mod service;
pub mod stats;

/// Runs the page's program as a test; it needs tokio, which the libraries do not have.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/embedding-in-tokio.md")]
struct EmbeddingInTokio;
