//! `template.yaml`: reading it, and its rules for files.

use serde_json::Value;
use titan_api::{
    parse, patterns,
    templates::{FileMode, FileRule, MANIFEST, TemplateManifest, check_path},
};

use super::failure::Failure;

/// What the manifest's rules say of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Permissions.
    pub mode: FileMode,
    /// The owning user's name.
    pub owner: Option<String>,
    /// The owning group's name.
    pub group: Option<String>,
    /// The directory below the agent's root, instead of the deployment's own.
    pub destination: Option<String>,
}

/// Returns what `text`, the content of `template.yaml`, says.
pub fn read(text: &str) -> Result<TemplateManifest, Failure> {
    if text.trim().is_empty() {
        return Ok(TemplateManifest::default());
    }
    let value: Value = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map(|location| location.line());
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        Failure::new(MANIFEST, format!("it is not YAML: {message}")).line(line)
    })?;
    if value.is_null() {
        return Ok(TemplateManifest::default());
    }
    if !value.is_object() {
        return Err(Failure::new(MANIFEST, "it is not a map").line(Some(1)));
    }
    let manifest: TemplateManifest =
        parse::from_value(value).map_err(|fault| at(text, &fault.pointer, &fault.detail))?;
    check(&manifest).map_err(|(pointer, detail)| at(text, &pointer, &detail))?;
    Ok(manifest)
}

/// Returns a failure at a pointer into the manifest, with the line if it can be told.
pub fn at(text: &str, pointer: &str, detail: &str) -> Failure {
    let place = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
    Failure::new(MANIFEST, format!("{place}{detail}")).line(line_of(text, pointer))
}

/// Returns the line on which the last part of `pointer` stands, searching key after key below each other. An item of a
/// list is looked for among the lines that begin with a dash as deep as the first.
fn line_of(text: &str, pointer: &str) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    // Where to look next, and where it was found.
    let (mut next, mut found) = (0, None);
    for segment in pointer.split('/').skip(1) {
        let key = segment.replace("~1", "/").replace("~0", "~");
        let stands = |line: &str| {
            let line = line.trim_start_matches([' ', '-', '{']);
            let line = line.strip_prefix(['"', '\'']).unwrap_or(line);
            line.strip_prefix(key.as_str())
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
        };
        let item = key.parse().ok().and_then(|index| item(&lines[next..], index));
        if let Some(at) = item {
            // Its first key may stand behind the dash.
            next += at;
            found = Some(next);
            continue;
        }
        let Some(at) = lines[next..].iter().position(|line| stands(line)) else { break };
        found = Some(next + at);
        next += at + 1;
    }
    found.map(|index| index + 1)
}

/// Returns which of `lines`, which follow the key of a list, begins its item `index`.
fn item(lines: &[&str], index: usize) -> Option<usize> {
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let first = lines.iter().position(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))?;
    let depth = indent(lines[first]);
    let begins = |line: &str| indent(line) == depth && line.trim_start().starts_with('-');
    let within = |line: &&&str| line.trim().is_empty() || indent(line) > depth || begins(line);
    let lines = lines.iter().enumerate().skip(first).take_while(|(_, line)| within(line));
    lines.filter(|(_, line)| begins(line)).nth(index).map(|(at, _)| at)
}

fn check(manifest: &TemplateManifest) -> Result<(), (String, String)> {
    for (pattern, rule) in &manifest.files {
        let pointer = format!("/files/{}", parse::escape(pattern));
        if pattern.len() > titan_api::limits::PATH_BYTES || pattern.is_empty() || pattern.starts_with('/') {
            return Err((pointer, "a pattern is a relative path, with * and ** for any part of it".to_owned()));
        }
        if let Some(destination) = &rule.destination
            && let Err(error) = check_path(destination)
        {
            return Err((format!("{pointer}/destination"), format!("{destination:?} is refused: {error}")));
        }
        for (key, name) in [("owner", &rule.owner), ("group", &rule.group)] {
            if let Some(name) = name
                && !is_account(name)
            {
                return Err((format!("{pointer}/{key}"), format!("{name:?} is not the name of a user or group")));
            }
        }
    }
    Ok(())
}

/// Whether `name` may be an account's: POSIX's portable characters, and not a number in disguise of an option.
fn is_account(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.bytes().all(inner)
}

/// Returns what `rules` say of the file at `path`, the last that matches winning for each setting.
///
/// Rules are in the order of their patterns, since a map of YAML has none of its own.
#[must_use]
pub fn settings(manifest: &TemplateManifest, path: &str, executable: bool) -> Settings {
    let matching: Vec<&FileRule> =
        manifest.files.iter().filter(|(pattern, _)| matches(pattern, path)).map(|(_, rule)| rule).collect();
    let last = |get: fn(&FileRule) -> Option<&String>| matching.iter().rev().find_map(|rule| get(rule)).cloned();
    let plain = if executable { FileMode::EXECUTABLE } else { FileMode::PLAIN };
    Settings {
        mode: matching.iter().rev().find_map(|rule| rule.mode).unwrap_or(plain),
        owner: last(|rule| rule.owner.as_ref()),
        group: last(|rule| rule.group.as_ref()),
        destination: last(|rule| rule.destination.as_ref()),
    }
}

/// Whether `path` is one that `pattern` means: `*` is any text within a part, `**` any number of parts.
///
/// Takes time in proportion to both lengths multiplied.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let patterns: Vec<&str> = pattern.split('/').collect();
    let parts: Vec<&str> = path.split('/').collect();
    // reach[i]: whether the patterns so far match the first i parts.
    let mut reach = vec![false; parts.len() + 1];
    reach[0] = true;
    for pattern in patterns {
        let mut next = vec![false; parts.len() + 1];
        if pattern == "**" {
            let mut seen = false;
            for (from, to) in reach.iter().zip(&mut next) {
                seen |= *from;
                *to = seen;
            }
        } else {
            for (index, part) in parts.iter().enumerate() {
                next[index + 1] = reach[index] && patterns::matches(pattern, part);
            }
        }
        reach = next;
    }
    reach[parts.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_within_and_across_parts() {
        for (pattern, path, expected) in [
            ("a.conf", "a.conf", true),
            ("*.conf", "a.conf", true),
            ("*.conf", "etc/a.conf", false),
            ("**/*.conf", "a.conf", true),
            ("**/*.conf", "etc/x/a.conf", true),
            ("etc/**", "etc/x/a", true),
            ("etc/**", "usr/a", false),
            ("etc/*/a", "etc/x/a", true),
            ("etc/*/a", "etc/x/y/a", false),
            ("**", "a/b/c", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXc", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_last_rule_that_matches_wins_for_each_setting() {
        let manifest = read(
            "files:\n  '**': {mode: '0600', owner: app}\n  'bin/*': {mode: '0750'}\n  bin/run: {destination: opt/app}\n",
        )
        .expect("manifest");
        let of = |path, executable| settings(&manifest, path, executable);
        assert_eq!(of("a", true).mode.bits(), 0o600);
        assert_eq!(of("bin/x", true).mode.bits(), 0o750);
        assert_eq!(of("bin/run", false).destination.as_deref(), Some("opt/app"));
        assert_eq!(of("bin/run", false).owner.as_deref(), Some("app"));
        assert_eq!(settings(&TemplateManifest::default(), "a", true).mode, FileMode::EXECUTABLE);
        assert_eq!(settings(&TemplateManifest::default(), "a", false).mode, FileMode::PLAIN);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_line() {
        for (text, expected) in [
            (
                "description: x\nvalus: {}\n",
                "/valus: unknown key \"valus\", did you mean \"values\"? known are description, applier, values, schema, health, hooks, drift, files in template.yaml line 2",
            ),
            (
                "description: x\napplier: podmann\n",
                "/applier: unknown value \"podmann\", did you mean \"podman\"? known are files, systemd, podman, compose, kubernetes in template.yaml line 2",
            ),
            (
                "files:\n  'a':\n    mode: 644\n",
                "/files/a/mode: invalid type: integer `644`, expected a string in template.yaml line 3",
            ),
            ("a: [", "it is not YAML: did not find expected node content in template.yaml line 2"),
            (
                "files:\n  a: {destination: ../x}\n",
                "/files/a/destination: \"../x\" is refused: it has a part '.' or '..' in template.yaml line 2",
            ),
            (
                "files:\n  a: {owner: '-x'}\n",
                "/files/a/owner: \"-x\" is not the name of a user or group in template.yaml line 2",
            ),
            ("- a\n", "it is not a map in template.yaml line 1"),
        ] {
            assert_eq!(read(text).expect_err(text).to_string(), expected);
        }
        let mut laughs = "values:\n  a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            laughs.push_str(&format!("  a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 8].join(", ")));
        }
        assert!(read(&laughs).expect_err("laughs").message.contains("repetition limit exceeded"));
        assert_eq!(read("# nothing\n").expect("empty"), TemplateManifest::default());
    }
}
