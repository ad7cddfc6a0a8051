//! Targets: rules that match hosts. A target's `spec` is a [`Selector`].

use crate::{problems::Fault, selectors::Selector};

/// Rules that match hosts.
pub type TargetSpec = Selector;

/// Returns what is wrong with a target's spec at `pointer`.
#[must_use]
pub fn faults(spec: &TargetSpec, pointer: &str) -> Vec<Fault> {
    let mut faults = spec.faults(pointer);
    if spec.is_empty() {
        faults.push(Fault::new(pointer, "a target needs a rule; to match every host write expression: \"true\""));
    }
    faults
}
