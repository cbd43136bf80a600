//! What the firmware in `os/probe` computes on emulated boards, computed here.

use std::env;
use std::process::Command;

#[path = "../../../os/probe/src/kernels.rs"]
mod kernels;

const CHILD: &str = "MIELIN_TENSOR_TEST_CHILD";

#[test]
fn the_scalar_backend_gives_the_bits_that_the_firmware_expects() {
    if env::var(CHILD).is_ok() {
        assert_eq!(
            kernels::digest(),
            kernels::SCALAR,
            "{:#018x}",
            kernels::digest()
        );
        return;
    }
    let itself = env::current_exe().expect("it has a path");
    let ran = Command::new(itself)
        .env(CHILD, "1")
        .env("MIELIN_TENSOR_BACKEND", "scalar")
        .output()
        .expect("it starts");
    assert!(ran.status.success(), "{ran:?}");
}
