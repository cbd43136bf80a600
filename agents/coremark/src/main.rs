//! A program for benchmarks: EEMBC CoreMark 1.0 in its port to Rust, the crate `coremark`.
//!
//! Arguments: `coremark [ITERATIONS]`, 400 without. It runs CoreMark's 2K performance run for so many iterations,
//! prints the checksum of the result, and fails if one of the checksums is not CoreMark's. It prints no score, which
//! would need a run of ten seconds: whoever starts it takes the time.

use std::process::ExitCode;

use coremark::{Config, run};

const DEFAULT_ITERATIONS: u32 = 400;

fn main() -> ExitCode {
    let iterations = match std::env::args().nth(1).map(|number| number.parse()) {
        None => DEFAULT_ITERATIONS,
        Some(Ok(iterations)) if iterations > 0 => iterations,
        Some(_) => {
            eprintln!("coremark: ITERATIONS is a number from 1 on\nusage: coremark [ITERATIONS]");
            return ExitCode::from(2);
        }
    };
    let results = run(&Config {
        iterations,
        ..Config::default()
    });
    println!("{:04x}", results.crcfinal);
    if results.errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
