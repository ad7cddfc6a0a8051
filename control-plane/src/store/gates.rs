//! Gates, and what they are never to open for again.

use titan_api::{Digest, Revision};
use uuid::Uuid;

use super::{Result, Tx, both, clean, json, over_rows, parsed, rows};
use crate::fleet::rollouts::gates::Gate;

/// Why what resolves to some inputs is not handed out by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veto {
    /// The number of the release that was taken back.
    pub number: i64,
    /// Why it was.
    pub reason: String,
    /// Who changed what it was made of.
    pub actor: String,
    /// When it was taken back.
    pub at: Revision,
}

type Row = (String, String, i64, Option<i64>, Option<String>, String, i64);

fn gate((deployment, plan, to, from, taken_back, openings, revision): Row) -> Result<(Gate, Revision)> {
    const TABLE: &str = "gates";
    let id = deployment.as_str();
    let gate = Gate {
        deployment: parsed(TABLE, "deployment_uid", id, id)?,
        plan: parsed(TABLE, "plan_id", id, &plan)?,
        to,
        from,
        taken_back: taken_back.map_or(Ok(Vec::new()), |text| json(TABLE, "taken_back", id, &text))?,
        openings: json(TABLE, "openings", id, &openings)?,
    };
    Ok((gate, Revision::from_micros(revision)))
}

impl Tx {
    /// Returns the gates that moved after `seen`, with when they did.
    pub async fn gates_after(&mut self, seen: Revision) -> Result<Vec<(Gate, Revision)>> {
        const SQL: &str = "SELECT deployment_uid, plan_id, to_number, from_number, taken_back, openings, revision FROM gates \
             WHERE revision > $1 ORDER BY revision";
        let rows: Vec<Row> = both!(self, conn => sqlx::query_as(SQL).bind(seen.micros()).fetch_all(&mut **conn).await?);
        rows.into_iter().map(gate).collect()
    }

    /// Returns the gate of a deployment.
    pub async fn gate(&mut self, deployment: Uuid) -> Result<Option<Gate>> {
        const SQL: &str = "SELECT deployment_uid, plan_id, to_number, from_number, taken_back, openings, revision FROM gates \
             WHERE deployment_uid = $1";
        let row: Option<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(deployment.to_string()).fetch_optional(&mut **conn).await?);
        row.map(|row| gate(row).map(|(gate, _)| gate)).transpose()
    }

    /// Returns the gate that a plan opens.
    pub async fn gate_of_plan(&mut self, plan: Uuid) -> Result<Option<Gate>> {
        const SQL: &str = "SELECT deployment_uid, plan_id, to_number, from_number, taken_back, openings, revision FROM gates \
             WHERE plan_id = $1";
        let row: Option<Row> =
            both!(self, conn => sqlx::query_as(SQL).bind(plan.to_string()).fetch_optional(&mut **conn).await?);
        row.map(|row| gate(row).map(|(gate, _)| gate)).transpose()
    }

    /// Returns when the gate that a plan opens last moved.
    pub async fn gate_moved(&mut self, plan: Uuid) -> Result<Option<Revision>> {
        const SQL: &str = "SELECT revision FROM gates WHERE plan_id = $1";
        let row: Option<(i64,)> =
            both!(self, conn => sqlx::query_as(SQL).bind(plan.to_string()).fetch_optional(&mut **conn).await?);
        Ok(row.map(|(revision,)| Revision::from_micros(revision)))
    }

    /// Returns the plans that succeeded though their gates are not settled.
    pub async fn plans_to_settle(&mut self) -> Result<Vec<Uuid>> {
        const SQL: &str = "SELECT g.plan_id FROM gates g JOIN workplans w ON w.id = g.plan_id \
             WHERE (g.from_number IS NULL OR g.from_number <> g.to_number) AND w.state = 'succeeded'";
        let rows: Vec<(String,)> = both!(self, conn => sqlx::query_as(SQL).fetch_all(&mut **conn).await?);
        rows.into_iter().map(|(plan,)| parsed("gates", "plan_id", &plan, &plan)).collect()
    }

    /// Writes a gate at `revision`, which the same transaction took from the clock.
    pub async fn put_gate(&mut self, gate: &Gate, revision: Revision) -> Result<()> {
        const SQL: &str = "INSERT INTO gates \
             (deployment_uid, plan_id, to_number, from_number, taken_back, openings, revision) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (deployment_uid) DO UPDATE SET plan_id = excluded.plan_id, \
             to_number = excluded.to_number, from_number = excluded.from_number, taken_back = excluded.taken_back, \
             openings = excluded.openings, revision = excluded.revision";
        let openings = serde_json::to_string(&gate.openings).unwrap_or_default();
        let taken_back = Some(&gate.taken_back).filter(|numbers| !numbers.is_empty());
        let taken_back = taken_back.and_then(|numbers| serde_json::to_string(numbers).ok());
        both!(self, conn => sqlx::query(SQL)
            .bind(gate.deployment.to_string()).bind(gate.plan.to_string()).bind(gate.to).bind(gate.from).bind(taken_back)
            .bind(openings).bind(revision.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Notes that what resolves to `inputs` is not handed out by itself any more.
    pub async fn veto(
        &mut self,
        deployment: Uuid,
        inputs: &Digest,
        number: i64,
        (reason, actor): (&str, &str),
        at: Revision,
    ) -> Result<()> {
        const SQL: &str = "INSERT INTO vetoes (deployment_uid, inputs_digest, number, reason, actor, vetoed_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (deployment_uid, inputs_digest) DO UPDATE SET \
             number = excluded.number, reason = excluded.reason, actor = excluded.actor, vetoed_at = excluded.vetoed_at";
        both!(self, conn => sqlx::query(SQL)
            .bind(deployment.to_string()).bind(inputs.as_bytes().to_vec()).bind(number).bind(clean(reason).as_ref()).bind(actor)
            .bind(at.micros()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }

    /// Returns why what resolves to `inputs` is not to be handed out by itself, if it is not.
    pub async fn veto_of(&mut self, deployment: Uuid, inputs: &Digest) -> Result<Option<Veto>> {
        const SQL: &str = "SELECT number, reason, actor, vetoed_at FROM vetoes \
             WHERE deployment_uid = $1 AND inputs_digest = $2";
        let row: Option<(i64, String, String, i64)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(deployment.to_string()).bind(inputs.as_bytes().to_vec()).fetch_optional(&mut **conn).await?);
        Ok(row.map(|(number, reason, actor, at)| Veto { number, reason, actor, at: Revision::from_micros(at) }))
    }

    /// Returns why the release that a plan hands out does not begin by itself, with the digest of its inputs.
    pub async fn veto_of_plan(&mut self, plan: Uuid) -> Result<Option<(Uuid, Digest, Veto)>> {
        let Some(gate) = self.gate_of_plan(plan).await? else { return Ok(None) };
        let Some(release) = self.release(gate.deployment, gate.to).await? else { return Ok(None) };
        let veto = self.veto_of(gate.deployment, &release.inputs_digest).await?;
        Ok(veto.map(|veto| (gate.deployment, release.inputs_digest, veto)))
    }

    /// Returns the numbers before `number` that are made of what was taken back, beginning after `after`.
    pub async fn taken_back(&mut self, deployment: Uuid, after: Option<i64>, number: i64) -> Result<Vec<i64>> {
        const SQL: &str = "SELECT r.number FROM vetoes v JOIN releases r ON r.deployment_uid = v.deployment_uid \
             AND r.inputs_digest = v.inputs_digest WHERE v.deployment_uid = $1 AND r.number > $2 AND r.number < $3 \
             ORDER BY r.number";
        let rows: Vec<(i64,)> = both!(self, conn => sqlx::query_as(SQL)
            .bind(deployment.to_string()).bind(after.unwrap_or_default()).bind(number).fetch_all(&mut **conn).await?);
        Ok(rows.into_iter().map(|(number,)| number).collect())
    }

    /// Removes the gates of deployments that are gone, and what was taken back of them.
    pub(super) async fn purge_gates(&mut self, deployments: &[Uuid]) -> Result<()> {
        let statements = [
            over_rows!(self, "DELETE FROM gates WHERE deployment_uid IN (SELECT j.value ->> 0 FROM", ")"),
            over_rows!(self, "DELETE FROM vetoes WHERE deployment_uid IN (SELECT j.value ->> 0 FROM", ")"),
        ];
        let uids = rows(deployments.iter().map(|uid| [uid]));
        for sql in statements {
            both!(self, conn => sqlx::query(sql).bind(uids.as_str()).execute(&mut **conn).await.map(drop)?);
        }
        Ok(())
    }

    /// Returns the number of the newest release before `number` that nobody took back.
    pub async fn release_before(&mut self, deployment: Uuid, number: i64) -> Result<Option<i64>> {
        const SQL: &str = "SELECT MAX(r.number) FROM releases r WHERE r.deployment_uid = $1 AND r.number < $2 \
             AND NOT EXISTS (SELECT 1 FROM vetoes v WHERE v.deployment_uid = r.deployment_uid \
             AND v.inputs_digest = r.inputs_digest)";
        let (found,): (Option<i64>,) = both!(self, conn => sqlx::query_as(SQL)
            .bind(deployment.to_string()).bind(number).fetch_one(&mut **conn).await?);
        Ok(found)
    }

    /// Takes a veto back: it was proven all the same.
    pub async fn lift_veto(&mut self, deployment: Uuid, inputs: &Digest) -> Result<()> {
        const SQL: &str = "DELETE FROM vetoes WHERE deployment_uid = $1 AND inputs_digest = $2";
        both!(self, conn => sqlx::query(SQL)
            .bind(deployment.to_string()).bind(inputs.as_bytes().to_vec()).execute(&mut **conn).await.map(drop)?);
        Ok(())
    }
}
