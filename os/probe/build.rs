//! Chooses the board, and with it the linker script, by the target.

use std::path::Path;

fn main() {
    let target = std::env::var("TARGET").expect("cargo says it");
    let board = match target.as_str() {
        "aarch64-unknown-none-softfloat" => "aarch64_virt",
        "x86_64-unknown-none" => "x86_64_q35",
        "riscv64gc-unknown-none-elf" => "riscv_virt",
        "thumbv6m-none-eabi" => "microbit",
        "thumbv7m-none-eabi" => "lm3s6965evb",
        "thumbv7em-none-eabihf" => "mps2_an386",
        "thumbv8m.main-none-eabihf" => "mps2_an505",
        other => panic!("there is no board for {other}"),
    };
    let boards = [
        "aarch64_virt",
        "x86_64_q35",
        "riscv_virt",
        "microbit",
        "lm3s6965evb",
        "mps2_an386",
        "mps2_an505",
    ];
    let values = boards.map(|board| format!("\"{board}\"")).join(", ");
    println!("cargo::rustc-check-cfg=cfg(board, values({values}))");
    println!("cargo::rustc-check-cfg=cfg(cortex_m)");
    println!("cargo::rustc-check-cfg=cfg(kernels)");
    // There is room for them.
    if matches!(board, "riscv_virt" | "mps2_an386") {
        println!("cargo::rustc-cfg=kernels");
    }
    println!("cargo::rustc-cfg=board=\"{board}\"");
    if target.starts_with("thumb") {
        println!("cargo::rustc-cfg=cortex_m");
    }
    if board == "x86_64_q35" {
        // It lies where its script says; nobody moves it.
        println!("cargo::rustc-link-arg=--no-pie");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("link");
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rustc-link-search={}", folder.display());
    println!("cargo::rustc-link-arg=-T{board}.ld");
}
