//! Tools for configuration management that render the same twenty files on this machine, by themselves and without a server.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::rounds::{FILES, HOST, text};

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    CfEngine,
    Salt,
    Puppet,
    Ansible,
}

impl Peer {
    pub(super) const ALL: [Self; 4] = [Self::CfEngine, Self::Salt, Self::Puppet, Self::Ansible];

    /// Returns the program that does a run.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::CfEngine => "cf-agent",
            Self::Salt => "salt-call",
            Self::Puppet => "puppet",
            Self::Ansible => "ansible-playbook",
        }
    }

    /// Returns how often it is run in a batch: the clock of processor time has ticks of 10 ms.
    pub(super) const fn runs(self) -> u32 {
        match self {
            Self::CfEngine => 10,
            Self::Salt => 2,
            Self::Puppet | Self::Ansible => 1,
        }
    }
}

/// Returns a tool's name and version, if it is on the path.
pub(super) fn version(peer: Peer) -> Option<String> {
    let output = Command::new(peer.program()).arg("--version").stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = said.split(|c: char| !c.is_ascii_digit() && c != '.').find(|word| word.contains('.'))?;
    let name = match peer {
        Peer::CfEngine => "CFEngine",
        Peer::Salt => "Salt",
        Peer::Puppet => "Puppet",
        Peer::Ansible => "Ansible core",
    };
    Some(format!("{name} {}", number.trim_matches('.')))
}

/// What a tool is told, in a directory of its own.
pub(super) struct Fixture {
    peer: Peer,
    folder: TempDir,
}

impl Fixture {
    pub(super) fn new(peer: Peer) -> anyhow::Result<Self> {
        let fixture = Self { peer, folder: TempDir::with_prefix("titan-bench-peer-")? };
        std::fs::create_dir(fixture.output())?;
        match peer {
            Peer::CfEngine => fixture.write("template", &text("{{name}}", "{{index}}", "{{revision}}"))?,
            Peer::Salt => {
                let minion = format!("root_dir: {}\nfile_client: local\nid: {HOST}\n", fixture.at("salt").display());
                fixture.write("minion", &minion)?;
                fixture.write("states/template", &text("{{ name }}", "{{ index }}", "{{ revision }}"))?;
            }
            Peer::Puppet => fixture.write(
                "template.epp",
                &format!(
                    "<%- | $name_, $index, $revision | -%>\n{}",
                    text("<%= $name_ %>", "<%= $index %>", "<%= $revision %>")
                ),
            )?,
            Peer::Ansible => fixture.write("template", &text("{{ name }}", "{{ item }}", "{{ revision }}"))?,
        }
        Ok(fixture)
    }

    /// Returns where the files are to be.
    pub(super) fn output(&self) -> PathBuf {
        self.at("output")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        Ok(std::fs::write(path, text)?)
    }

    /// Declares the files with a revision.
    pub(super) fn declare(&self, revision: &str) -> anyhow::Result<()> {
        let (folder, output) = (self.folder.path().display(), self.output());
        let output = output.display();
        let quoted: Vec<_> = (0..FILES).map(|number| format!("\"{number:02}\"")).collect();
        let indices = quoted.join(", ");
        match self.peer {
            Peer::CfEngine => self.write(
                "promises.cf",
                &format!(
                    "body common control {{ bundlesequence => {{ \"main\" }}; }}\n\
                     bundle agent main {{\n\
                     vars:\n  \"index\" slist => {{ {indices} }};\n\
                     files:\n  \"{output}/file-$(index).conf\"\n    create => \"true\",\n    \
                     edit_template => \"{folder}/template\",\n    template_method => \"mustache\",\n    template_data => \
                     parsejson('{{\"name\":\"{HOST}\",\"index\":\"$(index)\",\"revision\":\"{revision}\"}}');\n}}\n"
                ),
            ),
            Peer::Salt => self.write(
                "states/files.sls",
                &format!(
                    "{{% for index in [{indices}] %}}\n{output}/file-{{{{ index }}}}.conf:\n  file.managed:\n    \
                     - source: salt://template\n    - template: jinja\n    - context:\n        name: {HOST}\n        \
                     index: \"{{{{ index }}}}\"\n        revision: \"{revision}\"\n{{% endfor %}}\n"
                ),
            ),
            Peer::Puppet => self.write(
                "site.pp",
                &format!(
                    "[{indices}].each |$index| {{\n  file {{ \"{output}/file-${{index}}.conf\":\n    content => \
                     epp('{folder}/template.epp', {{ 'name_' => '{HOST}', 'index' => $index, 'revision' => '{revision}' \
                     }}),\n  }}\n}}\n"
                ),
            ),
            Peer::Ansible => self.write(
                "site.yml",
                &format!(
                    "- hosts: localhost\n  connection: local\n  gather_facts: false\n  vars: {{ name: {HOST}, revision: \
                     \"{revision}\" }}\n  tasks:\n    - template: {{ src: {folder}/template, dest: \"{output}/file-{{{{ item \
                     }}}}.conf\" }}\n      loop: [{indices}]\n"
                ),
            ),
        }
    }

    /// Runs the tool once; it must go well.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut command = Command::new(self.peer.program());
        match self.peer {
            Peer::CfEngine => command.args(["--no-lock", "--file"]).arg(self.at("promises.cf")),
            Peer::Salt => command
                .args(["--local", "--out=quiet", "--retcode-passthrough", "--config-dir"])
                .arg(self.folder.path())
                .arg(flag("--file-root=", &self.at("states")))
                .args(["state.apply", "files"]),
            Peer::Puppet => command
                .arg("apply")
                .arg(flag("--confdir=", &self.at("conf")))
                .arg(flag("--vardir=", &self.at("var")))
                .arg(self.at("site.pp")),
            Peer::Ansible => command.args(["-i", "localhost,"]).arg(self.at("site.yml")),
        };
        command.env("HOME", self.folder.path()).current_dir(self.folder.path()).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("{} runs", self.peer.program()))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("{} ended with {}: {}", self.peer.program(), output.status, String::from_utf8_lossy(&said));
        }
        Ok(())
    }
}

fn flag(name: &str, path: &Path) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(name);
    flag.push(path);
    flag
}
