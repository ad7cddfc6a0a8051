//! Problems: RFC 9457 `application/problem+json`, with stable codes for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, as told to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{detail}")]
pub struct Problem {
    /// A stable URN made of the code, `urn:titan:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened to what, for people.
    pub detail: String,
    /// The stable code, for programs.
    pub code: Code,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The request's id; the log has more under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Each thing that is wrong with the request's body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the body.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

impl Fault {
    /// Returns a fault at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }

    /// Returns the fault with `prefix` before its pointer.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// The stable code of a [`Problem`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Code {
            $($(#[doc = $doc])* #[serde(rename = $text)] $name,)*
            /// A code that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl Code {
            /// Every code, for the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the code as text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown => "unknown" }
            }

            /// Returns the HTTP status that goes with the code.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* Self::Unknown => 500 }
            }

            /// Returns the code in words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* Self::Unknown => "Unknown problem" }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not of the media type.
    MalformedBody = "malformed_body", 400, "The body cannot be read";
    /// A query parameter or header is malformed.
    BadParameter = "bad_parameter", 400, "A parameter is malformed";
    /// No credential, or one that is not known (any more).
    Unauthorized = "unauthorized", 401, "A valid credential is needed";
    /// The credential does not allow this.
    Forbidden = "forbidden", 403, "Not allowed";
    /// No such thing.
    NotFound = "not_found", 404, "Not found";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed";
    /// A thing of this name exists.
    AlreadyExists = "already_exists", 409, "Already exists";
    /// Something still needs it.
    InUse = "in_use", 409, "Still in use";
    /// The idempotency key was used for another request.
    KeyReused = "key_reused", 409, "The idempotency key was used for another request";
    /// A cursor is ahead of every clock.
    CursorAhead = "cursor_ahead", 409, "The cursor is ahead of the clock";
    /// A plan, node or attempt cannot go on like that.
    InvalidTransition = "invalid_transition", 409, "Not possible in this state";
    /// A node can no longer be changed.
    ImmutableNode = "immutable_node", 409, "The node can no longer be changed";
    /// A signal speaks of a node as it no longer is.
    StaleSignal = "stale_signal", 409, "The signal speaks of something that has changed";
    /// Somebody approves what is his own.
    SelfApproval = "self_approval", 403, "Nobody approves what is his own";
    /// Another process has the attempt.
    AttemptTaken = "attempt_taken", 409, "Another process has the attempt";
    /// `If-Match` does not match.
    Stale = "stale", 412, "Somebody else changed it";
    /// A limit on size is passed.
    TooLarge = "too_large", 413, "Too large";
    /// A document does not fit its kind.
    Invalid = "invalid_document", 422, "A document is not valid";
    /// A document names something that is not there.
    MissingReference = "missing_reference", 422, "A document refers to something that is not there";
    /// Nodes wait for each other.
    Cycle = "cycle", 422, "Nodes wait for each other";
    /// A node names one that is not there.
    UnknownNode = "unknown_node", 422, "A node names one that is not there";
    /// A group has no members.
    EmptyGroup = "empty_group", 422, "A group has no members";
    /// A threshold is below zero or above what it counts.
    ThresholdTooLarge = "threshold_too_large", 422, "A threshold does not fit its group";
    /// A plan could take longer than its deadline.
    BudgetExceeded = "budget_exceeded", 422, "The plan cannot be sure to meet its deadline";
    /// A template cannot be parsed.
    BadTemplate = "bad_template", 422, "A template is not valid";
    /// A template cannot be rendered.
    RenderFailed = "render_failed", 422, "A template cannot be rendered";
    /// There is no host with room for it, or too few.
    Unschedulable = "unschedulable", 422, "There is no host with room for it";
    /// Too many requests; `Retry-After` says when.
    Overloaded = "overloaded", 429, "Too many requests";
    /// Something went wrong inside; the log has it.
    Internal = "internal", 500, "Something went wrong inside";
    /// Not ready yet, or shutting down; `Retry-After` says when.
    Unavailable = "unavailable", 503, "Not available now";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Problem {
    /// Returns a problem of `code`.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:titan:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            hint: None,
            request_id: None,
            errors: Vec::new(),
        }
    }

    /// Returns the problem with a way to mend it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the problem with one more fault.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(Fault::new(pointer, detail));
        self
    }

    /// Returns the problem with more faults.
    #[must_use]
    pub fn with(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.errors.extend(faults);
        self
    }

    /// Returns the problem with `prefix` before every pointer.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for fault in &mut self.errors {
            fault.pointer.insert_str(0, prefix);
        }
        self
    }

    /// Returns a [`Code::NotFound`] for a named thing.
    pub fn not_found(kind: impl fmt::Display, name: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {kind} {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What programs decide by is in the reference, with its status.
    #[test]
    fn every_code_stands_in_the_reference() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
        let page = std::fs::read_to_string(page).expect("docs/api.md");
        for code in Code::ALL {
            let row = format!("| `{code}` | {} | ", code.status());
            assert!(page.contains(&row), "docs/api.md has no row that begins with {row:?}");
        }
    }

    /// S3-21: what is not there, what makes no sense, what is not possible now, what somebody else was faster with, and our
    /// own faults can be told apart by the status alone.
    #[test]
    fn every_sort_of_refusal_has_a_status_of_its_own() {
        for (status, codes) in [
            (404, &[Code::NotFound] as &[Code]),
            (422, &[Code::Invalid, Code::Cycle, Code::UnknownNode, Code::EmptyGroup, Code::BudgetExceeded]),
            (409, &[Code::InvalidTransition, Code::ImmutableNode, Code::StaleSignal, Code::AttemptTaken]),
            (412, &[Code::Stale]),
            (500, &[Code::Internal]),
        ] {
            for code in codes {
                assert_eq!((code.status(), Problem::new(*code, "x").status), (status, status), "{code}");
            }
        }
    }

    #[test]
    fn problem_is_rfc_9457() {
        let problem = Problem::not_found("host", "tim-pi");
        let json = serde_json::to_value(&problem).expect("json");
        assert_eq!(json["type"], "urn:titan:problem:not_found");
        assert_eq!(json["status"], 404);
        assert_eq!(json["code"], "not_found");
        assert_eq!(serde_json::from_value::<Problem>(json).expect("problem"), problem);
    }

    #[test]
    fn unknown_codes_are_read() {
        assert_eq!(serde_json::from_str::<Code>("\"from_the_future\"").expect("code"), Code::Unknown);
    }
}
