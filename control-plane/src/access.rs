//! Who calls: credentials and what they allow.
//!
//! There are two sorts of callers: people and pipelines with an admin token, who may do everything, and hosts, each of
//! which may ask and report for itself alone. Roles will be decided here.

mod lookups;
mod rates;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};
use siphasher::sip128::SipHasher24;
use titan_api::{Code, Digest, Name, Problem, Revision};
use uuid::Uuid;

use self::{lookups::Lookups, rates::Rates};
use crate::{
    fleet::view::Slot,
    state::AppState,
    store::{TokenKind, TokenRow},
};

/// How long a credential is trusted before it is looked up again, if another replica may have ended it.
const TRUSTED: Duration = Duration::from_secs(30);
/// The same where this process is the only one, through which every end of a credential goes. Longer than the usual
/// pause between two polls of a host: a poll that changes nothing is to touch no database.
const TRUSTED_ALONE: Duration = Duration::from_secs(3600);
/// Credentials kept in memory; the least used go first. Those of hosts that poll have their place in the view instead.
const CACHED: u64 = 100_000;
/// Random bytes of a secret: 256 bits for people and pipelines. A host sends its own with every poll, where each byte is
/// paid for; 128 bits are as little to be guessed.
const SECRET_BYTES: usize = 32;
const HOST_SECRET_BYTES: usize = 16;

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
    /// Makes fingerprints of secrets. The key is new in every process, so that nobody can look for two secrets of one
    /// fingerprint.
    prints: SipHasher24,
    lookups: Lookups,
    rates: Rates,
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
        // The system's randomness, by the way that cannot fail.
        let (one, other) = (RandomState::new(), RandomState::new());
        let prints = SipHasher24::new_with_keys(one.hash_one(0), other.hash_one(1));
        Self { cached: cache, ended: AtomicU64::new(0), prints, lookups: Lookups::default(), rates: Rates::default() }
    }
}

impl CredentialCache {
    /// Returns the fingerprint under which a secret is kept in memory. It costs a tenth of the hash in the database.
    #[must_use]
    pub fn print(&self, secret: &[u8]) -> u128 {
        self.prints.hash(secret).as_u128()
    }

    fn clear(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.cached.invalidate_all();
    }

    fn forget_host(&self, host: Uuid) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        let forgotten = self.cached.invalidate_entries_if(
            move |_, cached| matches!(&cached.principal, Principal::Host { uid, .. } if *uid == host),
        );
        if forgotten.is_err() {
            self.clear();
        }
    }
}

/// Forgets every credential, because one was ended.
pub(crate) fn forget_all(state: &AppState) {
    state.credentials.clear();
    state.view.distrust_all();
}

/// Forgets the credentials of a host.
pub(crate) fn forget_host(state: &AppState, host: Uuid) {
    // In this order: see `identified`.
    state.credentials.forget_host(host);
    state.view.distrust(host);
}

/// Makes a secret: `titan_<kind>_` and random bits in base64.
pub(crate) fn new_secret(kind: TokenKind) -> Result<String, Problem> {
    let mut bytes = [0; SECRET_BYTES];
    let bytes = match kind {
        TokenKind::Host => &mut bytes[..HOST_SECRET_BYTES],
        TokenKind::Admin | TokenKind::Join => &mut bytes[..],
    };
    getrandom::fill(bytes)
        .map_err(|error| Problem::new(Code::Internal, format!("the system gave no randomness: {error}")))?;
    let word = match kind {
        TokenKind::Admin => "admin",
        TokenKind::Host => "host",
        TokenKind::Join => "join",
    };
    Ok(format!("titan_{word}_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Returns the hash under which a secret is kept. A secret is random bits alone, so that one round of SHA-256 is enough.
#[must_use]
pub(crate) fn hash(secret: &str) -> Digest {
    Digest::of(secret.as_bytes())
}

/// Returns the refusal of whoever shows no valid credential.
pub(crate) fn refused() -> Problem {
    Problem::new(Code::Unauthorized, "no valid credential was shown")
        .hint("send the header 'Authorization: Bearer TOKEN'; 'titan login' does it for the command line")
}

/// Returns the secret of an `authorization` header.
pub(crate) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let at = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, secret) = value.split_at(at);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| secret.trim_ascii())
}

/// Returns who shows the bearer token of these headers, unless it comes with it too often.
pub(crate) async fn authenticate(state: &AppState, headers: &HeaderMap) -> Result<Principal, Problem> {
    let value = headers.get(header::AUTHORIZATION).ok_or_else(refused)?;
    let hash = hash(text(bearer(value.as_bytes()).ok_or_else(refused)?)?);
    let now = state.clock.now();
    let principal = principal(state, &hash, now).await?;
    // Counted is who is known: nobody else can use up what is somebody's.
    state.credentials.rates.count(hash, state.config.requests_per_second)?;
    Ok(principal)
}

/// Returns whose secret has this hash, from memory if it was shown lately.
async fn principal(state: &AppState, hash: &Digest, now: Revision) -> Result<Principal, Problem> {
    let credentials = &state.credentials;
    if let Some(cached) = credentials.cached.get(hash)
        && cached.trusted_until > now
        && cached.expires_at.is_none_or(|end| end > now)
    {
        return Ok(cached.principal);
    }
    let ended = credentials.ended.load(Ordering::SeqCst);
    let (principal, expires_at) = looked_up(state, hash, now).await?;
    let cached = Cached { principal: principal.clone(), expires_at, trusted_until: trusted_until(state) };
    credentials.cached.insert(*hash, cached);
    if credentials.ended.load(Ordering::SeqCst) != ended {
        // One was ended while this one was looked up; it may be this one.
        credentials.cached.invalidate(hash);
    }
    Ok(principal)
}

/// Returns the place of the host of this name, if it showed this secret before and that is still trusted. It allocates
/// nothing and asks nobody.
pub(crate) fn recognised(state: &AppState, host: &str, secret: &[u8], now: Revision) -> Option<Arc<Slot>> {
    let slot = state.view.named(host)?;
    slot.trusts(state.credentials.print(secret), now, state.view.epoch()).then_some(slot)
}

/// Returns the place of the host of this name if the secret is its own, and trusts it from now on.
pub(crate) async fn identified(state: &AppState, host: &str, secret: &[u8]) -> Result<Arc<Slot>, Problem> {
    let credentials = &state.credentials;
    let (ended, epoch) = (credentials.ended.load(Ordering::SeqCst), state.view.epoch());
    let (principal, expires_at) = looked_up(state, &hash(text(secret)?), state.clock.now()).await?;
    let uid = principal.require_host(host)?;
    let slot = state.view.slot(uid);
    if let Principal::Host { name, .. } = &principal {
        state.view.name(&slot, name);
    }
    let until = trusted_until(state);
    slot.trust(credentials.print(secret), expires_at.map_or(until, |end| end.min(until)), slot.stamp(epoch));
    if credentials.ended.load(Ordering::SeqCst) != ended {
        // One was ended while this one was looked up; it may be this one. Whoever ends one counts before he distrusts.
        slot.distrust();
    }
    Ok(slot)
}

fn text(secret: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(secret).map_err(|_| refused())
}

fn trusted_until(state: &AppState) -> Revision {
    state.clock.after(if state.store.postgres().is_some() { TRUSTED } else { TRUSTED_ALONE })
}

/// Returns whose secret has this hash, and until when it is valid.
async fn looked_up(state: &AppState, hash: &Digest, now: Revision) -> Result<(Principal, Option<Revision>), Problem> {
    let row = lookups::find(state, hash).await?.ok_or_else(refused)?;
    let expires_at = row.expires_at;
    if expires_at.is_some_and(|end| end <= now) {
        return Err(refused());
    }
    match row {
        TokenRow { kind: TokenKind::Admin, name, .. } => Ok((Principal::Admin { name }, expires_at)),
        TokenRow { kind: TokenKind::Host, name, host: Some(uid), .. } => {
            Ok((Principal::Host { uid, name }, expires_at))
        }
        _ => Err(refused()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_say_what_they_are_and_those_of_hosts_are_short() {
        for (kind, word, characters) in
            [(TokenKind::Host, "host", 22), (TokenKind::Admin, "admin", 43), (TokenKind::Join, "join", 43)]
        {
            let (one, other) = (new_secret(kind).expect("a secret"), new_secret(kind).expect("a secret"));
            assert_eq!(one.strip_prefix(&format!("titan_{word}_")).map(str::len), Some(characters));
            assert_ne!(one, other);
        }
    }

    #[test]
    fn fingerprints_differ_by_secret_and_by_process() {
        let (here, elsewhere) = (CredentialCache::default(), CredentialCache::default());
        assert_eq!(here.print(b"titan_host_a"), here.print(b"titan_host_a"));
        assert_ne!(here.print(b"titan_host_a"), here.print(b"titan_host_b"));
        assert_ne!(here.print(b"titan_host_a"), elsewhere.print(b"titan_host_a"));
    }

    #[test]
    fn secret_is_what_follows_the_scheme() {
        assert_eq!(bearer(b"Bearer x"), Some(&b"x"[..]));
        assert_eq!(bearer(b"bearer  x "), Some(&b"x"[..]));
        for other in [&b"Basic x"[..], b"Bearer", b"", b"Bearerx"] {
            assert_eq!(bearer(other), None);
        }
    }
}
