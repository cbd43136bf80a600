//! The rules that neither rustc nor clippy know, kept in `xtask/tidy.toml`.
//!
//! - [`text`]: words that may not stand anywhere, calls that may not stand in code.
//! - [`length`]: files and functions stay short; what is over the limit is
//!   listed with its exact length, so that it can only shrink.
//! - [`floors`]: which crate may use which, and the lints that each must keep.
//! - Every Rust file but a module's `tests.rs` begins with its documentation.
//!
//! The check is lexical ([`source`]): it knows strings and comments from code,
//! and tests from what ships, and needs no compiler.

mod floors;
mod length;
mod rules;
mod source;
mod text;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::capture;
use crate::workspace::Workspace;
use rules::Rules;
use source::Source;

/// A file of the repository.
struct File {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1; 0 where the finding is about the file as a whole.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

const RULES_FILE: &str = "xtask/tidy.toml";

/// Endings of the files that are read; everything else is data.
const ENDINGS: [&str; 10] = [
    ".rs", ".toml", ".md", ".c", ".h", ".sh", ".yml", ".yaml", ".json", ".ci/run",
];

/// Checks every text file that git tracks or would track.
///
/// # Errors
/// The rules cannot be read, or are broken; each breach is one line.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let files = read_files(workspace.root())?;
    let rules = fs::read_to_string(workspace.root().join(RULES_FILE)).context(RULES_FILE)?;
    let rules: Rules = basic_toml::from_str(&rules).context(RULES_FILE)?;
    let findings = check(&rules, &files);
    if !findings.is_empty() {
        for finding in &findings {
            println!("{}:{}: {}", finding.path, finding.line, finding.message);
        }
        bail!("tidy: {} findings", findings.len());
    }
    eprintln!("tidy: {} files keep {RULES_FILE}", files.len());
    Ok(())
}

/// Tracked files and new ones that are not ignored.
fn read_files(root: &Path) -> Result<Vec<File>> {
    let mut git = std::process::Command::new("git");
    git.current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let mut files = Vec::new();
    for path in capture(&mut git)?.lines() {
        // A file that was deleted but not yet committed is listed still.
        if ENDINGS.iter().any(|ending| path.ends_with(ending)) && root.join(path).is_file() {
            let text = fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
            files.push(File {
                path: path.to_owned(),
                text,
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

fn check(rules: &Rules, files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut text = text::Check::new(rules);
    let mut length = length::Check::new(rules);
    for file in files {
        // The rules state the words that they forbid.
        if file.path == RULES_FILE {
            continue;
        }
        let source = file
            .path
            .ends_with(".rs")
            .then(|| Source::of(&file.path, &file.text));
        text.file(file, source.as_ref(), &mut findings);
        if let Some(source) = &source {
            length.file(file, source, &mut findings);
            findings.extend(missing_module_docs(file));
        }
    }
    text.finish(&mut findings);
    length.finish(&mut findings);
    floors::check(rules, files, &mut findings);
    findings.sort();
    findings
}

/// The first line that is neither blank nor an inner attribute is `//!`. The
/// tests of one module, in a file `tests.rs`, have nothing to say beyond that.
fn missing_module_docs(file: &File) -> Option<Finding> {
    if file.path.ends_with("/tests.rs") {
        return None;
    }
    let first = file
        .text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!["));
    match first {
        Some(line) if line.starts_with("//!") || line.starts_with("/*!") => None,
        _ => Some(Finding::new(
            &file.path,
            1,
            "does not begin with module documentation (`//!`)",
        )),
    }
}

#[cfg(test)]
mod tests;
