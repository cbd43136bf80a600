//! Keeps the program's memory to one page, of which the part that it uses fits into 4 KiB.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_CFG_TARGET_ARCH").is_some_and(|name| name == "wasm32") {
        println!("cargo::rustc-link-arg-bins=-zstack-size=2048");
        // The profile's own `strip` is not for a package that has settings of its own.
        println!("cargo::rustc-link-arg-bins=--strip-all");
    }
}
