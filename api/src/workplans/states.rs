//! States: of plans, nodes and attempts, each with its table of transitions. All go forward only.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $variant_doc:literal])* $variant:ident = $text:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum $name {
            $($(#[doc = $variant_doc])* $variant,)*
        }

        impl $name {
            /// Every one of them.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            /// Returns it as it stands on the wire and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let known = Self::ALL.map(Self::as_str).join(", ");
                let found = Self::ALL.into_iter().find(|word| word.as_str() == text);
                found.ok_or_else(|| format!("{text:?} is none of {known}"))
            }
        }
    };
}
pub(crate) use words;

words! {
    /// How far a plan is.
    PlanState {
        /// It is being put together and has not been started.
        Planning = "planning",
        /// Its nodes go on.
        Running = "running",
        /// Nothing new begins and no clock of it runs until a person resumes it.
        Paused = "paused",
        /// It was stopped; attempts that are on their way come to their end.
        Aborting = "aborting",
        /// It was stopped; what was done is undone by the nodes that are there for it.
        RollingBack = "rollingBack",
        /// All that had to pass did.
        Succeeded = "succeeded",
        /// Something that had to pass did not.
        Failed = "failed",
        /// It was stopped.
        Aborted = "aborted",
        /// It was stopped and undone.
        RolledBack = "rolledBack",
        /// A newer plan took its place.
        Superseded = "superseded",
    }
}

impl PlanState {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Aborted | Self::RolledBack | Self::Superseded)
    }

    /// Whether `next` may follow.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        let allowed: &[Self] = match self {
            Self::Planning => &[Self::Running, Self::Aborting],
            Self::Running => &[Self::Paused, Self::Aborting, Self::RollingBack, Self::Succeeded, Self::Failed],
            Self::Paused => &[Self::Running, Self::Aborting, Self::RollingBack],
            Self::Aborting => &[Self::Aborted, Self::Superseded],
            Self::RollingBack => &[Self::RolledBack, Self::Failed],
            Self::Succeeded | Self::Failed | Self::Aborted | Self::RolledBack | Self::Superseded => &[],
        };
        allowed.contains(&next)
    }
}

words! {
    /// What a node is.
    NodeKind {
        /// It does something.
        Stage = "stage",
        /// It asks something.
        Check = "check",
    }
}

words! {
    /// How far a node is. Stages are planned, attempting, awaitingGroup, final; checks planning, planned, waiting, final.
    NodeState {
        /// A check that is still being put together.
        Planning = "planning",
        /// It waits for what it depends on.
        Planned = "planned",
        /// A check that waits for its results.
        Waiting = "waiting",
        /// A stage that is being done.
        Attempting = "attempting",
        /// A stage that is done and waits for its children.
        AwaitingGroup = "awaitingGroup",
        /// Nothing follows.
        Final = "final",
    }
}

impl NodeState {
    /// Whether a node of `kind` may go from this state to `next`.
    #[must_use]
    pub fn may_become(self, kind: NodeKind, next: Self) -> bool {
        let allowed: &[Self] = match (kind, self) {
            (NodeKind::Stage, Self::Planned) => &[Self::Attempting, Self::Final],
            (NodeKind::Stage, Self::Attempting) => &[Self::AwaitingGroup, Self::Final],
            (NodeKind::Stage, Self::AwaitingGroup) => &[Self::Final],
            (NodeKind::Check, Self::Planning) => &[Self::Planned, Self::Final],
            (NodeKind::Check, Self::Planned) => &[Self::Waiting, Self::Final],
            (NodeKind::Check, Self::Waiting) => &[Self::Final],
            _ => &[],
        };
        allowed.contains(&next)
    }
}

words! {
    /// What came of a node.
    Outcome {
        /// It did what it had to, or the answer is yes.
        Passed = "passed",
        /// A person said to go on as if it had passed.
        Overridden = "overridden",
        /// It could not be done, or the answer is no.
        Failed = "failed",
        /// What it waited for can no longer come about.
        Skipped = "skipped",
        /// The plan was stopped before it came to its end.
        Cancelled = "cancelled",
    }
}

impl Outcome {
    /// Whether what waits for the node to pass may go on.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Passed | Self::Overridden)
    }
}

words! {
    /// How far an attempt is.
    AttemptState {
        /// It waits for its time, as after a failure.
        Pending = "pending",
        /// It waits for somebody to take it.
        Scheduled = "scheduled",
        /// Somebody is at it.
        Running = "running",
        /// Whoever was at it did the job, whatever came of it.
        Complete = "complete",
        /// It came to an end without the job being done.
        Incomplete = "incomplete",
    }
}

impl AttemptState {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Incomplete)
    }

    /// Whether `next` may follow.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        let allowed: &[Self] = match self {
            Self::Pending => &[Self::Scheduled, Self::Incomplete],
            Self::Scheduled => &[Self::Running, Self::Incomplete],
            Self::Running => &[Self::Complete, Self::Incomplete],
            Self::Complete | Self::Incomplete => &[],
        };
        allowed.contains(&next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs<T: Copy>(all: &[T], allowed: impl Fn(T, T) -> bool) -> Vec<(T, T)> {
        let each = all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to)));
        each.filter(|(from, to)| allowed(*from, *to)).collect()
    }

    /// S3-4, S3-7.
    #[test]
    fn nodes_go_forward_only() {
        use NodeState as S;
        let of = |kind| pairs(&S::ALL, |from, to| from.may_become(kind, to));
        assert_eq!(
            of(NodeKind::Stage),
            [
                (S::Planned, S::Attempting),
                (S::Planned, S::Final),
                (S::Attempting, S::AwaitingGroup),
                (S::Attempting, S::Final),
                (S::AwaitingGroup, S::Final)
            ]
        );
        assert_eq!(
            of(NodeKind::Check),
            [
                (S::Planning, S::Planned),
                (S::Planning, S::Final),
                (S::Planned, S::Waiting),
                (S::Planned, S::Final),
                (S::Waiting, S::Final)
            ]
        );
    }

    /// S3-9.
    #[test]
    fn attempts_go_forward_only() {
        use AttemptState as S;
        assert_eq!(
            pairs(&S::ALL, S::may_become),
            [
                (S::Pending, S::Scheduled),
                (S::Pending, S::Incomplete),
                (S::Scheduled, S::Running),
                (S::Scheduled, S::Incomplete),
                (S::Running, S::Complete),
                (S::Running, S::Incomplete)
            ]
        );
    }

    #[test]
    fn plans_go_as_their_table_says_and_end_for_good() {
        use PlanState as S;
        let allowed = pairs(&S::ALL, S::may_become);
        assert_eq!(
            allowed,
            [
                (S::Planning, S::Running),
                (S::Planning, S::Aborting),
                (S::Running, S::Paused),
                (S::Running, S::Aborting),
                (S::Running, S::RollingBack),
                (S::Running, S::Succeeded),
                (S::Running, S::Failed),
                (S::Paused, S::Running),
                (S::Paused, S::Aborting),
                (S::Paused, S::RollingBack),
                (S::Aborting, S::Aborted),
                (S::Aborting, S::Superseded),
                (S::RollingBack, S::Failed),
                (S::RollingBack, S::RolledBack),
            ]
        );
        assert!(allowed.iter().all(|(from, _)| !from.is_final()));
    }
}
