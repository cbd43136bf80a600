//! The agents of the whole mesh: every member is asked for those that it knows.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use mielin_mesh_core::registry::{AgentListing, AgentPage, AgentQuery, Prefix};
use mielin_mesh_core::{Location, NodeId};
use mielin_mesh_wire::Ed25519;
use tokio::task::JoinSet;

use crate::error::MeshError;
use crate::service::request;
use crate::serving::{Refusal, RequestHandler, request_handler};
use crate::state::Shared;

/// Requests for a page of agents.
pub(crate) const AGENTS: u16 = 2;

/// How long one member may take for one page.
const PAGE_LIMIT: Duration = Duration::from_secs(3);
/// Members that are asked at a time.
const ASKED_AT_ONCE: usize = 64;
/// Pages that one member may have: all the records that a node may hold and keep, at half a page each.
const PAGES_MAX: usize = 256;

/// The agents of the mesh, as far as its members could be asked.
#[derive(Clone, Debug, Default)]
pub struct MeshAgents {
    /// Every agent that somebody holds, or keeps the record of, ordered by id.
    pub agents: Vec<Location>,
    /// Active members that did not answer, ordered by id: what they hold may be missing.
    pub silent: Vec<NodeId>,
    /// Active members that list nothing, because their registry is off, ordered by id.
    pub unlisted: Vec<NodeId>,
}

/// Asks all active members.
pub(crate) async fn agents(shared: &Arc<Shared>, prefix: Prefix) -> Result<MeshAgents, MeshError> {
    if !shared.config.enable_registry {
        return Err(MeshError::RegistryOff);
    }
    let members = shared.cores().membership.members();
    let active = members.iter().filter(|member| member.state.is_active());
    let ids = active.map(|member| member.identity.id);
    let others = ids.filter(|id| *id != shared.local.id).collect();
    let mut listing = AgentListing::default();
    let (mut silent, mut unlisted) = (Vec::new(), Vec::new());
    let ask = |node| {
        let (shared, prefix) = (Arc::clone(shared), prefix.clone());
        async move { pages(&shared, node, prefix).await }
    };
    for (node, pages) in ask_each(others, ask).await {
        match pages {
            Ok(pages) => {
                for page in pages {
                    listing.add(node, page);
                }
            }
            Err(MeshError::Refused { .. }) => unlisted.push(node),
            Err(error) => {
                tracing::debug!(?node, %error, "a member does not say which agents it knows");
                silent.push(node);
            }
        }
    }
    silent.sort_unstable();
    unlisted.sort_unstable();
    let cores = shared.cores();
    let mut query = Some(AgentQuery {
        prefix: prefix.clone(),
        after: None,
    });
    while let Some(asked) = query {
        let page = cores.registry.page(&asked, cores.table.kept());
        query = page.next(&asked);
        listing.add(shared.local.id, page);
    }
    let agents = listing.finish(&cores.registry, &prefix);
    Ok(MeshAgents {
        agents,
        silent,
        unlisted,
    })
}

/// Asks these nodes, many at a time, and gives the answers in the order in which they came.
pub(crate) async fn ask_each<T, F>(
    nodes: Vec<NodeId>,
    ask: impl Fn(NodeId) -> F,
) -> Vec<(NodeId, T)>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut waiting = nodes.into_iter();
    let mut asked = JoinSet::new();
    let mut answers = Vec::new();
    loop {
        while asked.len() < ASKED_AT_ONCE
            && let Some(node) = waiting.next()
        {
            let answer = ask(node);
            asked.spawn(async move { (node, answer.await) });
        }
        match asked.join_next().await {
            None => return answers,
            Some(Ok(answer)) => answers.push(answer),
            Some(Err(error)) => tracing::error!(%error, "asking a member failed"),
        }
    }
}

type Page = AgentPage<Ed25519>;

/// All pages of one member.
async fn pages(shared: &Arc<Shared>, node: NodeId, prefix: Prefix) -> Result<Vec<Page>, MeshError> {
    let after = None;
    let mut query = Some(AgentQuery { prefix, after });
    let mut pages = Vec::new();
    while let Some(asked) = query {
        let bytes = asked.encode().into();
        let bytes = request(shared, &node, AGENTS, bytes, PAGE_LIMIT).await?;
        let page = Page::decode(&asked, &bytes).map_err(|_| MeshError::MalformedResponse(node))?;
        query = page.next(&asked);
        pages.push(page);
        if pages.len() == PAGES_MAX {
            return Err(MeshError::MalformedResponse(node));
        }
    }
    Ok(pages)
}

/// Answers members that ask for the agents that this node knows.
pub(crate) fn agents_handler(shared: Weak<Shared>) -> Arc<dyn RequestHandler> {
    request_handler(move |_, asked: Bytes| {
        let shared = shared.clone();
        async move {
            let shared = shared
                .upgrade()
                .ok_or_else(|| Refusal::new(Refusal::NOT_HERE, "the node is shutting down"))?;
            if !shared.config.enable_registry {
                let message = "the registry is switched off here";
                return Err(Refusal::new(Refusal::NOT_HERE, message));
            }
            let query = AgentQuery::decode(&asked)
                .map_err(|error| Refusal::new(Refusal::NOT_HERE, error.to_string()))?;
            let cores = shared.cores();
            let page: Page = cores.registry.page(&query, cores.table.kept());
            Ok(page.encode().into())
        }
    })
}
