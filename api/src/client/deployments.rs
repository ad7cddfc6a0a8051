//! Deployments: how far they are, and with which values.

use reqwest::Method;

use super::{Client, Result};
use crate::{
    Kind,
    pipelines::{PipelineAnswer, PipelineEvent, PipelineLog},
    status::DeploymentStatus,
    values::MergedValues,
    workplans::PlanStatus,
};

impl Client {
    /// Returns how far a deployment is.
    pub async fn deployment_status(&self, workspace: &str, name: &str) -> Result<DeploymentStatus> {
        self.get_json(&format!("{}/status", Kind::Deployment.path(Some(workspace), Some(name)))).await
    }

    /// Returns how far the newest release of a deployment is handed out.
    pub async fn rollout(&self, workspace: &str, name: &str) -> Result<PlanStatus> {
        self.get_json(&format!("{}/rollout", Kind::Deployment.path(Some(workspace), Some(name)))).await
    }

    /// Returns how far the release of this number of a deployment is handed out, or was.
    pub async fn rollout_of(&self, workspace: &str, name: &str, release: i64) -> Result<PlanStatus> {
        let path = Kind::Deployment.path(Some(workspace), Some(name));
        self.get_json(&format!("{path}/rollout?release={release}")).await
    }

    /// Returns the merged values of a deployment on a host, with the layer each came from.
    pub async fn values(&self, workspace: &str, name: &str, host: &str) -> Result<MergedValues> {
        let path = format!("{}/values", Kind::Deployment.path(Some(workspace), Some(name)));
        self.json(self.with_query(Method::GET, &path, &[("host", host.to_owned())])).await
    }

    /// Reports a commit or a build of a workload, named itself or by a deployment of it.
    pub async fn report_pipeline(&self, of: (Kind, &str, &str), event: &PipelineEvent) -> Result<PipelineAnswer> {
        let (kind, workspace, name) = of;
        self.post_json(&format!("{}/events", kind.path(Some(workspace), Some(name))), event).await
    }

    /// Returns the commits and builds that pipelines reported of a workload.
    pub async fn pipeline_log(&self, workspace: &str, workload: &str) -> Result<PipelineLog> {
        self.get_json(&format!("{}/events", Kind::Workload.path(Some(workspace), Some(workload)))).await
    }
}
