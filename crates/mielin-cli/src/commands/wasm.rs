//! `mielin wasm`.

use std::path::Path;

use mielin_safepoint::{InstrumentError, instrument as rewrite};
use mielin_wasm::Limits;
use serde::Serialize;

use crate::args::InstrumentArgs;
use crate::duration::format_bytes;
use crate::failure::Failure;
use crate::input::{read_file, read_stdin};
use crate::out_file::{OutFile, STANDARD, is_stdout};
use crate::output::Output;

const MODULE: &str = "module";

/// What `mielin -o json wasm instrument` prints.
#[derive(Serialize)]
struct Instrumented {
    file: String,
    module: String,
    bytes: u64,
    bytes_before: u64,
}

pub(crate) fn instrument(arguments: &InstrumentArgs, output: Output) -> Result<(), Failure> {
    let input = &arguments.input;
    let to_stdout = is_stdout(&arguments.out_file, MODULE)?;
    let (source, module) = match input == Path::new(STANDARD) {
        true => {
            let module = read_stdin(MODULE, module_bytes_max())?;
            ("standard input".to_owned(), module)
        }
        false => {
            let module = read_file(input, MODULE, module_bytes_max())?;
            (input.display().to_string(), module)
        }
    };
    check_module(&source, &module)?;
    let resumable = rewrite(&module).map_err(|error| {
        let why = match error {
            InstrumentError::Unsupported { .. } => format!("{source}: {error}"),
            _ => format!("{source} cannot be made resumable: {error}"),
        };
        Failure::refused(why).hint(match error {
            InstrumentError::AlreadyRewritten => "use it as it is",
            InstrumentError::ReservedExport(_) => "give that export another name",
            InstrumentError::Unsupported { .. } => {
                "build it for `wasm32-wasip1` without the feature that is named"
            }
            _ => "give it a WASI preview-1 command, as `--target wasm32-wasip1` builds it",
        })
    })?;
    let mut file = match to_stdout {
        true => OutFile::stdout()?,
        false => OutFile::at(&arguments.out_file)?,
    };
    let out = file.name().to_owned();
    file.write(resumable.bytes())?;
    file.finish()?;
    let done = Instrumented {
        file: out,
        module: resumable.hash().to_string(),
        bytes: resumable.bytes().len() as u64,
        bytes_before: module.len() as u64,
    };
    let text = |done: &Instrumented| {
        format!(
            "{}: {} ({} before), module {}",
            done.file,
            format_bytes(done.bytes),
            format_bytes(done.bytes_before),
            done.module
        )
    };
    output.result_beside(to_stdout, &done, text)
}

/// Reads a file that should be a WebAssembly module, and says so early if it cannot be one.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    let module = read_file(path, MODULE, module_bytes_max())?;
    check_module(&path.display().to_string(), &module)?;
    Ok(module)
}

fn module_bytes_max() -> usize {
    Limits::default().module_bytes
}

fn check_module(source: &str, module: &[u8]) -> Result<(), Failure> {
    if !module.starts_with(b"\0asm") {
        return Err(
            Failure::refused(format!("{source} is not a WebAssembly module")).hint(
                "an agent is a WASI preview-1 command, as `--target wasm32-wasip1` builds it",
            ),
        );
    }
    Ok(())
}
