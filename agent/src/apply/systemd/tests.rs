use titan_api::{Digest, Name, Revision};

use super::*;

pub(super) fn target(name: &str) -> Target {
    Target {
        id: uuid::Uuid::from_u128(1),
        workspace: Name::new("default").expect("name"),
        name: Name::new(name).expect("name"),
        release: format!("{name}#1"),
        revision: Revision::ZERO,
        digest: Digest::of(b""),
        depends_on: vec![],
    }
}

mod real;
