//! The harness itself: a control plane answers on every engine.

use titan_api::{Kind, client::ListOptions};
use titan_tests::{databases, planes::Plane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_plane_starts_on_every_engine_with_the_default_workspace() {
    for database in databases::each() {
        let plane = Plane::start(&database, crate::NODE, "").await.expect("start");
        let page = plane.client().list(Kind::Workspace, None, &ListOptions::default()).await.expect("list");
        assert_eq!(page.items.len(), 1, "{}", database.engine);
        assert_eq!(page.items[0].metadata.name, *"default");
        plane.stop().await.expect("stop");
    }
}
