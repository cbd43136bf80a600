//! Tells the crate whether it is compiled for a Cortex-M, which no `cfg` of the stable compiler does.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(cortex_m)");
    let target = std::env::var("TARGET").unwrap_or_default();
    if ["thumbv6m-", "thumbv7m-", "thumbv7em-", "thumbv8m."]
        .iter()
        .any(|begin| target.starts_with(begin))
    {
        println!("cargo::rustc-cfg=cortex_m");
    }
}
