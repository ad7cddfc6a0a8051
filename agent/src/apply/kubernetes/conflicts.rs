//! Fields that another manager holds: whose they are, and whether they were ours before.

use std::collections::{BTreeMap, BTreeSet};

use super::{client::Refused, objects::Key};
use crate::apply::ApplyError;

/// Whether the server refused because of fields that others hold.
pub(crate) fn is_conflict(refused: &Refused) -> bool {
    refused.status == 409 && refused.causes.iter().any(|(_, reason, _)| reason == "FieldManagerConflict")
}

/// Returns whether all fields of a conflict are among those that were ours when we applied the object last: then somebody
/// took them, and that is drift, which is put right. Otherwise says whose they are and what to do.
pub(crate) fn check(key: &Key, refused: &Refused, once_ours: Option<&BTreeSet<String>>) -> Result<(), ApplyError> {
    let was_ours = |field: &str| once_ours.is_some_and(|fields| fields.contains(field));
    let mut held: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (field, _, message) in refused.causes.iter().filter(|(field, ..)| !was_ours(field)) {
        held.entry(manager(message)).or_default().push(field);
    }
    if held.is_empty() {
        return Ok(());
    }
    let told: Vec<String> =
        held.iter().map(|(manager, fields)| format!("{manager} manages {}", fields.join(", "))).collect();
    let message = format!(
        "{}; leave these fields out of the template, have that manager give them up, or set \
         appliers.kubernetes.force in agent.yaml",
        told.join("; ")
    );
    Err(ApplyError::Platform { what: format!("applying {key}"), message })
}

/// Returns the manager that a cause names: `conflict with "hpa" using autoscaling/v2`.
fn manager(message: &str) -> String {
    message.split('"').nth(1).map_or_else(|| message.to_owned(), |name| format!("\"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_were_ours_are_taken_back_and_others_named_with_their_manager() {
        let cause = |field: &str, manager: &str| {
            (field.to_owned(), "FieldManagerConflict".to_owned(), format!("conflict with \"{manager}\" using apps/v1"))
        };
        let causes = vec![cause(".spec.replicas", "hpa"), cause(".spec.paused", "kubectl-edit")];
        let refused = Refused { status: 409, reason: "Conflict".into(), message: String::new(), causes };
        assert!(is_conflict(&refused));
        let key = Key::new("apps", "Deployment", "shop", "web");
        let ours = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect::<BTreeSet<_>>();
        assert!(check(&key, &refused, Some(&ours(&[".spec.replicas", ".spec.paused"]))).is_ok());
        let message = check(&key, &refused, Some(&ours(&[".spec.paused"]))).expect_err("replicas").to_string();
        assert!(message.contains("\"hpa\" manages .spec.replicas;") && !message.contains("paused"), "{message}");
        assert!(message.contains("Deployment shop/web") && message.contains("appliers.kubernetes.force"), "{message}");
    }
}
