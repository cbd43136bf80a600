//! The frames of a move, to either side: whatever the other side says, the agent is started at most
//! once and only after it was installed, and its source never both keeps and releases it.
#![allow(clippy::unwrap_used)]

use core::time::Duration;

use mielin_fuzz::{Seed, Step, Steps, Target};
use mielin_mesh_core::limits::CODEC_BYTES_MAX;
use mielin_mesh_core::migration::{
    Arrivals, MigrationPhase, Move, Offer, Query, QueryReply, RollbackReason, SourceAction,
    SourceInput, TargetAction, TargetInput,
};
use mielin_mesh_core::{
    AgentId, Epoch, Instant, MigrationCoordinator, MigrationFrame, MigrationReceiver,
    MigrationStrategy,
};

pub(crate) const TARGET: Target = Target {
    name: "migration",
    mutations: 20_000,
    // What the codec's limit lets a length claim.
    fixed_bytes: CODEC_BYTES_MAX + (64 << 10),
    bytes_per_byte: 256,
    run,
    seeds,
};

/// A frame from the target, to the source.
const TO_SOURCE: u8 = 0;
/// A frame from the source, to the target.
const TO_TARGET: u8 = 1;
/// Time passes on both sides: as many tenths of a second as there are bytes.
const TIME: u8 = 2;
/// The stream between them breaks.
const CUT: u8 = 3;
/// The target answers a source in doubt.
const ANSWER: u8 = 4;
/// The source asks the target what became of the agent.
const QUERY: u8 = 5;

const AGENT: AgentId = AgentId([1; 16]);
const EPOCH: Epoch = Epoch(3);

/// The source's side, whose node does at once what it is asked.
struct Source {
    core: MigrationCoordinator,
    handed_over: bool,
    restrained: bool,
    ended: bool,
}

impl Source {
    fn take(&mut self, now: Instant, input: SourceInput) {
        self.core.handle(now, input);
        self.work(now);
    }

    fn work(&mut self, now: Instant) {
        while let Some(action) = self.core.poll_action() {
            assert!(!self.ended || matches!(action, SourceAction::Send(_)));
            let done = match action {
                SourceAction::Send(MigrationFrame::Go { epoch }) => {
                    assert!(epoch > EPOCH && !self.handed_over);
                    self.handed_over = true;
                    continue;
                }
                SourceAction::Send(_) | SourceAction::Query(_) => continue,
                SourceAction::Restrain { percent } => {
                    self.restrained = percent > 0;
                    continue;
                }
                SourceAction::SendModule => SourceInput::ModuleSent { bytes: 10 },
                SourceAction::Harvest => SourceInput::Harvested { pages: 100 },
                SourceAction::SendPages => SourceInput::PagesSent {
                    pages: 100,
                    bytes: 409_600,
                },
                SourceAction::Freeze => SourceInput::Frozen,
                SourceAction::SendAbsent => SourceInput::AbsentSent,
                SourceAction::ServePages => SourceInput::PagesServed {
                    pages: 10,
                    bytes: 40_960,
                },
                SourceAction::SendState { epoch } => {
                    assert!(epoch > EPOCH);
                    SourceInput::StateSent { bytes: 10 }
                }
                SourceAction::Resume { epoch } => {
                    assert_eq!(epoch > EPOCH, self.handed_over);
                    assert!(!self.restrained);
                    self.ended = true;
                    continue;
                }
                SourceAction::Release => {
                    assert!(self.handed_over, "it is given away only after Go");
                    self.ended = true;
                    continue;
                }
            };
            self.core.handle(now, done);
        }
    }
}

/// The target's side, likewise.
struct Receiver {
    core: MigrationReceiver,
    arrivals: Arrivals,
    installed: bool,
    started: bool,
    discarded: bool,
    /// Pages are to follow.
    absent: bool,
    confirmed: bool,
}

impl Receiver {
    fn take(&mut self, now: Instant, input: TargetInput) {
        self.core.handle(now, input, &mut self.arrivals);
        self.work(now);
    }

    fn work(&mut self, now: Instant) {
        while let Some(action) = self.core.poll_action() {
            let done = match action {
                TargetAction::Send(_) => continue,
                TargetAction::Decide(_) => TargetInput::Accepted {
                    need_module: true,
                    post_copy: true,
                },
                TargetAction::NoteAbsent { .. } => {
                    self.absent = true;
                    TargetInput::AbsentNoted
                }
                TargetAction::WritePages { .. } | TargetAction::WriteZeros { .. }
                    if self.started =>
                {
                    self.absent = false;
                    TargetInput::Resident
                }
                TargetAction::WriteZeros { .. } => TargetInput::PagesWritten,
                TargetAction::Secure { .. } => {
                    assert!(self.started && !self.absent && !self.discarded);
                    TargetInput::Secured
                }
                TargetAction::Undo(_) => {
                    assert!(self.started && !self.discarded && !self.confirmed);
                    self.discarded = true;
                    TargetInput::Undone
                }
                TargetAction::Prepare => TargetInput::Prepared,
                TargetAction::WritePages { .. } => TargetInput::PagesWritten,
                TargetAction::Install { .. } => {
                    self.installed = true;
                    TargetInput::Installed
                }
                TargetAction::Start { .. } => {
                    assert!(self.installed && !self.started && !self.discarded);
                    self.started = true;
                    TargetInput::Started
                }
                TargetAction::Confirm { .. } => {
                    assert!(self.started && !self.discarded);
                    self.confirmed = true;
                    continue;
                }
                TargetAction::Discard(_) => {
                    assert!(!self.started && !self.discarded);
                    self.discarded = true;
                    continue;
                }
            };
            self.core.handle(now, done, &mut self.arrivals);
        }
    }
}

fn run(input: &[u8]) -> bool {
    let mut now = Instant::START;
    let mut source = Source {
        core: MigrationCoordinator::new(now, Move::new(AGENT, EPOCH, [2; 32], 1 << 21)),
        handed_over: false,
        restrained: false,
        ended: false,
    };
    let mut target = Receiver {
        core: MigrationReceiver::new(now),
        arrivals: Arrivals::new(),
        installed: false,
        started: false,
        discarded: false,
        absent: false,
        confirmed: false,
    };
    for (kind, bytes) in Steps::new(input).take(256) {
        let frame = MigrationFrame::decode(bytes).map(|(frame, _)| frame);
        match kind {
            TO_SOURCE => {
                if let Ok(frame) = frame {
                    source.take(now, SourceInput::Frame(frame));
                }
            }
            TO_TARGET => {
                if let Ok(frame) = frame {
                    target.take(now, TargetInput::Frame(frame));
                }
            }
            TIME => {
                now = now + Duration::from_millis(100) * bytes.len() as u32;
                source.core.handle_timeout(now);
                source.work(now);
                target.core.handle_timeout(now);
                target.work(now);
            }
            CUT => {
                source.take(now, SourceInput::ConnectionLost);
                target.take(now, TargetInput::ConnectionLost);
            }
            ANSWER => {
                if let Ok(reply) = mielin_mesh_core::codec::decode(bytes) {
                    source.take(now, SourceInput::Answered(reply));
                }
            }
            QUERY => {
                if let Ok(query) = mielin_mesh_core::codec::decode::<Query>(bytes) {
                    let _ = target.arrivals.answer(query);
                    target.take(now, TargetInput::Queried);
                }
            }
            _ => {}
        }
    }
    let ended = |phase: &MigrationPhase| {
        matches!(
            phase,
            MigrationPhase::Complete | MigrationPhase::RolledBack(_)
        )
    };
    ended(source.core.phase()) || target.started
}

fn seeds() -> Vec<Seed> {
    let epoch = Epoch(EPOCH.0 + 1);
    let of_target = [
        MigrationFrame::Accept {
            need_module: true,
            post_copy: false,
        },
        MigrationFrame::Prepared,
        MigrationFrame::RoundAck { round: 1 },
        MigrationFrame::RoundAck { round: 2 },
        MigrationFrame::Ready { epoch },
        MigrationFrame::Running { epoch },
        MigrationFrame::Secured { epoch },
    ]
    .map(|frame| frame.encode());
    let of_source = [
        MigrationFrame::Offer(Offer {
            agent: AGENT,
            epoch: EPOCH,
            module: [2; 32],
            module_bytes: 10,
            memory_bytes: 65536,
            strategy: MigrationStrategy::PreCopy,
        }),
        MigrationFrame::Module,
        MigrationFrame::Pages { count: u32::MAX },
        MigrationFrame::RoundEnd { round: 1, pages: 9 },
        MigrationFrame::State { epoch },
        MigrationFrame::Go { epoch },
        MigrationFrame::Released,
    ]
    .map(|frame| frame.encode());
    fn to(side: u8, frames: &[Vec<u8>]) -> Vec<Step<'_>> {
        let step = |frame| (side, Vec::as_slice(frame));
        frames.iter().map(step).collect()
    }
    let answer = mielin_mesh_core::codec::encode(&QueryReply::NotHere { last: Epoch(0) });
    let mut doubt = to(TO_SOURCE, &of_target[..5]);
    doubt.extend([(CUT, &[][..]), (TIME, &[0; 60]), (ANSWER, &answer)]);
    let query = mielin_mesh_core::codec::encode(&Query {
        agent: AGENT,
        epoch,
    });
    let mut overtaken = to(TO_TARGET, &of_source[..5]);
    overtaken.push((QUERY, &query));
    overtaken.extend(to(TO_TARGET, &of_source[5..]));
    let abort = MigrationFrame::Abort {
        reason: RollbackReason::Cancelled,
    };
    vec![
        Seed::good("source-complete", Steps::write(&to(TO_SOURCE, &of_target))),
        Seed::good("target-complete", Steps::write(&to(TO_TARGET, &of_source))),
        Seed::good("source-in-doubt", Steps::write(&doubt)),
        Seed::good("source-times-out", Steps::write(&[(TIME, &[0; 301])])),
        Seed::bad("query-overtakes-go", Steps::write(&overtaken)),
        Seed::bad("abort", Steps::write(&[(TO_TARGET, &abort.encode())])),
    ]
}
