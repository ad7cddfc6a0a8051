//! Who set which field: sets of paths per manager, merging, conflicts, and what goes when a manager stops declaring it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// A step to a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A name in a map.
    Field(String),
    /// An item of a list, by its keys as JSON.
    Item(String),
    /// A member of a set, as JSON.
    Member(String),
}

/// A path to a field.
pub type Path = Vec<Step>;
/// Paths.
pub type Paths = BTreeSet<Path>;

/// Lists whose items are told apart by keys, by the name of the field that they are in.
const LISTS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("ports", &["containerPort", "protocol"]),
    ("ports", &["port", "protocol"]),
    ("conditions", &["type"]),
    ("ownerReferences", &["uid"]),
    ("imagePullSecrets", &["name"]),
];
/// Lists that are sets.
const SETS: &[&str] = &["finalizers"];

enum List {
    Keyed(&'static [&'static str]),
    Set,
    Atomic,
}

fn list(name: &str, items: &[Value]) -> List {
    if SETS.contains(&name) {
        return List::Set;
    }
    let fits = |keys: &[&str]| items.iter().all(|item| item.get(keys[0]).is_some());
    match LISTS.iter().find(|(field, keys)| *field == name && fits(keys)) {
        Some((_, keys)) => List::Keyed(keys),
        None => List::Atomic,
    }
}

fn key_of(item: &Value, keys: &[&str]) -> String {
    let of = |key: &&str| {
        let value = item.get(*key).cloned().unwrap_or_else(|| json!(if *key == "protocol" { "TCP" } else { "" }));
        ((*key).to_owned(), value)
    };
    Value::Object(keys.iter().map(of).collect::<Map<_, _>>()).to_string()
}

/// Returns the paths of all that a value sets.
pub fn leaves(value: &Value) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    walk(value, &mut Vec::new(), &mut found);
    let named = |path: &Path| {
        let text: Vec<&str> = path
            .iter()
            .filter_map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None })
            .collect();
        let owned = ["managedFields", "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp"];
        matches!(text.as_slice(), ["apiVersion" | "kind"] | ["metadata"])
            || (text.first() == Some(&"metadata") && text.get(1).is_some_and(|name| owned.contains(name)))
    };
    found.retain(|path, _| !named(path));
    found
}

fn walk(value: &Value, path: &mut Path, found: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(Step::Field(name.clone()));
                walk(value, path, found);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let name = match path.last() {
                Some(Step::Field(name)) => name.clone(),
                _ => String::new(),
            };
            match list(&name, items) {
                List::Atomic => drop(found.insert(path.clone(), value.clone())),
                List::Set => {
                    for item in items {
                        path.push(Step::Member(item.to_string()));
                        found.insert(path.clone(), item.clone());
                        path.pop();
                    }
                }
                List::Keyed(keys) => {
                    for item in items {
                        path.push(Step::Item(key_of(item, keys)));
                        found.insert(path.clone(), Value::Null);
                        walk(item, path, found);
                        path.pop();
                    }
                }
            }
        }
        plain => drop(found.insert(path.clone(), plain.clone())),
    }
}

/// Lays `applied` over `live`.
pub fn merge(live: &Value, applied: &Value, name: &str) -> Value {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let before = merged.get(name).cloned().unwrap_or_default();
                merged.insert(name.clone(), merge(&before, value, name));
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(applied)) => {
            let all: Vec<Value> = live.iter().chain(applied).cloned().collect();
            match list(name, &all) {
                List::Atomic => Value::Array(applied.clone()),
                List::Set => {
                    let mut merged = live.clone();
                    merged.extend(applied.iter().filter(|item| !live.contains(item)).cloned());
                    Value::Array(merged)
                }
                List::Keyed(keys) => {
                    let mut merged = live.clone();
                    for item in applied {
                        let same = |other: &Value| key_of(other, keys) == key_of(item, keys);
                        match merged.iter_mut().find(|other| same(other)) {
                            Some(other) => *other = merge(other, item, ""),
                            None => merged.push(item.clone()),
                        }
                    }
                    Value::Array(merged)
                }
            }
        }
        (_, applied) => applied.clone(),
    }
}

/// Takes the field at a path out of a value, and maps and lists that are empty then.
pub fn cut(value: &mut Value, path: &[Step]) {
    let Some((step, rest)) = path.split_first() else { return };
    match (step, &mut *value) {
        (Step::Field(name), Value::Object(fields)) => {
            if rest.is_empty() {
                fields.remove(name);
            } else if let Some(inner) = fields.get_mut(name) {
                cut(inner, rest);
                if is_empty(inner) {
                    fields.remove(name);
                }
            }
        }
        (Step::Member(member), Value::Array(items)) => {
            let member: Value = serde_json::from_str(member).unwrap_or_default();
            items.retain(|item| *item != member);
        }
        (Step::Item(keys), Value::Array(items)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let names: Vec<&str> = keys.keys().map(String::as_str).collect();
            let wanted = Value::Object(keys.clone()).to_string();
            let is = |item: &Value| key_of(item, &names) == wanted;
            if rest.is_empty() {
                items.retain(|item| !is(item));
            } else {
                items.iter_mut().filter(|item| is(item)).for_each(|item| cut(item, rest));
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// Returns a path as a conflict names it.
pub fn shown(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Field(name) => format!("{text}.{name}"),
        Step::Member(value) => format!("{text}[={value}]"),
        Step::Item(keys) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("{text}[{}]", keys.join(","))
        }
    })
}

/// Returns paths as `fieldsV1`.
pub fn fields_v1(paths: &Paths) -> Value {
    let mut fields = json!({});
    for path in paths {
        let mut at = &mut fields;
        for step in path {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Item(keys) => format!("k:{keys}"),
                Step::Member(value) => format!("v:{value}"),
            };
            at = at.as_object_mut().expect("a map").entry(name).or_insert_with(|| json!({}));
        }
        let is_parent = paths.range(path.clone()..).nth(1).is_some_and(|next| next.starts_with(path));
        if is_parent {
            at["."] = json!({});
        }
    }
    fields
}

/// Returns the paths of `fieldsV1`.
pub fn of_fields_v1(fields: &Value) -> Paths {
    fn walk(fields: &Value, path: &mut Path, paths: &mut Paths) {
        let Some(fields) = fields.as_object() else { return };
        if !path.is_empty() && (fields.is_empty() || fields.contains_key(".")) {
            paths.insert(path.clone());
        }
        for (name, inner) in fields {
            let step = match name.split_once(':') {
                Some(("f", name)) => Step::Field(name.to_owned()),
                Some(("k", keys)) => Step::Item(keys.to_owned()),
                Some(("v", value)) => Step::Member(value.to_owned()),
                _ => continue,
            };
            path.push(step);
            walk(inner, path, paths);
            path.pop();
        }
    }
    let mut paths = Paths::new();
    walk(fields, &mut Vec::new(), &mut paths);
    paths
}

/// One manager's hold on an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// What it holds.
    pub paths: Paths,
}

/// Returns who holds what of an object.
pub fn holds(object: &Value) -> Vec<Hold> {
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let of = |entry: &Value| Hold {
        manager: text(entry, "manager"),
        operation: text(entry, "operation"),
        paths: of_fields_v1(&entry["fieldsV1"]),
    };
    object["metadata"]["managedFields"].as_array().map_or_else(Vec::new, |entries| entries.iter().map(of).collect())
}

/// Writes into an object who holds what.
pub fn set_holds(object: &mut Value, holds: &[Hold]) {
    let version = object["apiVersion"].clone();
    let entry = |hold: &Hold| {
        json!({"manager": hold.manager, "operation": hold.operation, "apiVersion": version, "fieldsType": "FieldsV1",
               "time": "2026-01-01T00:00:00Z", "fieldsV1": fields_v1(&hold.paths)})
    };
    object["metadata"]["managedFields"] = holds.iter().filter(|hold| !hold.paths.is_empty()).map(entry).collect();
}

/// A field that another manager holds.
#[derive(Debug)]
pub struct Conflict {
    /// The manager.
    pub manager: String,
    /// The field.
    pub path: Path,
}

/// Applies a configuration of a manager to an object.
///
/// # Errors
///
/// Whatever others hold with another value, unless `force`.
pub fn apply(live: &Value, applied: &Value, manager: &str, force: bool) -> Result<Value, Vec<Conflict>> {
    let mut holds = holds(live);
    let (wanted, present) = (leaves(applied), leaves(live));
    let is_ours = |hold: &Hold| hold.manager == manager && hold.operation == "Apply";
    let mut conflicts = Vec::new();
    for hold in holds.iter().filter(|hold| !is_ours(hold)) {
        for (path, value) in &wanted {
            if hold.paths.contains(path) && present.get(path) != Some(value) {
                conflicts.push(Conflict { manager: hold.manager.clone(), path: path.clone() });
            }
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    for conflict in &conflicts {
        for hold in holds.iter_mut().filter(|hold| !(hold.manager == manager && hold.operation == "Apply")) {
            hold.paths.remove(&conflict.path);
        }
    }
    let paths: Paths = wanted.keys().cloned().collect();
    let before = holds.iter().find(|hold| is_ours(hold)).map(|hold| hold.paths.clone()).unwrap_or_default();
    holds.retain(|hold| !is_ours(hold));
    let mut merged = merge(live, applied, "");
    for path in before.difference(&paths) {
        let held = |hold: &Hold| hold.paths.range(path.clone()..).next().is_some_and(|other| other.starts_with(path));
        let ours = || paths.range(path.clone()..).next().is_some_and(|other| other.starts_with(path));
        if !holds.iter().any(held) && !ours() {
            cut(&mut merged, path);
        }
    }
    holds.push(Hold { manager: manager.to_owned(), operation: "Apply".to_owned(), paths });
    set_holds(&mut merged, &holds);
    Ok(merged)
}

/// Replaces an object as a manager that does not apply does: what it changes it holds from then on.
pub fn update(live: &Value, mut new: Value, manager: &str) -> Value {
    let (before, after) = (leaves(live), leaves(&new));
    let mut holds = holds(live);
    let changed: Paths =
        after.iter().filter(|(path, value)| before.get(*path) != Some(value)).map(|(path, _)| path.clone()).collect();
    let removed: Paths = before.keys().filter(|path| !after.contains_key(*path)).cloned().collect();
    for hold in &mut holds {
        hold.paths.retain(|path| !changed.contains(path) && !removed.contains(path));
    }
    let is_its = |hold: &&mut Hold| hold.manager == manager && hold.operation == "Update";
    match holds.iter_mut().find(is_its) {
        Some(hold) => hold.paths.extend(changed),
        None => holds.push(Hold { manager: manager.to_owned(), operation: "Update".to_owned(), paths: changed }),
    }
    set_holds(&mut new, &holds);
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(image: &str, replicas: Option<i64>) -> Value {
        let mut value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}});
        if let Some(replicas) = replicas {
            value["spec"]["replicas"] = replicas.into();
        }
        value
    }

    #[test]
    fn what_one_declares_another_cannot_change_without_force() {
        let one = apply(&json!({}), &deployment("x:1", Some(2)), "one", false).expect("one");
        let same = apply(&one, &deployment("x:1", None), "two", false).expect("the same value is no conflict");
        let conflicts = apply(&same, &deployment("x:2", None), "two", false).expect_err("image");
        assert_eq!(conflicts.len(), 1);
        assert_eq!(shown(&conflicts[0].path), ".spec.template.spec.containers[name=\"app\"].image");
        let forced = apply(&same, &deployment("x:2", None), "two", true).expect("forced");
        let lost = apply(&forced, &deployment("x:1", Some(2)), "one", false).expect_err("it is two's now");
        assert_eq!(lost[0].manager, "two");
    }

    #[test]
    fn what_nobody_declares_any_more_goes() {
        let one = apply(&json!({}), &deployment("x:1", Some(2)), "one", false).expect("one");
        let less = apply(&one, &deployment("x:1", None), "one", false).expect("less");
        assert!(less["spec"].get("replicas").is_none());
        let edited = update(&one, merge(&one, &json!({"spec": {"replicas": 5}}), ""), "kubectl-edit");
        assert_eq!(
            apply(&edited, &deployment("x:1", Some(2)), "one", false).expect_err("taken")[0].manager,
            "kubectl-edit"
        );
        let less = apply(&edited, &deployment("x:1", None), "one", false).expect("given up");
        assert_eq!(less["spec"]["replicas"], 5, "somebody else holds it");
    }

    #[test]
    fn fields_are_written_and_read() {
        let paths: Paths = leaves(&deployment("x", Some(1))).into_keys().collect();
        assert_eq!(of_fields_v1(&fields_v1(&paths)), paths);
    }
}
