//! How the figures of membership grow with the group and with loss: as CSV, and drawn as SVG.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::membership::{self, Outcome, Scenario};

/// What to run: each size of group with each loss.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Nodes in the groups, ascending.
    pub nodes: Vec<usize>,
    /// Datagrams that are lost, in percent.
    pub losses: Vec<f64>,
    /// Quiet hours of virtual time in each run.
    pub hours: f64,
    /// The one source of chance of each run.
    pub seed: u64,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Nodes in the group.
    pub nodes: usize,
    /// Datagrams that were lost, in percent.
    pub loss_percent: f64,
    /// What came out.
    pub outcome: Outcome,
}

/// What a plot shows of a run.
pub struct Figure {
    /// The name of the file, without its ending, and of the column.
    pub name: &'static str,
    /// What stands above the plot.
    pub title: &'static str,
    /// The value of a run.
    pub of: fn(&Outcome) -> f64,
}

/// All that the CSV has columns for.
pub const FIGURES: [Figure; 5] = [
    Figure {
        name: "death_known_all_periods",
        title: "Probe periods until a death was known to all",
        of: |outcome| outcome.death_known_all_periods,
    },
    Figure {
        name: "join_known_all_periods",
        title: "Probe periods until a join was known to all",
        of: |outcome| outcome.join_known_all_periods,
    },
    Figure {
        name: "false_deaths",
        title: "Lives taken for ended while they were not",
        of: |outcome| outcome.false_deaths as f64,
    },
    Figure {
        name: "bytes_per_node_s",
        title: "Bytes sent by a node in a second",
        of: |outcome| outcome.bytes_per_node_s,
    },
    Figure {
        name: "msgs_per_node_s",
        title: "Datagrams sent by a node in a second",
        of: |outcome| outcome.msgs_per_node_s,
    },
];

/// Runs every combination.
///
/// # Errors
///
/// No sizes or no losses are given, or a run fails.
pub fn run(sweep: &Sweep) -> Result<Vec<Row>> {
    ensure!(
        !sweep.nodes.is_empty() && !sweep.losses.is_empty(),
        "a curve needs points"
    );
    let mut rows = Vec::new();
    for &loss_percent in &sweep.losses {
        for &nodes in &sweep.nodes {
            let scenario = Scenario::new(nodes, loss_percent, sweep.hours, sweep.seed);
            let outcome = membership::run(&scenario)?;
            rows.push(Row {
                nodes,
                loss_percent,
                outcome,
            });
        }
    }
    Ok(rows)
}

/// The rows with a line of names above them.
#[must_use]
pub fn csv(rows: &[Row]) -> String {
    let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
    let mut text = format!("nodes,loss_percent,{}\n", names.join(","));
    for row in rows {
        let values = FIGURES.iter().map(|f| (f.of)(&row.outcome).to_string());
        let values = values.collect::<Vec<_>>().join(",");
        let _ = writeln!(text, "{},{},{values}", row.nodes, row.loss_percent);
    }
    text
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 6] = [
    "#1b6ca8", "#d1495b", "#3a7d44", "#c98a00", "#6a4c93", "#444444",
];

/// A plot of one figure over the number of nodes, which is drawn by its logarithm: a line for each loss.
#[must_use]
pub fn svg(rows: &[Row], figure: &Figure) -> String {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"24\" text-anchor=\"middle\" font-size=\"15\">{}</text>\n",
        WIDTH / 2.0,
        figure.title
    );
    let axes = Axes::around(rows, figure);
    axes.draw(rows, &mut text);
    let mut losses: Vec<f64> = rows.iter().map(|row| row.loss_percent).collect();
    losses.sort_unstable_by(f64::total_cmp);
    losses.dedup();
    for (index, loss) in losses.iter().enumerate() {
        let of_loss = rows.iter().filter(|row| row.loss_percent == *loss);
        let points: Vec<(f64, f64)> = of_loss
            .map(|row| (axes.x(row.nodes), axes.y((figure.of)(&row.outcome))))
            .collect();
        let colour = COLOURS[index % COLOURS.len()];
        line(&points, colour, &mut text);
        let y = 44.0 + 16.0 * index as f64;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{y}\" fill=\"{colour}\">{loss} % lost</text>",
            MARGIN + 8.0
        );
    }
    text.push_str("</svg>\n");
    text
}

fn line(points: &[(f64, f64)], colour: &str, text: &mut String) {
    let joined: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        joined.join(" ")
    );
    for (x, y) in points {
        let _ = writeln!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
    }
}

struct Axes {
    nodes_min: f64,
    nodes_max: f64,
    /// The vertical axis begins at 0 and ends here.
    top: f64,
}

impl Axes {
    fn around(rows: &[Row], figure: &Figure) -> Axes {
        let nodes = || rows.iter().map(|row| row.nodes as f64);
        let highest = rows.iter().map(|row| (figure.of)(&row.outcome));
        Axes {
            nodes_min: nodes().fold(f64::INFINITY, f64::min),
            nodes_max: nodes().fold(1.0, f64::max),
            // Room for the names of the lines.
            top: highest.fold(0.0, f64::max).max(1.0) * 1.35,
        }
    }

    fn x(&self, nodes: usize) -> f64 {
        let decades = (self.nodes_max / self.nodes_min).log10().max(0.1);
        let at = (nodes as f64 / self.nodes_min).log10() / decades;
        MARGIN + at * (WIDTH - 2.0 * MARGIN)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - MARGIN - value / self.top * (HEIGHT - 2.0 * MARGIN)
    }

    fn draw(&self, rows: &[Row], text: &mut String) {
        let (left, right) = (MARGIN, WIDTH - MARGIN);
        for fifth in 0..=5 {
            let value = self.top * f64::from(fifth) / 5.0;
            let y = self.y(value);
            let _ = writeln!(
                text,
                "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>",
                left - 6.0,
                y + 4.0
            );
        }
        let mut sizes: Vec<usize> = rows.iter().map(|row| row.nodes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let bottom = HEIGHT - MARGIN;
        for nodes in sizes {
            let x = self.x(nodes);
            let y = bottom + 18.0;
            let _ = writeln!(
                text,
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{nodes}</text>"
            );
        }
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">nodes</text>",
            WIDTH / 2.0,
            bottom + 40.0
        );
    }
}
