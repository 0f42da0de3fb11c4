//! What sockets are asked: their names, and how they go.

use std::net::SocketAddr;

use slipring_core::TcpInfo;
use slipring_core::token::Op;

use super::stream::Phase;
use super::{FileId, Kernel};

impl Kernel {
    /// SO_PEERNAME: after a reset or a refusal too.
    pub(crate) fn peer_name(&self, id: FileId) -> Result<SocketAddr, i32> {
        let stream = self.stream(id).ok_or(libc::ENOTCONN)?;
        match stream.phase {
            Phase::Fresh => Err(libc::ENOTCONN),
            Phase::Connecting | Phase::Connected | Phase::Failed(_) => Ok(stream.remote),
        }
    }

    /// getsockname(2). A stream has its port from the beginning, where a kernel gives it one at the connect: nobody
    /// asks before.
    pub(crate) fn local_name(&self, id: FileId) -> Result<SocketAddr, i32> {
        self.stream(id).map(|stream| stream.local).ok_or(libc::ENOTCONN)
    }

    /// TCP_INFO, as far as there is anything like it here.
    pub(crate) fn tcp_info(&self, id: FileId) -> Result<TcpInfo, i32> {
        let stream = self.stream(id).ok_or(libc::ENOTCONN)?;
        let segment_bytes = self.knobs.segment_bytes.max(1);
        let mut info = TcpInfo::default();
        if stream.phase == Phase::Connected {
            // There and back, each way half of the longest.
            info.rtt_us = self.knobs.latency_us.max(2);
            info.rtt_variance_us = info.rtt_us / 4;
            info.min_rtt_us = 2;
        }
        info.send_mss_bytes = segment_bytes;
        info.unacked_segments = (stream.unsent() as u64).div_ceil(segment_bytes.into()) as u32;
        (info.acked_bytes, info.received_bytes) = stream.moved();
        Ok(info)
    }

    /// Whether the ring's owner has the file's close under way.
    pub(crate) fn is_being_closed(&self, ring: u16, id: FileId) -> bool {
        let closes = |(of, _, op): &(u16, u64, Op)| *of == ring && *op == Op::Close;
        self.file(id).is_some_and(|file| file.pending.iter().any(closes))
    }
}
