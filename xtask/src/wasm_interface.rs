//! What a WebAssembly module imports and exports.
//!
//! Two builds of one agent by different compilers have different bytes; their
//! interface is what can be compared. Only the import (2) and export (7)
//! sections of the binary format are read (WebAssembly core specification,
//! section 5.5), by hand, so that `cargo xtask setup` on a bare machine does
//! not wait for an engine's parser to compile.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

/// Names that a module asks for and offers, each with its kind in front.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Such as `func mielin.send`.
    pub(crate) imports: BTreeSet<String>,
    /// Such as `memory memory`.
    pub(crate) exports: BTreeSet<String>,
}

const KINDS: [&str; 5] = ["func", "table", "memory", "global", "tag"];

impl Interface {
    /// Reads a module.
    ///
    /// # Errors
    /// The bytes are no module, are cut short, or use a kind of import that is not known here.
    pub(crate) fn of(module: &[u8]) -> Result<Self> {
        let body = module
            .strip_prefix(b"\0asm\x01\0\0\0")
            .context("not a WebAssembly module of version 1")?;
        let mut interface = Self::default();
        let mut reader = Reader { bytes: body };
        while !reader.bytes.is_empty() {
            let id = reader.byte()?;
            let len = reader.number()?;
            let mut section = Reader {
                bytes: reader.take(len)?,
            };
            match id {
                2 => {
                    for _ in 0..section.number()? {
                        let import = section.import()?;
                        interface.imports.insert(import);
                    }
                }
                7 => {
                    for _ in 0..section.number()? {
                        let name = section.name()?;
                        let kind = kind_name(section.byte()?)?;
                        section.number()?;
                        interface.exports.insert(format!("{kind} {name}"));
                    }
                }
                _ => {}
            }
        }
        Ok(interface)
    }
}

fn kind_name(kind: u8) -> Result<&'static str> {
    KINDS
        .get(usize::from(kind))
        .copied()
        .with_context(|| format!("unknown external kind {kind}"))
}

/// The unread rest of a module or section.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(len)
            .with_context(|| format!("{len} bytes claimed, {} left", self.bytes.len()))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned LEB128 number; limits may have 64 bits (memory64).
    fn number(&mut self) -> Result<usize> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).context("number too large");
            }
        }
        bail!("number too long")
    }

    fn name(&mut self) -> Result<&'a str> {
        let len = self.number()?;
        std::str::from_utf8(self.take(len)?).context("name is not UTF-8")
    }

    fn limits(&mut self) -> Result<()> {
        let flags = self.byte()?;
        ensure!(flags & !0x0f == 0, "unknown limits flags {flags:#x}");
        self.number()?;
        if flags & 1 != 0 {
            self.number()?;
        }
        if flags & 8 != 0 {
            self.number()?;
        }
        Ok(())
    }

    fn import(&mut self) -> Result<String> {
        let module = self.name()?;
        let name = self.name()?;
        let kind = self.byte()?;
        match kind {
            0 => {
                self.number()?;
            }
            1 => {
                self.byte()?;
                self.limits()?;
            }
            2 => self.limits()?,
            3 => {
                self.take(2)?;
            }
            4 => {
                self.byte()?;
                self.number()?;
            }
            _ => {}
        }
        Ok(format!("{} {module}.{name}", kind_name(kind)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Interface;

    /// `(module (import "m" "f" (func)) (import "m" "t" (memory 1 2)) (export "x" (func 0)))`
    const MODULE: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x04\x01\x60\0\0\
        \x02\x0f\x02\x01m\x01f\0\0\x01m\x01t\x02\x01\x01\x02\
        \x07\x05\x01\x01x\0\0";

    #[test]
    fn names_and_kinds() {
        let interface = Interface::of(MODULE).unwrap();
        assert_eq!(
            interface.imports,
            ["func m.f", "memory m.t"].map(String::from).into()
        );
        assert_eq!(interface.exports, ["func x"].map(String::from).into());
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_module() {
        for len in 0..MODULE.len() {
            // Cut between sections the rest is a valid module; elsewhere it must not panic.
            let _ = Interface::of(&MODULE[..len]);
        }
        assert!(Interface::of(&MODULE[..MODULE.len() - 1]).is_err());
        assert!(Interface::of(b"no module").is_err());
    }
}
