//! Feature `tokio-io`: connections as the byte streams of tokio. Of tokio itself only the traits are used, and none of
//! its features is on: no runtime of its comes with this.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Part, Stream, poll_read, writes};
use crate::{Conn, ReadHalf, WriteHalf};

macro_rules! reads {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<Result<()>> {
                if into.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                poll_read(self.get_mut(), cx, |bytes| {
                    let count = bytes.len().min(into.remaining());
                    into.put_slice(&bytes[..count]);
                    count
                })
            }
        }
    };
}

reads!(Conn);
writes!(AsyncWrite for Conn, poll_shutdown, is_write_vectored);
reads!(ReadHalf);
writes!(AsyncWrite for WriteHalf, poll_shutdown, is_write_vectored);
#[cfg(feature = "tls")]
reads!(crate::tls::TlsConn);
#[cfg(feature = "tls")]
writes!(AsyncWrite for crate::tls::TlsConn, poll_shutdown, is_write_vectored);
