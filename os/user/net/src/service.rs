//! What clients may ask for: ports, and datagrams from and to them. It knows nothing of the kernel: whoever receives requests has
//! them answered here, or is told that somebody waits.

use mielin_user::net::{PORTS_MAX, Peer, Refusal, Request};

use crate::stack::{ECHO_PORT, Stack};

/// Ports that are given to whoever wants any (RFC 6335, section 6).
const ANY_FIRST: u16 = 49_152;

/// A request as it has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Its label.
    pub(crate) label: u64,
    /// Who asks.
    pub(crate) client: u64,
    /// Its words behind the number of bytes: a port, a peer, a deadline.
    pub(crate) words: [u64; 3],
    /// How many bytes it says that there are, and those that there are.
    pub(crate) len: u64,
    pub(crate) bytes: &'a [u8],
}

/// What comes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) outcome: Outcome,
    /// Who has waited at the port of this index is told that he does not any more, before anything else.
    pub(crate) canceled: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// It is answered with a port and a peer.
    Done(u16, Peer),
    Refused(Refusal),
    /// It is answered when [`Service::ready`] has something for the port of this index.
    Waits(usize),
}

/// A port that is bound.
#[derive(Clone, Copy)]
struct Bound {
    port: u16,
    client: u64,
    /// Until when somebody waits for a datagram.
    waits_until: Option<u64>,
}

/// What somebody who waits is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready<'a> {
    Datagram(Peer, &'a [u8]),
    TimedOut,
}

/// All ports, and the network if there is one.
pub(crate) struct Service {
    stack: Option<Stack>,
    bound: [Option<Bound>; PORTS_MAX],
    /// The port that was given last to somebody who wanted any.
    any: u16,
}

impl Service {
    pub(crate) fn new(stack: Option<Stack>) -> Self {
        Self {
            stack,
            bound: [None; PORTS_MAX],
            any: u16::MAX,
        }
    }

    pub(crate) fn stack(&mut self) -> Option<&mut Stack> {
        self.stack.as_mut()
    }

    /// Does what a client wants.
    pub(crate) fn serve(&mut self, asked: &Asked<'_>) -> Served {
        self.try_serve(asked).unwrap_or_else(|refusal| Served {
            outcome: Outcome::Refused(refusal),
            canceled: None,
        })
    }

    fn try_serve(&mut self, asked: &Asked<'_>) -> Result<Served, Refusal> {
        let request = Request::of_label(asked.label).ok_or(Refusal::Malformed)?;
        let stack = self.stack.as_mut().ok_or(Refusal::NoCard)?;
        let [port, peer, deadline] = asked.words;
        let port = u16::try_from(port).map_err(|_| Refusal::Malformed)?;
        let own = Peer {
            address: stack.address(),
            port,
        };
        let done = |canceled| Served {
            outcome: Outcome::Done(port, own),
            canceled,
        };
        if request == Request::Address {
            return Ok(done(None));
        }
        if request == Request::Bind {
            return self.bind(port, asked.client, own);
        }
        let is_it = |bound: &Option<Bound>| {
            bound.is_some_and(|bound| bound.port == port && bound.client == asked.client)
        };
        let index = self.bound.iter().position(is_it);
        let index = index.ok_or(Refusal::NotBound)?;
        match request {
            Request::Bind | Request::Address => Ok(done(None)),
            Request::Unbind => {
                stack.close(index);
                let canceled = self.cancel(index);
                self.bound[index] = None;
                Ok(done(canceled))
            }
            Request::Send => {
                if asked.len != asked.bytes.len() as u64 {
                    return Err(Refusal::Malformed);
                }
                stack.send(index, Peer::from_word(peer), asked.bytes)?;
                Ok(done(None))
            }
            Request::Receive => {
                let canceled = self.cancel(index);
                if let Some(bound) = &mut self.bound[index] {
                    bound.waits_until = Some(deadline);
                }
                Ok(Served {
                    outcome: Outcome::Waits(index),
                    canceled,
                })
            }
        }
    }

    fn bind(&mut self, port: u16, client: u64, own: Peer) -> Result<Served, Refusal> {
        let stack = self.stack.as_mut().ok_or(Refusal::NoCard)?;
        let taken = |port: u16| {
            let mut bound = self.bound.iter().flatten();
            port == ECHO_PORT || bound.any(|bound| bound.port == port)
        };
        let port = match port {
            0 => {
                // One of so many is free: fewer are bound.
                let following = (0..=PORTS_MAX as u16).map(|more| {
                    let next = self.any.wrapping_add(1).wrapping_add(more);
                    next | ANY_FIRST
                });
                let free = following.into_iter().find(|port| !taken(*port));
                self.any = free.ok_or(Refusal::NoPorts)?;
                self.any
            }
            port => port,
        };
        let old = |bound: &Option<Bound>| bound.is_some_and(|bound| bound.port == port);
        let index = match self.bound.iter().position(old) {
            Some(index) if self.bound[index].is_some_and(|bound| bound.client == client) => index,
            None if port != ECHO_PORT => {
                let free = self.bound.iter().position(Option::is_none);
                free.ok_or(Refusal::NoPorts)?
            }
            _ => return Err(Refusal::PortTaken),
        };
        stack.open(index, port);
        let canceled = self.cancel(index);
        self.bound[index] = Some(Bound {
            port,
            client,
            waits_until: None,
        });
        Ok(Served {
            outcome: Outcome::Done(port, own),
            canceled,
        })
    }

    /// Nobody waits at the port of this index any more; the index, if somebody did.
    fn cancel(&mut self, index: usize) -> Option<usize> {
        let bound = self.bound.get_mut(index)?.as_mut()?;
        bound.waits_until.take().map(|_| index)
    }

    /// What there is for somebody who waits at the port of this index.
    pub(crate) fn ready(&mut self, index: usize, now: u64) -> Option<Ready<'_>> {
        let until = self.bound.get(index)?.as_ref()?.waits_until?;
        match self.stack.as_mut()?.first(index) {
            Some((from, bytes)) => Some(Ready::Datagram(from, bytes)),
            None => (until <= now).then_some(Ready::TimedOut),
        }
    }

    /// He was told, or is not there any more; whether a datagram has arrived.
    pub(crate) fn told(&mut self, index: usize, arrived: bool) {
        if let Some(stack) = self.stack.as_mut().filter(|_| arrived) {
            stack.take_first(index);
        }
        self.cancel(index);
    }

    /// Until when there is nothing to do if nothing comes; `None` if for ever.
    pub(crate) fn deadline(&mut self, now: u64) -> Option<u64> {
        let waits = self.bound.iter().flatten();
        let waits = waits.filter_map(|bound| bound.waits_until).min();
        let stack = self.stack.as_mut().and_then(|stack| stack.deadline(now));
        waits.into_iter().chain(stack).min()
    }
}
