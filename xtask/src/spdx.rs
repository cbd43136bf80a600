//! SPDX licence expressions (SPDX specification 2.3, annex D), as far as a
//! package's `license` field uses them: identifiers, `WITH`, `AND`, `OR` and
//! parentheses. The old Cargo form `MIT/Apache-2.0` reads as `OR`.

use anyhow::{Result, bail, ensure};

/// A parsed expression.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// One licence, with its exception if it has one: `Apache-2.0 WITH LLVM-exception`.
    Licence(String),
    /// Every part applies.
    All(Vec<Expression>),
    /// The user chooses one part.
    Any(Vec<Expression>),
}

impl Expression {
    /// Reads an expression. `AND` binds tighter than `OR`.
    ///
    /// # Errors
    /// The text is not an expression.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let spaced = text
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = Parser { words: &words };
        let expression = parser.any()?;
        ensure!(
            parser.words.is_empty(),
            "`{}` after the end of the expression",
            parser.words[0]
        );
        Ok(expression)
    }

    /// Whether the expression can be satisfied with licences that `allowed` accepts.
    pub(crate) fn allowed(&self, allowed: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Licence(name) => allowed(name),
            Self::All(parts) => parts.iter().all(|part| part.allowed(allowed)),
            Self::Any(parts) => parts.iter().any(|part| part.allowed(allowed)),
        }
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn next_if(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn any(&mut self) -> Result<Expression> {
        let mut parts = vec![self.all()?];
        while self.next_if("OR") {
            parts.push(self.all()?);
        }
        Ok(single_or(parts, Expression::Any))
    }

    fn all(&mut self) -> Result<Expression> {
        let mut parts = vec![self.licence()?];
        while self.next_if("AND") {
            parts.push(self.licence()?);
        }
        Ok(single_or(parts, Expression::All))
    }

    fn licence(&mut self) -> Result<Expression> {
        match self.next() {
            Some("(") => {
                let inner = self.any()?;
                ensure!(self.next_if(")"), "`(` without `)`");
                Ok(inner)
            }
            Some(word) if is_identifier(word) => {
                if self.next_if("WITH") {
                    match self.next() {
                        Some(exception) if is_identifier(exception) => {
                            return Ok(Expression::Licence(format!("{word} WITH {exception}")));
                        }
                        _ => bail!("`WITH` without an exception"),
                    }
                }
                Ok(Expression::Licence(word.to_owned()))
            }
            Some(word) => bail!("`{word}` where a licence was expected"),
            None => bail!("the expression ends where a licence was expected"),
        }
    }
}

fn is_identifier(word: &str) -> bool {
    !matches!(word, "AND" | "OR" | "WITH")
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.+:".contains(&byte))
}

fn single_or(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        join(parts)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Expression;

    #[track_caller]
    fn check(text: &str, allow: &[&str], expected: bool) {
        let expression = Expression::parse(text).unwrap();
        assert_eq!(
            expression.allowed(&|name| allow.contains(&name)),
            expected,
            "{text} under {allow:?}"
        );
    }

    #[test]
    fn choices_and_obligations() {
        check("MIT", &["MIT"], true);
        check("GPL-3.0-only", &["MIT"], false);
        check("MIT OR GPL-3.0-only", &["MIT"], true);
        check("MIT AND GPL-3.0-only", &["MIT"], false);
        check("MIT/Apache-2.0", &["Apache-2.0"], true);
        check("Apache-2.0 / MIT", &["MIT"], true);
    }

    #[test]
    fn and_binds_tighter_than_or() {
        check("GPL-3.0-only AND ISC OR MIT", &["MIT"], true);
        check("GPL-3.0-only AND (ISC OR MIT)", &["MIT"], false);
        check(
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            &["MIT", "Unicode-3.0"],
            true,
        );
        check("(MIT OR Apache-2.0) AND Unicode-3.0", &["MIT"], false);
    }

    #[test]
    fn an_exception_makes_another_licence() {
        check("Apache-2.0 WITH LLVM-exception", &["Apache-2.0"], false);
        check(
            "Apache-2.0 WITH LLVM-exception",
            &["Apache-2.0 WITH LLVM-exception"],
            true,
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "MIT OR",
            "OR MIT",
            "(MIT",
            "MIT)",
            "MIT Apache-2.0",
            "MIT WITH",
            "MIT WITH OR",
        ] {
            assert!(Expression::parse(text).is_err(), "{text:?}");
        }
    }
}
