//! Words that may stand nowhere, and calls that may not stand in code.

use std::collections::BTreeSet;

use super::rules::{Allow, Call, Matching, Rules, Scope, Word};
use super::source::{Source, line_of};
use super::{File, Finding, RULES_FILE};

/// Looks through file after file and remembers which permissions were needed.
pub(super) struct Check<'a> {
    rules: &'a Rules,
    used: BTreeSet<usize>,
}

impl<'a> Check<'a> {
    pub(super) fn new(rules: &'a Rules) -> Self {
        Self {
            rules,
            used: BTreeSet::new(),
        }
    }

    pub(super) fn file(
        &mut self,
        file: &File,
        source: Option<&Source>,
        findings: &mut Vec<Finding>,
    ) {
        let lower = file.text.to_lowercase();
        for word in &self.rules.word {
            for at in word_places(word, &file.text, &lower) {
                let line = line_of(
                    if word.matching == Matching::Word {
                        &lower
                    } else {
                        &file.text
                    },
                    at,
                );
                if in_scope(word.scope, source, line) && !self.allowed(&word.text, &file.path) {
                    let message = format!("`{}`: {}", word.text, word.reason);
                    findings.push(Finding::new(&file.path, line + 1, message));
                }
            }
        }
        let Some(source) = source else { return };
        for call in self
            .rules
            .call
            .iter()
            .filter(|call| is_about(call, &file.path))
        {
            for at in call_places(&call.text, &source.code) {
                let line = line_of(&source.code, at);
                if in_scope(call.scope, Some(source), line) && !self.allowed(&call.text, &file.path)
                {
                    let message = format!("`{}`: {}", call.text, call.reason);
                    findings.push(Finding::new(&file.path, line + 1, message));
                }
            }
        }
    }

    /// Permissions without a reason, and permissions that nothing needs.
    pub(super) fn finish(&self, findings: &mut Vec<Finding>) {
        for (index, Allow { text, path, reason }) in self.rules.allow.iter().enumerate() {
            if reason.trim().is_empty() {
                findings.push(Finding::new(
                    RULES_FILE,
                    0,
                    format!("allow `{text}` in {path} gives no reason"),
                ));
            }
            if !self.used.contains(&index) {
                findings.push(Finding::new(
                    RULES_FILE,
                    0,
                    format!("allow `{text}` in {path} is not needed"),
                ));
            }
        }
    }

    fn allowed(&mut self, text: &str, path: &str) -> bool {
        let found = self
            .rules
            .allow
            .iter()
            .position(|allow| allow.text == text && allow.path == path);
        self.used.extend(found);
        found.is_some()
    }
}

fn is_about(call: &Call, path: &str) -> bool {
    let begins = |prefix: &String| path.starts_with(prefix.as_str());
    (call.within.is_empty() || call.within.iter().any(begins)) && !call.except.iter().any(begins)
}

fn in_scope(scope: Scope, source: Option<&Source>, line: usize) -> bool {
    let is_test = source.map(|source| source.is_test_line(line));
    match scope {
        Scope::All => true,
        Scope::Tests => is_test == Some(true),
        Scope::Shipped => is_test == Some(false),
    }
}

/// Places of a word; in `lower` where case does not matter, in `text` elsewhere.
fn word_places(word: &Word, text: &str, lower: &str) -> Vec<usize> {
    match word.matching {
        Matching::Part => text.match_indices(&word.text).map(|(at, _)| at).collect(),
        Matching::Exact => whole_words(text, &word.text),
        Matching::Word => whole_words(lower, &word.text.to_lowercase()),
    }
}

/// Places where neither neighbour is a letter or digit. An underscore ends a
/// word, so that names in snake case are looked into.
fn whole_words(text: &str, word: &str) -> Vec<usize> {
    let is_part = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| {
            let (before, after) = (&text[..*at], &text[at + word.len()..]);
            !is_part(before.chars().next_back()) && !is_part(after.chars().next())
        })
        .collect()
}

/// Places of a piece of code that do not continue a name to the left.
fn call_places(call: &str, code: &str) -> Vec<usize> {
    let begins_with_name = call.starts_with(|first: char| first.is_alphanumeric() || first == '_');
    code.match_indices(call)
        .map(|(at, _)| at)
        .filter(|at| {
            let before = code[..*at].chars().next_back();
            !begins_with_name || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
        .collect()
}
