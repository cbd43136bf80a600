//! `poll_oneoff`: sleeping, and waiting for streams and files that never make anybody wait.

use alloc::vec::Vec;

use super::super::Call;
use super::super::errno::Errno;
use super::clock;
use super::descriptor::open;
use crate::state::{Object, Pending, Stream};
use crate::{Capability, Wait};

const SUBSCRIPTION_BYTES: u32 = 48;
const EVENT_BYTES: u32 = 32;
/// The most subscriptions in one call.
const SUBSCRIPTIONS_MAX: u32 = 1024;

const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;
const ABSTIME: u16 = 1;
const HANGUP: u16 = 1;

struct Subscription {
    userdata: [u8; 8],
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Clock {
        id: u32,
        timeout_ns: u64,
        absolute: bool,
    },
    Read {
        fd: u32,
    },
    Write {
        fd: u32,
    },
}

/// What has happened to a subscription.
enum Status {
    Ready {
        bytes: u64,
        flags: u16,
    },
    Failed(Errno),
    /// Not before this time on the program's monotonic clock.
    Later(u64),
}

pub(crate) fn poll_oneoff(
    call: &mut Call<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    out: u32,
) -> Result<(), Errno> {
    let since_ns = match call.state.pending.take() {
        Some(Pending::Poll { since_ns }) => since_ns,
        _ => call.state.now_ns(),
    };
    if count == 0 || count > SUBSCRIPTIONS_MAX {
        return Err(Errno::Inval);
    }
    let subscriptions = call
        .memory
        .bytes(subscriptions, count * SUBSCRIPTION_BYTES)?
        .chunks_exact(SUBSCRIPTION_BYTES as usize)
        .map(parse)
        .collect::<Result<Vec<_>, _>>()?;
    call.memory.bytes(events, count * EVENT_BYTES)?;
    call.memory.bytes(out, 4)?;
    if subscriptions
        .iter()
        .any(|subscription| matches!(subscription.kind, Kind::Clock { .. }))
    {
        call.require(Capability::Clock, "poll_oneoff")?;
    }

    let now_ns = call.state.now_ns();
    let mut next_ns = u64::MAX;
    let mut happened = 0;
    for subscription in &subscriptions {
        let event = match status(call, subscription.kind, since_ns, now_ns) {
            Status::Later(deadline_ns) => {
                next_ns = next_ns.min(deadline_ns);
                continue;
            }
            Status::Ready { bytes, flags } => event(subscription, 0, bytes, flags),
            Status::Failed(errno) => event(subscription, errno as u16, 0, 0),
        };
        call.memory.put(events + happened * EVENT_BYTES, &event)?;
        happened += 1;
    }
    if happened == 0 {
        let wait = Wait {
            deadline_ns: Some(next_ns),
            message: false,
            reading: false,
        };
        return call.block(Pending::Poll { since_ns }, wait);
    }
    call.memory.put_u32(out, happened)
}

fn parse(bytes: &[u8]) -> Result<Subscription, Errno> {
    let u32_at =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let kind = match bytes[8] {
        CLOCK => Kind::Clock {
            id: u32_at(16),
            timeout_ns: u64_at(24),
            absolute: u16::from_le_bytes([bytes[40], bytes[41]]) & ABSTIME != 0,
        },
        FD_READ => Kind::Read { fd: u32_at(16) },
        FD_WRITE => Kind::Write { fd: u32_at(16) },
        _ => return Err(Errno::Inval),
    };
    Ok(Subscription {
        userdata: u64_at(0).to_le_bytes(),
        kind,
    })
}

fn status(call: &Call<'_>, kind: Kind, since_ns: u64, now_ns: u64) -> Status {
    match kind {
        Kind::Clock {
            id,
            timeout_ns,
            absolute,
        } => {
            if let Err(errno) = clock::known(id) {
                return Status::Failed(errno);
            }
            let deadline_ns = match (absolute, id) {
                (false, _) => since_ns.saturating_add(timeout_ns),
                (true, clock::REALTIME) => {
                    // Looked at anew whenever the call is issued again, so that a step of the
                    // node's clock, or another node's, counts.
                    let left = timeout_ns.saturating_sub(call.state.platform.realtime_ns());
                    now_ns.saturating_add(left)
                }
                (true, _) => timeout_ns,
            };
            if now_ns < deadline_ns {
                Status::Later(deadline_ns)
            } else {
                Status::Ready { bytes: 0, flags: 0 }
            }
        }
        Kind::Read { fd } => match readable(call, fd) {
            Ok(left) => Status::Ready {
                bytes: left,
                flags: if left == 0 { HANGUP } else { 0 },
            },
            Err(errno) => Status::Failed(errno),
        },
        Kind::Write { fd } => match open(call, fd).map(|descriptor| descriptor.what) {
            Ok(Object::Stream(Stream::Stdout | Stream::Stderr) | Object::File { .. }) => {
                Status::Ready {
                    bytes: 4096,
                    flags: 0,
                }
            }
            _ => Status::Failed(Errno::Badf),
        },
    }
}

/// How much can be read without waiting: all that there is.
fn readable(call: &Call<'_>, fd: u32) -> Result<u64, Errno> {
    match open(call, fd)?.what {
        Object::Stream(Stream::Stdin) => {
            Ok((call.state.stdin.len() - call.state.stdin_position) as u64)
        }
        Object::File { ino, position } => {
            let files = call.state.data.as_ref().ok_or(Errno::Badf)?;
            Ok(files.stat(ino)?.len.saturating_sub(position))
        }
        Object::Stream(_) | Object::Directory { .. } => Err(Errno::Badf),
    }
}

fn event(subscription: &Subscription, errno: u16, bytes: u64, flags: u16) -> [u8; 32] {
    let mut event = [0; EVENT_BYTES as usize];
    event[0..8].copy_from_slice(&subscription.userdata);
    event[8..10].copy_from_slice(&errno.to_le_bytes());
    event[10] = match subscription.kind {
        Kind::Clock { .. } => CLOCK,
        Kind::Read { .. } => FD_READ,
        Kind::Write { .. } => FD_WRITE,
    };
    event[16..24].copy_from_slice(&bytes.to_le_bytes());
    event[24..26].copy_from_slice(&flags.to_le_bytes());
    event
}
