//! `mielin mesh`, and the commands that run a node.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use mielin_mesh::{
    BootstrapNode, CredentialsError, IntroductionError, JoinError, JoinProgress, JoinRequest,
    JoinToken, MeshService, NodeCredentials, TokenError, create_mesh, join, load_credentials,
};
use mielin_mesh_core::NodeRole;
use serde::Serialize;

use super::{leaves, random, reach, trouble};
use crate::api::{
    Approval, Approved, Done, MemberLine, MeshStatus, PathLine, PendingNodes, Revocations, Revoke,
    Revoked, TokenIssued, TokenRequest, Trouble,
};
use crate::args::{
    ApproveArgs, DaemonArgs, JoinArgs, MeshCommand, NodeArgs, RevokeArgs, RoleChoice, StartArgs,
    TokenArgs,
};
use crate::client::Client;
use crate::daemon::{self, Node, role_name};
use crate::duration::format_span;
use crate::failure::Failure;
use crate::home::{Home, is_in_use};
use crate::output::{Output, fields, short, table};

const HOST_AND_PORT: &str = "write it as HOST:PORT, such as 192.168.1.100:9000";
const NEW_TOKEN: &str =
    "`mielin mesh token`, on the node that founded the mesh, prints a new token";

/// How long the token that `mesh start` prints is good for.
const FIRST_TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// How long `mesh leave` waits for the daemon to end.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn run(
    data_dir: &Path,
    command: MeshCommand,
    output: Output,
) -> Result<(), Failure> {
    let client = Client::new(data_dir);
    match command {
        MeshCommand::Start(arguments) => start(data_dir, arguments, output).await,
        MeshCommand::Join(arguments) => join_mesh(data_dir, arguments, output).await,
        MeshCommand::Status(_) => status(&client, output).await,
        MeshCommand::Peers(_) => peers(&client, output).await,
        MeshCommand::Token(arguments) => token(&client, &arguments, output).await,
        MeshCommand::Approve(ApproveArgs {
            node: Some(node), ..
        }) => approve(&client, node, output).await,
        MeshCommand::Approve(ApproveArgs { node: None, .. }) => pending(&client, output).await,
        MeshCommand::Revoke(RevokeArgs {
            node: Some(node),
            reason,
            ..
        }) => revoke(&client, Revoke { node, reason }, output).await,
        MeshCommand::Revoke(RevokeArgs { node: None, .. }) => revoked(&client, output).await,
        MeshCommand::Metrics(_) => reach::metrics(&client, output).await,
        MeshCommand::Ping(arguments) => reach::ping(&client, arguments, output).await,
        MeshCommand::Route(arguments) => reach::route(&client, arguments, output).await,
        MeshCommand::Lookup(arguments) => reach::look_up(&client, arguments, output).await,
        MeshCommand::Leaf(command) => leaves::run(&client, command, output).await,
        MeshCommand::Leave(_) => leave(data_dir, &client, output).await,
    }
}

/// What a node prints with `-o json` when it is up.
#[derive(Serialize)]
struct Ready {
    node: String,
    name: String,
    role: &'static str,
    address: String,
    /// With `mesh start`: admits one other node.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

async fn start(data_dir: &Path, arguments: StartArgs, output: Output) -> Result<(), Failure> {
    let home = Home::open(data_dir)?;
    let credentials = match load_credentials(home.path())? {
        Some(credentials) if credentials.authority().is_none() => {
            return Err(Failure::refused(format!(
                "the data directory {} belongs to a node of a mesh that another node founded",
                data_dir.display()
            ))
            .hint("run that node with `mielin daemon`, or found a mesh in another directory with --data-dir"));
        }
        Some(credentials) => same_node(credentials, arguments.name.as_deref(), arguments.role)?,
        None => {
            let name = arguments.name.map_or_else(default_name, Ok)?;
            let settings = home.settings(&arguments.node)?;
            daemon::check_bind(settings.bind.unwrap_or(daemon::DEFAULT_BIND))?;
            create_mesh(
                home.path(),
                &name,
                arguments.role.map_or(NodeRole::Core, NodeRole::from),
            )?
        }
    };
    run_node(home, credentials, None, &arguments.node, output).await
}

async fn join_mesh(data_dir: &Path, arguments: JoinArgs, output: Output) -> Result<(), Failure> {
    let token = arguments.token.as_deref().map(parse_token).transpose()?;
    let member = parse_member(&arguments.address)?;
    let home = Home::open(data_dir)?;
    let credentials = match load_credentials(home.path())? {
        Some(credentials) => {
            if token
                .as_ref()
                .is_some_and(|token| token.mesh_id() != credentials.mesh_id())
            {
                return Err(Failure::refused(format!(
                    "the data directory {} belongs to a node of another mesh than the token",
                    data_dir.display()
                ))
                .hint("join with another directory, named with --data-dir"));
            }
            if credentials.revoked().contains(&credentials.id()) {
                return Err(Failure::refused(format!(
                    "the data directory {} belongs to a node that was revoked: it is no member of the mesh any more",
                    data_dir.display()
                ))
                .hint("join with another directory, named with --data-dir, which makes a new node"));
            }
            same_node(credentials, arguments.name.as_deref(), arguments.role)?
        }
        None => {
            let name = arguments.name.map_or_else(default_name, Ok)?;
            let granted = token.as_ref().and_then(JoinToken::role);
            let role = arguments
                .role
                .map(NodeRole::from)
                .or(granted)
                .unwrap_or(NodeRole::Edge);
            let bind = home.settings(&arguments.node)?.bind;
            if let Some(bind) = bind {
                daemon::check_bind(bind)?;
            }
            let addresses = addresses(&member, bind.unwrap_or(daemon::DEFAULT_BIND)).await?;
            let request = |address| JoinRequest {
                address,
                token: token.clone(),
                name: name.clone(),
                role,
            };
            join_any(&home, addresses, request, output).await?
        }
    };
    run_node(home, credentials, Some(&member), &arguments.node, output).await
}

/// `mielin daemon`.
pub(crate) async fn daemon(
    data_dir: &Path,
    arguments: DaemonArgs,
    output: Output,
) -> Result<(), Failure> {
    let nobody = || {
        Failure::not_found(format!(
            "the data directory {} belongs to no node",
            data_dir.display()
        ))
        .hint("make one with `mielin mesh start` or `mielin mesh join ADDR`")
    };
    if !data_dir.exists() {
        return Err(nobody());
    }
    let home = Home::open(data_dir)?;
    let credentials = load_credentials(home.path())?.ok_or_else(nobody)?;
    run_node(home, credentials, None, &arguments.node, output).await
}

async fn run_node(
    home: Home,
    credentials: NodeCredentials,
    joined: Option<&BootstrapNode>,
    arguments: &NodeArgs,
    output: Output,
) -> Result<(), Failure> {
    let mut settings = home.settings(arguments)?;
    if let Some(member) = joined {
        // Unlike the node that others are told to join, it may listen anywhere.
        settings.bind = Some(settings.bind.unwrap_or_else(daemon::free_default_bind));
        settings.add_bootstrap(member);
    }
    let data_dir = home.path().to_path_buf();
    let node = Node::start(home, credentials, settings).await?;
    node.run(arguments.stop_on_stdin_end, |mesh| {
        announce(mesh, &data_dir, output)
    })
    .await
}

/// Says that the node is up, and on the founding node how others can join.
fn announce(mesh: &MeshService, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let local = mesh.local();
    let token = match mesh.authority() {
        Some(authority) => Some(
            authority
                .issue_token(None, FIRST_TOKEN_LIFETIME)?
                .to_string(),
        ),
        None => None,
    };
    let ready = Ready {
        node: local.id.to_string(),
        name: local.name.clone(),
        role: role_name(local.role),
        address: local.address.to_string(),
        token,
    };
    output.result(&ready, |ready| {
        let mut text = fields(&[
            ("node", ready.node.clone()),
            ("name", format!("{} ({})", ready.name, ready.role)),
            ("address", ready.address.clone()),
            ("data", data_dir.display().to_string()),
        ]);
        if let Some(token) = &ready.token {
            let address = &ready.address;
            text.push_str(&format!(
                "\nOne other node can join within an hour with\n\n  mielin mesh join {address} --token {token}\n\n\
                 `mielin mesh token` prints a token for the next one.\n"
            ));
        }
        text.push_str("\nCtrl-C stops the node.\n");
        text
    })
}

/// A node that exists may get another name, but not another role: that stands in its certificate.
fn same_node(
    mut credentials: NodeCredentials,
    name: Option<&str>,
    role: Option<RoleChoice>,
) -> Result<NodeCredentials, Failure> {
    let role = role.map(NodeRole::from);
    if role.is_some_and(|role| role != credentials.role()) {
        return Err(Failure::refused(format!(
            "this data directory belongs to a node with the role {}, which its certificate fixes",
            role_name(credentials.role())
        ))
        .hint("leave --role out, or use another directory with --data-dir"));
    }
    if let Some(name) = name.filter(|name| *name != credentials.name()) {
        credentials.rename(name)?;
    }
    Ok(credentials)
}

/// What a joiner's user should know, and on the approving side compare.
fn progress_text(progress: &JoinProgress) -> String {
    match progress {
        JoinProgress::Introduced { mesh, .. } => format!(
            "the mesh shows the fingerprint {mesh}; compare it with the one that `mielin node info` shows there"
        ),
        JoinProgress::Redirected { issuer } => format!("sent on to {issuer}, which admits nodes"),
        JoinProgress::WaitingForApproval { node, limit } => format!(
            "waiting up to {} for somebody to compare this node's id and run there\n\n  mielin mesh approve {node}\n",
            format_span(*limit),
        ),
        JoinProgress::Admitted { role, .. } => format!("admitted as {}", role_name(*role)),
    }
}

fn parse_token(text: &str) -> Result<JoinToken, Failure> {
    text.trim()
        .parse()
        .map_err(|error: TokenError| Failure::usage(error.to_string()).hint(NEW_TOKEN))
}

fn parse_member(address: &str) -> Result<BootstrapNode, Failure> {
    address.parse().map_err(|error| {
        Failure::usage(format!("`{address}` is not an address: {error}")).hint(HOST_AND_PORT)
    })
}

/// Those addresses of a member that a node which listens there could dial later: with another it would have been admitted,
/// and a use of its token spent, in vain.
async fn addresses(member: &BootstrapNode, bind: SocketAddr) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = member.resolve().await.map_err(|error| {
        Failure::unreachable(format!("cannot find {member}: {error}"))
            .hint("check the host's name, or give its IP address")
    })?;
    addresses.retain(|address| can_dial(bind, *address));
    if addresses.is_empty() {
        let (ours, theirs) = match bind {
            SocketAddr::V4(_) => ("IPv4", "IPv6"),
            SocketAddr::V6(_) => ("IPv6", "IPv4"),
        };
        return Err(Failure::usage(format!(
            "a node that listens on {bind} speaks {ours}, and {member} is an {theirs} address"
        ))
        .hint(format!(
            "listen on both, with --bind '[::]:{}'",
            bind.port()
        )));
    }
    Ok(addresses)
}

/// A socket on `[::]` speaks IPv4, too.
fn can_dial(bind: SocketAddr, address: SocketAddr) -> bool {
    let both = bind.is_ipv6() && bind.ip().is_unspecified();
    both || bind.is_ipv4() == address.is_ipv4()
}

/// Joins at the first of a member's addresses that answers.
async fn join_any(
    home: &Home,
    addresses: Vec<SocketAddr>,
    request: impl Fn(SocketAddr) -> JoinRequest,
    output: Output,
) -> Result<NodeCredentials, Failure> {
    let mut silence = None;
    for address in addresses {
        let tell = |progress| output.progress(progress_text(&progress));
        match join(home.path(), request(address), tell).await {
            Err(
                error @ (JoinError::Introduction(_)
                | JoinError::Unreachable { .. }
                | JoinError::Timeout { .. }),
            ) => silence = silence.or(Some(error)),
            outcome => return Ok(outcome?),
        }
    }
    Err(silence.expect("a name that resolves has an address").into())
}

/// The host's name and four digits, so that several nodes of one machine differ.
fn default_name() -> Result<String, Failure> {
    let random: [u8; 2] = random()?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .take_while(|&c| c != '.')
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(32)
        .collect();
    let host = if host.is_empty() {
        "node".to_owned()
    } else {
        host.to_ascii_lowercase()
    };
    Ok(format!("{host}-{:04x}", u16::from_be_bytes(random)))
}

/// What `mesh status -o json` prints.
#[derive(Serialize)]
struct Status<'a> {
    node: &'a str,
    name: &'a str,
    role: &'a str,
    members: Vec<StatusLine<'a>>,
    #[serde(flatten)]
    trouble: &'a Trouble,
}

#[derive(Serialize)]
struct StatusLine<'a> {
    node: &'a str,
    name: &'a str,
    role: &'a str,
    state: &'a str,
    address: Option<&'a str>,
}

impl Status<'_> {
    fn of(status: &MeshStatus) -> Status<'_> {
        let members = status.members.iter().map(|member| StatusLine {
            node: &member.node,
            name: &member.name,
            role: &member.role,
            state: &member.state,
            address: member.address.as_deref(),
        });
        Status {
            node: &status.node,
            name: &status.name,
            role: &status.role,
            members: members.collect(),
            trouble: &status.trouble,
        }
    }
}

/// What the node says of the mesh.
async fn members(client: &Client, output: Output) -> Result<MeshStatus, Failure> {
    let status: MeshStatus = client.get("/v1/mesh").await?;
    if !status.silent.is_empty() {
        let silent: Vec<_> = status.silent.iter().map(reach::node_name).collect();
        let silent = silent.join(", ");
        output.progress(format!(
            "no answer from {silent}: leaves there may be missing"
        ));
    }
    Ok(status)
}

async fn status(client: &Client, output: Output) -> Result<(), Failure> {
    let status = members(client, output).await?;
    output.result(&Status::of(&status), |_| {
        format!(
            "{} ({}), node {}\n{}\n{}",
            status.name,
            status.role,
            short(&status.node),
            trouble::text(&status.trouble),
            members_table(&status.members)
        )
    })
}

/// What `mesh peers -o json` prints.
#[derive(Serialize)]
struct Peers {
    peers: Vec<MemberLine>,
}

async fn peers(client: &Client, output: Output) -> Result<(), Failure> {
    let MeshStatus { node, members, .. } = members(client, output).await?;
    let peers = members
        .into_iter()
        .filter(|member| member.node != node)
        .collect();
    output.result(&Peers { peers }, |peers| match peers.peers.as_slice() {
        [] => "no other members; `mielin mesh token` prints a token with which one can join\n"
            .to_owned(),
        peers => members_table(peers),
    })
}

fn members_table(members: &[MemberLine]) -> String {
    let rows: Vec<_> = members
        .iter()
        .map(|member| {
            [
                member.name.clone(),
                member.role.clone(),
                member.state.clone(),
                or_dash(member.address.as_ref()),
                path(member),
                or_dash(member.version.as_ref()),
                short(&member.node).to_owned(),
            ]
        })
        .collect();
    let titles = [
        "NAME", "ROLE", "STATE", "ADDRESS", "PATH", "VERSION", "NODE",
    ];
    table(&titles, &rows)
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

fn path(member: &MemberLine) -> String {
    match &member.path {
        None => "-".to_owned(),
        Some(PathLine::Direct) => "direct".to_owned(),
        Some(PathLine::Relayed { relay: None }) => "via a relay".to_owned(),
        Some(PathLine::Relayed { relay: Some(relay) }) => {
            format!("via {}", reach::node_name(relay))
        }
    }
}

async fn token(client: &Client, arguments: &TokenArgs, output: Output) -> Result<(), Failure> {
    let request = TokenRequest {
        role: arguments.role.map(|role| role_name(role.into()).to_owned()),
        ttl_s: arguments.ttl.as_secs(),
        uses: arguments.uses,
    };
    let issued: TokenIssued = client.post("/v1/mesh/tokens", &request).await?;
    output.result(&issued, |issued| issued.token.clone())
}

async fn pending(client: &Client, output: Output) -> Result<(), Failure> {
    let pending: PendingNodes = client.get("/v1/mesh/pending").await?;
    output.result(&pending, |pending| {
        if pending.pending.is_empty() {
            return "no node is waiting for approval\n".to_owned();
        }
        let rows: Vec<_> = pending
            .pending
            .iter()
            .map(|node| {
                [
                    node.name.clone(),
                    node.role.clone(),
                    node.address.clone(),
                    node.node.clone(),
                ]
            })
            .collect();
        table(&["NAME", "ROLE", "ADDRESS", "NODE"], &rows)
    })
}

async fn approve(client: &Client, node: String, output: Output) -> Result<(), Failure> {
    let approved: Approved = client
        .post("/v1/mesh/approvals", &Approval { node })
        .await?;
    output.result(&approved, |approved| {
        format!("{} ({}) may join", approved.name, short(&approved.node))
    })
}

async fn revoke(client: &Client, request: Revoke, output: Output) -> Result<(), Failure> {
    let revoked: Revoked = client.post("/v1/mesh/revocations", &request).await?;
    output.result(&revoked, |revoked| {
        let (name, already) = (
            reach::node_name(&revoked.node),
            if revoked.new { "" } else { " already" },
        );
        format!("{name} is revoked{already}: no member lets it in any more")
    })
}

async fn revoked(client: &Client, output: Output) -> Result<(), Failure> {
    let revocations: Revocations = client.get("/v1/mesh/revocations").await?;
    output.result(&revocations, |revocations| {
        if revocations.revoked.is_empty() {
            return "no node is revoked\n".to_owned();
        }
        let rows: Vec<_> = revocations
            .revoked
            .iter()
            .map(|one| {
                [
                    or_dash(one.node.name.as_ref()),
                    one.node.node.clone(),
                    one.reason.clone(),
                ]
            })
            .collect();
        table(&["NAME", "NODE", "REASON"], &rows)
    })
}

/// Returns when the daemon's process has ended.
async fn leave(data_dir: &Path, client: &Client, output: Output) -> Result<(), Failure> {
    let done: Done = client.post("/v1/mesh/leave", &Done {}).await?;
    let deadline = Instant::now() + LEAVE_LIMIT;
    while is_in_use(data_dir) {
        if Instant::now() > deadline {
            let lock = data_dir.join("daemon.lock");
            return Err(Failure::internal(format!(
                "the daemon has left the mesh, but did not end within {LEAVE_LIMIT:?}"
            ))
            .hint(format!(
                "end it with `kill`; {} has its process id",
                lock.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    output.result(&done, |_| {
        "left the mesh; the daemon has stopped\n".to_owned()
    })
}

impl From<CredentialsError> for Failure {
    fn from(error: CredentialsError) -> Failure {
        match error {
            CredentialsError::Directory(error) => error.into(),
            CredentialsError::Name(_) => {
                Failure::usage(error.to_string()).hint("choose another --name")
            }
            CredentialsError::Exists { .. } => Failure::refused(error.to_string())
                .hint("`mielin daemon` runs that node; a new one needs a directory of its own"),
            CredentialsError::StoredName { .. } => Failure::internal(error.to_string())
                .hint("write one into that file: up to 64 bytes without spaces, as `mesh start --name` takes them"),
            CredentialsError::NotYet { .. } => Failure::refused(error.to_string())
                .hint("set this machine's clock, and start it again; nothing is wrong with the data directory"),
            CredentialsError::Expired { .. } => Failure::refused(error.to_string()).hint(
                "give it a new directory with --data-dir; `mielin mesh token` prints a token",
            ),
            _ => Failure::internal(format!("the node's identity cannot be used: {error}"))
                .hint("bring back a copy of the data directory, or join with another --data-dir"),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Failure {
        let message = format!("not joined: {error}");
        match error {
            JoinError::Credentials(error) => error.into(),
            JoinError::Directory(error) => error.into(),
            JoinError::Introduction(error) => {
                Failure::unreachable(message).hint(introduction_hint(&error))
            }
            JoinError::Unreachable { .. } | JoinError::Timeout { .. } => {
                Failure::unreachable(message)
                    .hint("is a node running at that address, and does a firewall let UDP pass?")
            }
            JoinError::Address { address, .. } if address.is_ipv6() => Failure::usage(message)
                .hint("join at an IPv6 address of a member, with --bind '[::]:9000'"),
            JoinError::Address { .. } => Failure::usage(message).hint(HOST_AND_PORT),
            JoinError::Token(TokenError::Malformed) => Failure::usage(message).hint(NEW_TOKEN),
            JoinError::Token(_) => Failure::refused(message).hint(NEW_TOKEN),
            JoinError::NameTaken { .. } => {
                Failure::refused(message).hint("choose another with --name")
            }
            JoinError::Role { .. } => Failure::refused(message).hint(
                "leave --role out, or ask for another token with `mielin mesh token --role ROLE`",
            ),
            JoinError::NotApproved { .. } => Failure::refused(message)
                .hint("or join with a token: `mielin mesh token` prints one there"),
            JoinError::Revoked { .. } => {
                Failure::refused(message).hint("`mielin mesh revoke`, on a member, shows why")
            }
            JoinError::Rejected => {
                Failure::refused(message).hint("ask whoever runs the node that founded the mesh")
            }
            JoinError::TooManyAttempts { .. } => Failure::refused(message).hint(NEW_TOKEN),
            JoinError::Busy => Failure::refused(message).hint("try again in a moment"),
            JoinError::IssuerUnknown { .. } => Failure::refused(message)
                .hint("`mielin mesh status` on a member shows the addresses of the others"),
            JoinError::Peer { .. } => {
                Failure::internal(message).hint("look at what that node has logged")
            }
            _ => Failure::internal(message),
        }
    }
}

fn introduction_hint(error: &IntroductionError) -> &'static str {
    match error {
        IntroductionError::Unreachable { source, .. }
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            "nobody listens on that TCP port: is a node running there, and is it this port?"
        }
        IntroductionError::Unreachable { .. } | IntroductionError::Timeout { .. } => {
            "check the address, and that a firewall lets TCP and UDP pass to that port"
        }
        IntroductionError::Foreign { .. } | IntroductionError::Root { .. } => {
            "another program listens there; give the address that `mielin mesh start` printed"
        }
    }
}

#[cfg(test)]
mod tests {
    use mielin_mesh_core::NodeId;

    use super::*;

    #[test]
    fn only_a_socket_for_all_addresses_speaks_both_families() {
        for (bind, v4, v6) in [
            ("127.0.0.1:0", true, false),
            ("0.0.0.0:9000", true, false),
            ("[::]:9000", true, true),
            ("[::1]:0", false, true),
        ] {
            let bind = bind.parse().unwrap();
            assert_eq!(can_dial(bind, "10.0.0.1:9".parse().unwrap()), v4, "{bind}");
            assert_eq!(can_dial(bind, "[::1]:9".parse().unwrap()), v6, "{bind}");
        }
    }

    #[test]
    fn the_joiner_shows_the_whole_id_that_is_compared() {
        let node = NodeId::of_public_key(b"key");
        let text = progress_text(&JoinProgress::WaitingForApproval {
            node,
            limit: Duration::from_secs(600),
        });
        assert!(text.contains(&node.to_string()), "{text}");
        assert!(text.contains("10 minutes"), "{text}");
    }
}
