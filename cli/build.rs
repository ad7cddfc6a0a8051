//! Embeds the ready-made templates and the examples, so that the binary needs nothing beside it.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut code = String::new();
    for (directory, constant, plans) in
        [("templates", "TEMPLATES", false), ("examples", "EXAMPLES", false), ("examples", "PLANS", true)]
    {
        let directory = root.join("..").join(directory);
        let mut files = Vec::new();
        collect(&directory, "", plans, &mut files)?;
        files.sort();
        code.push_str(&format!("const {constant}: &[File] = &[\n"));
        for (name, path, executable) in files {
            code.push_str(&format!(
                "    File {{ path: {name:?}, bytes: include_bytes!({path:?}), executable: {executable} }},\n"
            ));
        }
        code.push_str("];\n");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("builtin_files.rs");
    fs::write(out, code)
}

/// Collects the files of fleets, or those of plans: directories with a `plan.yaml`, which need somebody who does the work.
fn collect(directory: &Path, prefix: &str, plans: bool, files: &mut Vec<(String, PathBuf, bool)>) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", directory.display());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let below = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let path = entry.path().canonicalize()?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !prefix.is_empty() || path.join("plan.yaml").exists() == plans {
                collect(&path, &below, plans, files)?;
            }
        } else if kind.is_file() {
            println!("cargo::rerun-if-changed={}", path.display());
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            files.push((below, path, executable));
        }
    }
    Ok(())
}
