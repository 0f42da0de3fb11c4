//! Feature `futures-io`: connections as the byte streams of the `futures` crates.

use std::io::{IoSlice, IoSliceMut, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::stream::{self, Stream};
use crate::{Conn, ReadHalf, WriteHalf};

macro_rules! byte_stream {
    ($conn:ty) => {
        impl AsyncRead for $conn {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                into: &mut [u8],
            ) -> Poll<Result<usize>> {
                if into.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                let mut read = 0;
                let polled = stream::poll_read(self.get_mut(), cx, |bytes| {
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
                let polled = stream::poll_read(self.get_mut(), cx, |bytes| {
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

        impl AsyncWrite for $conn {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<Result<usize>> {
                self.get_mut().poll_take(cx, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<Result<usize>> {
                self.get_mut().poll_take_all(cx, slices)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
                self.get_mut().poll_flushed(cx)
            }

            fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
                self.get_mut().poll_shut_down(cx)
            }
        }
    };
}

byte_stream!(Conn);
#[cfg(feature = "tls")]
byte_stream!(crate::tls::TlsConn);

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize>> {
        Pin::new(self.whole()).poll_read(cx, into)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [IoSliceMut<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(self.whole()).poll_read_vectored(cx, into)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        self.whole().poll_take(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.whole().poll_take_all(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.whole().poll_flushed(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.whole().poll_shut_down(cx)
    }
}
