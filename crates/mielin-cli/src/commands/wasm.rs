//! `mielin wasm`.

use std::fs;
use std::path::Path;

use mielin_safepoint::{InstrumentError, instrument as rewrite};
use mielin_wasm::Limits;
use serde::Serialize;

use crate::args::InstrumentArgs;
use crate::duration::format_bytes;
use crate::failure::Failure;
use crate::input::read_file;
use crate::output::Output;

/// What `mielin -o json wasm instrument` prints.
#[derive(Serialize)]
struct Instrumented {
    file: String,
    module: String,
    bytes: u64,
    bytes_before: u64,
}

pub(crate) fn instrument(arguments: &InstrumentArgs, output: Output) -> Result<(), Failure> {
    let module = read_module(&arguments.input)?;
    let resumable = rewrite(&module).map_err(|error| {
        Failure::refused(format!(
            "{} cannot be made resumable: {error}",
            arguments.input.display()
        ))
        .hint(match error {
            InstrumentError::AlreadyRewritten => {
                "use it as it is: `mielin agent spawn` takes it like any other"
            }
            InstrumentError::Unsupported { .. } => {
                "build it for `wasm32-wasip1` without the feature that is named"
            }
            _ => "give it a WASI preview-1 command, as `--target wasm32-wasip1` builds it",
        })
    })?;
    let out = arguments.out_file.display();
    fs::write(&arguments.out_file, resumable.bytes())
        .map_err(|error| Failure::io(format!("cannot write {out}"), &error))?;
    let done = Instrumented {
        file: out.to_string(),
        module: resumable.hash().to_string(),
        bytes: resumable.bytes().len() as u64,
        bytes_before: module.len() as u64,
    };
    output.result(&done, |done| {
        format!(
            "{}: {} ({} before), module {}",
            done.file,
            format_bytes(done.bytes),
            format_bytes(done.bytes_before),
            done.module
        )
    })
}

/// Reads a file that should be a WebAssembly module, and says so early if it cannot be one.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    let module = read_file(path, "module", Limits::default().module_bytes)?;
    if !module.starts_with(b"\0asm") {
        return Err(
            Failure::refused(format!("{} is not a WebAssembly module", path.display())).hint(
                "an agent is a WASI preview-1 command, as `--target wasm32-wasip1` builds it",
            ),
        );
    }
    Ok(module)
}
