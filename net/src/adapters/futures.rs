//! Feature `futures-io`: connections as the byte streams of the `futures` crates.

use std::io::{IoSlice, IoSliceMut, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::stream::{Part, Stream, poll_read, writes};
use crate::{Conn, ReadHalf, WriteHalf};

macro_rules! reads {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut [u8],
            ) -> Poll<Result<usize>> {
                if into.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                let mut read = 0;
                let polled = poll_read(self.get_mut(), cx, |bytes| {
                    read = bytes.len().min(into.len());
                    into[..read].copy_from_slice(&bytes[..read]);
                    read
                });
                polled.map_ok(|()| read)
            }

            fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut [IoSliceMut<'_>],
            ) -> Poll<Result<usize>> {
                if into.iter().all(|slice| slice.is_empty()) {
                    return Poll::Ready(Ok(0));
                }
                let mut read = 0;
                let polled = poll_read(self.get_mut(), cx, |bytes| {
                    for slice in into {
                        let count = slice.len().min(bytes.len() - read);
                        slice[..count].copy_from_slice(&bytes[read..read + count]);
                        read += count;
                    }
                    read
                });
                polled.map_ok(|()| read)
            }
        }
    };
}

reads!(Conn);
writes!(AsyncWrite for Conn, poll_close);
reads!(ReadHalf);
writes!(AsyncWrite for WriteHalf, poll_close);
#[cfg(feature = "tls")]
reads!(crate::tls::TlsConn);
#[cfg(feature = "tls")]
writes!(AsyncWrite for crate::tls::TlsConn, poll_close);
