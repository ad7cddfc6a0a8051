//! Why: the rules that put a deployment on a host, or keep it away, one by one.

use std::time::Duration;

use titan_api::{resources::shown, spans::Span, status::WhyStep};

use crate::fleet::{
    matchers::Matcher,
    model::{Deployment, Host},
    placements::{Footing, obstacles},
};

/// Returns each rule with whether it holds for the host. `held`: whether the host has the deployment now.
#[must_use]
pub fn steps(footing: Footing<'_>, deployment: &Deployment, host: Host<'_>, held: bool) -> Vec<WhyStep> {
    let model = footing.model;
    let mut steps = vec![WhyStep {
        rule: format!("host {} admits workspace {}", host.name(), deployment.workspace),
        holds: host.spec().admits(&deployment.workspace),
        found: format!("workspaces: {}", host.spec().workspaces.join(", ")),
    }];
    match model.target(deployment) {
        Some(target) => steps.extend(rules(&deployment.spec.target, target, host)),
        None => steps.push(WhyStep {
            rule: format!("target {} exists", deployment.spec.target),
            holds: false,
            found: "there is none".to_owned(),
        }),
    }
    if host.spec().cordoned {
        steps.push(WhyStep {
            rule: "a cordoned host takes nothing new".to_owned(),
            holds: held && deployment.spec.replicas.is_none(),
            found: if held { "it has the deployment already" } else { "the host is cordoned" }.to_owned(),
        });
    }
    if !host.spec().taints.is_empty() {
        let taints = host.spec().taints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        steps.push(WhyStep {
            rule: format!("{} tolerates the taints of the host", deployment.name),
            holds: obstacles::repelled(deployment, host, held).is_none(),
            found: format!("taints: {taints}"),
        });
    }
    steps.extend(room(footing, deployment, host));
    if let Some(after) = deployment.spec.failover() {
        let unseen = footing.absences.unseen(host.uid());
        if !unseen.is_zero() {
            steps.push(WhyStep {
                rule: format!("the host was seen within {}", Span(after)),
                holds: !footing.absences.misses(deployment, host.uid()),
                found: format!("it was not seen for {}", Span(Duration::from_secs(unseen.as_secs()))),
            });
        }
    }
    if let Some(replicas) = deployment.spec.replicas {
        steps.push(WhyStep {
            rule: format!("the host is one of {replicas} replicas"),
            holds: held,
            found: if held { "it was picked" } else { "others were picked" }.to_owned(),
        });
    }
    steps
}

/// Returns for each resource that is asked for whether the host has enough of it.
fn room(footing: Footing<'_>, deployment: &Deployment, host: Host<'_>) -> Vec<WhyStep> {
    let short = footing.bookings.shortages(deployment, host);
    let step = |(resource, needs): (&str, u64)| {
        let taken = footing.bookings.taken(resource, host.number());
        let found = match host.capacity(resource) {
            Some(capacity) => {
                format!("{} of {} {resource} are taken", shown(resource, taken), shown(resource, capacity))
            }
            None => format!("nobody says how much {resource} it has"),
        };
        WhyStep {
            rule: format!("the host has {} {resource} left", shown(resource, needs)),
            holds: short.iter().all(|short| short.resource != resource),
            found,
        }
    };
    deployment.spec.requests.iter().map(step).collect()
}

fn rules(name: &str, target: &Matcher, host: Host<'_>) -> Vec<WhyStep> {
    let selector = target.selector();
    let found =
        |key: &str| host.lookup(key).map_or_else(|| format!("{key} is not set"), |value| format!("{key}={value}"));
    let mut steps = Vec::new();
    for (key, value) in &selector.match_labels {
        steps.push(WhyStep {
            rule: format!("target {name}: {key}={value}"),
            holds: host.lookup(key).is_some_and(|is| is == *value),
            found: found(key),
        });
    }
    for requirement in &selector.match_expressions {
        steps.push(WhyStep {
            rule: format!(
                "target {name}: {} {:?} {}",
                requirement.key,
                requirement.operator,
                requirement.values.join(", ")
            ),
            holds: requirement.matches(|key| host.lookup(key)),
            found: found(&requirement.key),
        });
    }
    if let Some(expression) = &selector.expression {
        let alone = Matcher::new(titan_api::selectors::Selector {
            expression: Some(expression.clone()),
            ..titan_api::selectors::Selector::default()
        });
        let holds = alone.is_ok_and(|matcher| matcher.matches(host));
        steps.push(WhyStep { rule: format!("target {name}: {expression}"), holds, found: format!("it is {holds}") });
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::fleet::{absences::Absences, bookings::Bookings, holders::Holders, model::Model};

    const HOST: Uuid = Uuid::from_u128(1);
    const DEPLOYMENT: Uuid = Uuid::from_u128(2);

    fn put(model: &mut Model, kind: &str, uid: Uuid, spec: &Value) {
        let mut document = json!({"apiVersion": "titan/v1", "kind": kind, "spec": spec,
            "metadata": {"name": "n", "uid": uid, "labels": {"zone": "a"}}});
        if kind != "Host" {
            document["metadata"]["workspace"] = json!("w");
        }
        model.put(&serde_json::from_value(document).expect("document")).expect("put");
    }

    /// Returns what holds and what does not, as `+ rule: found` and `- rule: found`.
    fn told(host: &Value, target: Option<&Value>, deployment: Value, held: bool, unseen: u64) -> Vec<String> {
        let (mut model, mut absences, mut deployment) = (Model::default(), Absences::default(), deployment);
        put(&mut model, "Host", HOST, host);
        if let Some(target) = target {
            put(&mut model, "Target", Uuid::from_u128(3), target);
        }
        (deployment["workload"], deployment["target"]) = (json!("w"), json!("n"));
        put(&mut model, "Deployment", DEPLOYMENT, &deployment);
        absences.set(HOST, Duration::from_secs(unseen));
        let bookings = Bookings::of(&model, &Holders::default(), &BTreeSet::new());
        let footing = Footing { model: &model, bookings: &bookings, absences: &absences };
        let (deployment, host) = (model.deployment(DEPLOYMENT).expect("one"), model.host(HOST).expect("one"));
        let sign = |step: &WhyStep| if step.holds { '+' } else { '-' };
        steps(footing, deployment, host, held)
            .iter()
            .map(|step| format!("{} {}: {}", sign(step), step.rule, step.found))
            .collect()
    }

    #[test]
    fn each_rule_of_the_target_is_told_with_what_was_found() {
        let target = json!({
            "matchLabels": {"zone": "a", "disk": "ssd"},
            "matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a", "b"]}],
            "expression": "labels.zone == 'a'",
        });
        let told = told(&json!({"workspaces": ["w", "x"]}), Some(&target), json!({}), false, 0);
        assert_eq!(
            told,
            [
                "+ host n admits workspace w: workspaces: w, x",
                "- target n: disk=ssd: disk is not set",
                "+ target n: zone=a: zone=a",
                "- target n: zone NotIn a, b: zone=a",
                "+ target n: labels.zone == 'a': it is true",
            ]
        );
    }

    #[test]
    fn what_keeps_a_deployment_from_a_host_is_told_rule_by_rule() {
        let host = json!({"workspaces": ["other"], "cordoned": true, "capacity": {"cpu": 1},
            "taints": [{"key": "gpu", "effect": "NoSchedule"}]});
        let spec = json!({"replicas": 1, "failoverAfter": "5m", "requests": {"cpu": 2, "gpu": 1, "memory": "1Gi"}});
        let refused = told(&host, None, spec.clone(), false, 600);
        let starts = |told: &[String], signs: &[&str]| {
            assert_eq!(told.len(), signs.len(), "{told:#?}");
            assert!(told.iter().zip(signs).all(|(line, sign)| line.starts_with(sign)), "{told:#?}");
        };
        starts(
            &refused,
            &[
                "- host n admits workspace w: workspaces: other",
                "- target n exists: there is none",
                "- a cordoned host takes nothing new: the host is cordoned",
                "- n tolerates the taints of the host: taints: gpu:NoSchedule",
                "- the host has 2 cpu left: 0 of 1 cpu are taken",
                "- the host has 1 gpu left: 0 of 0 gpu are taken",
                "+ the host has 1Gi memory left: nobody says how much memory it has",
                "- the host was seen within 5m: it was not seen for 10m",
                "- the host is one of 1 replicas: others were picked",
            ],
        );
        let kept = told(&host, None, json!({}), true, 0);
        starts(
            &kept[2..],
            &[
                "+ a cordoned host takes nothing new: it has the deployment already",
                "+ n tolerates the taints of the host",
            ],
        );
    }
}
