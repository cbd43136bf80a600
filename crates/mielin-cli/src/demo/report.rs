//! What the demo found, for people and for machines.

use serde::Serialize;

use super::conversation::Messages;
use crate::api::Moved;
use crate::duration::{format_bytes, format_us};
use crate::failure::Failure;
use crate::output::{fields, table};

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) input: String,
    pub(super) input_bytes: u64,
    pub(super) rounds: u64,
    /// From the start of the demo until three nodes were up.
    pub(super) nodes_up_us: u64,
    /// From the request to spawn the first agent until it reported progress.
    pub(super) first_agent_us: u64,
    pub(super) total_us: u64,
    pub(super) moves: Vec<MoveRow>,
    /// What the digest agent printed.
    pub(super) digest: String,
    pub(super) checks: Checks,
}

/// A move, with names where the mesh has ids.
#[derive(Serialize)]
pub(super) struct MoveRow {
    name: String,
    from_name: String,
    to_name: String,
    #[serde(flatten)]
    moved: Moved,
}

impl MoveRow {
    pub(super) fn new(name: &str, from: &str, to: &str, moved: Moved) -> MoveRow {
        MoveRow {
            name: name.to_owned(),
            from_name: from.to_owned(),
            to_name: to.to_owned(),
            moved,
        }
    }
}

/// What must hold after the moves.
#[derive(Serialize)]
pub(super) struct Checks {
    ok: bool,
    /// The travelled digest printed what the one that stayed did, byte for byte.
    digest_equal: bool,
    digest_exit_code: i32,
    messages: Messages,
    /// The counter itself says that it answered as many messages as were sent.
    counter_agrees: bool,
}

impl Checks {
    pub(super) fn new(
        expected: &[u8],
        printed: &[u8],
        exit_code: i32,
        messages: Messages,
        counter_agrees: bool,
    ) -> Checks {
        let digest_equal = !expected.is_empty() && expected == printed;
        let messages_ok = messages.sent > 0
            && messages.answered == messages.sent
            && messages.lost + messages.doubled + messages.reordered == 0;
        let ok = digest_equal && exit_code == 0 && messages_ok && counter_agrees;
        Checks {
            ok,
            digest_equal,
            digest_exit_code: exit_code,
            messages,
            counter_agrees,
        }
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        if self.ok {
            return None;
        }
        let Messages {
            sent,
            answered,
            lost,
            doubled,
            reordered,
        } = self.messages;
        Some(Failure::internal(format!(
            "the demo found damage: digest equal: {}, its exit code: {}; messages sent: {sent}, answered: {answered}, \
             lost: {lost}, doubled: {doubled}, reordered: {reordered}; the counter agrees: {}",
            self.digest_equal, self.digest_exit_code, self.counter_agrees,
        )))
    }
}

pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "\n{}\n{}\n",
        moves_table(&report.moves),
        phases_table(&report.moves)
    );
    let messages = report.checks.messages;
    let equal = if report.checks.digest_equal {
        "equal to the run that never moved"
    } else {
        "DIFFERENT"
    };
    let chain = report
        .digest
        .lines()
        .find_map(|line| line.strip_prefix("chain"))
        .unwrap_or_default();
    text.push_str(&fields(&[
        ("digest", format!("{} ({equal})", chain.trim())),
        (
            "messages",
            format!(
                "{} sent, {} answered, {} lost, {} doubled, {} reordered",
                messages.sent,
                messages.answered,
                messages.lost,
                messages.doubled,
                messages.reordered
            ),
        ),
        (
            "time",
            format!(
                "nodes up after {}, first agent {} after its spawn, {} in all",
                format_us(report.nodes_up_us),
                format_us(report.first_agent_us),
                format_us(report.total_us)
            ),
        ),
    ]));
    text
}

fn moves_table(moves: &[MoveRow]) -> String {
    let rows: Vec<_> = moves
        .iter()
        .map(|row| {
            let moved = &row.moved;
            [
                row.name.clone(),
                format!("{} → {}", row.from_name, row.to_name),
                moved.strategy.clone(),
                moved.rounds.to_string(),
                moved.pages.iter().sum::<u64>().to_string(),
                format_bytes(moved.bytes),
                format_us(moved.downtime_us),
                format_us(moved.total_us),
            ]
        })
        .collect();
    table(
        &[
            "AGENT", "MOVE", "STRATEGY", "ROUNDS", "PAGES", "BYTES", "DOWNTIME", "TOTAL",
        ],
        &rows,
    )
}

/// One row per phase, one column per move; the rounds of pre-copy are added up.
fn phases_table(moves: &[MoveRow]) -> String {
    let mut phases: Vec<&str> = Vec::new();
    for time in moves.iter().flat_map(|row| &row.moved.phases) {
        let phase = phase_group(&time.phase);
        if !phases.contains(&phase) {
            phases.push(phase);
        }
    }
    // The first move may lack a phase that a later one has, so the order of a move is kept here.
    let order = [
        "planning",
        "preparing",
        "pre-copy",
        "freezing",
        "transferring",
        "committing",
        "resuming",
    ];
    phases.sort_by_key(|phase| {
        order
            .iter()
            .position(|known| known == phase)
            .unwrap_or(order.len())
    });
    let cell = |row: &MoveRow, phase: &str| {
        let times = row
            .moved
            .phases
            .iter()
            .filter(|time| phase_group(&time.phase) == phase);
        let us: Vec<u64> = times.map(|time| time.us).collect();
        if us.is_empty() {
            "-".to_owned()
        } else {
            format_us(us.iter().sum())
        }
    };
    let rows: Vec<Vec<String>> = phases
        .into_iter()
        .map(|phase| {
            std::iter::once(phase.to_owned())
                .chain(moves.iter().map(|row| cell(row, phase)))
                .collect()
        })
        .collect();
    let columns: Vec<String> = moves
        .iter()
        .map(|row| format!("{} {} → {}", row.name, row.from_name, row.to_name))
        .collect();
    let heading: Vec<&str> = std::iter::once("PHASE")
        .chain(columns.iter().map(String::as_str))
        .collect();
    table(&heading, &rows)
}

/// `pre-copy 3` belongs to `pre-copy`.
fn phase_group(phase: &str) -> &str {
    phase.split(' ').next().unwrap_or(phase)
}
