//! `titan demo order-lifecycle`: an order that is shipped in time by a shop of which every step fails and hangs, and one
//! that is cancelled and refunded once.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use titan_api::{
    Kind,
    workplans::{NodeState, Outcome, PlanState, Signal, SignalRequest},
};

use super::plays::{Play, approve, because, gate};
use crate::{
    commands::{
        documents::apply,
        workplans::{follow::Follow, picture::spoken},
    },
    errors::CliError,
    manifests,
};

mod shop;

use shop::Shop;

/// The scenario's name, which is also that of the example and of its plan.
pub(super) const NAME: &str = "order-lifecycle";
/// How long an order may take, by its plan.
const IN_TIME: Duration = Duration::from_secs(15);

/// Shows it.
pub(super) async fn show(mut play: Play<'_>) -> Result<(), CliError> {
    shipped(&mut play).await?;
    cancelled(&mut play).await?;
    play.end()
}

/// Applies the example's plan under a name of its own, for a shop and an order.
async fn ordered(play: &Play<'_>, name: &str, shop: &str, order: &str) -> Result<Follow, CliError> {
    follow(play, NAME, name, json!({ "shop": shop, "order": order })).await
}

/// Applies the plan of an example under a name, with other values, and returns it.
pub(super) async fn follow(play: &Play<'_>, example: &str, name: &str, values: Value) -> Result<Follow, CliError> {
    let mut documents = manifests::read(&play.directory.join("fleet").join("plan.yaml"))?;
    for document in &mut documents {
        if let Some(metadata) = document.value.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.insert("name".to_owned(), json!(name));
        }
        let into = document.value.pointer_mut("/spec/values").and_then(Value::as_object_mut);
        if let (Some(into), Value::Object(values)) = (into, values.clone()) {
            into.extend(values);
        }
    }
    apply::send(play.client, &documents, false, Some(format!("titan demo {example}"))).await?;
    let document = play.client.get(Kind::WorkPlan, Some("default"), name, None).await?;
    let id = document.metadata.uid.ok_or_else(|| CliError::Failed(format!("the plan {name} has no id")))?;
    Ok(Follow::begin(play.client, id, None).await?)
}

/// An order that moves house on its way and is shipped all the same.
async fn shipped(play: &mut Play<'_>) -> Result<(), CliError> {
    let shop = Arc::new(Shop::default());
    let address = shop.open().await?;
    // The review waits for 4 s, by the example: who answers it is there before.
    let (customer, reviewer) = (play.somebody("customer").await?, play.somebody("reviewer").await?);
    play.act(
        "an order in a shop of which every step breaks once and hangs once; it has 15 s",
        &format!("titan workplan watch {NAME}"),
    )?;
    let begin = Instant::now();
    let mut plan = ordered(play, NAME, &address, "o-1001").await?;
    let mut beside = || Ok(vec![shop.line()]);
    play.follow(&mut plan, &mut beside, |plan| gate(plan).is_some()).await?;

    play.act("the customer moves", &format!("titan workplan update {NAME} --set address.city=Ulm"))?;
    let moved = |city: &str| {
        let values = json!({ "address": { "city": city } }).as_object().cloned();
        SignalRequest { values, ..because(Signal::Update, "the customer moved") }
    };
    let nowhere = customer.signal(plan.status.id, &moved("")).await;
    customer.signal(plan.status.id, &moved("Ulm")).await?;
    play.pause(&mut plan, &mut beside).await?;
    play.act("the reviewer has looked at it", &format!("titan workplan approve {NAME} review"))?;
    approve(&reviewer, &plan, "a customer of old").await?;
    play.follow(&mut plan, &mut beside, Follow::is_over).await?;
    let took = begin.elapsed();

    let status = &plan.status;
    play.expect(status.state == PlanState::Succeeded, format!("order o-1001 {}", status.state));
    play.expect(took < IN_TIME, format!("it took {:.1} s of the 15 s it had", took.as_secs_f64()));
    play.expect(status.retries >= 6, format!("{} attempts were made again", status.retries));
    let told = shop.told();
    let broken: BTreeMap<_, _> = told.calls.iter().filter(|(_, calls)| **calls < 3).collect();
    let steps = told.calls.len();
    let what = if broken.is_empty() { String::new() } else { format!(", but {broken:?}") };
    play.expect(
        broken.is_empty() && steps == 5,
        format!("each of the {steps} steps broke and hung before it worked{what}"),
    );
    play.expect(
        told.payments == 1,
        format!("it was charged {}, though that was asked for {}", times(told.payments), times(told.asked("charge"))),
    );
    play.expect(told.refunds == 0, "nothing was given back");
    let city = told.city.unwrap_or_else(|| "nowhere".to_owned());
    play.expect(city == "Ulm", format!("it went to {city}, where the customer moved meanwhile"));
    play.expect(nowhere.is_err(), "an address without a city was refused");
    Ok(())
}

/// An order that is cancelled once it was charged.
async fn cancelled(play: &mut Play<'_>) -> Result<(), CliError> {
    const OTHER: &str = "order-cancelled";
    let shop = Arc::new(Shop::default());
    let address = shop.open().await?;
    play.act(
        "another order; the customer changes his mind when he has paid",
        &format!("titan workplan watch {OTHER}"),
    )?;
    let reviewer = play.somebody("manager").await?;
    let mut plan = ordered(play, OTHER, &address, "o-1002").await?;
    let mut beside = || Ok(vec![shop.line()]);
    play.follow(&mut plan, &mut beside, |plan| gate(plan).is_some()).await?;
    approve(&reviewer, &plan, "looks right").await?;
    let outcome = |plan: &Follow, name: &str| {
        plan.nodes.get(name).filter(|node| node.state == NodeState::Final).and_then(|node| node.outcome)
    };
    play.follow(&mut plan, &mut beside, |plan| outcome(plan, "charge").is_some()).await?;
    play.act("he does", &format!("titan workplan rollback {OTHER} --reason 'the customer changed his mind'"))?;
    reviewer.signal(plan.status.id, &because(Signal::Rollback, "the customer changed his mind")).await?;
    play.follow(&mut plan, &mut beside, Follow::is_over).await?;

    let status = &plan.status;
    play.expect(status.state == PlanState::RolledBack, format!("order o-1002 was {}", spoken(status.state)));
    let shipped = outcome(&plan, "ship") == Some(Outcome::Passed);
    play.expect(!shipped, "it was not shipped");
    let told = shop.told();
    let paid = (told.payments, told.refunds);
    play.expect(paid == (1, 1), format!("it was charged {} and refunded {}", times(paid.0), times(paid.1)));
    Ok(())
}

/// Returns how often, in words.
fn times(count: usize) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        more => format!("{more} times"),
    }
}
