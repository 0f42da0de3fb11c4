//! What may be asked about a socket beside having it do something: who is at either end, and how it goes.
//!
//! Handlers ask, while they are called, and what they act through knows no driver. So a driver hands this out once, as
//! a value of its own, and whoever has it asks without the driver.

use std::fmt;
use std::net::SocketAddr;

use crate::error::Fault;
use crate::token::Descriptor;

/// Answers about the sockets of one driver, be they descriptors of the process or places in its table.
///
/// The asker sees to it that the descriptor is open: from the push of its close on, its number may be somebody else's.
/// An answer costs a system call, or a few. Whoever outlives the driver is told nothing more about places.
pub trait Sockets: fmt::Debug {
    /// The address at the other end, whether or not that has reset the connection since.
    ///
    /// # Errors
    /// The kernel's refusal: [`Fault::NotConnected`] of what never was connected; of a place also the want of a
    /// descriptor for the moment.
    fn peer(&self, of: Descriptor) -> Result<SocketAddr, Fault>;

    /// The address at this end.
    ///
    /// # Errors
    /// As [`peer`](Self::peer).
    fn local(&self, of: Descriptor) -> Result<SocketAddr, Fault>;

    /// How the connection goes.
    ///
    /// # Errors
    /// As [`peer`](Self::peer).
    fn info(&self, of: Descriptor) -> Result<TcpInfo, Fault>;

    /// Whether a connection has no peer any more: a reset has come, or both ends have closed. A driver that cannot tell
    /// says no.
    fn is_lost(&self, _of: Descriptor) -> bool {
        false
    }
}

/// How a connection goes, as the kernel counts it (TCP_INFO) at the moment of the question.
///
/// Zero stands for what the kernel does not tell: a count that it does not keep, a time of which it has no sample yet.
/// The kernels that slipring runs on, 6.1 and newer, tell all of it. Under simulation the bytes, the segments of them
/// that are not acknowledged, the MSS and the round trips follow the model; what that has no notion of (losses, the
/// congestion window, rates, what limited the sending) is zero.
///
/// ```
/// use slipring_core::{Ctx, Handler, Lease};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///
///     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
///         if let Some(info) = ctx.info()
///             && info.retransmits > 100
///         {
///             eprintln!("{:?}: a round trip takes {} us", ctx.peer(), info.rtt_us);
///         }
///         ctx.send(data);
///     }
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// The smoothed time of a round trip, microseconds.
    pub rtt_us: u32,
    /// How far round trips are from that, on average, microseconds.
    pub rtt_variance_us: u32,
    /// The shortest round trip of the last minutes (`net.ipv4.tcp_min_rtt_wlen`), microseconds.
    pub min_rtt_us: u32,
    /// Segments sent again, since the connection came to be.
    pub retransmits: u32,
    /// Of the segments that are not acknowledged, those that the kernel takes for lost.
    pub lost_segments: u32,
    /// Segments sent and not acknowledged.
    pub unacked_segments: u32,
    /// Segments that may be sent without being acknowledged.
    pub congestion_window_segments: u32,
    /// Bytes of data in a segment that is sent, at the most.
    pub send_mss_bytes: u32,
    /// Bytes that the peer has acknowledged, since the connection came to be; a SYN and a FIN of ours count as one
    /// each.
    pub acked_bytes: u64,
    /// Bytes that came in order, whether anybody has read them or not, since the connection came to be; a FIN counts as
    /// one.
    pub received_bytes: u64,
    /// How fast the peer was last seen to get what was sent, bytes per second.
    pub delivery_bytes_per_s: u64,
    /// How long there was something to send or to be acknowledged, microseconds.
    pub busy_us: u64,
    /// How much of that the peer's window was in the way, microseconds.
    pub rwnd_limited_us: u64,
    /// How much of that the send queue was too short, microseconds.
    pub sndbuf_limited_us: u64,
}

const _: () = assert!(size_of::<TcpInfo>() == 80, "it goes by value");
