//! Rendering: what a template and a host's context become.
//!
//! A [`Template`] is checked once, when it is written. Rendering itself runs in worker processes with limits on memory and
//! time ([`Renderer`], [`worker_main`]), because the template language bounds neither. What a template may see of a context
//! is only what it names ([`reads`]): the same part is what the worker receives and what [`outcome_key`] is made of, so
//! hosts that share a key share a bundle. Nothing here knows of SQL, HTTP or clocks. Read [`template`] first, then
//! [`engine`].

pub mod appliers;
pub mod bounds;
pub mod engine;
pub mod expression;
pub mod failure;
pub mod filters;
pub mod frames;
pub mod json;
pub mod layers;
pub mod lexer;
pub mod manifest;
pub mod outcome;
pub mod overlay;
pub mod patch;
pub mod reads;
pub mod renderer;
pub mod schema;
pub mod template;
pub mod upkeep;
pub mod worker;
pub mod yaml;

pub use expression::Expression;
pub use layers::{Layers, merge, merge_with_origins};
pub use outcome::outcome_key;
pub use overlay::Overlay;
pub use renderer::{Job, RenderedBundle, Renderer, RendererConfig, WorkerCommand};
pub use template::Template;
pub use worker::worker_main;
