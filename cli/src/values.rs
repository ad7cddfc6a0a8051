//! Values given on the command line: `--set a.b=c` and `--values FILE`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use titan_api::values::Values;

use crate::manifests;

/// Why values cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValuesError {
    /// A `--set` has no `=` or an empty part.
    #[error("--set {0:?} is not of the form key=value or outer.inner=value")]
    Form(String),
    /// A `--set` goes into something that is not a map.
    #[error("--set {0:?} goes into a value that is not a map")]
    NotAMap(String),
    /// A value is malformed.
    #[error("the value of --set {0:?} cannot be read as YAML")]
    Value(String, #[source] serde_yaml::Error),
    /// The file cannot be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file is malformed.
    #[error("{} cannot be read as YAML or JSON", .0.display())]
    Malformed(PathBuf, #[source] serde_yaml::Error),
    /// The file is not a map.
    #[error("{} is not a map of values", .0.display())]
    FileNotAMap(PathBuf),
}

/// Returns the values of `file` with those of `sets` over them, in order.
pub(crate) fn read(file: Option<&Path>, sets: &[String]) -> Result<Values, ValuesError> {
    let mut values = match file {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| ValuesError::Read(path.to_owned(), error))?;
            let value = manifests::json(serde_yaml::Deserializer::from_str(&text))
                .map_err(|error| ValuesError::Malformed(path.to_owned(), error))?;
            match value {
                Value::Object(map) => map,
                Value::Null => Map::new(),
                _ => return Err(ValuesError::FileNotAMap(path.to_owned())),
            }
        }
        None => Map::new(),
    };
    for entry in sets {
        set(&mut values, entry)?;
    }
    Ok(values)
}

/// Sets one `outer.inner=value`. The value is YAML, so `3` is a number, `true` a boolean and `"3"` a text. `\.` is a dot
/// within a key.
fn set(values: &mut Values, entry: &str) -> Result<(), ValuesError> {
    let form = || ValuesError::Form(entry.to_owned());
    let (path, text) = entry.split_once('=').ok_or_else(form)?;
    let mut keys: Vec<String> = keys(path);
    let last = keys.pop().ok_or_else(form)?;
    if last.is_empty() || keys.iter().any(String::is_empty) {
        return Err(form());
    }
    let value = if text.is_empty() {
        Value::String(String::new())
    } else {
        manifests::json(serde_yaml::Deserializer::from_str(text))
            .map_err(|error| ValuesError::Value(entry.to_owned(), error))?
    };
    let mut place = values;
    for key in keys {
        let inner = place.entry(key).or_insert_with(|| Value::Object(Map::new()));
        place = inner.as_object_mut().ok_or_else(|| ValuesError::NotAMap(entry.to_owned()))?;
    }
    place.insert(last, value);
    Ok(())
}

fn keys(path: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut escaped = false;
    for c in path.chars() {
        match (c, escaped, keys.last_mut()) {
            ('\\', false, _) => {
                escaped = true;
                continue;
            }
            ('.', false, _) => keys.push(String::new()),
            (c, _, Some(key)) => key.push(c),
            (_, _, None) => {}
        }
        escaped = false;
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sets(entries: &[&str]) -> Result<Value, ValuesError> {
        let entries: Vec<_> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        read(None, &entries).map(Value::Object)
    }

    #[test]
    fn dotted_keys_nest_and_values_have_types() {
        assert_eq!(
            sets(&["a.b=3", "a.c=\"3\"", "on=true", "text=a=b, c", "list=[1, 2]", "none=", "x\\.y=1"]).expect("values"),
            json!({"a": {"b": 3, "c": "3"}, "on": true, "text": "a=b, c", "list": [1, 2], "none": "", "x.y": 1})
        );
    }

    #[test]
    fn malformed_entries_are_refused() {
        for bad in ["a", "=1", "a..b=1", ".a=1", "a.=1"] {
            assert!(matches!(sets(&[bad]), Err(ValuesError::Form(_))), "{bad}");
        }
        assert!(matches!(sets(&["a=1", "a.b=2"]), Err(ValuesError::NotAMap(_))));
        assert!(matches!(sets(&["a=[1"]), Err(ValuesError::Value(..))));
    }

    #[test]
    fn entries_go_over_the_file() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("values.yaml");
        fs::write(&file, "a: {b: 1, c: 2}\n").expect("write");
        let values = read(Some(&file), &["a.b=9".to_owned()]).expect("values");
        assert_eq!(Value::Object(values), json!({"a": {"b": 9, "c": 2}}));
        fs::write(&file, "- 1\n").expect("write");
        assert!(matches!(read(Some(&file), &[]), Err(ValuesError::FileNotAMap(_))));
    }
}
