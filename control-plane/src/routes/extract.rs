//! What handlers take: who calls, bodies, parameters, the author of a write.

use std::time::Duration;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, request::Parts},
};
use serde::de::DeserializeOwned;
use titan_api::{Code, Digest, Name, Problem, Revision, limits, parse};

use crate::{
    access::{self, Principal},
    routes::respond::{Failure, RequestId},
    state::AppState,
    writing::Author,
};

/// How long a body may take to arrive.
const ARRIVE: Duration = Duration::from_secs(120);

/// A caller with an admin token.
#[derive(Debug, Clone)]
pub struct Admin(pub Principal);

/// Any caller with a credential.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        Ok(Self(access::authenticate(state, &parts.headers).await?))
    }
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        let principal = access::authenticate(state, &parts.headers).await?;
        principal.require_admin()?;
        Ok(Self(principal))
    }
}

/// Names of the path.
#[derive(Debug, Clone)]
pub struct Names<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(names)| Self(names)).map_err(|rejection| {
            Problem::new(Code::BadParameter, format!("the path is malformed: {}", rejection.body_text())).into()
        })
    }
}

/// Parameters of the query. Unknown ones are refused by the type.
#[derive(Debug, Clone)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(params)| Self(params))
            .map_err(|rejection| Problem::new(Code::BadParameter, rejection.body_text()).into())
    }
}

/// A body as its bytes, of at most [`limits::DOCUMENT_BODY_BYTES`].
#[derive(Debug, Clone)]
pub struct Raw(pub bytes::Bytes);

impl FromRequest<AppState> for Raw {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &AppState) -> Result<Self, Failure> {
        read(request, limits::DOCUMENT_BODY_BYTES).await.map(Self)
    }
}

/// A JSON body of at most [`limits::SMALL_BODY_BYTES`], read strictly.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &AppState) -> Result<Self, Failure> {
        let body = read(request, limits::SMALL_BODY_BYTES).await?;
        Ok(Self(parse::from_slice(&body)?))
    }
}

/// A JSON body of at most [`limits::REPORT_BODY_BYTES`], read strictly.
#[derive(Debug, Clone)]
pub struct Large<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Large<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &AppState) -> Result<Self, Failure> {
        let body = read(request, limits::REPORT_BODY_BYTES).await?;
        Ok(Self(parse::from_slice(&body)?))
    }
}

async fn read(request: Request, limit: usize) -> Result<bytes::Bytes, Failure> {
    let whole = tokio::time::timeout(ARRIVE, axum::body::to_bytes(request.into_body(), limit)).await;
    let late = |_| Problem::new(Code::MalformedBody, format!("the body took longer than {ARRIVE:?}"));
    whole.map_err(late)?.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = source {
            if cause.is::<http_body_util::LengthLimitError>() {
                return Problem::new(Code::TooLarge, format!("the body is larger than {limit} bytes")).into();
            }
            source = cause.source();
        }
        Problem::new(Code::MalformedBody, "the body could not be read to its end").into()
    })
}

/// Returns the author of a write from who calls and the headers. `body` is what an idempotency key stands for.
pub fn author(
    principal: &Principal,
    id: &RequestId,
    headers: &HeaderMap,
    subject: &str,
    body: &[u8],
) -> Result<Author, Problem> {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().map_err(|_| malformed(name)));
    let if_match = header("if-match").transpose()?.filter(|text| *text != "*");
    let if_match = if_match.map(|text| {
        let revision = text.trim_matches('"').parse::<Revision>();
        revision.map_err(|_| malformed("if-match").hint("it is the document's revision in quotes, as in its ETag"))
    });
    let once = match header("idempotency-key").transpose()? {
        Some(key) if key.is_empty() || key.len() > 128 => {
            return Err(malformed("idempotency-key").hint("it is 1 to 128 characters"));
        }
        Some(key) => Some((key.to_owned(), Digest::of(&[subject.as_bytes(), b"\n", body].concat()))),
        None => None,
    };
    let reason = header("titan-reason").transpose()?.map(decode);
    Ok(Author {
        actor: principal.actor(),
        reason: reason.filter(|reason| !reason.is_empty()),
        request_id: id.0.clone(),
        if_match: if_match.transpose()?,
        once,
    })
}

fn malformed(header: &str) -> Problem {
    Problem::new(Code::BadParameter, format!("the header {header} is malformed"))
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).chars().take(1000).collect()
}

/// Returns a workspace's name, or that there is none of this name.
pub fn name(kind: &str, text: &str) -> Result<Name, Problem> {
    Name::new(text).map_err(|_| Problem::not_found(kind, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_rubbish_stays() {
        assert_eq!(decode("a%20b%C3%BC"), "a bü");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
