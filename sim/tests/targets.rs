//! The targets of the mesh at 200 nodes, and that a seed gives the same run again. A failure names its seed.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use mielin_mesh_core::Preset;
use mielin_sim::curves::{self, Sweep};
use mielin_sim::world::Severed;
use mielin_sim::{lookup, membership};

const SEED: u64 = 1;

fn table(nodes: usize, churn_percent: f64) -> lookup::Scenario {
    lookup::Scenario {
        churn_percent,
        ..lookup::Scenario::new(nodes, SEED)
    }
}

#[test]
fn records_are_found_over_few_hops() {
    let nodes = 200;
    let outcome = lookup::run(&table(nodes, 0.0)).unwrap();
    assert!(outcome.success > 0.999, "seed {SEED}: {outcome:?}");
    let hops_max = (nodes as f64).log2() / 2.0 + 1.0;
    assert!(outcome.mean_hops <= hops_max, "seed {SEED}: {outcome:?}");
    assert!(outcome.mean_hops > 0.5, "seed {SEED}: {outcome:?}");
}

/// Three requests in a hundred and more are lost in both attempts. Who was not let in must not stay outside, and bring
/// others there.
#[test]
fn records_are_found_although_messages_are_lost() {
    let scenario = lookup::Scenario {
        loss_percent: 10.0,
        ..table(200, 20.0)
    };
    let outcome = lookup::run(&scenario).expect("it runs");
    assert!(outcome.success > 0.99, "seed {SEED}: {outcome:?}");
}

#[test]
fn the_same_seed_gives_the_same_output() {
    let lookups = || {
        let scenario = lookup::Scenario {
            loss_percent: 5.0,
            duplicate_percent: 5.0,
            slow_nodes: 4,
            slow_by: Duration::from_millis(300),
            partition: Duration::from_secs(100),
            partition_cuts: Severed::Outward,
            ..table(40, 10.0)
        };
        serde_json::to_string(&lookup::run(&scenario).unwrap()).unwrap()
    };
    assert_eq!(lookups(), lookups());
    let group = || {
        let scenario = membership::Scenario {
            partition: Duration::from_secs(20),
            partition_cuts: Severed::Inward,
            slow_nodes: 2,
            slow_by: Duration::from_millis(300),
            cuts: 5,
            preset: Preset::Lan,
            ..membership::Scenario::new(20, 10.0, 0.05, SEED)
        };
        serde_json::to_string(&membership::run(&scenario).unwrap()).unwrap()
    };
    assert_eq!(group(), group());
}

#[test]
fn a_group_learns_of_deaths_and_takes_nobody_for_dead() {
    let scenario = membership::Scenario::new(200, 0.0, 0.1, SEED);
    let outcome = membership::run(&scenario).unwrap();
    assert_eq!(outcome.false_deaths, 0, "seed {SEED}: {outcome:?}");
    assert!(
        outcome.death_known_all_periods <= 10.0,
        "seed {SEED}: {outcome:?}"
    );
    // Nobody can be suspected before a probe has gone unanswered, nor die before it could refute.
    assert!(
        outcome.death_known_all_periods > 2.0,
        "seed {SEED}: {outcome:?}"
    );
    assert!(outcome.bytes_per_node_s > 1.0, "seed {SEED}: {outcome:?}");
}

/// Forty minutes at the WAN preset. What a node sends does not depend on the size of the group, although one
/// datagram in ten is lost.
#[test]
fn nobody_is_taken_for_dead_where_a_tenth_is_lost_and_bytes_do_not_grow_with_the_group() {
    let [small, large] = [50, 200].map(|nodes| {
        let outcome = membership::run(&membership::Scenario::new(nodes, 10.0, 0.66, SEED));
        outcome.unwrap()
    });
    for outcome in [&small, &large] {
        assert_eq!(outcome.false_deaths, 0, "seed {SEED}: {outcome:?}");
    }
    assert!(
        large.death_known_all_periods <= 10.0,
        "seed {SEED}: {large:?}"
    );
    let ratio = large.bytes_per_node_s / small.bytes_per_node_s;
    assert!(ratio < 1.15, "seed {SEED}: {small:?} {large:?}");
    let lossless = membership::run(&membership::Scenario::new(50, 0.0, 0.2, SEED)).unwrap();
    let price = small.bytes_per_node_s / lossless.bytes_per_node_s;
    assert!(price < 1.3, "seed {SEED}: {lossless:?} {small:?}");
}

#[test]
fn a_partition_of_the_group_heals() {
    for (loss_percent, partition_cuts) in [
        (0.0, Severed::Both),
        (10.0, Severed::Both),
        (10.0, Severed::Outward),
        (10.0, Severed::Inward),
    ] {
        let scenario = membership::Scenario {
            partition: Duration::from_secs(300),
            partition_cuts,
            ..membership::Scenario::new(200, loss_percent, 0.1, SEED)
        };
        let outcome = membership::run(&scenario).unwrap();
        let healed = outcome.partition_healed_periods.unwrap();
        // Nobody hears from the dead before those are announced to, once in five periods.
        assert!((1.0..30.0).contains(&healed), "seed {SEED}: {outcome:?}");
        assert_eq!(outcome.false_deaths, 0, "seed {SEED}: {outcome:?}");
    }
}

#[test]
fn nobody_who_stays_is_taken_for_dead_while_others_come_and_go() {
    // The hours are 0.3, so 60 of 200 nodes are replaced.
    let scenario = membership::Scenario {
        churn_percent: 100.0,
        ..membership::Scenario::new(200, 10.0, 0.3, SEED)
    };
    let outcome = membership::run(&scenario).unwrap();
    assert_eq!(outcome.false_deaths, 0, "seed {SEED}: {outcome:?}");
    assert_eq!(outcome.partition_healed_periods, None);
    assert!(
        outcome.death_known_all_periods <= 10.0,
        "seed {SEED}: {outcome:?}"
    );
    // It is told about all that.
    let calm = membership::Scenario {
        churn_percent: 0.0,
        ..scenario
    };
    let calm = membership::run(&calm).unwrap();
    assert!(
        outcome.bytes_per_node_s > 1.5 * calm.bytes_per_node_s,
        "seed {SEED}: {calm:?} {outcome:?}"
    );
}

#[test]
fn keys_for_what_was_not_asked_are_not_printed() {
    let keys = |partition| {
        let scenario = membership::Scenario {
            partition: Duration::from_secs(partition),
            ..membership::Scenario::new(6, 0.0, 0.02, SEED)
        };
        let outcome = membership::run(&scenario).unwrap();
        let value = serde_json::to_value(outcome).unwrap();
        value
            .as_object()
            .unwrap()
            .contains_key("partition_healed_periods")
    };
    assert!(!keys(0));
    assert!(keys(60));
    let keys = |partition| {
        let scenario = lookup::Scenario {
            lookups: 100,
            partition: Duration::from_secs(partition),
            ..table(6, 0.0)
        };
        serde_json::to_string(&lookup::run(&scenario).unwrap()).unwrap()
    };
    let calm = r#"{"success":1.0,"mean_hops":"#;
    assert!(keys(0).starts_with(calm), "{}", keys(0));
    assert!(!keys(0).contains("partition"), "{}", keys(0));
    for key in ["partition_success", "partition_healed_success"] {
        assert!(keys(60).contains(key), "{}", keys(60));
    }
}

/// Each side finds what it keeps itself, and after the cut what the other does.
#[test]
fn a_table_that_was_cut_in_two_is_one_again() {
    for partition_cuts in [Severed::Both, Severed::Outward, Severed::Inward] {
        let scenario = lookup::Scenario {
            partition: Duration::from_secs(300),
            partition_cuts,
            ..table(200, 0.0)
        };
        let outcome = lookup::run(&scenario).unwrap();
        let parted = outcome.partition_success.unwrap();
        assert!((0.8..0.97).contains(&parted), "seed {SEED}: {outcome:?}");
        // Half a minute of these two and a half passes before either side hears of the other.
        let healed = outcome.partition_healed_success.unwrap();
        assert!(healed > 0.96, "seed {SEED}: {outcome:?}");
    }
}

#[test]
fn records_are_found_among_slow_nodes_and_by_messages_that_come_twice() {
    let calm = lookup::run(&table(200, 0.0)).unwrap();
    let slow = lookup::Scenario {
        slow_nodes: 20,
        slow_by: Duration::from_secs(5),
        ..table(200, 0.0)
    };
    let twice = lookup::Scenario {
        duplicate_percent: 30.0,
        ..table(200, 0.0)
    };
    for scenario in [slow, twice] {
        let outcome = lookup::run(&scenario).unwrap();
        assert!(outcome.success > 0.99, "seed {SEED}: {outcome:?}");
        assert_ne!(outcome, calm, "nobody was slow, nothing came twice");
    }
}

#[test]
fn curves_have_a_row_for_each_run_and_a_line_for_each_percentage() {
    let sweep = Sweep {
        nodes: vec![5, 10],
        percents: vec![0.0, 20.0],
        seed: SEED,
    };
    let rows = sweep.membership(0.02).unwrap();
    let csv = curves::MEMBERSHIP.csv(&rows);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 5, "{csv}");
    let starts = [
        "nodes,loss_percent,death",
        "5,0,",
        "10,0,",
        "5,20,",
        "10,20,",
    ];
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{csv}");
        assert_eq!(line.split(',').count(), 7, "{csv}");
    }
    // What is drawn is what came out: the last point of the first line.
    let death = &curves::MEMBERSHIP.figures[0];
    let svg = curves::MEMBERSHIP.svg(&rows, death);
    assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
    assert_eq!(svg.matches("<circle").count(), 4, "{svg}");
    let highest = rows.iter().map(|row| (death.of)(&row.outcome));
    let top = highest.fold(0.0, f64::max) * 1.35;
    let y = 340.0 - (death.of)(&rows[1].outcome) / top * 280.0;
    assert!(
        svg.contains(&format!("cx=\"580.0\" cy=\"{y:.1}\"")),
        "{svg}"
    );
}

#[test]
fn searches_have_curves_too() {
    let sweep = Sweep {
        nodes: vec![10, 20],
        percents: vec![0.0, 10.0],
        seed: SEED,
    };
    let rows = sweep.lookup(100).unwrap();
    let csv = curves::LOOKUP.csv(&rows);
    let names = "lookup_success_percent,lookup_mean_hops,lookup_p99_hops";
    assert!(
        csv.starts_with(&format!("nodes,churn_percent,{names}\n10,0,100,")),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 5, "{csv}");
    for figure in curves::LOOKUP.figures {
        let svg = curves::LOOKUP.svg(&rows, figure);
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        assert!(svg.contains("10 % replaced"), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }
    // All were found; an axis from 0 would show nothing of it, and more than all there is not.
    let svg = curves::LOOKUP.svg(&rows, &curves::LOOKUP.figures[0]);
    for mark in [">99.90<", ">99.92<", ">100.00<"] {
        assert!(svg.contains(mark), "{mark} {svg}");
    }
    assert_eq!(svg.matches("text-anchor=\"end\"").count(), 6, "{svg}");
}

#[test]
fn records_are_found_while_a_fifth_of_the_nodes_is_replaced() {
    let nodes = 200;
    let outcome = lookup::run(&table(nodes, 20.0)).unwrap();
    assert!(outcome.success > 0.999, "seed {SEED}: {outcome:?}");
    let hops_max = (nodes as f64).log2() / 2.0 + 1.0;
    assert!(outcome.mean_hops <= hops_max, "seed {SEED}: {outcome:?}");
}

#[test]
fn the_same_seed_gives_the_same_output_at_200_nodes() {
    let scenario = membership::Scenario::new(200, 10.0, 0.01, SEED);
    let run = || serde_json::to_string(&membership::run(&scenario).unwrap()).unwrap();
    assert_eq!(run(), run());
    let lookups = || serde_json::to_string(&lookup::run(&table(200, 20.0)).unwrap()).unwrap();
    assert_eq!(lookups(), lookups());
}
