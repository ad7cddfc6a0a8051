//! `POST /v1/apply`: documents of any kinds in any order, all or none.

use axum::{
    Json as JsonBody,
    extract::{Extension, State},
    http::HeaderMap,
};
use titan_api::{
    Code, Problem,
    changes::{ApplyAnswer, ApplyRequest},
    documents::Declared,
    limits, parse,
};

use crate::{
    routes::{
        extract::{Admin, Raw, author},
        respond::{Answer, RequestId},
    },
    state::AppState,
    writing::{self, Intent},
};

/// Reads and checks the documents of a request, off the threads of requests: large templates take their time.
pub(super) async fn checked(request: ApplyRequest) -> Result<Vec<Intent>, Problem> {
    let checked = tokio::task::spawn_blocking(move || intents(request)).await;
    checked.map_err(|_| Problem::new(Code::Internal, "checking the documents failed"))?
}

/// Reads and checks the documents of a request; pointers of what is wrong begin at `/resources/<index>`.
fn intents(request: ApplyRequest) -> Result<Vec<Intent>, Problem> {
    if request.resources.len() > limits::APPLY_DOCUMENTS {
        let detail =
            format!("{} documents; one request takes up to {}", request.resources.len(), limits::APPLY_DOCUMENTS);
        return Err(Problem::new(Code::TooLarge, detail.clone()).at("/resources", detail));
    }
    let documents = request.resources.into_iter().enumerate();
    documents
        .map(|(index, value)| {
            let declared = Declared::parse(value, None).and_then(|declared| {
                writing::check(&declared)?;
                Ok(declared)
            });
            let declared = declared.map_err(|problem| problem.under(&format!("/resources/{index}")))?;
            Ok(Intent::Put(Box::new(declared)))
        })
        .collect()
}

/// The handler.
pub async fn apply(
    State(state): State<AppState>,
    admin: Admin,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Answer<JsonBody<ApplyAnswer>> {
    let request: ApplyRequest = parse::from_slice(&body)?;
    let mut author = author(&admin.0, &id, &headers, "apply", &body)?;
    author.reason = request.reason.clone().or(author.reason);
    let dry_run = request.dry_run;
    let outcome = writing::write(&state, &author, checked(request).await?, "/resources/{}", dry_run).await?;
    Ok(JsonBody(outcome.answer))
}
