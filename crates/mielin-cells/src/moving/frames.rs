//! What passes between source and target: frames with small OxiCode headers and raw tails of any length.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use mielin_mesh::{FrameLimit, RecvHalf, SendHalf, StreamError};
use mielin_mesh_core::migration::{Query, Traffic};
use mielin_mesh_core::{AgentId, MigrationFrame, NodeId, codec};
use mielin_safepoint::HostSection;
use mielin_wasm::{Fingerprint, Limits};
use oxicode::{Decode, Encode};
use thiserror::Error;

use crate::cell::Identity;
use crate::error::CellsError;
use crate::report::HostLine;
use crate::tally::Tallied;
use crate::wire;

/// Bytes of a tail in one frame; longer tails come in several.
const CHUNK: usize = 512 * 1024;
/// The longest tail: a module, or mailbox, outbox, host state and stack together.
const TAIL_MAX: usize = 256 << 20;
/// Headers hold ids and numbers.
const HEADER_MAX: u16 = 4096;

/// The header of a frame.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Header {
    /// The tail of the next other frame begins with this one's.
    More,
    /// A message of the migration protocol.
    Core(MigrationFrame),
    /// Tail: bytes of a log from `offset`.
    Log { stderr: bool, offset: u64 },
    /// Tail: a section of the host state that will not change any more.
    Section { name: String, version: u16 },
    /// On a stream of its own: what became of this agent? Answered by a frame whose header is a `QueryReply`.
    Query(Query),
    /// Tail: contents of files in `/data`; `offset` bytes of them were sent before.
    Files { offset: u64 },
    /// The first on a stream of its own from the source, for pages that the agent waits for.
    Follow([u8; 16]),
    /// Target, on that stream: the agent waits for these pages. Tail: their indices, four bytes each, little-endian.
    Wanted,
    /// So many pages, as in `MigrationFrame::Pages`. Tail: an LZ4 block of what its tail would be.
    Packed { count: u32 },
}

/// A stream of moves that cannot go on.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("a malformed frame")]
    Malformed,
    #[error("a tail of more than {TAIL_MAX} bytes")]
    TooLong,
}

/// The sending direction.
pub(super) struct Outgoing {
    send: SendHalf,
    /// Bytes of tails handed to the transport.
    pub(super) bytes: u64,
    /// The time that it took until there was room for them.
    waited: Duration,
}

impl Outgoing {
    pub(super) fn new(send: SendHalf) -> Outgoing {
        Outgoing {
            send,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// What has become of what was sent on a stream that this side has opened.
    pub(super) fn traffic(&self) -> Option<Traffic> {
        Some(Traffic {
            handed: self.bytes,
            transmitted: self.send.transmitted_bytes()?,
            waited: self.waited,
        })
    }

    /// Sends a frame; waits while the transport has no room.
    pub(super) async fn send(
        &mut self,
        header: &Header,
        mut tail: Bytes,
    ) -> Result<(), StreamError> {
        self.bytes += tail.len() as u64;
        let began = Instant::now();
        while tail.len() > CHUNK {
            let piece = tail.split_to(CHUNK);
            self.send
                .send_frame_bytes(&codec::encode(&Header::More), piece)
                .await?;
        }
        let header = codec::encode(header);
        let sent = self.send.send_frame_bytes(&header, tail).await;
        self.waited += began.elapsed();
        sent
    }

    pub(super) async fn core(
        &mut self,
        frame: MigrationFrame,
        tail: Bytes,
    ) -> Result<(), StreamError> {
        self.send(&Header::Core(frame), tail).await
    }

    /// Ends this direction and waits until the peer has everything.
    pub(super) async fn finish(mut self) {
        if self.send.finish().is_ok() {
            // It only matters that the stream is not torn down early; the peer may be gone.
            let _ = self.send.delivered().await;
        }
    }
}

/// The next frame with its whole tail; `None` at the end of the stream.
pub(super) async fn receive(recv: &mut RecvHalf) -> Result<Option<(Header, Bytes)>, FrameError> {
    let limit = FrameLimit {
        header_bytes: HEADER_MAX,
        payload_bytes: CHUNK,
    };
    let mut gathered = BytesMut::new();
    loop {
        let Some(head) = recv.recv_head(limit).await? else {
            return Ok(None);
        };
        if gathered.len() + head.payload_len > TAIL_MAX {
            return Err(FrameError::TooLong);
        }
        let header = codec::decode(&head.header).map_err(|_| FrameError::Malformed)?;
        let more = matches!(header, Header::More);
        if !more && gathered.is_empty() {
            return Ok(Some((header, recv.recv_payload(&head).await?)));
        }
        gathered.put(recv.recv_pieces(&head).await?);
        if !more {
            return Ok(Some((header, gathered.freeze())));
        }
    }
}

/// The tail of the offer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Offered {
    pub(super) identified: Identified,
    /// The seed of the key under which both ends know pages.
    pub(super) page_key: [u8; 32],
}

/// Adds a page to what both ends compare before the target says that it is ready: its fingerprint, which the source
/// has of most pages anyway, and which takes a third of the time of BLAKE3 over the page. The connection is
/// authenticated; this is there to notice what goes wrong at either end of it.
pub(super) fn digest_page(digest: &mut blake3::Hasher, index: u32, fingerprint: &Fingerprint) {
    digest.update(&index.to_le_bytes());
    digest.update(&fingerprint.to_bytes());
}

/// An agent's identity as it travels: with the offer, and as a part of a stored agent.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Identified {
    name: String,
    owner: [u8; 32],
    grants: Vec<String>,
    limits: [u64; 6],
    budget: String,
    started_ms: u64,
}

impl Identified {
    pub(crate) fn new(identity: &Identity) -> Identified {
        let limits = &identity.limits;
        Identified {
            name: identity.name.clone(),
            owner: identity.owner.0,
            grants: identity.grants.iter().map(ToString::to_string).collect(),
            limits: [
                limits.memory_bytes,
                limits.table_elements as u64,
                limits.module_bytes as u64,
                limits.message_bytes as u64,
                limits.log_bytes,
                limits.input_bytes as u64,
            ],
            budget: identity.budget.to_string(),
            started_ms: identity.started_ms,
        }
    }

    pub(crate) fn into_identity(self, id: AgentId) -> Result<Identity, CellsError> {
        crate::name::check(&self.name)?;
        let [memory_bytes, table, module, message, log_bytes, input] = self.limits;
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let limits = Limits {
            memory_bytes,
            table_elements: size(table),
            module_bytes: size(module),
            message_bytes: size(message),
            log_bytes,
            input_bytes: size(input),
        };
        let grants = wire::grants_from_text(&self.grants)?;
        let budget = wire::budget_from_text(&self.budget)?;
        if !budget.fits(&limits) {
            return Err(wire::malformed("a budget"));
        }
        Ok(Identity {
            id,
            name: self.name,
            owner: NodeId(self.owner),
            grants,
            limits,
            budget,
            started_ms: self.started_ms,
        })
    }
}

/// What the raw bytes behind it are: the tail of the state frame, and a part of a stored agent.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(crate) struct Layout {
    memory_bytes: u64,
    paused: bool,
    tallied: Tallied,
    lines: Vec<wire::Line>,
    sections: Vec<(String, u16, u64)>,
    execution: u64,
    outbox: u64,
    inbox: u64,
    /// Length of both logs.
    logs: [u64; 2],
    /// BLAKE3 over the fingerprints of pages (see [`digest_page`]), runs of zeros and contents of files in the order in
    /// which they were sent, this layout with zeros here, and the raw bytes.
    digest: [u8; 32],
}

/// Everything but memory, logs and the contents of files, taken apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installed {
    pub(crate) memory_bytes: u64,
    pub(crate) paused: bool,
    pub(crate) tallied: Tallied,
    pub(crate) lines: Vec<HostLine>,
    pub(crate) sections: Vec<HostSection>,
    pub(crate) execution: Bytes,
    pub(crate) outbox: Bytes,
    pub(crate) inbox: Bytes,
    pub(crate) logs: [u64; 2],
}

impl Installed {
    /// The tail of the state frame. `pages` has hashed pages and the contents of files.
    pub(crate) fn encode(&self, mut pages: blake3::Hasher) -> Bytes {
        let mut raw: Vec<&[u8]> = vec![&self.execution, &self.outbox, &self.inbox];
        raw.extend(self.sections.iter().map(|section| &section.bytes[..]));
        let mut layout = Layout {
            memory_bytes: self.memory_bytes,
            paused: self.paused,
            tallied: self.tallied,
            lines: self.lines.iter().map(wire::Line::new).collect(),
            sections: self
                .sections
                .iter()
                .map(|section| {
                    (
                        section.name.clone(),
                        section.version,
                        section.bytes.len() as u64,
                    )
                })
                .collect(),
            execution: self.execution.len() as u64,
            outbox: self.outbox.len() as u64,
            inbox: self.inbox.len() as u64,
            logs: self.logs,
            digest: [0; 32],
        };
        pages.update(&codec::encode(&layout));
        for bytes in &raw {
            pages.update(bytes);
        }
        layout.digest = *pages.finalize().as_bytes();
        let mut tail = codec::encode(&layout);
        for bytes in raw {
            tail.extend_from_slice(bytes);
        }
        tail.into()
    }

    /// Takes a tail apart and checks its digest.
    pub(crate) fn decode(tail: &Bytes, mut pages: blake3::Hasher) -> Result<Installed, CellsError> {
        let malformed = || wire::malformed("a state");
        let (mut layout, raw): (Layout, &[u8]) =
            codec::decode_prefix(tail).map_err(|_| malformed())?;
        let digest = std::mem::take(&mut layout.digest);
        if *pages
            .update(&codec::encode(&layout))
            .update(raw)
            .finalize()
            .as_bytes()
            != digest
        {
            return Err(CellsError::Internal(
                "the state that arrived is not the one that was sent".to_owned(),
            ));
        }
        let mut rest = tail.slice_ref(raw);
        let mut take = |len: u64| {
            let len = usize::try_from(len)
                .ok()
                .filter(|len| *len <= rest.len())
                .ok_or_else(malformed)?;
            Ok::<Bytes, CellsError>(rest.split_to(len))
        };
        let (execution, outbox, inbox) = (
            take(layout.execution)?,
            take(layout.outbox)?,
            take(layout.inbox)?,
        );
        let mut sections = Vec::new();
        for (name, version, len) in layout.sections {
            sections.push(HostSection {
                name,
                version,
                bytes: take(len)?.into(),
            });
        }
        if !rest.is_empty() {
            return Err(malformed());
        }
        Ok(Installed {
            memory_bytes: layout.memory_bytes,
            paused: layout.paused,
            tallied: layout.tallied,
            lines: layout
                .lines
                .into_iter()
                .map(wire::Line::into_host_line)
                .collect(),
            sections,
            execution,
            outbox,
            inbox,
            logs: layout.logs,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mielin_fuzz::{Seed, Target};
    use mielin_mesh_core::Epoch;
    use mielin_mesh_core::limits::CODEC_BYTES_MAX;
    use mielin_wasm::PageKey;

    use super::*;
    use crate::moving::packing;

    fn state() -> Installed {
        let section = |name: &str, bytes: &[u8]| HostSection {
            name: name.to_owned(),
            version: 3,
            bytes: bytes.to_vec(),
        };
        Installed {
            memory_bytes: 65536,
            paused: true,
            tallied: Tallied::sample(),
            lines: vec![HostLine {
                time_ms: 7,
                level: "info".to_owned(),
                text: "hello".to_owned(),
            }],
            sections: vec![section("a", b"xyz"), section("b", b"")],
            execution: Bytes::from_static(b"frames"),
            outbox: Bytes::from_static(b"out"),
            inbox: Bytes::new(),
            logs: [10, 20],
        }
    }

    fn pages(bytes: &[u8]) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes);
        hasher
    }

    #[test]
    fn a_state_comes_back_and_every_damage_is_noticed() {
        let state = state();
        let tail = state.encode(pages(b"pages"));
        let back = Installed::decode(&tail, pages(b"pages")).unwrap();
        assert_eq!(format!("{back:?}"), format!("{state:?}"));
        assert!(Installed::decode(&tail, pages(b"other pages")).is_err());
        for len in 0..tail.len() {
            assert!(
                Installed::decode(&tail.slice(..len), pages(b"pages")).is_err(),
                "cut at {len}"
            );
        }
        let raw_begins = tail.len() - b"framesoutxyz".len();
        for index in (0..4).chain(raw_begins..tail.len()) {
            let mut damaged = tail.to_vec();
            damaged[index] ^= 1;
            assert!(
                Installed::decode(&damaged.into(), pages(b"pages")).is_err(),
                "byte {index}"
            );
        }
    }

    #[test]
    fn a_digest_tells_pages_and_their_places_and_order() {
        let key = PageKey::random().unwrap();
        let digest = |pages: &[(u32, u8)]| {
            let mut hasher = blake3::Hasher::new();
            for (index, byte) in pages {
                digest_page(&mut hasher, *index, &key.fingerprint(&[*byte; 4096]));
            }
            hasher.finalize()
        };
        let pages = digest(&[(1, 7), (2, 8)]);
        // The other end makes the key of its seed.
        let same = PageKey::from_seed(&key.seed());
        assert_eq!(same.fingerprint(&[7; 4096]), key.fingerprint(&[7; 4096]));
        for other in [
            &[(1, 7), (2, 9)][..],
            &[(1, 7), (3, 8)],
            &[(2, 8), (1, 7)],
            &[(1, 7)],
        ] {
            assert_ne!(digest(other), pages, "{other:?}");
        }
    }

    #[test]
    fn hostile_states_are_errors() {
        let mut bytes = state().encode(pages(b"")).to_vec();
        for index in 0..bytes.len() {
            for value in [0, 0x7f, 0xff, 0xfd] {
                let kept = std::mem::replace(&mut bytes[index], value);
                // Whatever it says, it neither panics nor allocates what it merely claims.
                let _ = Installed::decode(&bytes.clone().into(), pages(b""));
                bytes[index] = kept;
            }
        }
    }

    /// Headers, offers, states and packed pages, by the first byte.
    const MOVES: Target = Target {
        name: "moves",
        mutations: 20_000,
        // What the codec's limit lets a length claim.
        fixed_bytes: CODEC_BYTES_MAX + (64 << 10),
        bytes_per_byte: 64,
        run: |bytes| match bytes.split_first() {
            Some((0, bytes)) => {
                let header = codec::decode::<Header>(bytes);
                if let Ok(header) = &header {
                    let again = codec::encode(header);
                    assert_eq!(codec::decode::<Header>(&again).as_ref(), Ok(header));
                }
                header.is_ok()
            }
            Some((1, bytes)) => {
                let Ok(offered) = codec::decode::<Offered>(bytes) else {
                    return false;
                };
                let identity = offered.identified.into_identity(AgentId([1; 16]));
                if let Ok(identity) = &identity {
                    let again = codec::encode(&Identified::new(identity));
                    let again = codec::decode::<Identified>(&again).unwrap();
                    let again = again.into_identity(identity.id).unwrap();
                    assert_eq!(Identified::new(&again), Identified::new(identity));
                }
                identity.is_ok()
            }
            Some((2, bytes)) => is_state(bytes.to_vec().into()) | is_state(sealed(bytes)),
            Some((3, bytes)) => bytes.split_first().is_some_and(|(count, tail)| {
                let records = packing::unpack(u32::from(*count), tail);
                if let Ok(records) = &records {
                    let again = packing::unpack(u32::from(*count), &packing::packed(records));
                    assert_eq!(again.as_ref().unwrap(), records);
                }
                records.is_ok()
            }),
            _ => false,
        },
        seeds: || {
            let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
            let header = |header: &Header| of(0, &codec::encode(header));
            let offer = |name: &str, grant: &str, budget: &str| {
                let identified = Identified {
                    name: name.to_owned(),
                    owner: [2; 32],
                    grants: vec![grant.to_owned()],
                    limits: [u64::MAX; 6],
                    budget: budget.to_owned(),
                    started_ms: 7,
                };
                let page_key = [3; 32];
                let offered = Offered {
                    identified,
                    page_key,
                };
                of(1, &codec::encode(&offered))
            };
            let whole = state().encode(pages(b""));
            let section = Header::Section {
                name: "wasm.program".to_owned(),
                version: 1,
            };
            let epoch = Epoch(5);
            let mut long = codec::decode_prefix::<Layout>(&whole).unwrap().0;
            long.outbox = u64::MAX;
            let packed = packing::packed(&[7; 2 * 4100]);
            let packed = |count: u8| of(3, &[&[count], &packed[..]].concat());
            vec![
                Seed::good("more", header(&Header::More)),
                Seed::good("go", header(&Header::Core(MigrationFrame::Go { epoch }))),
                Seed::good("follow", header(&Header::Follow([3; 16]))),
                Seed::good("wanted", header(&Header::Wanted)),
                Seed::good(
                    "absent",
                    header(&Header::Core(MigrationFrame::Absent { count: 2 })),
                ),
                Seed::good("section", header(&section)),
                Seed::good("files", header(&Header::Files { offset: 1 << 40 })),
                Seed::good("packed", header(&Header::Packed { count: 3 })),
                Seed::good("packed-pages", packed(2)),
                Seed::bad("packed-pages-that-are-fewer", packed(3)),
                Seed::bad("packed-pages-that-are-too-many", packed(65)),
                Seed::good("offer", offer("agent", "message", "")),
                Seed::good(
                    "offer-with-data",
                    offer("agent", "data:16MiB", "cpu=10s,messages=5/s"),
                ),
                Seed::bad("offer-with-too-much-data", offer("agent", "data:1GiB", "")),
                Seed::bad(
                    "offer-with-an-unknown-grant",
                    offer("agent", "everything", ""),
                ),
                Seed::bad(
                    "offer-with-an-odd-budget",
                    offer("agent", "clock", "cpu=101%"),
                ),
                Seed::bad(
                    "offer-beyond-its-budget",
                    offer("agent", "clock", "memory=1MiB"),
                ),
                Seed::good("state", of(2, &whole)),
                Seed::bad("outbox-of-2-to-the-64", of(2, &codec::encode(&long))),
            ]
        },
    };

    fn is_state(tail: Bytes) -> bool {
        let installed = Installed::decode(&tail, pages(b""));
        if let Ok(state) = &installed {
            let again = Installed::decode(&state.encode(pages(b"")), pages(b"")).unwrap();
            assert_eq!(format!("{again:?}"), format!("{state:?}"));
        }
        installed.is_ok()
    }

    /// The same state with the digest that it should have.
    fn sealed(bytes: &[u8]) -> Bytes {
        let Ok((mut layout, raw)) = codec::decode_prefix::<Layout>(bytes) else {
            return Bytes::new();
        };
        layout.digest = [0; 32];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&codec::encode(&layout)).update(raw);
        layout.digest = *hasher.finalize().as_bytes();
        [codec::encode(&layout), raw.to_vec()].concat().into()
    }

    #[test]
    fn moves() {
        MOVES.replay();
    }
}
