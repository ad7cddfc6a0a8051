//! What crosses the wire between Titan's control plane, its agents and its command line.
//!
//! The crate holds shapes, their validation and the arithmetic both ends must agree on (revisions, digests,
//! selectors). It knows nothing of SQL, terminals or files, but for the rules of time zones. With feature `client` it
//! also holds the typed HTTP client. Read [`documents`] first, then [`poll`].

pub mod changes;
#[cfg(feature = "client")]
pub mod client;
pub mod deployments;
pub mod digests;
pub mod documents;
pub mod drift;
pub mod enrolment;
pub mod health;
pub mod hooks;
pub mod hosts;
pub mod labels;
pub mod limits;
pub mod names;
pub mod pages;
pub mod parse;
pub mod patterns;
pub mod pipelines;
pub mod plans;
pub mod poll;
pub mod problems;
pub mod readiness;
pub mod reports;
pub mod resources;
pub mod revision;
pub mod selectors;
pub mod shares;
pub mod spans;
pub mod status;
pub mod strategies;
pub mod taints;
pub mod targets;
pub mod tasks;
pub mod templates;
pub mod values;
pub mod windows;
pub mod workloads;
pub mod workplans;
pub mod workspaces;

pub use digests::{Digest, SetDigest, SetDigestStart};
pub use documents::{Document, Kind, Metadata, Spec};
pub use names::Name;
pub use problems::{Code, Problem};
pub use revision::Revision;
