//! A program for benchmarks: EEMBC CoreMark 1.0 in its port to Rust, the crate `coremark`.
//!
//! Arguments: `coremark [ITERATIONS]`, 400 without. It runs CoreMark's 2K performance run for so many iterations,
//! prints the checksum of the result, and fails if one of the checksums is not CoreMark's. It prints no score, which
//! would need a run of ten seconds: whoever starts it takes the time.

use std::process::ExitCode;

use coremark::types::{LIST_KNOWN_CRC, MATRIX_KNOWN_CRC, STATE_KNOWN_CRC};
use coremark::{Config, run};

const DEFAULT_ITERATIONS: u32 = 400;
/// CoreMark's number for the 2K performance run.
const PERFORMANCE_RUN: usize = 3;

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
    // Its own count of errors has one more for a run of less than ten seconds.
    let found = [results.crclist, results.crcmatrix, results.crcstate];
    let known = [LIST_KNOWN_CRC, MATRIX_KNOWN_CRC, STATE_KNOWN_CRC];
    if found == known.map(|of_run| of_run[PERFORMANCE_RUN]) {
        ExitCode::SUCCESS
    } else {
        eprintln!("coremark: its checksums should be {known:x?} and are {found:x?}");
        ExitCode::FAILURE
    }
}
