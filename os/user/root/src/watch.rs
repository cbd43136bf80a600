//! What is done when a service faults, and for whoever may ask about services.

use alloc::vec::Vec;

use mielin_user::objects::{Endpoint, Message, Reply};
use mielin_user::services::{DESCRIBE, FAIL, SHUT_DOWN, is_fault};
use mielin_user::system_call::{Received, now};
use mielin_user::{Cap, FaultKind, Information, Supplies};

use crate::service::Service;
use crate::{Failure, Log, log};

/// A service that faults so often within [`SECONDS`] is given up: it would do so for ever.
const FAULTS_MAX: usize = 5;
const SECONDS: u64 = 60;

/// The services, and where faults and questions arrive.
pub(crate) struct Services {
    pub(crate) supplies: Supplies,
    pub(crate) endpoint: Endpoint,
    /// The same endpoint with the badge of each service: its number and one more.
    pub(crate) faults: Vec<Cap>,
    pub(crate) reply: Reply,
    pub(crate) list: Vec<Service>,
}

pub(crate) struct Watch<'a> {
    information: Information,
    services: Services,
    log: &'a Log,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(information: Information, services: Services, log: &'a Log) -> Self {
        Self {
            information,
            services,
            log,
        }
    }

    /// Watches, for as long as the machine runs.
    pub(crate) fn watch(&mut self) -> Result<(), Failure> {
        loop {
            let reply = Some(self.services.reply);
            let received = self.services.endpoint.receive(reply)?;
            let number = received.badge.wrapping_sub(1) as usize;
            if is_fault(&received) && number < self.services.list.len() {
                self.faulted(number, &received)?;
            } else {
                let answer = self.answer(&received)?;
                // Whoever asked may be gone, as when it had itself fail.
                let _ = self.services.reply.send(&answer);
            }
        }
    }

    fn faulted(&mut self, number: usize, fault: &Received) -> Result<(), Failure> {
        let [kind, counter, address, _] = fault.words;
        let name = self.services.list[number].recipe.name;
        match FaultKind::from_number(kind) {
            Some(kind) => log!(
                self.log,
                "{name} failed: {kind:?} fault at {counter:#x}, address {address:#x}"
            ),
            None => log!(self.log, "{name} failed"),
        }
        let failed = &mut self.services.list[number];
        failed.end(self.information, &self.services.supplies)?;
        let then = now();
        let since = then.saturating_sub(self.information.ticks_per_second() * SECONDS);
        failed.recently.retain(|at| *at >= since);
        if failed.recently.len() >= FAULTS_MAX {
            log!(self.log, "{name} fails again and again, and was given up");
            failed.give_up(self.information, &self.services.supplies)?;
            return self.begin_along(number);
        }
        failed.recently.push(then);
        self.start_again(number)?;
        self.begin_along(number)
    }

    /// Has those begin anew that cannot go on without what a service knew.
    fn begin_along(&mut self, number: usize) -> Result<(), Failure> {
        let along = self.services.list[number].recipe.takes_along;
        for other in 0..self.services.list.len() {
            let with = &self.services.list[other];
            if with.thread.is_some() && along.contains(&with.recipe.name) {
                let service = &mut self.services.list[other];
                service.end(self.information, &self.services.supplies)?;
                self.start_again(other)?;
            }
        }
        Ok(())
    }

    /// Starts a service that was taken apart.
    fn start_again(&mut self, number: usize) -> Result<(), Failure> {
        let Services {
            supplies,
            faults,
            list,
            ..
        } = &mut self.services;
        let service = &mut list[number];
        service.restarts += 1;
        let faults = Endpoint(faults[number]);
        match service.start(self.information, supplies, faults) {
            Ok(()) => log!(self.log, "{} was started again", service.recipe.name),
            Err(failure) => {
                // What it needs is not there any more.
                log!(self.log, "{failure}");
                service.end(self.information, supplies)?;
                service.give_up(self.information, supplies)?;
            }
        }
        Ok(())
    }

    fn answer(&self, received: &Received) -> Result<Message, Failure> {
        let refused = Message::new(1, []);
        let done = Message::new(0, []);
        let number = usize::try_from(received.words[0]).unwrap_or(usize::MAX);
        let service = self.services.list.get(number);
        let answer = match (received.info.label(), service) {
            (DESCRIBE, Some(service)) => {
                let words = [u64::from(service.thread.is_some()), service.restarts, 0];
                let name = service.recipe.name.as_bytes();
                self.information.buffer().message(0, words, name)
            }
            (FAIL, Some(service)) if service.thread.is_some() => {
                service.fail()?;
                done
            }
            (SHUT_DOWN, _) => {
                self.information.power().shut_down(received.words[0] == 0)?;
                done
            }
            _ => refused,
        };
        Ok(answer)
    }
}
