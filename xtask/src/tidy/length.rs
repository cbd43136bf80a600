//! Files and functions stay within limits. What exceeds one is listed in the
//! rules with its exact length: it may not grow, and when it shrinks the list
//! must follow, so that it never grows back.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::{Length, Rules};
use super::source::{Source, closing_brace, line_of};
use super::{File, Finding, RULES_FILE};

/// Measures file after file and remembers which entries were met.
pub(super) struct Check<'a> {
    limits: &'a Length,
    met: BTreeSet<String>,
}

impl<'a> Check<'a> {
    pub(super) fn new(rules: &'a Rules) -> Self {
        Self {
            limits: &rules.length,
            met: BTreeSet::new(),
        }
    }

    pub(super) fn file(&mut self, file: &File, source: &Source, findings: &mut Vec<Finding>) {
        let lines = source.is_test.iter().filter(|is_test| !**is_test).count();
        let limits = self.limits;
        self.measure(
            &limits.files,
            &file.path,
            (&file.path, 0),
            lines,
            limits.file_max,
            findings,
        );
        for function in functions(&source.code) {
            let key = format!("{}::{}", file.path, function.name);
            let place = (file.path.as_str(), function.line + 1);
            self.measure(
                &limits.functions,
                &key,
                place,
                function.lines,
                limits.function_max,
                findings,
            );
        }
    }

    fn measure(
        &mut self,
        listed: &BTreeMap<String, usize>,
        key: &str,
        (path, line): (&str, usize),
        lines: usize,
        max: usize,
        findings: &mut Vec<Finding>,
    ) {
        // Two functions of one name may stand in a file; the entry is the longer one's.
        if lines <= max {
            return;
        }
        let message = match listed.get(key) {
            None => format!("`{key}` has {lines} lines, more than {max}: divide it"),
            Some(entry) => {
                self.met.insert(key.to_owned());
                match lines.cmp(entry) {
                    std::cmp::Ordering::Equal => return,
                    std::cmp::Ordering::Greater => {
                        format!("`{key}` grew from {entry} to {lines} lines")
                    }
                    std::cmp::Ordering::Less => {
                        format!("`{key}` shrank to {lines} lines: write that into {RULES_FILE}")
                    }
                }
            }
        };
        findings.push(Finding::new(path, line, message));
    }

    /// Entries whose subject is within the limit by now, or gone.
    pub(super) fn finish(&self, findings: &mut Vec<Finding>) {
        let listed = self.limits.files.keys().chain(self.limits.functions.keys());
        for key in listed.filter(|key| !self.met.contains(*key)) {
            findings.push(Finding::new(
                RULES_FILE,
                0,
                format!("length entry `{key}` is not needed any more"),
            ));
        }
    }
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// From 0.
    pub(super) line: usize,
    /// From the line of `fn` to that of the closing brace.
    pub(super) lines: usize,
}

/// The functions of blanked code, nested ones too. Declarations without a body
/// and function pointer types have none and are left out.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices("fn ")
        .filter(|(at, _)| !code[..*at].chars().next_back().is_some_and(is_name))
        .filter_map(|(at, keyword)| {
            let after = &code[at + keyword.len()..];
            let name: String = after
                .trim_start()
                .chars()
                .take_while(|c| is_name(*c))
                .collect();
            let open = body_start(code, at)?;
            let line = line_of(code, at);
            let last = line_of(code, closing_brace(code, open));
            (!name.is_empty()).then_some(Function {
                name,
                line,
                lines: last - line + 1,
            })
        })
        .collect()
}

/// The brace that opens the body of the function whose `fn` is at `at`.
fn body_start(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (offset, byte) in code.as_bytes()[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            b';' | b'}' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(at + offset),
            _ => {}
        }
    }
    None
}
