//! How an agent and a person get their credentials.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Name, Revision, hosts::Facts};

/// The body of `POST /v1/enrolment-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolmentTokenRequest {
    /// The host that may enrol with it.
    pub host: Name,
    /// How long it can be used; 24 h unless told, at most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
}

/// A one-time token with which a host enrols.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolmentToken {
    /// The host.
    pub host: Name,
    /// The token; told this once.
    pub token: String,
    /// When it ends.
    pub expires_at: Revision,
}

/// The body of `POST /v1/enrol`; the token is its authority.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolRequest {
    /// The host.
    pub host: Name,
    /// The one-time token.
    pub token: String,
    /// Made up by the agent once and sent again when an answer was lost: the same key gets a credential again.
    pub attempt: Uuid,
    /// The host's facts.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub facts: Facts,
}

/// The answer to an enrolment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolAnswer {
    /// The host.
    pub host: Name,
    /// The host's id.
    pub host_id: Uuid,
    /// The host's own bearer token; told this once.
    pub credential: String,
}

/// The body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenRequest {
    /// Whose it is; stands as the actor in the history.
    pub name: Name,
    /// How long it can be used; for ever unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
}

/// A person's or pipeline's token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub name: Name,
    /// When it was made.
    pub created_at: Revision,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Revision>,
}

/// A new token with its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// The token's record.
    pub record: Token,
    /// The token; told this once.
    pub token: String,
}

macro_rules! hidden {
    ($($type:ident)*) => {
        $(impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($type), "(hidden)"))
            }
        })*
    };
}

hidden!(EnrolmentToken EnrolRequest EnrolAnswer NewToken);
