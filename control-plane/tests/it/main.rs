//! Tests of the control plane as a whole.

mod rendering;
mod templates;
