//! A health check: whether an endpoint can be reached, and says what it should.
//!
//! Is: one check. Is not: when checks are made and what follows from them, which is
//! [`policy::health`](crate::policy::health)'s to say.

use std::net::SocketAddr;

use slipring_core::Timeout;

use crate::connector::{About, Connector, Stream};
use crate::failure::{Error, Transfer};
use crate::policy::health::{HealthLimits, HealthLimitsError};
use crate::tasks::{now, timeout};

/// Bytes of an answer that are looked at, at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How an endpoint is checked.
///
/// By default it is enough that a connection is established, with all that belongs to it, such as TLS. A PROXY header
/// says that it is for nobody (LOCAL).
///
/// ```
/// use slipring::health::Check;
///
/// let redis = Check { send: b"PING\r\n".to_vec(), expect: b"+PONG".to_vec(), ..Check::default() };
/// assert_eq!(redis.check(), Ok(()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// When checks are made, how long one may take, and how many decide.
    pub limits: HealthLimits,
    /// What is sent. Default: nothing.
    pub send: Vec<u8>,
    /// What the answer has to contain, in its first 64 KiB. Default: nothing, and no answer is waited for.
    pub expect: Vec<u8>,
}

impl Check {
    /// Whether its limits make sense.
    ///
    /// # Errors
    /// [`HealthLimitsError`], for the first that does not.
    pub fn check(&self) -> Result<(), HealthLimitsError> {
        self.limits.check()
    }

    /// Checks an endpoint once, within the time it may take.
    ///
    /// # Errors
    /// [`Error`]: why it does not pass.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn run(&self, connector: &Connector, endpoint: SocketAddr) -> Result<(), Error> {
        let begun = now();
        let checked = timeout(self.limits.timeout, self.ask(connector, endpoint)).await;
        let error = match checked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => Error::new(Transfer::ReadTimeout).at(endpoint),
        };
        Err(error.after(now().saturating_sub(begun)))
    }

    async fn ask(&self, connector: &Connector, endpoint: SocketAddr) -> Result<(), Error> {
        let (about, left) = (About::default(), self.limits.timeout);
        let mut stream = connector.connect_within(endpoint, &about, left).await?;
        if !self.send.is_empty() {
            stream.send_all(&self.send).await?;
        }
        if !self.expect.is_empty() {
            self.hear(&mut stream).await?;
        }
        // Dropped, it ends in order; a server that logs resets has nothing to log.
        Ok(())
    }

    async fn hear(&self, stream: &mut Stream) -> Result<(), Error> {
        stream.set_read_deadline(Timeout::After(self.limits.timeout));
        let mut answer = Vec::new();
        while !contains(&answer, &self.expect) {
            if answer.len() >= ANSWER_BYTES_MAX {
                return Err(Error::new(Transfer::UnexpectedEof).at(stream.peer()));
            }
            answer.extend_from_slice(&stream.recv_some().await?);
        }
        Ok(())
    }
}

fn contains(answer: &[u8], expected: &[u8]) -> bool {
    answer.windows(expected.len()).any(|window| window == expected)
}
