//! Pods
pub(crate) mod fields;
mod kube;
pub(crate) mod libpod;
mod pods;
pub(crate) mod references;
