//! The project's own commands: `cargo xtask setup | agents | quickjs | minilm | aarch64 | probe | os | test | ci | tidy | deny | fuzz | faults |
//! bench`.
//!
//! What a developer and the continuous integration run are the same code, so
//! that a green run here is a green run there. Nothing in this crate knows the
//! mesh or an engine; it starts cargo, reads files and compares bytes.
//!
//! - [`toolchain`]: finds or makes the compiler for `wasm32-wasip1`.
//! - [`agents`]: builds the sample agents and compares them with `agents/prebuilt`.
//! - [`quickjs`]: builds a JavaScript engine from its public C source.
//! - [`minilm`]: fetches a language model, and compares `embed` with onnxruntime.
//! - [`aarch64`]: builds the node for 64-bit Arm, for the tests that run it under QEMU.
//! - [`probe`]: runs a firmware on bare machines under QEMU, and looks at what it finds out about them.
//! - [`os`]: builds the microkernel with its programs, and runs it under QEMU.
//! - [`tidy`]: the rules that neither rustc nor clippy know.
//! - [`licences`]: licences, duplicates and sources of the dependencies.
//! - [`fuzz`]: runs a fuzz target under libFuzzer, or over mutations of its corpus.
//! - [`faults`]: the fault matrix of moves.
//! - [`checks`]: `test` and `ci`, the sequences made of the above.
//! - [`mod@bench`]: starts the benchmarks and passes their output through.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks to its terminal"
)]

mod aarch64;
mod agents;
mod bare;
mod bench;
mod checks;
mod command;
mod emulator;
mod faults;
mod firmware;
mod fuzz;
mod kernels;
mod licences;
mod macos;
mod minilm;
mod os;
mod probe;
mod quickjs;
mod spdx;
mod tidy;
mod toolchain;
mod trials;
mod wasm_interface;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// MielinOS's own build, test, bench and tidy commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or make what building the agents needs: a wasm32-wasip1 target for Rust, clang and wasi-libc for C
    Setup,
    /// Build the sample agents from source into target/xtask/agents
    Agents(agents::Options),
    /// Fetch QuickJS-ng's C source and build it for WASI into target/xtask/quickjs/qjs.wasm
    Quickjs,
    /// Fetch the language model all-MiniLM-L6-v2 into target/xtask/minilm and print its folder, for `embed --model`
    Minilm(minilm::Options),
    /// Build the node for 64-bit Arm Linux into target/xtask/aarch64, with a cross compiler
    Aarch64,
    /// Run the tests of the tensor kernels (and of mielin-rt) with AddressSanitizer, and those of the kernels on emulated 64-bit Arm, and in WebAssembly with vectors
    Kernels,
    /// Run the firmware in os/probe on QEMU's machines, and compare what it finds out with what they are
    Probe(probe::Options),
    /// Build the microkernel with its programs, and run it on QEMU's machines
    #[command(subcommand)]
    Os(os::Task),
    /// Build the images for boards with a Cortex-M, and run them on QEMU's boards
    #[command(subcommand)]
    Firmware(firmware::Task),
    /// setup, the agents against their prebuilt modules, and every test of both workspaces
    Test,
    /// fmt, tidy, deny, clippy, doc, then test: what .ci/run runs
    Ci,
    /// Check the rules of xtask/tidy.toml
    Tidy,
    /// Check licences, duplicates and sources of the dependencies against deny.toml
    Deny,
    /// Run a fuzz target for a while; the input that breaks a promise is kept in fuzz/artifacts
    Fuzz(fuzz::Options),
    /// Kill and cut off nodes while agents move, and count what becomes of the agents
    Faults(faults::Options),
    /// Run a benchmark; its standard output is passed through unchanged
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let workspace = Workspace::find();
    let result = match arguments.command {
        Task::Setup => toolchain::setup(&workspace).map(|found| eprintln!("{found}")),
        Task::Agents(options) => agents::run(&workspace, &options),
        Task::Quickjs => quickjs::run(&workspace),
        Task::Minilm(options) => minilm::run(&workspace, &options),
        Task::Aarch64 => aarch64::run(&workspace),
        Task::Kernels => kernels::run(&workspace),
        Task::Probe(options) => probe::run(&workspace, &options),
        Task::Os(task) => os::run(&workspace, &task),
        Task::Firmware(task) => firmware::run(&workspace, &task),
        Task::Test => checks::test(&workspace),
        Task::Ci => checks::ci(&workspace),
        Task::Tidy => tidy::run(&workspace),
        Task::Deny => licences::run(&workspace),
        Task::Fuzz(options) => fuzz::run(&workspace, &options),
        Task::Faults(options) => faults::run(&workspace, &options),
        Task::Bench(options) => bench::run(&workspace, &options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
