//! References to images, and what the host's owner allows of them. Shared by all that runs containers.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use crate::{apply::ApplyError, bundles::Bundle, config::appliers};

/// The longest reference to an image, in bytes.
const REFERENCE_BYTES: usize = 512;

/// Checks that an image is named in full and comes from where it may.
///
/// A name without its registry means another image on each host, so it is refused: the owner's list could not be held
/// against it.
pub(crate) fn check_image(reference: &str, registries: &[String], key: &'static str) -> Result<(), ImageError> {
    let bad = |why: &'static str| ImageError::Malformed(reference.to_owned(), why);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    // What begins with a hyphen would be an option where podman is called.
    let begins = reference.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !begins || reference.len() > REFERENCE_BYTES || !reference.bytes().all(plain) {
        return Err(bad("it is not the name of an image, such as registry.example/app@sha256:..."));
    }
    let Some((registry, _)) = reference.split_once('/') else {
        return Err(bad("it does not say its registry, as docker.io/library/nginx does"));
    };
    let port = registry.split_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(bad("what comes before the first '/' is not a registry"));
    }
    if registry != "localhost" && port.is_none() && !registry.contains('.') {
        return Err(bad("it does not say its registry, as docker.io/library/nginx does"));
    }
    let (name, digest) = reference.split_once('@').unzip();
    if let Some(digest) = digest {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("its digest is not sha256: and 64 hexadecimal digits"));
        }
    }
    let repository = repository(name.unwrap_or(reference));
    if repository.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(bad("a part of its name is empty or made of dots"));
    }
    let above = |pattern: &String| format!("{pattern}/*");
    let allowed = appliers::allows(registries, repository)
        || appliers::allows(&registries.iter().map(above).collect::<Vec<_>>(), repository);
    if allowed { Ok(()) } else { Err(ImageError::Beyond(reference.to_owned(), key)) }
}

/// Returns the name without its tag.
fn repository(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// Why an image is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageError {
    /// The reference is not one, and why.
    Malformed(String, &'static str),
    /// It comes from elsewhere, and the key that says from where it may.
    Beyond(String, &'static str),
}

impl ImageError {
    /// Returns the error of a file in which the image is named.
    pub(crate) fn of(self, path: &str) -> ApplyError {
        match self {
            Self::Malformed(image, why) => {
                ApplyError::Malformed { path: path.to_owned(), message: format!("the image {image:?}: {why}") }
            }
            Self::Beyond(image, key) => ApplyError::Beyond { what: format!("the image {image}"), key },
        }
    }
}

/// A directory or file of the host that is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mount {
    /// Below the deployment's own directory.
    Own(PathBuf),
    /// Anywhere else.
    Host(PathBuf),
}

impl Mount {
    /// Returns what a path means, if it may be mounted: one that is not absolute is below the deployment's directory.
    pub(crate) fn of(path: &str, roots: &[PathBuf]) -> Option<Self> {
        let given = Path::new(path);
        if path.contains('\0') || given.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        if !given.is_absolute() {
            let plain: PathBuf = given.components().filter(|part| *part != Component::CurDir).collect();
            return Some(Self::Own(plain));
        }
        appliers::within(roots, given).then(|| Self::Host(given.to_owned()))
    }

    /// Returns the path on the host.
    pub(crate) fn path(&self, home: &Path) -> PathBuf {
        match self {
            // Not `join("")`, which ends in a slash.
            Self::Own(inner) if inner.as_os_str().is_empty() => home.to_owned(),
            Self::Own(inner) => home.join(inner),
            Self::Host(path) => path.clone(),
        }
    }

    /// Whether what is there now leads nowhere else: a container that may write below its mount can leave links there.
    pub(crate) fn stays(&self, home: &Path, roots: &[PathBuf]) -> bool {
        let path = self.path(home);
        // What does not exist yet is made below whatever does; a link that leads nowhere counts as being there.
        let there = |path: &Path| {
            let found = path.ancestors().find(|above| above.symlink_metadata().is_ok())?;
            found.canonicalize().ok()
        };
        let Some(real) = there(&path) else { return false };
        let inside = |root: &Path| there(root).is_some_and(|root| real.starts_with(root));
        match self {
            Self::Own(_) => inside(home),
            Self::Host(_) => roots.iter().any(|root| inside(root)),
        }
    }
}

/// Returns a line for each file of the bundle that is mounted from the deployment's own directory. If that is `exchanged`
/// as a whole at each change, a mount of a part of it would show what was thrown away: then each file counts.
pub(crate) fn own_files(mounts: &[Mount], bundle: &Bundle, exchanged: bool) -> String {
    let own = |mount: &Mount| match mount {
        Mount::Own(path) => Some(path.clone()),
        Mount::Host(_) => None,
    };
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for path in mounts.iter().filter_map(own) {
        let is_file = bundle.files.iter().any(|file| !file.rooted && Path::new(&file.path) == path);
        for file in bundle.files.iter().filter(|file| !file.rooted) {
            if Path::new(&file.path).starts_with(&path) || (exchanged && !is_file) {
                files.insert(&file.path, format!("{} {} {:o}\n", file.path, file.sha256, file.mode.bits()));
            }
        }
    }
    files.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_say_their_registry_and_come_from_where_they_may() {
        let digest = format!("quay.io/team/app@sha256:{}", "a".repeat(64));
        let only = |pattern: &str| vec![pattern.to_owned()];
        for (image, registries, expected) in [
            ("quay.io/team/app:1", only("*"), true),
            (digest.as_str(), only("quay.io"), true),
            ("quay.io/team/app:1", only("quay.io/team"), true),
            ("quay.io/team/app:1", only("quay.io/team/app"), true),
            ("quay.io/teammate/app:1", only("quay.io/team"), false),
            ("quay.io.evil.example/app", only("quay.io"), false),
            ("127.0.0.1:5000/app:2", only("127.0.0.1:5000"), true),
            ("localhost/app", only("localhost"), true),
            ("localhost/app", vec![], false),
            ("nginx", only("*"), false),
            ("library/nginx", only("*"), false),
            ("quay.io/../etc", only("*"), false),
            ("quay.io//x", only("*"), false),
            ("quay.io/x@sha256:12", only("*"), false),
            ("quay.io/x y", only("*"), false),
            ("oci-archive:/etc/shadow", only("*"), false),
            ("containers-storage:localhost/app", only("*"), false),
            ("docker://quay.io/app", only("*"), false),
            ("", only("*"), false),
            ("-v./etc:/host", only("*"), false),
        ] {
            let result = check_image(image, &registries, "appliers.podman.registries");
            assert_eq!(result.is_ok(), expected, "{image} {registries:?} {result:?}");
        }
    }

    #[test]
    fn mounts_are_below_the_own_directory_or_where_the_owner_says() {
        let roots = [PathBuf::from("/srv/data")];
        assert_eq!(Mount::of("./conf", &roots), Some(Mount::Own("conf".into())));
        assert_eq!(Mount::of(".", &roots).expect("home").path(Path::new("/h")), Path::new("/h"));
        assert_eq!(Mount::of("/srv/data/x", &roots), Some(Mount::Host("/srv/data/x".into())));
        for bad in ["/srv/database", "/", "../x", "/srv/data/../../etc", "a\0b"] {
            assert_eq!(Mount::of(bad, &roots), None, "{bad}");
        }
    }

    #[test]
    fn a_link_that_leads_away_is_not_followed() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().join("data");
        std::fs::create_dir(&root).expect("root");
        std::os::unix::fs::symlink("/etc", root.join("away")).expect("link");
        let roots = [root.clone()];
        let mount = |path: &Path| Mount::of(path.to_str().expect("text"), &roots).expect("mount");
        assert!(mount(&root).stays(dir.path(), &roots));
        assert!(mount(&root.join("new/er")).stays(dir.path(), &roots), "what is to be made");
        assert!(!mount(&root.join("away")).stays(dir.path(), &roots));
        assert!(!mount(&root.join("away/ssh")).stays(dir.path(), &roots));
        std::os::unix::fs::symlink("/nowhere/at/all", root.join("dangling")).expect("link");
        assert!(!mount(&root.join("dangling")).stays(dir.path(), &roots));
        std::os::unix::fs::symlink("/etc", dir.path().join("own")).expect("link");
        assert!(!Mount::Own("own".into()).stays(dir.path(), &roots));
        assert!(Mount::Own("new".into()).stays(&dir.path().join("not/yet"), &roots));
    }
}
