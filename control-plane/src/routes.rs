//! HTTP: what is asked and how it is answered. Handlers parse, call and shape the answer; `router` has every route.

pub mod apply;
pub mod changes;
pub mod deployments;
pub mod docs;
pub mod documents;
pub mod drift;
pub mod enrolment;
pub mod extract;
pub mod health;
pub mod hosts;
pub mod pipelines;
pub mod plans;
pub mod polls;
pub mod reports;
pub mod respond;
pub mod router;
pub mod tasks;
pub mod tokens;
pub mod web;
pub mod workplans;
