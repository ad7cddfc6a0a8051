//! Where the files of a bundle go.

use std::collections::BTreeMap;

use titan_api::{
    poll::BundleFile,
    templates::{TemplateManifest, check_path},
};

use crate::render::{failure::Failure, manifest};

/// The places of a bundle's files as they become known, in the order of the template's files.
#[derive(Debug, Default)]
pub(super) struct Layout<'a> {
    taken: BTreeMap<(bool, String), &'a str>,
    /// What a bundle's files are ordered by.
    keys: Vec<(String, bool)>,
}

impl<'a> Layout<'a> {
    /// Adds the file that comes from `source` and is called `path`. Returns the beginning of a [`BundleFile`] as JSON, up
    /// to where its content follows.
    pub(super) fn add(
        &mut self,
        manifest: &TemplateManifest,
        source: &'a str,
        path: String,
        executable: bool,
    ) -> Result<Vec<u8>, Failure> {
        let settings = manifest::settings(manifest, &path, executable);
        let rooted = settings.destination.is_some();
        let path = match settings.destination {
            Some(destination) => format!("{destination}/{path}"),
            None => path,
        };
        check_path(&path).map_err(|error| Failure::new(source, format!("the path {path:?} is refused: {error}")))?;
        if let Some(other) = self.taken.insert((rooted, path.clone()), source) {
            return Err(Failure::new(source, format!("{source} and {other} both come out as {path}")));
        }
        self.keys.push((path.clone(), rooted));
        let file = BundleFile {
            path,
            rooted,
            mode: settings.mode,
            owner: settings.owner,
            group: settings.group,
            content: None,
            content_base64: None,
        };
        let mut json =
            serde_json::to_vec(&file).map_err(|error| Failure::new(source, format!("the bundle: {error}")))?;
        json.pop();
        Ok(json)
    }

    /// Returns the numbers of the files in the order of a bundle, or `None` if they are in it already; fails if a file
    /// would lie in another.
    pub(super) fn order(&self) -> Result<Option<Vec<usize>>, Failure> {
        directories_are_not_files(&self.taken)?;
        if self.keys.is_sorted() {
            return Ok(None);
        }
        let mut order: Vec<_> = (0..self.keys.len()).collect();
        order.sort_by_key(|index| &self.keys[*index]);
        Ok(Some(order))
    }
}

fn directories_are_not_files(taken: &BTreeMap<(bool, String), &str>) -> Result<(), Failure> {
    for ((rooted, path), source) in taken {
        for (at, _) in path.match_indices('/') {
            if let Some(other) = taken.get(&(*rooted, path[..at].to_owned())) {
                let message = format!("{other} comes out as the file {}, in which {path} would lie", &path[..at]);
                return Err(Failure::new(*source, message));
            }
        }
    }
    Ok(())
}
