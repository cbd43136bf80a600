//! Which programs there are, and what each of them is given.

use alloc::vec;
use alloc::vec::Vec;

use mielin_kernel::Executable;
use mielin_kernel::archive::Archive;
use mielin_user::agents::{CARRIER, USER};
use mielin_user::console::Device;
use mielin_user::line::{READER, WRITER};
use mielin_user::net::{self, card};
use mielin_user::objects::Endpoint;
use mielin_user::process::Gift;
use mielin_user::startup::slot;
use mielin_user::{Information, Rights};

use crate::pool::Pool;
use crate::service::{Recipe, Service, Shared};
use crate::watch::Services;
use crate::{Failure, Log, log};

/// Those that serve come before those that are served.
const SERVERS: u8 = 120;
const SHELL: u8 = 110;
/// Agents have at most this.
const AGENTS_MAX: u64 = 80;

/// What a program is made of: 2 MiB.
const MAKING: u8 = 21;
/// By which this program knows who asks about services: those of faults are the numbers of services, and one more.
const ASKER: u64 = 1 << 32;
/// By which the network's server knows the carrier.
const TRANSFER_CLIENT: u64 = 1;

/// Memory of a program without needs of its own: 256 KiB.
const SMALL: u8 = 18;

struct Endpoints {
    console: Endpoint,
    net: Endpoint,
    pages: Endpoint,
    agents: Endpoint,
    root: Endpoint,
}

/// Starts them all, in the order in which they need each other.
pub(crate) fn start(
    information: Information,
    pool: &mut Pool,
    archive: Archive<'static>,
    console: Device,
    log: &Log,
) -> Result<Services, Failure> {
    let endpoints = Endpoints {
        console: pool.supplies.endpoint()?,
        net: pool.supplies.endpoint()?,
        pages: pool.supplies.endpoint()?,
        agents: pool.supplies.endpoint()?,
        root: pool.supplies.endpoint()?,
    };
    let mut maker = Maker {
        information,
        pool,
        archive,
        endpoints,
    };
    let recipes = vec![
        maker.console(console)?,
        maker.net()?,
        maker.pages()?,
        maker.agents()?,
        maker.transfer()?,
        maker.shell()?,
    ];
    let endpoint = maker.endpoints.root;
    let mut faults = Vec::new();
    let mut list = Vec::new();
    for (recipe, badge) in recipes.into_iter().zip(1..) {
        faults.push(pool.supplies.mint(endpoint.0, Rights::ALL, badge)?);
        list.push(Service::new(recipe, pool.supplies.slot()?));
    }
    let reply = pool.supplies.reply()?;
    for (service, faults) in list.iter_mut().zip(&faults) {
        service.start(information, &pool.supplies, Endpoint(*faults))?;
        log!(log, "{} runs", service.recipe.name);
    }
    Ok(Services {
        supplies: pool.supplies.clone(),
        endpoint,
        faults,
        reply,
        list,
    })
}

struct Maker<'a> {
    information: Information,
    pool: &'a mut Pool,
    archive: Archive<'static>,
    endpoints: Endpoints,
}

impl Maker<'_> {
    /// A program of the archive, which writes on the console.
    fn recipe(&mut self, name: &'static str, service: Option<Endpoint>) -> Result<Recipe, Failure> {
        let bytes = self.archive.find(name).ok_or(Failure::Missing(name))?;
        let architecture = self.information.architecture() as u16;
        let executable = Executable::parse(bytes, architecture);
        let executable = executable.map_err(|error| Failure::Load(name, error.into()))?;
        let mut gifts = vec![Gift::calls(slot::CONSOLE, self.endpoints.console.0, WRITER)];
        if let Some(service) = service {
            gifts.push(Gift::serves(slot::SERVICE, service.0));
        }
        Ok(Recipe {
            name,
            service,
            executable,
            memory: self.pool.piece(MAKING)?,
            own: (self.pool.piece(SMALL)?, SMALL),
            priority: SERVERS,
            node_bits: 8,
            gifts,
            lines: Vec::new(),
            arguments: Vec::new(),
            shared: Vec::new(),
            takes_along: &[],
        })
    }

    /// The console's server has the device and its interrupt, and no console but that.
    fn console(&mut self, device: Device) -> Result<Recipe, Failure> {
        let mut recipe = self.recipe("console", Some(self.endpoints.console))?;
        recipe.gifts = vec![
            Gift::serves(slot::SERVICE, self.endpoints.console.0),
            Gift::whole(slot::OWN, device.0),
        ];
        recipe.lines = vec![(slot::OWN + 1, mielin_user::console::LINE)];
        Ok(recipe)
    }

    /// The network server has the card, if there is one, and memory that it shares with it: always the same, as the card writes to it until it is reset.
    fn net(&mut self) -> Result<Recipe, Failure> {
        let mut recipe = self.recipe("net", Some(self.endpoints.net))?;
        let supplies = &mut self.pool.supplies;
        if let Some(card) = card::find(supplies, self.information)? {
            let shared = card::shared_memory(supplies)?;
            let own = card.capabilities().chain([(net::slot::SHARED, shared.0)]);
            recipe
                .gifts
                .extend(own.map(|(slot, cap)| Gift::whole(slot, cap)));
            let line = card.line.map(|line| (net::slot::INTERRUPT, line));
            recipe.lines.extend(line);
            recipe.arguments = card.arguments().to_vec();
        }
        Ok(recipe)
    }

    /// The page server has nothing but its endpoint: memory comes with those whose pages it maps.
    fn pages(&mut self) -> Result<Recipe, Failure> {
        let mut recipe = self.recipe("pages", Some(self.endpoints.pages))?;
        recipe.node_bits = 10;
        // Whom it has served before it knows no more.
        recipe.takes_along = &["agents"];
        Ok(recipe)
    }

    /// The agent server has the largest piece of memory, the files, and the right to give low priorities.
    fn agents(&mut self) -> Result<Recipe, Failure> {
        let files = self
            .archive
            .find("files")
            .ok_or(Failure::Missing("files"))?;
        let mut frames = Vec::new();
        let supplies = &mut self.pool.supplies;
        supplies.large_frames_of(files, |frame| frames.push(frame))?;
        let mut recipe = self.recipe("agents", Some(self.endpoints.agents))?;
        recipe.own = self.pool.largest()?;
        let (pages, agents) = (self.endpoints.pages.0, self.endpoints.agents.0);
        recipe.gifts.extend([
            Gift {
                badge: AGENTS_MAX,
                ..Gift::whole(slot::SCHEDULING, self.information.scheduling().0)
            },
            Gift::calls(slot::OWN, pages, mielin_user::pages::OWNER),
            // Without badges: it makes the fault endpoints of agents' programs of the one, and their capabilities for itself of the other.
            Gift::calls(slot::OWN + 1, pages, 0),
            Gift::calls(slot::OWN + 2, agents, 0),
        ]);
        // Each page of the agents' program has a slot, as far as they share it.
        recipe.node_bits = 12;
        recipe.arguments = vec![files.len() as u64];
        recipe.shared = vec![Shared {
            frames,
            bits: 21,
            rights: Rights::READ,
        }];
        Ok(recipe)
    }

    /// The carrier of stored agents has the network, and the agent server for these.
    fn transfer(&mut self) -> Result<Recipe, Failure> {
        let mut recipe = self.recipe("transfer", None)?;
        let own = &self.endpoints;
        recipe
            .gifts
            .push(Gift::calls(slot::OWN, own.net.0, TRANSFER_CLIENT));
        recipe
            .gifts
            .push(Gift::calls(slot::OWN + 1, own.agents.0, CARRIER));
        Ok(recipe)
    }

    /// The shell may read lines, ask for agents, and ask about services.
    fn shell(&mut self) -> Result<Recipe, Failure> {
        let mut recipe = self.recipe("shell", None)?;
        recipe.priority = SHELL;
        recipe.gifts = vec![
            Gift::calls(slot::CONSOLE, self.endpoints.console.0, READER),
            Gift::calls(slot::OWN, self.endpoints.agents.0, USER),
            Gift::calls(slot::OWN + 1, self.endpoints.root.0, ASKER),
        ];
        Ok(recipe)
    }
}
