//! The form of `xtask/tidy.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    /// What may stand nowhere, comments, strings and documents included.
    #[serde(default)]
    pub(super) word: Vec<Word>,
    /// What may not stand in Rust code, comments and strings excluded.
    #[serde(default)]
    pub(super) call: Vec<Call>,
    /// Places where a word or call may stand after all.
    #[serde(default)]
    pub(super) allow: Vec<Allow>,
    /// Limits of length, and what exceeds them.
    pub(super) length: Length,
    /// The floors, bottom up.
    #[serde(default, rename = "crate")]
    pub(super) crates: Vec<Floor>,
}

/// A forbidden word or phrase.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) reason: String,
    /// `word` (the default): whole words in any case. `exact`: whole words in
    /// this case. `part`: anywhere.
    #[serde(default)]
    pub(super) matching: Matching,
    #[serde(default)]
    pub(super) scope: Scope,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Matching {
    #[default]
    Word,
    Exact,
    Part,
}

/// Which lines a rule is about: all of every file, or a part of the Rust files.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scope {
    #[default]
    All,
    Tests,
    Shipped,
}

/// A forbidden piece of code.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    /// Found where the character before its first letter is no part of a name.
    pub(super) text: String,
    pub(super) reason: String,
    #[serde(default)]
    pub(super) scope: Scope,
    /// Beginnings of the paths that the rule is about; none means all.
    #[serde(default)]
    pub(super) within: Vec<String>,
    /// Beginnings of paths that it is not about, by design.
    #[serde(default)]
    pub(super) except: Vec<String>,
}

/// One file that may contain one forbidden text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {
    pub(super) text: String,
    pub(super) path: String,
    pub(super) reason: String,
}

/// Limits in lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Length {
    /// Lines of a file outside its tests.
    pub(super) file_max: usize,
    /// Lines of a function from its `fn` to its last brace.
    pub(super) function_max: usize,
    /// Files above the limit, with their exact length.
    #[serde(default)]
    pub(super) files: BTreeMap<String, usize>,
    /// Functions above the limit, as `path::function`, with their exact length.
    #[serde(default)]
    pub(super) functions: BTreeMap<String, usize>,
}

/// One crate of the workspace.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Floor {
    pub(super) name: String,
    /// The folder of its Cargo.toml.
    pub(super) path: String,
    pub(super) floor: u32,
    /// Our own crates that it may depend on.
    #[serde(default)]
    pub(super) uses: Vec<String>,
    /// Crates of others that it must not depend on: what must not be on this floor.
    #[serde(default)]
    pub(super) never: Vec<String>,
    /// Why it does not take the workspace's lint table. Its own table must then
    /// be the workspace's in everything but `unsafe_code`.
    #[serde(default)]
    pub(super) own_lints: Option<String>,
}
