//! Drift: which files of a bundle a person's edits on a host are of.

use std::collections::BTreeMap;

use titan_api::{
    Code, Problem,
    drift::Drift,
    hosts::HostFile,
    parse::nearest,
    poll::{Bundle, BundleFile},
};

use crate::render::{Overlay, overlay::path_of};

/// Returns where a file of a bundle lies below the agent's root, as drift names it.
fn place(file: &BundleFile, home: &str) -> String {
    if file.rooted { file.path.clone() } else { format!("{home}/{}", file.path) }
}

/// Returns the files that are adopted: those that `paths` name, or every one of which the content was found. `home` is the
/// deployment, `workspace/name`, and the directory of its files.
pub fn adopted(home: &str, bundle: &Bundle, drift: &[Drift], paths: Option<&[String]>) -> Result<Overlay, Problem> {
    let files: BTreeMap<_, _> = bundle.files.iter().map(|file| (place(file, home), path_of(file))).collect();
    let Some(paths) = paths else {
        let found = drift.iter().filter_map(|drift| {
            let (path, content) = (files.get(&drift.what)?, drift.found.as_ref()?);
            Some((path.clone(), HostFile { content: content.clone() }))
        });
        let found: Overlay = found.collect();
        return match found.is_empty() {
            true => Err(Problem::new(Code::NotFound, format!("nothing of {home} was found that can be adopted"))
                .hint("only text files can be, whose new content the host reported")),
            false => Ok(found),
        };
    };
    let adopted = paths.iter().enumerate().map(|(index, wanted)| {
        let refuse = |detail: String| {
            Err(Problem::new(Code::Invalid, format!("{wanted:?} cannot be adopted"))
                .at(format!("/paths/{index}"), detail))
        };
        let named = files.iter().find(|(place, path)| *wanted == **path || *wanted == **place);
        let Some((place, path)) = named else {
            let near = nearest(wanted, files.values().map(String::as_str));
            let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
            return refuse(format!("{home} has no such file on this host{near}"));
        };
        match drift.iter().find(|drift| drift.what == *place).map(|drift| &drift.found) {
            None => refuse("the host did not report that it has drifted".to_owned()),
            Some(None) => {
                refuse("the host did not report its content: it is large, no text, or not for everybody".to_owned())
            }
            Some(Some(content)) => Ok((path.clone(), HostFile { content: content.clone() })),
        }
    });
    adopted.collect()
}

/// Returns the paths of `kept` that are no longer to be kept: those that `paths` name, or all.
pub fn unadopted(home: &str, kept: &Overlay, paths: Option<&[String]>) -> Result<Vec<String>, Problem> {
    let Some(paths) = paths else { return Ok(kept.keys().cloned().collect()) };
    let named = paths.iter().enumerate().map(|(index, wanted)| {
        let below = wanted.strip_prefix(home).and_then(|rest| rest.strip_prefix('/'));
        let rooted = format!("/{wanted}");
        let found =
            [Some(wanted.as_str()), below, Some(&rooted)].into_iter().flatten().find(|path| kept.contains_key(*path));
        found.map(str::to_owned).ok_or_else(|| {
            let known: Vec<_> = kept.keys().map(String::as_str).collect();
            Problem::new(Code::Invalid, format!("{wanted:?} is not adopted"))
                .at(format!("/paths/{index}"), format!("adopted of {home} are {}", known.join(", ")))
        })
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bundle() -> Bundle {
        serde_json::from_value(json!({"applier": "files", "files": [
            {"path": "a.conf", "mode": "0644", "content": "1"},
            {"path": "etc/b.conf", "rooted": true, "mode": "0644", "content": "1"},
            {"path": "key", "mode": "0600", "content": "1"},
            {"path": "same", "mode": "0644", "content": "1"},
        ]}))
        .expect("bundle")
    }

    fn drift() -> Vec<Drift> {
        serde_json::from_value(json!([
            {"what": "iot/web/a.conf", "how": "content", "found": "2", "repaired": true},
            {"what": "etc/b.conf", "how": "content", "found": "3"},
            {"what": "iot/web/key", "how": "content"},
            {"what": "unit:a.service", "how": "stopped", "found": "4"},
        ]))
        .expect("drift")
    }

    fn of(paths: Option<&[&str]>) -> Result<Vec<(String, String)>, Problem> {
        let paths: Option<Vec<_>> = paths.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
        let adopted = adopted("iot/web", &bundle(), &drift(), paths.as_deref())?;
        Ok(adopted.into_iter().map(|(path, file)| (path, file.content)).collect())
    }

    #[test]
    fn what_was_found_is_adopted_by_either_name_of_the_file() {
        let pair = |path: &str, content: &str| (path.to_owned(), content.to_owned());
        assert_eq!(of(None), Ok(vec![pair("/etc/b.conf", "3"), pair("a.conf", "2")]));
        for path in ["a.conf", "iot/web/a.conf"] {
            assert_eq!(of(Some(&[path])), Ok(vec![pair("a.conf", "2")]));
        }
        for path in ["/etc/b.conf", "etc/b.conf"] {
            assert_eq!(of(Some(&[path])), Ok(vec![pair("/etc/b.conf", "3")]));
        }
    }

    #[test]
    fn what_was_not_found_is_refused_with_its_reason() {
        for (path, expected) in [
            ("a.con", "iot/web has no such file on this host, did you mean \"a.conf\"?"),
            ("unit:a.service", "iot/web has no such file on this host"),
            ("same", "the host did not report that it has drifted"),
            ("key", "the host did not report its content: it is large, no text, or not for everybody"),
        ] {
            let problem = of(Some(&["a.conf", path])).expect_err(path);
            assert_eq!((problem.errors[0].pointer.as_str(), problem.errors[0].detail.as_str()), ("/paths/1", expected));
        }
        let nothing = adopted("iot/web", &bundle(), &drift()[2..], None).expect_err("nothing");
        assert_eq!(nothing.code, Code::NotFound);
    }

    #[test]
    fn adopted_files_are_given_up_by_either_name() {
        let kept: Overlay =
            of(None).expect("kept").into_iter().map(|(path, content)| (path, HostFile { content })).collect();
        let gone = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
            unadopted("iot/web", &kept, Some(&paths))
        };
        assert_eq!(unadopted("iot/web", &kept, None).expect("all").len(), 2);
        assert_eq!(gone(&["iot/web/a.conf", "etc/b.conf"]), Ok(vec!["a.conf".to_owned(), "/etc/b.conf".to_owned()]));
        let problem = gone(&["b"]).expect_err("not adopted");
        assert_eq!(problem.errors[0].detail, "adopted of iot/web are /etc/b.conf, a.conf");
    }
}
