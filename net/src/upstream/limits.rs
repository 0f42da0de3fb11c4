//! How an upstream behaves: every knob of its parts in one place.

use std::time::Duration;

use crate::health::Check;
use crate::policy::balancer::{Algorithm, BalancerLimits, BalancerLimitsError};
use crate::policy::breaker::{BreakerLimits, BreakerLimitsError};
use crate::policy::health::HealthLimitsError;
use crate::policy::outlier::{OutlierLimits, OutlierLimitsError};
use crate::policy::pool::{PoolLimits, PoolLimitsError};
use crate::policy::retry::{RetryPolicy, RetryPolicyError};

/// More are taken for a mistake.
const ENDPOINTS_MOST: u32 = 1 << 16;

/// The knobs of an upstream. † = our own choice.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamLimits {
    /// Connections there may be, over all endpoints and reactors, exactly: those being dialed, those in use, those of
    /// its pools. Default 1024 (Envoy).
    pub connections_max: u32,
    /// Requests that may wait for a connection, or for one being dialed, over all reactors. Who comes then is refused.
    /// Default 1024 (Envoy).
    pub pending_max: u32,
    /// Dials under way to one endpoint, over all reactors; others wait in line. Default 16 †.
    pub dials_max: u32,
    /// Endpoints there may be at the same time; of a name that leads to more, the others are left aside. Default
    /// 1024 †.
    pub endpoints_max: u32,
    /// How long a request may take to get a connection, retries included, unless it says otherwise. Default 10 s †.
    pub connect_within: Duration,
    /// Which endpoint. Default: the better of two.
    pub algorithm: Algorithm,
    /// What the balancer goes by.
    pub balancer: BalancerLimits,
    /// When nothing is sent any more.
    pub breaker: BreakerLimits,
    /// When an endpoint is left alone.
    pub outlier: OutlierLimits,
    /// How often it is tried to connect to an endpoint that is left alone because dials failed; it is back at the first
    /// success, and stays out for as long as there is none. Default 500 ms †. More than zero.
    pub probe_interval: Duration,
    /// Whether, how often and how fast requests are made again.
    pub retry: RetryPolicy,
    /// The pool of each endpoint.
    pub pool: PoolLimits,
    /// How endpoints are checked. Default: not at all.
    pub health: Option<Check>,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            pending_max: 1024,
            dials_max: 16,
            endpoints_max: 1024,
            connect_within: Duration::from_secs(10),
            algorithm: Algorithm::default(),
            balancer: BalancerLimits::default(),
            breaker: BreakerLimits::default(),
            outlier: OutlierLimits::default(),
            probe_interval: Duration::from_millis(500),
            retry: RetryPolicy::default(),
            pool: PoolLimits::default(),
            health: None,
        }
    }
}

/// Why [`UpstreamLimits`] make no sense. `Display` is one line: the cause, then the remedy.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamLimitsError {
    /// Nobody would ever be served.
    #[error("{knob} is 0, so nobody is ever served; say at least 1")]
    Nothing {
        /// Which one.
        knob: &'static str,
    },
    /// No request could get a connection, or a probe would follow the other without a pause.
    #[error("{knob} is no time at all; give it more")]
    NoTime {
        /// Which one.
        knob: &'static str,
    },
    /// More than there are numbers for.
    #[error("{endpoints_max} endpoints at a time; say at most {ENDPOINTS_MOST}")]
    TooManyEndpoints {
        /// Those asked for.
        endpoints_max: u32,
    },
    /// The balancer's.
    #[error("balancer: {0}")]
    Balancer(#[from] BalancerLimitsError),
    /// The breaker's.
    #[error("breaker: {0}")]
    Breaker(#[from] BreakerLimitsError),
    /// The ejection's.
    #[error("ejection: {0}")]
    Outlier(#[from] OutlierLimitsError),
    /// The retries'.
    #[error("retries: {0}")]
    Retry(#[from] RetryPolicyError),
    /// The pools'.
    #[error("pool: {0}")]
    Pool(#[from] PoolLimitsError),
    /// The checks'.
    #[error("health checks: {0}")]
    Health(#[from] HealthLimitsError),
}

impl UpstreamLimits {
    /// Whether these make sense.
    ///
    /// # Errors
    /// [`UpstreamLimitsError`], with the first thing that does not.
    pub fn check(&self) -> Result<(), UpstreamLimitsError> {
        let counts = [
            ("connections_max", self.connections_max),
            ("pending_max", self.pending_max),
            ("dials_max", self.dials_max),
            ("endpoints_max", self.endpoints_max),
        ];
        if let Some((knob, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(UpstreamLimitsError::Nothing { knob });
        }
        let spans =
            [("connect_within", self.connect_within), ("probe_interval", self.probe_interval)];
        if let Some((knob, _)) = spans.into_iter().find(|(_, span)| span.is_zero()) {
            return Err(UpstreamLimitsError::NoTime { knob });
        }
        if self.endpoints_max > ENDPOINTS_MOST {
            return Err(UpstreamLimitsError::TooManyEndpoints {
                endpoints_max: self.endpoints_max,
            });
        }
        self.balancer.check()?;
        self.breaker.check()?;
        self.outlier.check()?;
        self.retry.check()?;
        self.pool.check()?;
        if let Some(health) = &self.health {
            health.check()?;
        }
        Ok(())
    }
}
