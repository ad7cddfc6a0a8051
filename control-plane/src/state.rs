//! What the handlers and tasks share.

use std::{
    ops::Deref,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicI64},
};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    access::CredentialCache,
    answers::Answers,
    bundles::BundleCache,
    clock::Clock,
    config::Config,
    connections::places::Places,
    fleet::{absences::Absences, model::Model, view::FleetView},
    load::Load,
    metrics::Metrics,
    render::Renderer,
    store::{Descriptions, Store},
    tasks::reports::Reports,
};

/// A cheap clone of everything that handlers and tasks share.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// What [`AppState`] shares.
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// What each host should have.
    pub view: FleetView,
    /// What renders templates.
    pub renderer: Renderer,
    /// The time.
    pub clock: Clock,
    /// Credentials seen lately.
    pub credentials: CredentialCache,
    /// Bundles asked for lately.
    pub bundles: BundleCache,
    /// What answers to polls are put together from.
    pub answers: Answers,
    /// Reports on their way into the database.
    pub reports: Reports,
    /// How loaded this process is.
    pub load: Load,
    /// Places for answers with a body.
    pub places: Places,
    /// Counters for `/metrics`.
    pub metrics: Metrics,
    /// Hosts that are missed, as the planner found if it leads here.
    pub absences: ArcSwap<Absences>,
    /// Held by whoever moves the view along: the descriptions that assignments refer to.
    pub following: Mutex<Descriptions>,
    /// Held by whoever goes over all of a large fleet, beside what polls and the planner do: one at a time.
    pub crowds: Semaphore,
    /// When the clock was last moved past a host's cursor, in microseconds; 0 for never.
    pub clock_moved_at: AtomicI64,
    /// Ends held polls and tasks.
    pub shutdown: CancellationToken,
    /// Counts transactions of reports: whoever waits for hosts looks again.
    pub reported: watch::Sender<u64>,
    model: RwLock<Arc<Model>>,
    feed: watch::Sender<u64>,
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// Returns the state over an open store, with an empty view and model.
    #[must_use]
    pub fn new(config: Config, store: Store, renderer: Renderer, clock: Clock, shutdown: CancellationToken) -> Self {
        let metrics = Metrics::of(&store, &renderer);
        Self(Arc::new(Shared {
            config,
            store,
            view: FleetView::default(),
            renderer,
            clock,
            credentials: CredentialCache::default(),
            bundles: BundleCache::default(),
            answers: Answers::default(),
            reports: Reports::default(),
            load: Load::default(),
            places: Places::default(),
            metrics,
            absences: ArcSwap::default(),
            following: Mutex::default(),
            crowds: Semaphore::new(1),
            clock_moved_at: AtomicI64::new(0),
            shutdown,
            reported: watch::Sender::new(0),
            model: RwLock::default(),
            feed: watch::Sender::new(0),
        }))
    }

    /// Returns the model as it is now.
    #[must_use]
    pub fn model(&self) -> Arc<Model> {
        Arc::clone(&self.model.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the model. Whoever holds the one before keeps it as it was.
    pub fn change_model<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        change(Arc::make_mut(&mut self.model.write().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Says that something was committed. A hint: whoever follows the feed also looks by itself.
    pub fn committed(&self) {
        self.feed.send_modify(|commits| *commits += 1);
    }

    /// Returns what changes with every commit.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.feed.subscribe()
    }
}
