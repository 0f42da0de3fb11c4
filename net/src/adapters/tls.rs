//! A connection by TLS in the same clothes: what is read is plaintext, what is written is sealed at once, a record for
//! each write. The end of the stream is the peer's close_notify, and nothing else is.

use std::io::{IoSlice, Result};
use std::task::{Context, Poll, ready};

use slipring_core::Lease;

use super::stream::Stream;
use crate::tls::TlsConn;

impl Stream for TlsConn {
    #[inline]
    fn poll_lease(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Lease>>> {
        self.poll_recv(cx).map_err(Into::into)
    }

    #[inline]
    fn put_back(&mut self, lease: Lease) {
        self.unrecv(lease);
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        ready!(self.poll_ready(cx))?;
        let count = bytes.len().min(self.piece_bytes());
        if count > 0 {
            self.try_send(&bytes[..count])?;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_take_all(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        let (first, second) = (filled.next(), filled.next());
        let Some(first) = first else { return self.poll_take(cx, &[]) };
        let most = self.piece_bytes();
        if second.is_none() || first.len() >= most {
            return self.poll_take(cx, first);
        }
        ready!(self.poll_ready(cx))?;
        let mut record = Vec::with_capacity(most);
        for slice in slices {
            let count = slice.len().min(most - record.len());
            record.extend_from_slice(&slice[..count]);
        }
        self.try_send(&record)?;
        Poll::Ready(Ok(record.len()))
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(self.write_end().map_err(Into::into))
    }

    fn poll_shut_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_shutdown(cx).map_err(Into::into)
    }
}
