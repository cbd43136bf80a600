//! How the figures of a protocol grow with the number of nodes: as CSV, and drawn as SVG.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::{lookup, membership};

/// What to run: each number of nodes under each adversity.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Nodes, ascending.
    pub nodes: Vec<usize>,
    /// What is lost, or who is replaced, in percent: a line of the plots each.
    pub percents: Vec<f64>,
    /// The one source of chance of each run.
    pub seed: u64,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<O> {
    /// Nodes that took part.
    pub nodes: usize,
    /// What was lost, or who was replaced, in percent.
    pub percent: f64,
    /// What came out.
    pub outcome: O,
}

/// What a plot shows of a run.
pub struct Figure<O> {
    /// The name of the file, without its ending, and of the column.
    pub name: &'static str,
    /// What stands above the plot.
    pub title: &'static str,
    /// The value of a run.
    pub of: fn(&O) -> f64,
}

/// What is drawn of the runs of one protocol.
pub struct Curves<O: 'static> {
    /// The name of the table's file, without its ending.
    pub name: &'static str,
    /// The column of percents.
    pub column: &'static str,
    /// What the percents are of, beside each line.
    pub unit: &'static str,
    /// All other columns.
    pub figures: &'static [Figure<O>],
}

/// Membership over loss.
pub const MEMBERSHIP: Curves<membership::Outcome> = Curves {
    name: "membership",
    column: "loss_percent",
    unit: "% lost",
    figures: &[
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
    ],
};

/// Searches over churn.
pub const LOOKUP: Curves<lookup::Outcome> = Curves {
    name: "lookup",
    column: "churn_percent",
    unit: "% replaced",
    figures: &[
        Figure {
            name: "lookup_success_percent",
            title: "Searches that found their record, in percent",
            of: |outcome| outcome.success * 100.0,
        },
        Figure {
            name: "lookup_mean_hops",
            title: "Requests that led to the record, on average",
            of: |outcome| outcome.mean_hops,
        },
        Figure {
            name: "lookup_p99_hops",
            title: "Requests that led to the record, in the worst search but one in 100",
            of: |outcome| f64::from(outcome.p99_hops),
        },
    ],
};

impl Sweep {
    /// Runs every combination.
    ///
    /// # Errors
    ///
    /// No numbers of nodes or no percents are given, or a run fails.
    pub fn run<O>(&self, run: impl Fn(usize, f64) -> Result<O>) -> Result<Vec<Row<O>>> {
        ensure!(
            !self.nodes.is_empty() && !self.percents.is_empty(),
            "a curve needs points"
        );
        let mut rows = Vec::new();
        for &percent in &self.percents {
            for &nodes in &self.nodes {
                rows.push(Row {
                    nodes,
                    percent,
                    outcome: run(nodes, percent)?,
                });
            }
        }
        Ok(rows)
    }

    /// Membership over so many quiet hours, with this loss.
    ///
    /// # Errors
    ///
    /// Those of [`Sweep::run`] and [`membership::run`].
    pub fn membership(&self, hours: f64) -> Result<Vec<Row<membership::Outcome>>> {
        self.run(|nodes, loss| {
            membership::run(&membership::Scenario::new(nodes, loss, hours, self.seed))
        })
    }

    /// Searches with this churn, and without loss.
    ///
    /// # Errors
    ///
    /// Those of [`Sweep::run`] and [`lookup::run`].
    pub fn lookup(&self, lookups: usize) -> Result<Vec<Row<lookup::Outcome>>> {
        self.run(|nodes, churn_percent| {
            lookup::run(&lookup::Scenario {
                churn_percent,
                lookups,
                ..lookup::Scenario::new(nodes, self.seed)
            })
        })
    }
}

impl<O> Curves<O> {
    /// The rows with a line of names above them.
    #[must_use]
    pub fn csv(&self, rows: &[Row<O>]) -> String {
        let names: Vec<&str> = self.figures.iter().map(|figure| figure.name).collect();
        let mut text = format!("nodes,{},{}\n", self.column, names.join(","));
        for row in rows {
            let values = self.figures.iter();
            let values = values.map(|figure| rounded((figure.of)(&row.outcome)).to_string());
            let values = values.collect::<Vec<_>>().join(",");
            let _ = writeln!(text, "{},{},{values}", row.nodes, row.percent);
        }
        text
    }

    /// A plot of one figure over the number of nodes, which is drawn by its logarithm: a line for each percentage.
    #[must_use]
    pub fn svg(&self, rows: &[Row<O>], figure: &Figure<O>) -> String {
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{}\" y=\"24\" text-anchor=\"middle\" font-size=\"15\">{}</text>\n",
            WIDTH / 2.0,
            figure.title
        );
        let points: Vec<Point> = rows
            .iter()
            .map(|row| Point {
                nodes: row.nodes,
                percent: row.percent,
                value: (figure.of)(&row.outcome),
            })
            .collect();
        let axes = Axes::around(&points);
        axes.draw(&points, &mut text);
        let mut percents: Vec<f64> = points.iter().map(|point| point.percent).collect();
        percents.sort_unstable_by(f64::total_cmp);
        percents.dedup();
        for (index, percent) in percents.iter().enumerate() {
            let of_line = points.iter().filter(|point| point.percent == *percent);
            let places: Vec<(f64, f64)> = of_line.map(|point| axes.place(point)).collect();
            let colour = COLOURS[index % COLOURS.len()];
            line(&places, colour, &mut text);
            let y = 44.0 + 16.0 * index as f64;
            let _ = writeln!(
                text,
                "<text x=\"{}\" y=\"{y}\" fill=\"{colour}\">{percent} {}</text>",
                MARGIN + 8.0,
                self.unit
            );
        }
        text.push_str("</svg>\n");
        text
    }
}

/// Without the noise that a multiplication adds.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

struct Point {
    nodes: usize,
    percent: f64,
    value: f64,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 6] = [
    "#1b6ca8", "#d1495b", "#3a7d44", "#c98a00", "#6a4c93", "#444444",
];

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
    /// Where the vertical axis begins, and ends.
    bottom: f64,
    top: f64,
    /// The highest value, or what stands for it where all are 0.
    highest: f64,
}

impl Axes {
    fn around(points: &[Point]) -> Axes {
        let nodes = || points.iter().map(|point| point.nodes as f64);
        let highest = points.iter().map(|point| point.value).fold(0.0, f64::max);
        let lowest = points.iter().map(|point| point.value);
        let lowest = lowest.fold(f64::INFINITY, f64::min);
        // What differs by a tenth at most would be a straight line over an axis from 0.
        let (bottom, span) = if lowest > 0.9 * highest && highest > 10.0 {
            let bottom = lowest - (highest - lowest).max(highest / 1_000.0);
            (bottom, highest - bottom)
        } else {
            (0.0, highest.max(1.0))
        };
        Axes {
            nodes_min: nodes().fold(f64::INFINITY, f64::min),
            nodes_max: nodes().fold(1.0, f64::max),
            bottom,
            // Room for the names of the lines.
            top: bottom + span * 1.35,
            highest: bottom + span,
        }
    }

    fn place(&self, point: &Point) -> (f64, f64) {
        (self.x(point.nodes), self.y(point.value))
    }

    fn x(&self, nodes: usize) -> f64 {
        let decades = (self.nodes_max / self.nodes_min).log10().max(0.1);
        let at = (nodes as f64 / self.nodes_min).log10() / decades;
        MARGIN + at * (WIDTH - 2.0 * MARGIN)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value - self.bottom) / (self.top - self.bottom);
        HEIGHT - MARGIN - share * (HEIGHT - 2.0 * MARGIN)
    }

    /// The distance of two marks: 1, 2 or 5 times a power of ten, so that there are some five.
    fn step(&self) -> f64 {
        let rough = (self.highest - self.bottom).max(f64::MIN_POSITIVE) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        steps
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough)
    }

    /// Round values from the bottom to the highest one that is drawn, and not beyond the next.
    fn marks(&self) -> impl Iterator<Item = f64> + use<> {
        let step = self.step();
        let first = (self.bottom / step - 1e-6).ceil() as u64;
        let last = (self.highest / step - 1e-6).ceil() as u64;
        (first..=last).map(move |number| number as f64 * step)
    }

    /// Decimal places of a mark.
    fn digits(&self) -> usize {
        (-self.step().log10().floor()).max(0.0) as usize
    }

    fn draw(&self, points: &[Point], text: &mut String) {
        let (left, right) = (MARGIN, WIDTH - MARGIN);
        for value in self.marks() {
            let (y, digits) = (self.y(value), self.digits());
            let _ = writeln!(
                text,
                "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.digits$}</text>",
                left - 6.0,
                y + 4.0
            );
        }
        let mut sizes: Vec<usize> = points.iter().map(|point| point.nodes).collect();
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
