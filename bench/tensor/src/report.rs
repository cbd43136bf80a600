//! What was measured, as a table and as JSON.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::case::{Load, OURS, Wrong};
use crate::limits::Limits;
use crate::measure::Measured;
use crate::rivals::{Missing, Rival};

/// A kernel at a shape, ours beside the best of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) kernel: String,
    pub(crate) shape: String,
    pub(crate) threads: usize,
    /// Which of mielin-tensor's kernels.
    pub(crate) backend: String,
    /// 10⁹ operations of a second, of ours; of functions of elements, 10⁹ elements.
    pub(crate) gflops: f64,
    /// The same of the fastest rival.
    pub(crate) best_rival: Option<f64>,
    /// Who that is.
    pub(crate) rival: Option<String>,
    /// Ours to that.
    pub(crate) ratio: Option<f64>,
    /// Ours to what the machine can do.
    pub(crate) of_limit: Option<f64>,
}

/// What one contender reached at a shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reached {
    pub(crate) kernel: String,
    pub(crate) shape: String,
    pub(crate) threads: usize,
    pub(crate) contender: String,
    /// In a short turn.
    pub(crate) gflops: f64,
    /// In the turn in the middle.
    pub(crate) gflops_median: f64,
}

/// Everything that one number of threads gave, or several together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) processor: String,
    pub(crate) compiler: String,
    pub(crate) rivals: Vec<Rival>,
    pub(crate) missing: Vec<Missing>,
    /// Results that are not ours; they are not measured.
    pub(crate) wrong: Vec<Wrong>,
    pub(crate) limits: Vec<Limits>,
    pub(crate) rows: Vec<Row>,
    pub(crate) contenders: Vec<Reached>,
}

/// What one case gave.
pub(crate) struct Outcome {
    pub(crate) kernel: &'static str,
    pub(crate) shape: String,
    pub(crate) load: Load,
    /// Ours is the first.
    pub(crate) measured: Vec<Measured>,
}

impl Report {
    /// The same in one report, what was measured in the order of the parts.
    pub(crate) fn join(parts: Vec<Report>) -> Report {
        let mut parts = parts.into_iter();
        let mut all = parts.next().unwrap_or_default();
        for part in parts {
            all.wrong.extend(part.wrong);
            all.limits.extend(part.limits);
            all.rows.extend(part.rows);
            all.contenders.extend(part.contenders);
        }
        all
    }

    /// Adds what a case gave, by the last of the limits.
    pub(crate) fn add(&mut self, outcome: &Outcome, backend: &str) {
        let Some(limits) = self.limits.last().copied() else {
            return;
        };
        let Outcome { kernel, shape, .. } = outcome;
        let gflops = |seconds: f64| outcome.load.operations / seconds / 1e9;
        let mut best: Option<&Measured> = None;
        for measured in &outcome.measured {
            let is_best = measured.name != OURS && best.is_none_or(|it| measured.short < it.short);
            if is_best {
                best = Some(measured);
            }
            self.contenders.push(Reached {
                kernel: (*kernel).to_owned(),
                shape: shape.clone(),
                threads: limits.threads,
                contender: measured.name.to_owned(),
                gflops: gflops(measured.short),
                gflops_median: gflops(measured.median),
            });
        }
        let ours = outcome.measured.iter().find(|it| it.name == OURS);
        self.rows.extend(ours.map(|ours| Row {
            kernel: (*kernel).to_owned(),
            shape: shape.clone(),
            threads: limits.threads,
            backend: backend.to_owned(),
            gflops: gflops(ours.short),
            best_rival: best.map(|it| gflops(it.short)),
            rival: best.map(|it| it.name.to_owned()),
            ratio: best.map(|it| it.short / ours.short),
            of_limit: limits.seconds(outcome.load).map(|it| it / ours.short),
        }));
    }

    /// A table for people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let rivals = self
            .rivals
            .iter()
            .map(|it| format!("{} {}", it.name, it.version));
        let rivals: Vec<_> = rivals.collect();
        let _ = writeln!(out, "processor  {}", self.processor);
        let _ = writeln!(out, "rivals     {}", rivals.join(", "));
        for Missing {
            name,
            files,
            package,
        } in &self.missing
        {
            let files = files.join(" or ");
            let _ = writeln!(
                out,
                "           no {name}: there is no {files}; Debian's package is {package}"
            );
        }
        for it in &self.wrong {
            let _ = writeln!(
                out,
                "           {} computes {} {} otherwise: element {} is {}, and ours {}",
                it.contender, it.kernel, it.shape, it.element, it.result, it.ours
            );
        }
        let _ = writeln!(out, "compiler   {}", self.compiler);
        for limits in &self.limits {
            let fma = limits.fma_gflops;
            let fma = fma.map_or_else(String::new, |it| format!("{it:.0} GFLOP/s in registers, "));
            let _ = writeln!(
                out,
                "limits     {} thread(s): {fma}{:.1} GB/s read, {:.1} GB/s read and written",
                limits.threads, limits.read_gb_s, limits.read_write_gb_s
            );
        }
        let _ = writeln!(
            out,
            "GFLOP/s    of a turn that one in twenty is shorter than, which other work disturbs little; ~ours: the median of ours\n"
        );
        self.table(&mut out);
        out
    }

    fn table(&self, out: &mut String) {
        let mut names: Vec<&str> = Vec::new();
        for reached in &self.contenders {
            if !names.contains(&reached.contender.as_str()) {
                names.push(&reached.contender);
            }
        }
        names.retain(|name| *name != OURS);
        let widths: Vec<_> = names.iter().map(|name| name.len().max(8) + 2).collect();
        let _ = write!(
            out,
            "{:<11}{:<26}{:>7}  {:<8}{:>9}{:>9}{:>7}{:>10}",
            "kernel", "shape", "threads", "backend", OURS, "~ours", "ratio", "of limit"
        );
        for (name, width) in names.iter().zip(&widths) {
            let _ = write!(out, "{name:>width$}");
        }
        out.push('\n');
        for row in &self.rows {
            let reached = |name: &str| {
                self.contenders.iter().find(|it| {
                    it.contender == name
                        && it.kernel == row.kernel
                        && it.shape == row.shape
                        && it.threads == row.threads
                })
            };
            let _ = write!(
                out,
                "{:<11}{:<26}{:>7}  {:<8}{:>9.1}{:>9}{:>7}{:>10}",
                row.kernel,
                row.shape,
                row.threads,
                row.backend,
                row.gflops,
                number(reached(OURS).map(|it| it.gflops_median), 1),
                number(row.ratio, 2),
                number(row.of_limit, 2),
            );
            for (name, width) in names.iter().zip(&widths) {
                let gflops = number(reached(name).map(|it| it.gflops), 1);
                let _ = write!(out, "{gflops:>width$}");
            }
            out.push('\n');
        }
    }
}

/// A dash where there is none.
fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn report(rivals: &[(&'static str, f64)], fma_gflops: Option<f64>) -> Report {
        let mut report = Report::default();
        report.limits.push(Limits {
            threads: 2,
            fma_gflops,
            read_gb_s: 10.0,
            read_write_gb_s: 10.0,
        });
        let measured = |(name, short): &(&'static str, f64)| Measured {
            name,
            short: *short,
            median: 2.0 * short,
        };
        let outcome = Outcome {
            kernel: "matmul",
            shape: "2x3x4".to_owned(),
            load: Load {
                operations: 4e9,
                is_fused: true,
                ..Load::default()
            },
            measured: [(OURS, 0.5)].iter().chain(rivals).map(measured).collect(),
        };
        report.add(&outcome, "avx2");
        report
    }

    fn row(report: &Report) -> Value {
        let value = serde_json::to_value(report).expect("it has no maps of other keys");
        value["rows"][0].clone()
    }

    #[test]
    fn a_row_in_json() {
        let report = report(&[("slow", 2.0), ("fast", 0.25)], Some(16.0));
        let expected = json!({
            "kernel": "matmul", "shape": "2x3x4", "threads": 2, "backend": "avx2", "gflops": 8.0,
            "best_rival": 16.0, "rival": "fast", "ratio": 0.5, "of_limit": 0.5,
        });
        assert_eq!(row(&report), expected);
        let text = serde_json::to_string(&report).expect("it has no maps of other keys");
        let read: Report = serde_json::from_str(&text).expect("it was written so");
        assert_eq!(read, report);
    }

    #[test]
    fn without_rivals_and_limits_there_is_no_ratio() {
        let expected = json!({
            "kernel": "matmul", "shape": "2x3x4", "threads": 2, "backend": "avx2", "gflops": 8.0,
            "best_rival": null, "rival": null, "ratio": null, "of_limit": null,
        });
        assert_eq!(row(&report(&[], None)), expected);
    }

    #[test]
    fn the_table_has_every_contender_and_what_is_missing() {
        let mut report = report(&[("slow", 2.0), ("fast", 0.25)], Some(16.0));
        report.missing.push(Missing {
            name: "onednn".to_owned(),
            files: vec!["libdnnl.so.3".to_owned(), "libdnnl.so.2".to_owned()],
            package: "libdnnl3".to_owned(),
        });
        let text = report.text();
        let expected =
            "no onednn: there is no libdnnl.so.3 or libdnnl.so.2; Debian's package is libdnnl3";
        assert!(text.contains(expected), "{text}");
        let last = text.lines().last().expect("there is a row");
        let cells: Vec<_> = last.split_whitespace().collect();
        let expected = [
            "matmul", "2x3x4", "2", "avx2", "8.0", "4.0", "0.50", "0.50", "2.0", "16.0",
        ];
        assert_eq!(cells, expected, "{text}");
    }
}
