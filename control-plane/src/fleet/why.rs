//! Why: the rules that put a deployment on a host, or keep it away, one by one.

use titan_api::status::WhyStep;

use crate::fleet::{
    matchers::Matcher,
    model::{Deployment, Host, Model},
};

/// Returns each rule with whether it holds for the host.
#[must_use]
pub fn steps(model: &Model, deployment: &Deployment, host: Host<'_>, held: bool, chosen: bool) -> Vec<WhyStep> {
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
    if let Some(replicas) = deployment.spec.replicas {
        steps.push(WhyStep {
            rule: format!("the host is one of {replicas} replicas"),
            holds: chosen,
            found: if chosen { "it was picked" } else { "others were picked" }.to_owned(),
        });
    }
    steps
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
