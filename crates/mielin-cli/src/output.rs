//! Printing results, as tables for people or one JSON object for machines.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Format;
use crate::failure::{ErrorDocument, Failure};

/// Where a command prints its result.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Output {
        Output { format }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints `value` as one line of JSON, or for people what `text` makes of it.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        write_stdout(self.line(value, text)?.as_bytes())
    }

    /// The same, but on standard error where something else `is_on_stdout`.
    pub(crate) fn result_beside<T: Serialize>(
        self,
        is_on_stdout: bool,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if !is_on_stdout {
            return self.result(value, text);
        }
        let line = self.line(value, text)?;
        // Nobody to tell is no reason to fail.
        let _ = io::stderr().lock().write_all(line.as_bytes());
        Ok(())
    }

    fn line<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<String, Failure> {
        let mut line = match self.format {
            Format::Table => text(value),
            Format::Json => serde_json::to_string(value)
                .map_err(|error| Failure::internal(format!("cannot write the result: {error}")))?,
        };
        if !line.is_empty() && !line.ends_with('\n') {
            line.push('\n');
        }
        Ok(line)
    }

    /// A line about what goes on, on standard error, and only for people.
    pub(crate) fn progress(self, line: impl AsRef<str>) {
        self.progress_part(format!("{}\n", line.as_ref()));
    }

    /// The same for a piece of a line.
    pub(crate) fn progress_part(self, text: impl AsRef<str>) {
        if self.format == Format::Table {
            // Nobody to tell is no reason to stop working.
            let _ = io::stderr().lock().write_all(text.as_ref().as_bytes());
        }
    }

    /// Reports a failure on standard error.
    pub(crate) fn failure(self, failure: &Failure) {
        let mut text = match self.format {
            Format::Table => {
                format!("error: {}\n  hint: {}", failure.message, failure.hint)
            }
            Format::Json => serde_json::to_string(&ErrorDocument {
                error: failure.clone(),
            })
            .unwrap_or_default(),
        };
        text.push('\n');
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Whether a person reads what goes to standard error.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether a person reads what goes to standard output.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes bytes to standard output and flushes them.
///
/// A reader that has gone away, as `head` does, ends the program quietly.
pub(crate) fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::io("cannot write to standard output", &error)),
    }
}

/// Rows under a heading, each column as wide as its widest cell.
pub(crate) fn table<R: AsRef<[String]>>(heading: &[&str], rows: &[R]) -> String {
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let lines = || std::iter::once(heading.as_slice()).chain(rows.iter().map(AsRef::as_ref));
    let mut widths = vec![0; heading.len()];
    for line in lines() {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines() {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}  "));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, one pair a line.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        text.push_str(&format!("{name:<width$}  {value}\n"));
        text
    })
}

/// The beginning of an id: enough for people, and a prefix that commands accept.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a".into(), "långt".into()], ["bcd".into(), String::new()]];
        assert_eq!(table(&["X", "YY"], &rows), "X    YY\na    långt\nbcd\n");
    }

    #[test]
    fn ids_are_cut_but_not_broken() {
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
        assert_eq!(short("01"), "01");
    }
}
