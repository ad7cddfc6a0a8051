//! Changes: the append-only history, and the feed made of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{Document, Kind, Name, Revision};

/// One committed change of one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// When; the same for all changes of one request.
    pub revision: Revision,
    /// Where in the request.
    pub ordinal: u32,
    /// What happened.
    pub operation: Operation,
    /// What kind of document.
    pub kind: Kind,
    /// Its workspace, if the kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Name>,
    /// Its name.
    pub name: Name,
    /// Its id.
    pub uid: Uuid,
    /// The document before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Document>,
    /// The document after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Document>,
    /// Who.
    pub actor: String,
    /// Why, if told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In which request.
    pub request_id: String,
}

/// What happened to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Operation {
    /// It was made.
    Create,
    /// It was changed.
    Update,
    /// It was deleted.
    Delete,
    /// Not a document: the fleet's clock was moved past a cursor from before a restore.
    ClockMoved,
}

/// The answer to `GET /v1/changes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangePage {
    /// The changes, oldest first.
    pub items: Vec<Change>,
    /// Ask from here next.
    pub cursor: Revision,
}

/// The body of `POST /v1/apply` and `POST /v1/plan`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyRequest {
    /// The documents, of any kinds in any order.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Document>))]
    pub resources: Vec<Value>,
    /// Whether everything is checked and nothing kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to an apply or a bulk create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyAnswer {
    /// The commit's revision; absent if nothing changed or for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// What was done with each document, in the request's order.
    pub results: Vec<ApplyResult>,
    /// The tasks that were made.
    #[serde(default)]
    pub tasks: Vec<Uuid>,
}

/// What was done with one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyResult {
    /// The document's kind.
    pub kind: Kind,
    /// Its workspace, if the kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Name>,
    /// Its name.
    pub name: Name,
    /// What was done.
    pub action: Action,
}

/// What was done with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Action {
    /// It was made.
    Created,
    /// It was changed.
    Updated,
    /// It was as declared already.
    Unchanged,
    /// It was deleted.
    Deleted,
}

impl Action {
    /// Returns the action as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}
