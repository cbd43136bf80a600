//! A Rust file as code without its strings and comments, and which of its lines
//! are tests. Lexical only: enough to know a call from a mention of it.

/// The lexed form of one file.
pub(super) struct Source {
    /// The text with every comment, string and character literal blanked out;
    /// same length, same lines.
    pub(super) code: String,
    /// For each line, whether it belongs to tests.
    pub(super) is_test: Vec<bool>,
}

impl Source {
    /// Lexes a file. A file under `tests/` or `benches/`, or named `tests.rs`,
    /// is all tests; elsewhere the items below `#[cfg(test)]` are.
    pub(super) fn of(path: &str, text: &str) -> Self {
        let code = blank_literals(text);
        let line_count = text.lines().count();
        let mut is_test = vec![is_test_file(path); line_count];
        for (first, last) in test_items(&code) {
            is_test[first..=last.min(line_count.saturating_sub(1))].fill(true);
        }
        Self { code, is_test }
    }

    /// Whether the line, from 0, belongs to tests.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.is_test.get(line).copied().unwrap_or(false)
    }
}

fn is_test_file(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let name = parts.next().unwrap_or_default();
    name == "tests.rs" || parts.any(|folder| matches!(folder, "tests" | "benches"))
}

/// First and last line of each item under `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]") {
        let start = from + at;
        let end = item_end(code, start + "#[cfg(test)]".len());
        items.push((line_of(code, start), line_of(code, end)));
        from = end.max(start + 1);
    }
    items
}

/// The last byte of the item that begins at or after `from`: its closing brace,
/// or its semicolon where it has no body.
fn item_end(code: &str, from: usize) -> usize {
    let bytes = code.as_bytes();
    let mut depth = 0usize;
    for (offset, byte) in bytes[from..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return from + offset,
            b'{' if depth == 0 => return closing_brace(code, from + offset),
            _ => {}
        }
    }
    code.len().saturating_sub(1)
}

/// The brace that closes the one at `open`, or the end of the file.
pub(super) fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return open + offset;
                }
            }
            _ => {}
        }
    }
    code.len().saturating_sub(1)
}

/// The line, from 0, of a byte.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

/// Replaces comments and literals by spaces, byte by byte, and keeps newlines.
fn blank_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_end(bytes, at) {
            Some(end) => end,
            None => {
                at += 1;
                continue;
            }
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole characters inside literals were replaced, each byte by a space.
    String::from_utf8(code)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// If a comment or literal begins at `at`, the place after its end.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after_name = at > 0 && is_name(bytes[at - 1]);
    match rest[0] {
        b'/' if rest.starts_with(b"//") => Some(
            at + rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len()),
        ),
        b'/' if rest.starts_with(b"/*") => Some(at + block_comment_len(rest)),
        b'"' => Some(at + string_len(rest)),
        // Raw strings r"", r#""#, br"", cr"", but not names that end in r and not r#names.
        b'r' | b'b' | b'c' if !after_name => raw_string_len(rest).map(|len| at + len),
        b'\'' => char_len(rest).map(|len| at + len),
        _ => None,
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Block comments nest.
fn block_comment_len(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of a string whose quote is the first byte.
fn string_len(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string_len(rest: &[u8]) -> Option<usize> {
    let prefix = rest
        .iter()
        .position(|byte| *byte == b'r')
        .filter(|at| *at <= 1)?
        + 1;
    let hashes = rest[prefix..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let body = &rest[open + 1..];
    let len = body
        .windows(close.len())
        .position(|window| window == close)
        .unwrap_or(body.len());
    Some((open + 1 + len + close.len()).min(rest.len()))
}

/// Length of a character literal; `None` for a lifetime or a label.
fn char_len(rest: &[u8]) -> Option<usize> {
    match rest.get(1)? {
        b'\\' => {
            let after_escape = rest.get(3..)?;
            Some(3 + after_escape.iter().position(|byte| *byte == b'\'')? + 1)
        }
        b'\'' => None,
        first => {
            let width = match first {
                0..=0x7f => 1,
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
        }
    }
}
