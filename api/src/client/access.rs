//! Access: enrolment and tokens.

use reqwest::Method;
use uuid::Uuid;

use super::{Client, Result};
use crate::{
    enrolment::{EnrolAnswer, EnrolRequest, EnrolmentToken, EnrolmentTokenRequest, NewToken, Token, TokenRequest},
    pages::Page,
};

impl Client {
    /// Makes a one-time token with which a host enrols.
    pub async fn enrolment_token(&self, request: &EnrolmentTokenRequest) -> Result<EnrolmentToken> {
        self.post_json("/v1/enrolment-tokens", request).await
    }

    /// Trades a one-time token for the host's own credential.
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<EnrolAnswer> {
        self.post_json("/v1/enrol", request).await
    }

    /// Makes a token for a person or a pipeline.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<NewToken> {
        self.post_json("/v1/tokens", request).await
    }

    /// Returns the tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Page<Token>> {
        self.get_json("/v1/tokens").await
    }

    /// Ends a token.
    pub async fn delete_token(&self, id: Uuid) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/v1/tokens/{id}"))).await.map(drop)
    }
}
