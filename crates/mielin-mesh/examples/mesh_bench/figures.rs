//! What was measured: samples, medians, and the two forms of the report.

use std::fmt::Write;
use std::time::Duration;

/// The contenders in the order in which each round runs them.
pub(crate) const NAMES: [&str; 6] = [
    "tcp",
    "tls",
    "quinn",
    "quinn_tuned",
    "mielin",
    "mielin_mailboxes",
];
const TLS: usize = 1;
const QUINN: usize = 2;
pub(crate) const TUNED: usize = 3;
/// Frames on streams.
pub(crate) const FRAMES: usize = 4;
/// Messages from mailbox to mailbox.
const MAILBOXES: usize = 5;

/// Samples of one contender, one from each round.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) bulk_mb_s: Vec<f64>,
    pub(crate) bulk_cpu_s_per_gb: Vec<f64>,
    pub(crate) small_per_s: Vec<f64>,
    pub(crate) small_cpu_us: Vec<f64>,
    pub(crate) rtt_us: Vec<f64>,
    pub(crate) rtt_p99_us: Vec<f64>,
    pub(crate) handshakes_per_s: Vec<f64>,
}

impl Samples {
    fn fields(&self) -> [(&'static str, f64); 7] {
        [
            ("bulk_mb_s", median(&self.bulk_mb_s)),
            ("bulk_cpu_s_per_gb", median(&self.bulk_cpu_s_per_gb)),
            ("small_per_s", median(&self.small_per_s)),
            ("small_cpu_us", median(&self.small_cpu_us)),
            ("rtt_us", median(&self.rtt_us)),
            ("rtt_p99_us", median(&self.rtt_p99_us)),
            ("handshakes_per_s", median(&self.handshakes_per_s)),
        ]
    }
}

/// The middle of the samples; not a number when there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The time below which `share` of the samples are, in microseconds.
pub(crate) fn quantile_us(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let index = (times.len() as f64 * share) as usize;
    let time = times.get(index.min(times.len().saturating_sub(1)));
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// Everything that is reported.
pub(crate) struct Report {
    pub(crate) samples: [Samples; NAMES.len()],
    pub(crate) idle_peer_kib: f64,
    pub(crate) idle_peers: usize,
    /// On how many processors both processes ran.
    pub(crate) processors: usize,
}

impl Report {
    fn ratios(&self) -> [(&'static str, f64); 4] {
        let of = |who: usize, what: fn(&Samples) -> &Vec<f64>| median(what(&self.samples[who]));
        let over = |who, what| of(FRAMES, what) / of(who, what);
        let rtt = |who| of(who, |s| &s.rtt_us);
        [
            ("bulk_vs_quinn", over(TUNED, |s| &s.bulk_mb_s)),
            ("bulk_vs_tls", over(TLS, |s| &s.bulk_mb_s)),
            ("small_vs_quinn", over(TUNED, |s| &s.small_per_s)),
            ("rtt_vs_quinn", rtt(MAILBOXES) / rtt(QUINN)),
        ]
    }

    /// One JSON object.
    pub(crate) fn json(&self) -> String {
        let mut out = String::from("{");
        let ratios = self.ratios().into_iter();
        for (name, value) in ratios.filter(|(_, value)| value.is_finite()) {
            let _ = write!(out, "\"{name}\":{value:.3},");
        }
        let (kib, peers) = (self.idle_peer_kib, self.idle_peers);
        let _ = write!(out, "\"idle_peer_kib\":{kib:.1},\"idle_peers\":{peers}");
        let _ = write!(out, ",\"processors\":{}", self.processors);
        for (name, samples) in NAMES.iter().zip(&self.samples) {
            let fields = samples.fields();
            let measured = fields.iter().filter(|(_, value)| value.is_finite());
            let fields: Vec<_> = measured
                .map(|(field, value)| format!("\"{field}\":{value:.3}"))
                .collect();
            let _ = write!(out, ",\"{name}\":{{{}}}", fields.join(","));
        }
        out.push_str("}\n");
        out
    }

    /// A table for people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for (name, samples) in NAMES.iter().zip(&self.samples) {
            let _ = writeln!(out, "{name}");
            let measured = samples
                .fields()
                .into_iter()
                .filter(|(_, value)| value.is_finite());
            for (field, value) in measured {
                let _ = writeln!(out, "  {field:<20}{value:>14.2}");
            }
        }
        let ratios = self.ratios().into_iter();
        for (name, value) in ratios.filter(|(_, value)| value.is_finite()) {
            let _ = writeln!(out, "{name:<22}{value:>14.3}");
        }
        let (kib, peers) = (self.idle_peer_kib, self.idle_peers);
        let _ = writeln!(out, "{kib:.1} KiB for each of {peers} idle peers");
        let _ = writeln!(out, "both processes on {} processor(s)", self.processors);
        out
    }
}
