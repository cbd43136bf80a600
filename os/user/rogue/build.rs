//! Programs lie where the linker script says.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../program.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg=-T{script}");
    println!("cargo::rustc-link-arg=--no-pie");
    println!("cargo::rustc-link-arg=--no-relax");
}
