//! What a unit file says: sections of keys and values, as systemd reads them.

/// The settings of a unit file, and of drop-ins after it, in the order in which they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::apply) struct UnitFile(Vec<Setting>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    section: String,
    key: String,
    value: String,
}

impl UnitFile {
    /// Reads a unit file or a drop-in. The error says what is wrong with it, and in which line.
    pub(in crate::apply) fn parse(text: &str) -> Result<Self, String> {
        let mut settings = Vec::new();
        let mut section = String::new();
        let mut pending: Option<(usize, String)> = None;
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && pending.is_none()) {
                continue;
            }
            let (number, mut whole) = pending.take().unwrap_or((index + 1, String::new()));
            if let Some(begun) = trimmed.strip_suffix('\\') {
                whole.push_str(begun);
                whole.push(' ');
                pending = Some((number, whole));
                continue;
            }
            whole.push_str(trimmed);
            settings.extend(read(&mut section, whole.trim(), number)?);
        }
        if let Some((number, whole)) = pending {
            settings.extend(read(&mut section, whole.trim(), number)?);
        }
        Ok(Self(settings))
    }

    /// Returns every setting in the order in which they stand: section, key and value.
    pub(in crate::apply) fn settings(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().map(|setting| (setting.section.as_str(), setting.key.as_str(), setting.value.as_str()))
    }

    /// Adds what a drop-in says.
    pub(super) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns all values of a key; an empty one takes back those before it.
    fn values<'a>(&'a self, section: &'a str, key: &'a str) -> Vec<&'a str> {
        let mut values = Vec::new();
        for setting in self.0.iter().filter(|setting| setting.section == section && setting.key == key) {
            if setting.value.is_empty() {
                values.clear();
            } else {
                values.push(setting.value.as_str());
            }
        }
        values
    }

    /// Returns the value of a key that has one.
    pub(in crate::apply) fn last(&self, section: &str, key: &str) -> Option<String> {
        self.values(section, key).last().map(|value| (*value).to_owned())
    }

    /// Returns the words of a key that lists names.
    pub(super) fn words(&self, section: &str, key: &str) -> Vec<String> {
        let values = self.values(section, key);
        values.iter().flat_map(|value| value.split_whitespace()).map(str::to_owned).collect()
    }

    /// Returns whether a key says yes, if it is there; the value if it says neither yes nor no.
    pub(in crate::apply) fn flag(&self, section: &str, key: &str) -> Result<Option<bool>, String> {
        match self.last(section, key).as_deref() {
            None => Ok(None),
            Some("yes" | "true" | "on" | "1" | "y" | "t") => Ok(Some(true)),
            Some("no" | "false" | "off" | "0" | "n" | "f") => Ok(Some(false)),
            Some(other) => Err(format!("{key}={other} in [{section}] is neither yes nor no")),
        }
    }
}

fn read(section: &mut String, line: &str, number: usize) -> Result<Option<Setting>, String> {
    if line.is_empty() {
        return Ok(None);
    }
    if let Some(rest) = line.strip_prefix('[') {
        let name = rest.strip_suffix(']').filter(|name| !name.is_empty());
        name.ok_or_else(|| format!("line {number}: {line:?} is no section; write [Name]"))?.clone_into(section);
        return Ok(None);
    }
    let Some((key, value)) = line.split_once('=') else {
        return Err(format!("line {number}: {line:?} is neither a section nor Key=value"));
    };
    if section.is_empty() {
        return Err(format!("line {number}: {line:?} stands before any section"));
    }
    let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
    Ok(Some(Setting { section: section.clone(), key, value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_are_taken_back_and_go_on_over_lines() {
        let text = "# c\n[Install]\nWantedBy=a.target b.target\nWantedBy=\nWantedBy=c.target \\\n; c\n  d.target\n[X]\nA = 1\nA=2\n";
        let file = UnitFile::parse(text).expect("file");
        assert_eq!(file.words("Install", "WantedBy"), ["c.target", "d.target"]);
        assert_eq!(file.last("X", "A").as_deref(), Some("2"));
        assert_eq!(file.last("Install", "A"), None);
        assert!(file.flag("X", "A").is_err() && file.flag("X", "B") == Ok(None));
    }

    #[test]
    fn lines_that_say_nothing_are_named_by_their_number() {
        for (text, line) in
            [("[Unit\n", "line 1"), ("[Unit]\n\nExecStart\n", "line 3"), ("A=1\n", "line 1"), ("[]\n", "line 1")]
        {
            let message = UnitFile::parse(text).expect_err(text);
            assert!(message.contains(line), "{text:?}: {message}");
        }
        assert!(UnitFile::parse("[A]\nB=1\\").is_ok(), "an end in the middle of a line");
    }
}
