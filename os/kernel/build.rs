//! Chooses the linker script by the target, and the archive that becomes part of the kernel's file.

use std::path::Path;

fn main() {
    let target = std::env::var("TARGET").expect("cargo says it");
    let script = match target.as_str() {
        "riscv64gc-unknown-none-elf" => "riscv64",
        "aarch64-unknown-none-softfloat" => "aarch64",
        "x86_64-unknown-none" => "x86_64",
        other => panic!("the kernel has no port for {other}"),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("link");
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rustc-link-search={}", folder.display());
    println!("cargo::rustc-link-arg=-T{script}.ld");
    println!("cargo::rustc-link-arg=--no-relax");
    println!("cargo::rustc-link-arg=--no-pie");
    println!("cargo::rerun-if-env-changed=MIELIN_ARCHIVE");
    let archive = std::env::var("MIELIN_ARCHIVE").expect(
        "MIELIN_ARCHIVE is the path of the archive with the first program (cargo xtask os)",
    );
    println!("cargo::rerun-if-changed={archive}");
    println!("cargo::rustc-env=MIELIN_ARCHIVE={archive}");
}
