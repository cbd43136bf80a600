//! The page server: it gives a page of a client's memory to whichever thread of the client touches a place of its region where none is.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use mielin_user::abi::FAULT_LABEL;
use mielin_user::objects::{Message, Node, Notification, Reply};
use mielin_user::pages::{
    CLIENTS_MAX, FORGET, NO_MEMORY, NODE_BITS, NODE_MEMORY, NODE_SPACE, OWN, OWNER, STATE, Stop,
    WATCH,
};
use mielin_user::startup::slot;
use mielin_user::system_call::Received;
use mielin_user::{Cap, Error, FaultKind, Rights, Startup, Supplies};

mielin_user::program!(main);
mielin_heap::heap!();
mielin_user::stop_on_panic!("pages");

const PAGE_BYTES: u64 = 4096;
/// Pages for `alloc`.
const HEAP_PAGES: u64 = 24;

/// Of a fault: what was tried was a fetch of an instruction.
const FETCH: u64 = 2;

fn main(startup: Startup) -> ! {
    let result = Server::new(startup).and_then(|mut server| server.serve());
    if let Err(error) = result {
        mielin_user::say!("pages: the kernel refused: {error:?}");
    }
    mielin_user::start::fail()
}

/// Whoever gets pages.
struct Client {
    badge: u64,
    supplies: Supplies,
    begin: u64,
    end: u64,
    pages: u64,
    stop: Option<Stop>,
}

struct Server {
    startup: Startup,
    supplies: Supplies,
    /// Where the capability of a client's node is: slots in a row.
    first_slot: u64,
    clients: Vec<Option<Client>>,
    /// Each thread of a client that has stopped keeps one, because it gets no answer; clients have two.
    replies: Vec<Reply>,
    owner: Option<Notification>,
    /// Where the owner's notification is.
    owner_slot: u64,
}

impl Server {
    fn new(startup: Startup) -> Result<Self, Error> {
        let mut supplies = startup.supplies();
        mielin_heap::begin(&HEAP, &mut supplies, HEAP_PAGES)?;
        let first_slot = supplies.slots(CLIENTS_MAX + 1)?;
        let owner_slot = supplies.slot()?;
        let replies = (0..=2 * CLIENTS_MAX).map(|_| supplies.reply());
        let replies: Result<Vec<Reply>, Error> = replies.collect();
        let mut clients = Vec::new();
        clients.resize_with(CLIENTS_MAX as usize, || None);
        Ok(Self {
            startup,
            supplies,
            first_slot,
            clients,
            replies: replies?,
            owner: None,
            owner_slot,
        })
    }

    fn serve(&mut self) -> Result<(), Error> {
        let node = Node(Cap(slot::NODE));
        loop {
            // Replies of clients that have stopped are at the end.
            let reply = self.replies[0];
            // A capability that comes goes where the next client's is, or behind all of them.
            let free = self.clients.iter().position(Option::is_none);
            let landing = self.first_slot + free.unwrap_or(CLIENTS_MAX as usize) as u64;
            self.startup.buffer().receive_capabilities(node, landing);
            let received = match self.startup.service().receive(Some(reply)) {
                // Whom it owes an answer has stopped.
                Err(Error::ReplyInUse) => {
                    self.replies.rotate_left(1);
                    continue;
                }
                received => received?,
            };
            if received.info.label() == FAULT_LABEL && received.badge != OWNER {
                if self.faulted(&received) {
                    let _ = reply.send(&Message::new(0, []));
                }
            } else if received.badge == OWNER {
                let answer = self.obey(&received, free, landing);
                let answer = answer.unwrap_or(Message::new(1, []));
                let _ = reply.send(&answer);
            }
            // What came and is not wanted goes.
            if free.is_none_or(|index| self.clients[index].is_none()) {
                node.delete(landing)?;
            }
        }
    }

    /// Forgets a client, if there is one, with the capability of its node.
    fn forget(&mut self, index: usize) -> Option<()> {
        if self.clients[index].take().is_some() {
            let slot = self.first_slot + index as u64;
            Node(Cap(slot::NODE)).delete(slot).ok()?;
        }
        Some(())
    }

    fn client(&mut self, badge: u64) -> Option<&mut Client> {
        let mut clients = self.clients.iter_mut().flatten();
        clients.find(|client| client.badge == badge)
    }

    /// Gives a page to whoever has faulted; or stops it, and then it gets no answer.
    fn faulted(&mut self, received: &Received) -> bool {
        let [kind, counter, address, access] = received.words;
        let Some(client) = self.client(received.badge) else {
            // Nobody looks after it, so that it stays where it is.
            self.replies.rotate_left(1);
            return false;
        };
        let is_page = kind == FaultKind::Page as u64 && access != FETCH;
        let given = match is_page && client.stop.is_none() && client.has(address) {
            true => client.give(address),
            false => Err(kind),
        };
        let Err(kind) = given else { return true };
        client.stop.get_or_insert(Stop {
            kind,
            counter,
            address,
        });
        self.replies.rotate_left(1);
        if let Some(owner) = self.owner {
            // If it is gone, nobody asks.
            let _ = owner.signal();
        }
        false
    }

    fn obey(&mut self, received: &Received, free: Option<usize>, landing: u64) -> Option<Message> {
        let has_capability = received.info.capabilities() == 1;
        let [badge, begin, bytes, _] = received.words;
        match received.info.label() {
            OWN if has_capability => {
                // A new owner: whom the last one had watched is no more.
                for index in 0..self.clients.len() {
                    self.forget(index)?;
                }
                let (node, slot) = (Node(Cap(slot::NODE)), self.owner_slot);
                node.delete(slot).ok()?;
                node.take(slot, self.supplies.cap(landing)).ok()?;
                self.owner = Some(Notification(self.supplies.cap(slot)));
            }
            WATCH if has_capability && badge != 0 && badge < OWNER => {
                let index = free?;
                let end = begin.checked_add(bytes)?;
                if self.client(badge).is_some() {
                    return None;
                }
                let node = Node(self.supplies.cap(landing));
                let first = NODE_SPACE + 1;
                let supplies =
                    self.supplies
                        .of_others(node, NODE_BITS, NODE_MEMORY, NODE_SPACE, first);
                self.clients[index] = Some(Client {
                    badge,
                    supplies,
                    begin,
                    end,
                    pages: 0,
                    stop: None,
                });
            }
            FORGET => {
                let is_it = |client: &Option<Client>| {
                    client.as_ref().is_some_and(|client| client.badge == badge)
                };
                let index = self.clients.iter().position(is_it)?;
                self.forget(index)?;
            }
            STATE => {
                let client = self.client(badge)?;
                let stop = client.stop.unwrap_or(Stop {
                    kind: 0,
                    counter: 0,
                    address: 0,
                });
                let words = [client.pages, stop.kind, stop.counter, stop.address];
                return Some(Message::new(0, words));
            }
            _ => return None,
        }
        Some(Message::new(0, []))
    }
}

impl Client {
    fn has(&self, address: u64) -> bool {
        (self.begin..self.end).contains(&address)
    }

    /// Maps a page around an address, or says why there is none.
    fn give(&mut self, address: u64) -> Result<(), u64> {
        let at = address / PAGE_BYTES * PAGE_BYTES;
        let space = self.supplies.space();
        let rights = Rights::READ.or(Rights::WRITE);
        let frame = self.supplies.frame().map_err(|_| NO_MEMORY)?;
        match self.supplies.map(frame, space, at, rights) {
            Ok(()) => {
                self.pages += 1;
                Ok(())
            }
            // Another thread has touched it, too.
            Err(Error::AlreadyMapped) => Ok(()),
            Err(_) => Err(NO_MEMORY),
        }
    }
}
