//! Where errors from inside become problems for the caller: the detail goes to the log, the caller gets a code.

use titan_api::{Code, Problem};

use crate::store::StoreError;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let busy = matches!(
            &error,
            StoreError::Database(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_))
        );
        tracing::error!(error = &error as &dyn std::error::Error, "a request failed inside");
        if busy {
            Self::new(Code::Unavailable, "the database is not available now").hint("try again in a moment")
        } else {
            Self::new(Code::Internal, "something went wrong inside; the log has it under the request's id")
        }
    }
}
