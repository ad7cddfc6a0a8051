//! The wall clock, so that tests can turn it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use titan_api::Revision;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Revision + Send + Sync>);

impl Clock {
    /// Returns the machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Revision::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
        })
    }

    /// Returns a clock that asks `now`.
    pub fn new(now: impl Fn() -> Revision + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> Revision {
        (self.0)()
    }

    /// Returns the time `span` from now.
    #[must_use]
    pub fn after(&self, span: Duration) -> Revision {
        Revision::from_micros(self.now().micros().saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Returns the time `span` ago.
    #[must_use]
    pub fn before(&self, span: Duration) -> Revision {
        Revision::from_micros(self.now().micros().saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}
