//! The script that lays out a program for `cortex-m-rt`, and the series that the sensor repeats.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The series, if nobody names another by `MIELIN_READINGS`. Without one the node has no sensor.
const SERIES: &str = "../../examples/embedded-iot/readings.csv";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Tlink.x");
    println!("cargo::rustc-link-arg=--nmagic");

    println!("cargo::rerun-if-env-changed=MIELIN_READINGS");
    let file = env::var_os("MIELIN_READINGS").map_or_else(|| PathBuf::from(SERIES), PathBuf::from);
    println!("cargo::rerun-if-changed={}", file.display());
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(_) if env::var_os("MIELIN_READINGS").is_none() => String::new(),
        Err(error) => panic!("{}: {error}", file.display()),
    };
    let mut table = String::from("[");
    for line in text.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let value = line.rsplit(',').next().unwrap_or_default().trim();
        let value = thousandths(value)
            .unwrap_or_else(|| panic!("{}: {line:?} ends with no number", file.display()));
        write!(table, "{value},").expect("a string takes all");
    }
    table.push(']');
    let output = env::var("OUT_DIR").expect("cargo says it");
    fs::write(Path::new(&output).join("series.rs"), table).expect("the folder is writable");
}

/// A decimal number with at most three places, in thousandths.
fn thousandths(text: &str) -> Option<i32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let part: i32 = format!("{part:0<3}").parse().ok()?;
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    let whole: i32 = whole.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(sign * part)
}
