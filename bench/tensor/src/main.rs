//! `cargo xtask bench tensor [-o json] [--kernel NAME] [--threads N] [--quick]`: the kernels of mielin-tensor beside those
//! of others, and beside what the machine can do at most, in one run and on the same number of threads. The method is in
//! docs/TENSOR.md.
//!
//! Libraries read how many threads they may have when they are loaded. So each number of threads is a process of its own,
//! which this one starts with the environment that says so.
//!
//! - [`kernels`]: the table of what is measured.
//! - [`rivals`]: who else computes it.
//! - [`case`]: one of these at one shape; whether all compute the same.
//! - [`measure`]: how long each takes, by [`clock`].
//! - [`limits`]: what the machine can do.
//! - [`report`]: the table, and JSON.

mod case;
mod clock;
mod kernels;
mod limits;
mod machine;
mod measure;
mod report;
mod rivals;

use std::env;
use std::io::Write;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use mielin_tensor::Backend;

use crate::case::Case;
use crate::kernels::{Bench, Plan};
use crate::limits::Probe;
use crate::measure::{Effort, measure};
use crate::report::{Outcome, Report};
use crate::rivals::Libraries;

/// The kernels of mielin-tensor beside those of others, in one run.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench tensor")]
struct Arguments {
    /// How the figures are written
    #[arg(short, long, default_value = "text")]
    output: Output,
    /// Only this kernel
    #[arg(long)]
    kernel: Option<String>,
    /// All shapes on this number of threads [default: all on one, the largest on all processors, too]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// A few rounds of all but the longest: whether it runs, not how fast
    #[arg(long)]
    quick: bool,
    /// Measures in this process, whose environment says how many threads others may have
    #[arg(long, hide = true, requires = "threads")]
    here: bool,
    /// Only what is measured on all processors if nobody says how many
    #[arg(long, hide = true)]
    largest: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What takes more operations is left out of a quick run.
const QUICK_OPERATIONS_MAX: f64 = 3e9;

/// Beginnings of variables that OpenBLAS, OpenMP and oneDNN read.
const FOREIGN: [&str; 6] = ["OPENBLAS_", "GOTO_", "OMP_", "GOMP_", "ONEDNN_", "DNNL_"];

impl Arguments {
    fn plans(&self) -> Result<Vec<Plan>> {
        let mut plans = kernels::all();
        if let Some(kernel) = &self.kernel {
            let mut names: Vec<_> = plans.iter().map(|plan| plan.kernel).collect();
            names.dedup();
            plans.retain(|plan| plan.kernel == kernel);
            if plans.is_empty() {
                bail!(
                    "there is no kernel `{kernel}`; there are {}",
                    names.join(", ")
                );
            }
        }
        plans.retain(|plan| !self.largest || plan.is_for_threads);
        plans.retain(|plan| !self.quick || plan.operations <= QUICK_OPERATIONS_MAX);
        Ok(plans)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plans = arguments.plans()?;
    let report = match arguments.threads {
        Some(threads) if arguments.here => measure_here(&arguments, plans, threads)?,
        Some(threads) => start(&arguments, threads, false)?,
        None => {
            let all = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            let mut parts = vec![start(&arguments, NonZeroUsize::MIN, false)?];
            if all.get() > 1 && plans.iter().any(|plan| plan.is_for_threads) {
                parts.push(start(&arguments, all, true)?);
            }
            Report::join(parts)
        }
    };
    let text = match arguments.output {
        Output::Json => serde_json::to_string(&report)? + "\n",
        Output::Text => report.text(),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Has another process measure, of which the rivals know how many threads they may have.
fn start(arguments: &Arguments, threads: NonZeroUsize, largest: bool) -> Result<Report> {
    let mut command = Command::new(env::current_exe()?);
    let count = threads.to_string();
    command.args(["--here", "--output", "json", "--threads", &count]);
    command.args(arguments.quick.then_some("--quick"));
    command.args(largest.then_some("--largest"));
    if let Some(kernel) = &arguments.kernel {
        command.args(["--kernel", kernel]);
    }
    // What is set for other programs is not to make a rival slower than it is.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if FOREIGN.iter().any(|prefix| name_text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    let variables = [
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MATMUL_NUM_THREADS",
        "RAYON_NUM_THREADS",
    ];
    command.envs(variables.map(|name| (name, &count)));
    // Which kernels OpenBLAS chooses by itself for a processor that is newer than it is depends on its version. These have
    // AVX-512.
    if Backend::Avx512.is_supported() {
        command.env("OPENBLAS_CORETYPE", "SkylakeX");
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("measuring on {threads} thread(s) failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the figures of the other process")
}

fn measure_here(arguments: &Arguments, plans: Vec<Plan>, threads: NonZeroUsize) -> Result<Report> {
    let libraries = Libraries::load();
    let (rivals, missing) = libraries.rivals();
    let bench = Bench {
        libraries,
        threads,
        beyond_caches: machine::beyond_caches(),
    };
    let (effort, probe_rounds) = match arguments.quick {
        true => (Effort::QUICK, 1),
        false => (Effort::FULL, 10),
    };
    let mut probe = Probe::new(threads, bench.beyond_caches, probe_rounds);
    let (mut outcomes, mut wrong) = (Vec::new(), Vec::new());
    for plan in plans {
        // Again and again, as what is compared with it.
        probe.measure();
        let mut case: Case = (plan.make)(&bench);
        eprintln!("{} {}, {threads} thread(s)", case.kernel, case.shape);
        wrong.extend(case.check());
        let measured = measure(&mut case, threads, effort);
        outcomes.push(Outcome {
            kernel: case.kernel,
            shape: case.shape,
            load: case.load,
            measured,
        });
    }
    probe.measure();
    let mut report = Report {
        processor: machine::processor(),
        compiler: machine::compiler(),
        rivals,
        missing,
        wrong,
        limits: vec![probe.limits()],
        ..Report::default()
    };
    for outcome in &outcomes {
        report.add(outcome, Backend::active().name());
    }
    Ok(report)
}
