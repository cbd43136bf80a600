//! What the command refuses before it runs anything.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn ran(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mielin-sim"));
    command.args(line.split(' ')).output().unwrap()
}

#[test]
fn numbers_out_of_range_are_usage_errors_that_say_the_range() {
    for (line, range) in [
        ("membership --loss nan", "from 0 to below 100"),
        ("membership --loss 200", "from 0 to below 100"),
        ("membership --loss 100", "from 0 to below 100"),
        ("membership --loss=-1", "from 0 to below 100"),
        ("membership --loss many", "from 0 to below 100"),
        ("membership --duplicate inf", "from 0 to 100"),
        ("membership --churn 101", "from 0 to 100"),
        ("membership --hours 1e300", "from 0.01 to 1000"),
        ("membership --hours 0", "from 0.01 to 1000"),
        ("membership --hours inf", "from 0.01 to 1000"),
        ("membership --hours=-0.5", "from 0.01 to 1000"),
        ("membership --nodes 2", "3..=10000"),
        ("membership --drift-ppm 4294967295", "..=100000"),
        ("membership --slow 10001", "..=10000"),
        ("membership --slow-ms 18446744073709551615", "..=600000"),
        ("membership --cuts 4294967295", "..=1000000"),
        ("membership --partition 18446744073709551615", "..=86400"),
        ("membership --partition-cuts inward", "--partition <"),
        (
            "membership --partition 9 --partition-cuts no",
            "both, outward, inward",
        ),
        ("lookup --partition 481", "0..=480"),
        ("lookup --partition-cuts inward", "--partition <"),
        ("lookup --duplicate 101", "from 0 to 100"),
        ("lookup --slow 100001", "..=100000"),
        ("lookup --slow-ms 600001", "..=600000"),
        ("lookup --churn 100", "from 0 to below 100"),
        ("lookup --loss nan", "from 0 to below 100"),
        ("lookup --lookups 0", "1..=10000000"),
        ("moves --nodes 2", "3..=200"),
        ("moves --agents 1", "2..=2000"),
        ("moves --moves 0", "1..=10000000"),
        ("moves --faults 101", "from 0 to 100"),
        ("moves --loss 100", "from 0 to below 100"),
        ("moves --latency-ms 0", "1..=2000"),
        (
            "moves --strategy teleport",
            "stop-copy, pre-copy, post-copy or hybrid",
        ),
        ("curves --directory / --loss 0,200", "from 0 to below 100"),
        ("curves --directory / --churn nan", "from 0 to below 100"),
        ("curves --directory / --hours nan", "from 0.01 to 1000"),
    ] {
        let output = ran(line);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(said.contains(range), "{line}: {said}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn the_bounds_themselves_are_in_range() {
    for line in [
        "membership --nodes 3 --hours 0.01 --loss 0 --duplicate 100 --churn 0",
        "lookup --nodes 2 --churn 99.9 --loss 0 --lookups 1",
        "lookup --nodes 3 --duplicate 100 --slow 3 --partition 480 --partition-cuts outward --lookups 9",
    ] {
        let output = ran(line);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{line}: {said}");
    }
}
