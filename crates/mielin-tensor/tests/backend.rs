//! The environment variable, which a process reads once: so each case is a process of its own.

use std::env;
use std::process::Command;

use mielin_tensor::{Backend, MatMut, MatRef, matmul};

const NAME: &str = "MIELIN_TENSOR_BACKEND";
const EXPECTED: &str = "MIELIN_TENSOR_TEST_EXPECTED";

#[test]
fn the_environment_chooses_among_what_the_processor_can_do() {
    if let Ok(expected) = env::var(EXPECTED) {
        assert_eq!(Backend::active().name(), expected);
        let mut out = [0.0; 4];
        let mut c = MatMut::row_major(&mut out, 2, 2).expect("it has four elements");
        let a = MatRef::row_major(&[1.0, 2.0, 3.0, 4.0], 2, 2).expect("it has four elements");
        matmul(a, a.transposed(), &mut c).expect("they fit");
        assert_eq!(out, [5.0, 11.0, 11.0, 25.0]);
        return;
    }
    let mut supported = Backend::ALL.into_iter().filter(|it| it.is_supported());
    let fastest = supported.next_back().unwrap_or(Backend::Scalar).name();
    let named = Backend::ALL
        .into_iter()
        .map(|backend| match backend.is_supported() {
            true => (backend.name(), backend.name()),
            false => (backend.name(), fastest),
        });
    for (name, expected) in named.chain([("", fastest), ("abacus", fastest)]) {
        let itself = env::current_exe().expect("it has a path");
        let ran = Command::new(itself)
            .args([
                "--exact",
                "the_environment_chooses_among_what_the_processor_can_do",
            ])
            .env(NAME, name)
            .env(EXPECTED, expected)
            .output()
            .expect("it starts");
        assert!(ran.status.success(), "{name}: {ran:?}");
    }
}
