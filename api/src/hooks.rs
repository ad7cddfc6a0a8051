//! Hooks: commands of a bundle around what its applier does. A host runs none unless its own configuration allows it.

use serde::{Deserialize, Serialize};

use crate::{
    limits::{COMMAND_WORDS, PROBE_TEXT_BYTES, SPAN_LEAST, SPAN_MOST},
    problems::Fault,
    spans::Span,
    templates::check_path,
};

/// Commands of a bundle. In `template.yaml` every text may hold expressions. Each may run twice: after a power cut.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hooks {
    /// Before the switch; if it fails nothing is switched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_apply: Option<Hook>,
    /// After the switch and before the first probe; if it fails the deployment is not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_apply: Option<Hook>,
    /// Before what the deployment owns is removed; if it fails the removal waits and is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_remove: Option<Hook>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hook {
    /// The program, an absolute path or one below the deployment's directory, and its arguments. No shell.
    pub command: Vec<String>,
    /// How long it may take; one minute unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

impl Hooks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Hooks {
    /// Returns what is beyond a limit or cannot be run, at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<Fault> {
        let hooks = [("preApply", &self.pre_apply), ("postApply", &self.post_apply), ("onRemove", &self.on_remove)];
        let hooks = hooks.into_iter().filter_map(|(key, hook)| Some((format!("{pointer}/{key}"), hook.as_ref()?)));
        hooks
            .flat_map(|(at, hook)| {
                let timeout = hook.timeout.and_then(|span| span.fault(format!("{at}/timeout"), SPAN_LEAST, SPAN_MOST));
                command_fault(&hook.command, &format!("{at}/command")).into_iter().chain(timeout)
            })
            .collect()
    }
}

/// Returns what is wrong with a command, at `pointer`.
pub(crate) fn command_fault(command: &[String], pointer: &str) -> Option<Fault> {
    let Some(program) = command.first() else { return Some(Fault::new(pointer, "a command names a program")) };
    if command.len() > COMMAND_WORDS {
        return Some(Fault::new(pointer, format!("{} words, the limit is {COMMAND_WORDS}", command.len())));
    }
    place_fault(program, format!("{pointer}/0")).or_else(|| {
        let words = command.iter().enumerate();
        words.skip(1).find_map(|(index, word)| text_fault(word, format!("{pointer}/{index}")))
    })
}

/// Returns what is wrong with a text that is handed on, at `pointer`.
pub(crate) fn text_fault(text: &str, pointer: String) -> Option<Fault> {
    if text.len() > PROBE_TEXT_BYTES {
        let detail = format!("{} bytes, the limit is {PROBE_TEXT_BYTES}", text.len());
        return Some(Fault::new(pointer, detail));
    }
    text.contains('\0').then(|| Fault::new(pointer, "it holds a NUL character"))
}

/// Returns what is wrong with a path that is absolute or below the deployment's directory, at `pointer`.
pub(crate) fn place_fault(path: &str, pointer: String) -> Option<Fault> {
    let below = path.strip_prefix('/').unwrap_or(path);
    check_path(below).err().map(|error| Fault::new(pointer, format!("the path {path:?} is refused: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pointers(hooks: Value) -> Vec<String> {
        let hooks: Hooks = serde_json::from_value(hooks).expect("hooks");
        hooks.faults("/hooks").into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn commands_are_short_and_name_a_program() {
        let words = |count: usize| json!({"preApply": {"command": vec!["bin/x"; count]}});
        assert_eq!(pointers(words(COMMAND_WORDS)), [""; 0]);
        assert_eq!(pointers(words(COMMAND_WORDS + 1)), ["/hooks/preApply/command"]);
        assert_eq!(pointers(words(0)), ["/hooks/preApply/command"]);
        let of = |program: &str, word: &str| json!({"onRemove": {"command": [program, word]}});
        assert_eq!(pointers(of("/usr/bin/true", "../x")), [""; 0]);
        for program in ["", "/", "../x", "/usr/../x", "a\0"] {
            assert_eq!(pointers(of(program, "")), ["/hooks/onRemove/command/0"], "{program:?}");
        }
        assert_eq!(pointers(of("x", "a\0b")), ["/hooks/onRemove/command/1"]);
        assert_eq!(pointers(of("x", &"x".repeat(PROBE_TEXT_BYTES + 1))), ["/hooks/onRemove/command/1"]);
    }

    #[test]
    fn timeouts_are_neither_too_short_nor_too_long() {
        let of = |timeout: &str| json!({"postApply": {"command": ["x"], "timeout": timeout}});
        for good in ["100ms", "24h"] {
            assert_eq!(pointers(of(good)), [""; 0], "{good}");
        }
        for bad in ["99ms", "0s", "25h"] {
            assert_eq!(pointers(of(bad)), ["/hooks/postApply/timeout"], "{bad}");
        }
    }
}
