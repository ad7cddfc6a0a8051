//! Where commits are pushed to: addresses, and what every kind of remote can do.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use git2::{Oid, Repository};
use titan_api::Revision;

use super::{
    file::FileRemote,
    http::Http,
    ssh::Ssh,
    wire::{WireError, WireRemote},
};
use crate::config::GitSettings;

/// Why a remote cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// The address is of no kind that is known.
    #[error("it is not a path, file://, ssh://, user@host:path, http:// or https:// address")]
    Address,
    /// The address carries a password.
    #[error("it carries a user or password; put them under git.credentials")]
    Secret,
    /// A part of the address would be taken for an option.
    #[error("a part of it begins with '-'")]
    Dash,
    /// Git.
    #[error("Git failed")]
    Git(#[from] git2::Error),
    /// The exchange with the remote.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A pack on its way cannot be kept.
    #[error("a pack cannot be written")]
    Spool(#[source] io::Error),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
    /// The remote did not take the commits.
    #[error("the commits were refused: {0}")]
    Rejected(String),
}

/// The address of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A repository on this host.
    File(PathBuf),
    /// Over HTTP(S).
    Http(String),
    /// Over the system's `ssh`.
    Ssh {
        /// `host` or `user@host`.
        host: String,
        /// The port, if not the usual one.
        port: Option<u16>,
        /// The path on the other side.
        path: String,
    },
}

/// What every kind of remote can do.
pub(crate) trait Remote {
    /// Returns where the branch is, or `None` if there is no such branch.
    fn tip(&mut self, branch: &str) -> Result<Option<Oid>, RemoteError>;

    /// Gets a commit with all it needs; `have` is on this side already.
    fn fetch(&mut self, repo: &Repository, tip: Oid, have: &[Oid]) -> Result<(), RemoteError>;

    /// Moves the branch from `old` to `new`, unless it is not at `old` (any more).
    fn push(&mut self, repo: &Repository, branch: &str, old: Option<Oid>, new: Oid) -> Result<(), RemoteError>;
}

impl Address {
    /// Returns `text` as an address.
    pub(crate) fn parse(text: &str) -> Result<Self, RemoteError> {
        if text.contains(|c: char| c.is_control() || c == ' ') {
            return Err(RemoteError::Address);
        }
        if let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
            let authority = rest.split('/').next().unwrap_or_default();
            return match authority {
                "" => Err(RemoteError::Address),
                _ if authority.contains('@') => Err(RemoteError::Secret),
                _ => Ok(Self::Http(text.trim_end_matches('/').to_owned())),
            };
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            let (authority, path) = rest.split_once('/').ok_or(RemoteError::Address)?;
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => {
                    (host, Some(port.parse().map_err(|_| RemoteError::Address)?))
                }
                _ => (authority, None),
            };
            return Self::ssh(&host.replace(['[', ']'], ""), port, &format!("/{path}"));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') { Ok(Self::File(path.into())) } else { Err(RemoteError::Address) };
        }
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        match text.split_once(':') {
            Some((host, path)) if !host.contains('/') && !path.starts_with(['/', ':']) || host.contains('@') => {
                Self::ssh(host, None, path)
            }
            _ => Err(RemoteError::Address),
        }
    }

    fn ssh(host: &str, port: Option<u16>, path: &str) -> Result<Self, RemoteError> {
        let (user, name) = host.rsplit_once('@').unwrap_or(("", host));
        if user.contains(':') {
            return Err(RemoteError::Secret);
        }
        if name.is_empty() || path.trim_matches('/').is_empty() || path.contains(':') && path.starts_with(':') {
            return Err(RemoteError::Address);
        }
        if host.starts_with('-') || name.starts_with('-') || path.starts_with('-') {
            return Err(RemoteError::Dash);
        }
        Ok(Self::Ssh { host: host.to_owned(), port, path: path.to_owned() })
    }

    /// Returns the remote at this address. Nothing is sent yet.
    pub(crate) fn connect(
        self,
        settings: &GitSettings,
        spool: &Path,
        newest: Option<Revision>,
    ) -> Result<Box<dyn Remote>, RemoteError> {
        Ok(match self {
            Self::File(path) => Box::new(FileRemote::new(path, spool)),
            Self::Http(url) => Box::new(WireRemote::new(Http::new(&url, settings, newest)?, spool)),
            Self::Ssh { host, port, path } => Box::new(WireRemote::new(Ssh::new(host, port, path, settings), spool)),
        })
    }
}

/// Writes the objects that `tip` needs and `have` does not to a file that has no name any more. Returns it, at its
/// beginning, with its length.
pub(crate) fn pack(repo: &Repository, tip: Oid, have: &[Oid], spool: &Path) -> Result<(File, u64), RemoteError> {
    let mut walk = repo.revwalk()?;
    walk.push(tip)?;
    for id in have {
        if repo.find_commit(*id).is_ok() {
            walk.hide(*id)?;
        }
    }
    let mut builder = repo.packbuilder()?;
    builder.set_threads(1);
    builder.insert_walk(&mut walk)?;
    let path = spool.join("pack.new");
    let open = || {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    };
    let mut file = open().map_err(RemoteError::Spool)?;
    let mut failure = None;
    let written = builder.foreach(|bytes| match file.write_all(bytes) {
        Ok(()) => true,
        Err(error) => {
            failure = Some(error);
            false
        }
    });
    if let Some(error) = failure {
        return Err(RemoteError::Spool(error));
    }
    written?;
    let length = file.stream_position().map_err(RemoteError::Spool)?;
    file.rewind().map_err(RemoteError::Spool)?;
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_kind_are_read() {
        let ssh = |host: &str, port, path: &str| Address::Ssh { host: host.into(), port, path: path.into() };
        for (text, address) in [
            ("/srv/fleet.git", Address::File("/srv/fleet.git".into())),
            ("file:///srv/fleet.git", Address::File("/srv/fleet.git".into())),
            ("https://forge/x.git/", Address::Http("https://forge/x.git".into())),
            ("ssh://git@forge/fleet.git", ssh("git@forge", None, "/fleet.git")),
            ("ssh://forge:2222/~/fleet.git", ssh("forge", Some(2222), "/~/fleet.git")),
            ("git@forge:team/fleet.git", ssh("git@forge", None, "team/fleet.git")),
        ] {
            assert_eq!(Address::parse(text).expect(text), address);
        }
    }

    #[test]
    fn addresses_that_could_do_harm_are_refused() {
        for text in [
            "",
            "fleet.git",
            "../fleet.git",
            "ext::sh -c id",
            "ext::sh",
            "ssh://-oProxyCommand=id/x",
            "-oProxyCommand=id:x",
            "git@-oProxyCommand=id:x",
            "git@forge:-x",
            "ssh://git:secret@forge/x",
            "https://user:secret@forge/x",
            "https:///x",
            "file://host/x",
            "ssh://forge",
            "a\nb:c",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
