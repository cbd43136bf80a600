//! `mielin wasm`.

use std::fs;
use std::path::Path;

use mielin_safepoint::instrument as rewrite;

use crate::args::InstrumentArgs;
use crate::duration::format_bytes;
use crate::failure::Failure;
use crate::output::write_stdout;

pub(crate) fn instrument(arguments: &InstrumentArgs) -> Result<(), Failure> {
    let module = read_module(&arguments.input)?;
    let resumable = rewrite(&module).map_err(|error| {
        Failure::refused(format!(
            "{} cannot be made resumable: {error}",
            arguments.input.display()
        ))
    })?;
    let out = arguments.out_file.display();
    fs::write(&arguments.out_file, resumable.bytes())
        .map_err(|error| Failure::io(format!("cannot write {out}"), &error))?;
    let (before, after) = (module.len() as u64, resumable.bytes().len() as u64);
    let line = format!(
        "{out}: {} ({} before), module {}\n",
        format_bytes(after),
        format_bytes(before),
        resumable.hash()
    );
    write_stdout(line.as_bytes())
}

/// Reads a file that should be a WebAssembly module, and says so early if it cannot be one.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    let module = fs::read(path)
        .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    if !module.starts_with(b"\0asm") {
        return Err(
            Failure::refused(format!("{} is not a WebAssembly module", path.display())).hint(
                "an agent is a WASI preview-1 command, as `--target wasm32-wasip1` builds it",
            ),
        );
    }
    Ok(module)
}
