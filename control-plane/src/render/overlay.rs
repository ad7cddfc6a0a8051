//! Files of one host that are as a person left them: laid over what the template comes out as there.

use std::collections::BTreeMap;

use titan_api::{
    digests::Digest,
    hosts::HostFile,
    limits::BUNDLE_BYTES,
    parse::nearest,
    poll::{Bundle, BundleFile},
};

use super::{appliers, failure::Failure};

/// Such files of one deployment on one host, by path; one that begins with `/` is below the agent's root.
pub type Overlay = BTreeMap<String, HostFile>;

/// Returns the path under which an overlay has a file of a bundle.
#[must_use]
pub fn path_of(file: &BundleFile) -> String {
    if file.rooted { format!("/{}", file.path) } else { file.path.clone() }
}

/// Returns the key of an outcome, which is `key` without the overlay, with it.
#[must_use]
pub fn key(key: Digest, overlay: &Overlay) -> Digest {
    // Maps with text keys can always be written.
    let files = serde_json::to_vec(overlay).unwrap_or_default();
    Digest::of(&[b"titan overlay 1\n".as_slice(), key.as_bytes(), &files].concat())
}

/// Returns a bundle, given as JSON, with the files of `overlay` in the place of its own. A file that it does not have is a
/// failure: the template has changed, and a person has to say what becomes of it.
pub fn laid(bundle: &[u8], overlay: &Overlay) -> Result<Vec<u8>, Failure> {
    let failed = |error: serde_json::Error| Failure::new("", format!("the bundle: {error}"));
    let mut bundle: Bundle = serde_json::from_slice(bundle).map_err(failed)?;
    for (path, left) in overlay {
        let Some(file) = bundle.files.iter_mut().find(|file| path_of(file) == *path) else {
            let paths: Vec<_> = bundle.files.iter().map(path_of).collect();
            let near = nearest(path, paths.iter().map(String::as_str));
            let near = near.map(|near| format!("; is it {near:?} now?")).unwrap_or_default();
            let message = format!(
                "the host keeps {path:?} as a person left it, but the template does not come out with such a file{near}"
            );
            return Err(Failure::new("", message));
        };
        (file.content, file.content_base64) = (Some(left.content.clone()), None);
    }
    let laid = serde_json::to_vec(&bundle).map_err(failed)?;
    if laid.len() > BUNDLE_BYTES {
        return Err(Failure::new(
            "",
            format!("more than {} MiB with the files that a person left", BUNDLE_BYTES >> 20),
        ));
    }
    match appliers::fault(bundle.applier, &laid) {
        Some((file, message)) => {
            let path = file.and_then(|index| bundle.files.get(index)).map(path_of);
            let of = path.map(|path| format!("{path}, as a person left it: ")).unwrap_or_default();
            Err(Failure::new("", format!("{of}{message}")))
        }
        None => Ok(laid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLE: &str = r#"{"applier":"files","drift":"report","files":[{"path":"a","mode":"0644","content":"x"},{"path":"a","rooted":true,"mode":"0600","contentBase64":"/w=="}]}"#;

    fn overlay(files: &[(&str, &str)]) -> Overlay {
        let file = |content: &str| HostFile { content: content.to_owned() };
        files.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect()
    }

    #[test]
    fn files_are_replaced_and_all_else_stays_byte_for_byte() {
        let laid = |files: &[(&str, &str)]| {
            laid(BUNDLE.as_bytes(), &overlay(files)).map(|json| String::from_utf8(json).expect("text"))
        };
        assert_eq!(laid(&[]).as_deref(), Ok(BUNDLE));
        assert_eq!(laid(&[("a", "y\n")]).expect("laid"), BUNDLE.replace("\"x\"", "\"y\\n\""));
        let rooted = BUNDLE.replace("\"contentBase64\":\"/w==\"", "\"content\":\"z\"");
        assert_eq!(laid(&[("/a", "z")]).expect("laid"), rooted);
    }

    #[test]
    fn file_that_the_template_does_not_have_is_a_failure() {
        let failure = laid(BUNDLE.as_bytes(), &overlay(&[("/b", "")])).expect_err("no such file");
        assert!(failure.message.starts_with("the host keeps \"/b\" as a person left it"), "{failure}");
        let kubernetes = BUNDLE
            .replace("files\",\"drift", "compose\",\"drift")
            .replace("\"path\":\"a\",\"mode\"", "\"path\":\"compose.yaml\",\"mode\"");
        let failure =
            laid(kubernetes.as_bytes(), &overlay(&[("compose.yaml", "services: {}")])).expect_err("no services");
        assert_eq!(failure.to_string(), "compose.yaml, as a person left it: the project has no services");
        let large = "x".repeat(BUNDLE_BYTES);
        assert!(
            laid(BUNDLE.as_bytes(), &overlay(&[("a", &large)]))
                .expect_err("large")
                .message
                .starts_with("more than 8 MiB")
        );
    }

    #[test]
    fn overlays_have_keys_of_their_own() {
        let plain = Digest::of(b"");
        let keys = [overlay(&[("a", "x")]), overlay(&[("a", "y")]), overlay(&[("b", "x")])]
            .map(|overlay| key(plain, &overlay));
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[0] != plain);
        assert_ne!(key(Digest::of(b"other"), &overlay(&[("a", "x")])), keys[0]);
    }
}
