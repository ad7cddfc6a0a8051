//! Who calls: credentials and what they allow.
//!
//! There are two sorts of callers: people and pipelines with an admin token, who may do everything, and hosts, each of
//! which may ask and report for itself alone. Roles will be decided here.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use titan_api::{Code, Digest, Name, Problem, Revision};
use uuid::Uuid;

use crate::{
    state::AppState,
    store::{TokenKind, TokenRow},
};

/// How long a credential is trusted before it is looked up again, if another replica may have ended it.
const TRUSTED: Duration = Duration::from_secs(30);
/// The same where this process is the only one, through which every end of a credential goes. Longer than the usual
/// pause between two polls of a host: a poll that changes nothing is to touch no database.
const TRUSTED_ALONE: Duration = Duration::from_secs(3600);
/// Credentials kept in memory; the least used go first.
const CACHED: u64 = 2_000_000;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person or pipeline.
    Admin {
        /// The token's name; the actor in the history.
        name: Name,
    },
    /// A host.
    Host {
        /// Its id.
        uid: Uuid,
        /// Its name.
        name: Name,
    },
}

impl Principal {
    /// Returns who to name in the history.
    #[must_use]
    pub fn actor(&self) -> String {
        match self {
            Self::Admin { name } => format!("token:{name}"),
            Self::Host { name, .. } => format!("host:{name}"),
        }
    }

    /// Refuses everybody but people and pipelines.
    pub fn require_admin(&self) -> Result<(), Problem> {
        match self {
            Self::Admin { .. } => Ok(()),
            Self::Host { name, .. } => {
                Err(Problem::new(Code::Forbidden, format!("host {name} may only poll and report for itself")))
            }
        }
    }

    /// Refuses everybody but the host of this name, and returns its id.
    pub fn require_host(&self, wanted: &str) -> Result<Uuid, Problem> {
        match self {
            Self::Host { uid, name } if name == wanted => Ok(*uid),
            _ => Err(Problem::new(Code::Forbidden, format!("this takes the credential of host {wanted}"))),
        }
    }
}

/// Credentials seen lately, by the hash of their secret.
#[derive(Debug)]
pub struct CredentialCache {
    cached: moka::sync::Cache<Digest, Cached>,
    /// Counts how often credentials were ended: what was looked up before that is not kept.
    ended: AtomicU64,
}

#[derive(Debug, Clone)]
struct Cached {
    principal: Principal,
    expires_at: Option<Revision>,
    trusted_until: Revision,
}

impl Default for CredentialCache {
    fn default() -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(CACHED)
            .time_to_live(TRUSTED_ALONE)
            .support_invalidation_closures()
            .build();
        Self { cached: cache, ended: AtomicU64::new(0) }
    }
}

impl CredentialCache {
    /// Forgets every credential, because one was ended.
    pub fn clear(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.cached.invalidate_all();
    }

    /// Forgets the credentials of a host.
    pub fn forget_host(&self, host: Uuid) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        let forgotten = self.cached.invalidate_entries_if(
            move |_, cached| matches!(&cached.principal, Principal::Host { uid, .. } if *uid == host),
        );
        if forgotten.is_err() {
            self.clear();
        }
    }
}

/// Makes a secret: `titan_<kind>_` and 256 random bits in base64.
pub(crate) fn new_secret(kind: TokenKind) -> Result<String, Problem> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(Code::Internal, format!("the system gave no randomness: {error}")))?;
    let word = match kind {
        TokenKind::Admin => "admin",
        TokenKind::Host => "host",
        TokenKind::Join => "join",
    };
    Ok(format!("titan_{word}_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Returns the hash under which a secret is kept. A secret is 256 random bits, so that one round of SHA-256 is enough.
#[must_use]
pub(crate) fn hash(secret: &str) -> Digest {
    Digest::of(secret.as_bytes())
}

/// Returns who shows the bearer token of these headers.
pub(crate) async fn authenticate(state: &AppState, headers: &HeaderMap) -> Result<Principal, Problem> {
    let refused = || {
        Problem::new(Code::Unauthorized, "no valid credential was shown")
            .hint("send the header 'Authorization: Bearer TOKEN'; 'titan login' does it for the command line")
    };
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(refused)?;
    let (scheme, secret) = value.split_once(' ').ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused());
    }
    let hash = hash(secret.trim());
    let now = state.clock.now();
    let credentials = &state.credentials;
    if let Some(cached) = credentials.cached.get(&hash)
        && cached.trusted_until > now
        && cached.expires_at.is_none_or(|end| end > now)
    {
        return Ok(cached.principal);
    }
    let ended = credentials.ended.load(Ordering::SeqCst);
    let row = state.store.read().await?.token_by_hash(&hash).await?.ok_or_else(refused)?;
    let expires_at = row.expires_at;
    if expires_at.is_some_and(|end| end <= now) {
        return Err(refused());
    }
    let principal = match row {
        TokenRow { kind: TokenKind::Admin, name, .. } => Principal::Admin { name },
        TokenRow { kind: TokenKind::Host, name, host: Some(uid), .. } => Principal::Host { uid, name },
        _ => return Err(refused()),
    };
    let trusted = if state.store.postgres().is_some() { TRUSTED } else { TRUSTED_ALONE };
    let trusted_until = state.clock.after(trusted);
    credentials.cached.insert(hash, Cached { principal: principal.clone(), expires_at, trusted_until });
    if credentials.ended.load(Ordering::SeqCst) != ended {
        // One was ended while this one was looked up; it may be this one.
        credentials.cached.invalidate(&hash);
    }
    Ok(principal)
}

/// Makes a token for a person or pipeline and returns its row and secret. The caller commits.
pub(crate) async fn add_admin_token(
    tx: &mut crate::store::Tx,
    name: Name,
    now: Revision,
    expires_at: Option<Revision>,
) -> Result<(TokenRow, String), Problem> {
    let secret = new_secret(TokenKind::Admin)?;
    let row = TokenRow {
        id: Uuid::now_v7(),
        kind: TokenKind::Admin,
        name,
        host: None,
        created_at: now,
        expires_at,
        used_by: None,
    };
    tx.add_token(&row, &hash(&secret)).await?;
    Ok((row, secret))
}
