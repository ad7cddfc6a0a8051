//! Says in the log when this process begins to lead something, and when it no longer does.

use crate::store::Lease;

/// Whether this process leads, as far as the log says.
#[derive(Debug, Default)]
pub(super) struct Leads(Option<i64>);

impl Leads {
    /// Takes in whether the lease of `what` is held, and says so if that is news.
    pub(super) fn take(&mut self, what: &'static str, holder: &str, lease: Option<Lease>) {
        let token = lease.map(|lease| lease.token);
        if token == self.0 {
            return;
        }
        match token {
            Some(token) => {
                tracing::info!(lease.name = what, lease.token = token, holder, "this process leads the {what} now");
            }
            None => tracing::info!(lease.name = what, holder, "this process no longer leads the {what}"),
        }
        self.0 = token;
    }
}
