//! Names and credentials of simulated hosts, worked out from a seed and the host's number: nobody stores a million secrets.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use titan_api::Digest;

/// Bytes of a host's secret, as the control plane makes them.
const HOST_SECRET_BYTES: usize = 16;

/// Returns the name of a host by its number, from 0: `sim-0000001` and so on.
#[must_use]
pub fn name(number: usize) -> String {
    format!("sim-{:07}", number + 1)
}

/// What the secrets of a fleet are worked out from.
#[derive(Debug, Clone)]
pub struct Credentials {
    seed: String,
}

impl Credentials {
    /// Returns the credentials of a seed: the same for the same seed.
    #[must_use]
    pub fn new(seed: &str) -> Self {
        Self { seed: seed.to_owned() }
    }

    /// Returns the credential of a host.
    #[must_use]
    pub fn host(&self, number: usize) -> String {
        self.secret("host", &number.to_string(), HOST_SECRET_BYTES)
    }

    /// Returns the credential of a person who may do everything.
    #[must_use]
    pub fn admin(&self) -> String {
        self.secret("admin", "admin", 32)
    }

    fn secret(&self, kind: &str, of: &str, bytes: usize) -> String {
        let digest = Digest::of(format!("{} {kind} {of}", self.seed).as_bytes());
        format!("titan_{kind}_{}", URL_SAFE_NO_PAD.encode(&digest.as_bytes()[..bytes]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_differ_by_seed_kind_and_host_and_look_like_real_ones() {
        let one = Credentials::new("a");
        assert_eq!(one.host(7), Credentials::new("a").host(7));
        assert!(one.host(7) != one.host(8) && one.host(7) != Credentials::new("b").host(7));
        assert!(one.admin().starts_with("titan_admin_"));
        assert_eq!(one.host(0).len(), "titan_host_".len() + 22);
        assert_eq!(name(0), "sim-0000001");
    }
}
