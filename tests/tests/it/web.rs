//! The web page at `/`: served to anybody, and asking for nothing that the API does not have.

use std::collections::BTreeSet;

use reqwest::Method;
use titan_tests::worlds::World;

/// Returns what the script of the page names that begins like a path.
fn paths(script: &str) -> BTreeSet<&str> {
    let each = script.split("'/").skip(1).filter_map(|rest| Some(rest.split_once('\'')?.0));
    each.filter(|path| !path.is_empty()).collect()
}

/// S4-29.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_is_served_to_anybody_and_nothing_else_changes() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let ask = async |method: Method, path: &str| world.call(method, path, None, &[], "").await.expect("answered");
    let page = ask(Method::GET, "/").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.text.starts_with("<!doctype html>"), "{}", page.text);
    let head = ask(Method::HEAD, "/").await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    for header in ["content-type", "content-security-policy", "cache-control", "referrer-policy", "x-frame-options"] {
        assert!(!page.header(header).is_empty() && page.header(header) == head.header(header), "{header}");
    }
    // With a credential it is the same: there is nothing in it.
    let known = world.admin_call(Method::GET, "/", "").await.expect("answered");
    assert_eq!(known.text, page.text);

    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = ask(method.clone(), "/").await;
        assert_eq!((answer.status.as_u16(), answer.code()), (405, "method_not_allowed"), "{method}");
    }
    for path in ["/index.html", "/web", "/v1", "//"] {
        let answer = ask(Method::GET, path).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "not_found"), "{path}");
    }
}

/// S4-29: what the page asks for is there, with the parameters that it names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_asks_for_nothing_that_the_api_does_not_have() {
    let world = World::start(crate::NODE).await.expect("a control plane");
    let page = world.call(Method::GET, "/", None, &[], "").await.expect("answered");
    let description = world.call(Method::GET, "/openapi.json", None, &[], "").await.expect("answered");
    let described = description.body["paths"].as_object().expect("paths");
    let known = |path: &str| {
        let readable = |(_, item): (_, &serde_json::Value)| item.get("get").is_some();
        described.iter().filter(|(known, _)| *known == path || known.ends_with(path)).any(readable)
    };
    let asked = paths(&page.text);
    assert!(asked.contains("v1/hosts") && asked.len() >= 10, "{asked:?}");
    for path in asked {
        assert!(known(&format!("/{path}")), "/{path} is not described");
    }
    for question in [
        "/v1/hosts?limit=500&continue=/pi",
        "/v1/deployments?limit=100&continue=default/web",
        "/v1/workplans?limit=100",
        "/readyz",
        "/metrics",
    ] {
        let answer = world.admin_call(Method::GET, question, "").await.expect("answered");
        assert_eq!(answer.status, 200, "{question}: {}", answer.text);
    }
    let metrics = world.admin_call(Method::GET, "/metrics", "").await.expect("answered");
    assert!(metrics.text.lines().any(|line| line.starts_with("titan_view_hosts ")), "{}", metrics.text);
}
