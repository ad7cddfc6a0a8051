//! Tokens of people and pipelines.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use titan_api::{Name, enrolment::TokenRequest};
use uuid::Uuid;

use crate::{
    errors::CliError,
    output::{
        Exit, Tone, View, ages,
        tables::{Cell, Table},
    },
    session::Session,
};

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it, this once.
    Create {
        /// Whose it is; stands as the actor in the history.
        name: Name,
        /// How long it can be used: `24h`, `30d`; for ever unless given.
        #[arg(long, value_name = "TIME", value_parser = ages::parse_duration)]
        ttl: Option<Duration>,
    },
    /// List the tokens, without their secrets.
    List,
    /// End a token.
    Delete {
        /// Id of the token, from the list.
        id: Uuid,
    },
}

impl Token {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let client = session.client()?;
        let view = match self {
            Self::Create { name, ttl } => {
                let ttl_seconds = ttl
                    .map(|ttl| u32::try_from(ttl.as_secs()))
                    .transpose()
                    .map_err(|_| CliError::usage("--ttl is too long", "leave it out for a token without an end"))?;
                let new = client.create_token(&TokenRequest { name, ttl_seconds }).await?;
                session.output.note(&Tone::Faint.paint("the token is shown this once:"));
                let data = json!({ "record": new.record, "token": new.token });
                View::new(&data).name(format!("token/{}", new.record.id)).text(new.token)
            }
            Self::List => {
                let tokens = client.tokens().await?.items;
                let now = ages::now();
                let mut table = Table::new(&["NAME", "ID", "EXPIRES", "AGE"]);
                for token in &tokens {
                    let expires = match token.expires_at {
                        None => "never".into(),
                        Some(end) if end <= now => Cell::toned("expired", Tone::Bad),
                        Some(end) => format!("in {}", ages::age(now, end)).into(),
                    };
                    let age = ages::age(token.created_at, now).into();
                    table.row([token.name.as_str().into(), token.id.to_string().into(), expires, age]);
                }
                let view = View::new(&json!({ "items": tokens })).table(table);
                tokens.iter().fold(view, |view, token| view.name(format!("token/{}", token.id)))
            }
            Self::Delete { id } => {
                client.delete_token(id).await?;
                let text = format!("token/{id} {}", Tone::Care.paint("ended"));
                View::new(&json!({ "id": id })).name(format!("token/{id}")).text(text)
            }
        };
        session.output.show(&view)?;
        Ok(Exit::Done)
    }
}
