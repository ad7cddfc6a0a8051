//! Lists of documents: pages, by label, as of the past.

use std::collections::{BTreeMap, HashMap};

use axum::{Json as JsonBody, extract::State};
use serde::Deserialize;
use titan_api::{
    Code, Document, Kind, Problem, Revision, hosts::Facts, labels::Labels, limits, pages::Page, selectors::Selector,
};

use super::At;
use crate::{
    fleet::matchers::lookup,
    routes::{
        extract::{Admin, Params},
        hosts::status,
        respond::Answer,
    },
    state::AppState,
    store::{Listing, StoreError, Tx},
};

/// Which documents to list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListParams {
    label_selector: Option<String>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    next: Option<String>,
    at: Option<Revision>,
}

/// Reads `key=value,key!=value,key,!key` as a selector.
fn selector(text: &str) -> Result<Selector, Problem> {
    use titan_api::selectors::{Operator, Requirement};
    let mut selector = Selector::default();
    for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
        let (key, operator, values) = if let Some((key, value)) = term.split_once("!=") {
            (key, Operator::NotIn, vec![value.to_owned()])
        } else if let Some((key, value)) = term.split_once('=') {
            (key, Operator::In, vec![value.trim_start_matches('=').to_owned()])
        } else if let Some(key) = term.strip_prefix('!') {
            (key, Operator::DoesNotExist, Vec::new())
        } else {
            (term, Operator::Exists, Vec::new())
        };
        selector.match_expressions.push(Requirement { key: key.trim().to_owned(), operator, values });
    }
    match selector.faults("").as_slice() {
        [] => Ok(selector),
        [fault, ..] => Err(Problem::new(Code::BadParameter, format!("labelSelector: {}", fault.detail))),
    }
}

/// Returns a page of documents.
pub(in crate::routes) async fn list(
    state: &AppState,
    kind: Kind,
    workspace: Option<&str>,
    params: ListParams,
) -> Answer<JsonBody<Page<Document>>> {
    let limit = params.limit.unwrap_or(100).clamp(1, limits::PAGE);
    let selector = params.label_selector.as_deref().map(selector).transpose()?;
    let wanted = |labels: &Labels, facts: &Facts| {
        selector.as_ref().is_none_or(|selector| selector.rules_match(|key| lookup(labels, facts, key)))
    };
    let after = params.next.filter(|after| !after.contains('\0')).unwrap_or_default();
    let after = after.split_once('/').unwrap_or_default();
    let sought = Sought { kind, workspace, after, at: params.at, limit };
    let wanted = &wanted;
    let items = state.store.read_aside(|tx| found(state, tx, sought, wanted)).await?;
    let Some(mut items) = items else {
        return Err(Problem::not_found("workspace", workspace.unwrap_or_default()).into());
    };
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| {
        let (workspace, name) = place_key(last);
        format!("{workspace}/{name}")
    });
    Ok(JsonBody(Page { items, next }))
}

/// What is listed: documents of a kind after a place, one more than there is room for.
#[derive(Debug, Clone, Copy)]
struct Sought<'a> {
    kind: Kind,
    workspace: Option<&'a str>,
    after: (&'a str, &'a str),
    at: Option<Revision>,
    limit: usize,
}

/// Returns the documents that are `wanted` by their labels and facts; `None` if there is no such workspace.
async fn found(
    state: &AppState,
    mut tx: Tx,
    sought: Sought<'_>,
    wanted: &impl Fn(&Labels, &Facts) -> bool,
) -> Result<Option<Vec<Document>>, StoreError> {
    let Sought { kind, workspace, after, at, limit } = sought;
    if let Some(workspace) = workspace
        && tx.document(Kind::Workspace, "", workspace).await?.is_none()
    {
        return Ok(None);
    }
    let mut after = (after.0.to_owned(), after.1.to_owned());
    if let Some(at) = at {
        let all = tx.documents_at(kind, workspace.unwrap_or_default(), "", at).await?;
        let facts = Facts::default();
        let rest =
            all.into_iter().filter(|document| place_key(document) > after && wanted(&document.metadata.labels, &facts));
        return Ok(Some(rest.take(limit + 1).collect()));
    }
    let mut items = Vec::new();
    loop {
        let listing = Listing { kind, workspace, after: (&after.0, &after.1), limit: limits::PAGE };
        let page = tx.documents(&listing).await?;
        let full = page.len() == limits::PAGE;
        let mut observed: HashMap<_, _> = match (kind, page.first(), page.last()) {
            (Kind::Host, Some(first), Some(last)) => {
                let observed = tx.observed_hosts_named(&first.name, &last.name).await?;
                observed.into_iter().map(|host| (host.uid, host)).collect()
            }
            _ => HashMap::new(),
        };
        for stored in page {
            after = (stored.workspace.as_deref().unwrap_or_default().to_owned(), stored.name.to_string());
            let observed = observed.remove(&stored.uid);
            let facts = observed.as_ref().map(|host| host.facts.clone()).unwrap_or_default();
            if wanted(&stored.labels, &facts) {
                let mut document = stored.document();
                document.status = status(state, kind, observed.as_ref(), None, BTreeMap::new());
                items.push(document);
            }
            if items.len() > limit {
                return Ok(Some(items));
            }
        }
        if !full {
            return Ok(Some(items));
        }
    }
}

fn place_key(document: &Document) -> (String, String) {
    let metadata = &document.metadata;
    (metadata.workspace.as_deref().unwrap_or_default().to_owned(), metadata.name.to_string())
}

/// `GET` of a list.
pub async fn list_route(
    State(state): State<AppState>,
    _admin: Admin,
    at: At,
    Params(params): Params<ListParams>,
) -> Answer<JsonBody<Page<Document>>> {
    list(&state, at.kind, at.workspace.as_deref(), params).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_of_lists_are_read() {
        let read = selector("a=b,c!=d,e,!f,fact/arch=arm").expect("selector");
        assert_eq!(read.match_expressions.len(), 5);
        assert!(selector("a b=c").is_err());
    }
}
