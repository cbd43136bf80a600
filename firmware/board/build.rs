//! Chooses the board, and with it the memory that the linker has, by the target.

use std::env;
use std::fs;
use std::path::Path;

const BOARDS: [(&str, &str); 4] = [
    ("thumbv6m-none-eabi", "microbit"),
    ("thumbv7m-none-eabi", "lm3s6965evb"),
    ("thumbv7em-none-eabihf", "mps2_an386"),
    ("thumbv8m.main-none-eabihf", "mps2_an505"),
];

fn main() {
    let target = env::var("TARGET").expect("cargo says it");
    let known = BOARDS.iter().find(|(of, _)| *of == target);
    let (_, board) = known.unwrap_or_else(|| panic!("there is no board for {target}"));
    let values = BOARDS.map(|(_, board)| format!("\"{board}\"")).join(", ");
    println!("cargo::rustc-check-cfg=cfg(board, values({values}))");
    println!("cargo::rustc-cfg=board=\"{board}\"");
    println!("cargo::rustc-check-cfg=cfg(mps2)");
    if board.starts_with("mps2") {
        println!("cargo::rustc-cfg=mps2");
    }

    // The script of `cortex-m-rt` includes a file of this name.
    let memory = Path::new("memory").join(format!("{board}.x"));
    println!("cargo::rerun-if-changed={}", memory.display());
    let output = env::var("OUT_DIR").expect("cargo says it");
    let text = fs::read(&memory).expect("each board has one");
    fs::write(Path::new(&output).join("memory.x"), text).expect("the folder is writable");
    println!("cargo::rustc-link-search={output}");
}
