//! Users and groups by name, from `/etc/passwd` and `/etc/group`.

use std::fs;

/// Why a file cannot be given to its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountError {
    /// There is no such user.
    #[error("there is no user {0:?} on this host")]
    NoUser(String),
    /// There is no such group.
    #[error("there is no group {0:?} on this host")]
    NoGroup(String),
    /// Only root may give files away.
    #[error("the file is to belong to {0:?}, and the agent, which is not root, cannot give files away")]
    NotRoot(String),
}

/// The accounts of this host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    users: Vec<(String, u32)>,
    groups: Vec<(String, u32)>,
    uid: u32,
}

impl Accounts {
    /// Reads the accounts.
    pub(crate) fn read() -> Self {
        let table = |path| parse(&fs::read_to_string(path).unwrap_or_default());
        let uid = rustix::process::geteuid().as_raw();
        Self { users: table("/etc/passwd"), groups: table("/etc/group"), uid }
    }

    /// Returns the user's id.
    pub(crate) fn user(&self, name: &str) -> Result<u32, AccountError> {
        let found = self.users.iter().find(|(known, _)| known == name).map(|(_, id)| *id);
        match found.ok_or_else(|| AccountError::NoUser(name.to_owned()))? {
            id if self.uid == 0 || id == self.uid => Ok(id),
            _ => Err(AccountError::NotRoot(name.to_owned())),
        }
    }

    /// Returns the group's id.
    pub(crate) fn group(&self, name: &str) -> Result<u32, AccountError> {
        let found = self.groups.iter().find(|(known, _)| known == name).map(|(_, id)| *id);
        found.ok_or_else(|| AccountError::NoGroup(name.to_owned()))
    }
}

fn parse(text: &str) -> Vec<(String, u32)> {
    let row = |line: &str| {
        let mut columns = line.split(':');
        let name = columns.next()?.to_owned();
        Some((name, columns.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_gives_files_away() {
        let users = parse("root:x:0:0:root:/root:/bin/sh\nme:x:7:7::/:\nbroken\n");
        let accounts = |uid| Accounts { users: users.clone(), groups: parse("staff:x:50:me\n"), uid };
        assert_eq!(accounts(0).user("me"), Ok(7));
        assert_eq!(accounts(7).user("me"), Ok(7));
        assert_eq!(accounts(7).user("root"), Err(AccountError::NotRoot("root".into())));
        assert_eq!(accounts(0).user("nobody"), Err(AccountError::NoUser("nobody".into())));
        assert_eq!(accounts(0).group("staff"), Ok(50));
    }
}
