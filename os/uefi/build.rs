//! Says which file is the kernel that becomes part of the program.

fn main() {
    println!("cargo::rerun-if-env-changed=MIELIN_KERNEL");
    // Tests of the library need none.
    if let Ok(kernel) = std::env::var("MIELIN_KERNEL") {
        println!("cargo::rerun-if-changed={kernel}");
    }
}
