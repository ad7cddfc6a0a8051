//! Which plan is meant: one with a name of its own, or the rollout of a release.

use std::convert::Infallible;

use titan_api::{Kind, Name, client::Client};
use uuid::Uuid;

use crate::{errors::CliError, session::Session};

/// What a plan is called.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    /// By its id.
    Id(Uuid),
    /// By its name, in a workspace or in the one of the session.
    Plan(Option<Name>, Name),
    /// As the rollout of the release of this number of a deployment.
    Rollout(Option<Name>, Name, i64),
}

impl Named {
    /// Reads an id, `[WORKSPACE/]NAME` or `[WORKSPACE/]DEPLOYMENT#N`.
    fn read(text: &str) -> Result<Self, CliError> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let wrong = |why: String| {
            CliError::usage(
                format!("{text:?} does not name a plan: {why}"),
                "name it by its id, as NAME, or as DEPLOYMENT#NUMBER if it is a rollout; one of another workspace as WORKSPACE/NAME",
            )
        };
        let name = |text: &str| Name::new(text).map_err(|error| wrong(error.to_string()));
        let (workspace, rest) = match text.split_once('/') {
            Some((workspace, rest)) => (Some(name(workspace)?), rest),
            None => (None, text),
        };
        let Some((deployment, number)) = rest.split_once('#') else { return Ok(Self::Plan(workspace, name(rest)?)) };
        let counted = number.parse().ok().filter(|counted: &i64| *counted > 0);
        let number = counted.ok_or_else(|| wrong(format!("{number:?} is not the number of a release")))?;
        Ok(Self::Rollout(workspace, name(deployment)?, number))
    }
}

/// Returns a plan's name as it is, or as `-o name` prints it.
pub(super) fn plain(text: &str) -> Result<String, Infallible> {
    Ok(text.strip_prefix("workplan/").unwrap_or(text).to_owned())
}

/// Returns the id of a plan by what it is called.
pub(crate) async fn id_of(client: &Client, session: &Session, plan: &str) -> Result<Uuid, CliError> {
    let place = |workspace: Option<Name>| workspace.map_or_else(|| session.workspace(), Ok);
    match Named::read(plan)? {
        Named::Id(id) => Ok(id),
        Named::Plan(workspace, name) => {
            let document = client.get(Kind::WorkPlan, Some(&place(workspace)?), &name, None).await?;
            document.metadata.uid.ok_or_else(|| CliError::usage("the plan has no id", "name it by its id"))
        }
        Named::Rollout(workspace, deployment, number) => {
            Ok(client.rollout_of(&place(workspace)?, &deployment, number).await?.id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_named_as_they_are_shown() {
        let name = |text: &str| Name::new(text).expect("a name");
        let nil = Uuid::nil();
        for (text, named) in [
            ("nightly", Named::Plan(None, name("nightly"))),
            ("iot/nightly", Named::Plan(Some(name("iot")), name("nightly"))),
            ("web#2", Named::Rollout(None, name("web"), 2)),
            ("iot/web#12", Named::Rollout(Some(name("iot")), name("web"), 12)),
            (&nil.to_string(), Named::Id(nil)),
        ] {
            assert_eq!(Named::read(text).expect(text), named);
        }
        for bad in [
            "",
            "#1",
            "web#",
            "web#0",
            "web#-1",
            "web#x",
            "web#1/canary",
            "a/b/c",
            "/web",
            "Web",
            "web#99999999999999999999",
        ] {
            let error = Named::read(bad).expect_err(bad).to_string();
            assert!(error.contains("does not name a plan"), "{error}");
        }
        assert_eq!(plain("workplan/web#2"), Ok("web#2".to_owned()));
    }
}
