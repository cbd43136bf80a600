//! That agents stay one each while they move, that a seed gives the same run again, and that the witness finds what
//! is wrong. A failure names its seed.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use mielin_mesh_core::MigrationStrategy;
use mielin_sim::moves::{self, Broken, Outcome, Sabotage, Scenario};

fn kept(outcome: &Outcome) {
    if let Some(violation) = &outcome.violation {
        panic!("{violation}");
    }
    let broken = [
        outcome.lost,
        outcome.doubled,
        outcome.taken_back,
        outcome.reordered,
        outcome.announced_twice,
        outcome.torn,
        outcome.stuck,
    ];
    assert_eq!(broken, [0; 7], "{outcome:?}");
}

#[test]
fn agents_stay_one_each_while_nodes_crash_and_links_are_cut() {
    let mut sum = Outcome::default();
    for seed in 1..=4 {
        sum.add(moves::run(&Scenario::new(500, seed)).unwrap());
    }
    kept(&sum);
    assert_eq!(sum.moves, 2_000);
    // It was no idle run: something hit every phase, and moves ended in every way.
    for phase in [
        "planning",
        "preparing",
        "pre-copy",
        "freezing",
        "transferring",
        "committing",
        "resuming",
        "post-copy",
        "securing",
        "in doubt",
    ] {
        assert!(sum.fault_phases.contains_key(phase), "{phase}: {sum:?}");
    }
    for count in [
        sum.completed,
        sum.rolled_back,
        sum.cut_short,
        sum.in_doubt_resolved,
        sum.died_with_holder,
        sum.messages_taken,
    ] {
        assert!(count > 10, "{sum:?}");
    }
    let ended = sum.completed + sum.rolled_back + sum.cut_short;
    assert_eq!(ended, sum.moves, "{sum:?}");
    assert_eq!(
        sum.in_doubt_resolved + sum.in_doubt_cut_short,
        sum.in_doubt,
        "{sum:?}"
    );
}

#[test]
fn each_strategy_keeps_agents_whole() {
    for strategy in MigrationStrategy::ALL {
        let scenario = Scenario {
            strategy: Some(strategy),
            faults_percent: 15.0,
            loss_percent: 5.0,
            agents: 30,
            ..Scenario::new(300, 7)
        };
        kept(&moves::run(&scenario).unwrap());
    }
}

#[test]
fn without_faults_every_message_is_dealt_with_and_nobody_dies() {
    let scenario = Scenario {
        faults_percent: 0.0,
        ..Scenario::new(300, 3)
    };
    let outcome = moves::run(&scenario).unwrap();
    kept(&outcome);
    assert_eq!(outcome.died_with_holder, 0, "{outcome:?}");
    assert_eq!(outcome.messages_sent, outcome.messages_taken, "{outcome:?}");
    // Some offers are refused; nothing else keeps a move from its end.
    assert!(outcome.completed > 270, "{outcome:?}");
    assert!(outcome.faults.is_empty(), "{outcome:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| moves::run(&Scenario::new(200, seed)).unwrap();
    let json = |seed| serde_json::to_string(&run(seed)).unwrap();
    assert_eq!(json(5), json(5));
    assert_ne!(json(5), json(6));
    // Also where it ends early: what is shown of it is the same.
    let sabotaged = || {
        let scenario = Scenario {
            sabotage: Some(Sabotage::ResumesWithoutAnswer),
            ..Scenario::new(500, 1)
        };
        moves::run(&scenario).unwrap().violation.unwrap()
    };
    assert_eq!(sabotaged(), sabotaged());
}

/// The first promise that is broken, of runs with this seed and those behind it.
fn found(sabotage: Sabotage, first: u64) -> Option<Broken> {
    (first..first + 60).find_map(|seed| {
        let scenario = Scenario {
            sabotage: Some(sabotage),
            faults_percent: 12.0,
            ..Scenario::new(1_000, seed)
        };
        let violation = moves::run(&scenario).unwrap().violation?;
        assert_eq!(violation.seed, seed);
        assert!(violation.trace.lines().count() > 5, "{violation}");
        Some(violation.broken)
    })
}

/// The seeds are those that find it soon; others find it later.
#[test]
fn what_nodes_do_wrong_is_found() {
    let expected = [
        (Sabotage::ResumesWithoutAnswer, 1, Broken::Doubled),
        (Sabotage::DropsTheNote, 3, Broken::TakenBack),
        (Sabotage::ForgetsWhoWasHere, 24, Broken::Doubled),
        (Sabotage::MovesOnBeforeItIsSettled, 7, Broken::Lost),
        (Sabotage::TakesMessagesTooSoon, 1, Broken::TakenBack),
        (Sabotage::TakesTheMissingForEnded, 5, Broken::Reordered),
        (
            Sabotage::ResumesInTheTargetsEpoch,
            1,
            Broken::AnnouncedTwice,
        ),
        (Sabotage::LosesPages, 1, Broken::Torn),
        (Sabotage::NeverAnswers, 1, Broken::Stuck),
    ];
    assert_eq!(expected.map(|(sabotage, ..)| sabotage), Sabotage::ALL);
    for (sabotage, seed, broken) in expected {
        assert_eq!(found(sabotage, seed), Some(broken), "{sabotage:?}");
    }
}

#[test]
fn the_command_prints_what_came_out() {
    let ran = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mielin-sim"));
        command.args(line.split(' ')).output().unwrap()
    };
    let output = ran("moves --moves 50 --agents 10 --nodes 5 --seed 9 --seeds 2 -o json");
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, value) in [("runs", 2), ("seed", 9), ("moves", 100), ("lost", 0)] {
        assert_eq!(json[name], value, "{name}: {json}");
    }
    assert!(json["fault_phases"].is_object(), "{json}");
    let output = ran("moves --moves 50 --agents 10 --nodes 5 --faults 0");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("died with their only holder"), "{text}");
    let help = String::from_utf8(ran("moves --help").stdout).unwrap();
    assert!(help.contains("mielin-sim moves --seeds 50"), "{help}");
}
