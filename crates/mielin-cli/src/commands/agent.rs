//! `mielin agent`.

use std::path::Path;

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::Method;
use mielin_cells::{Budget, BudgetError};
use mielin_mesh_core::limits::PAYLOAD_BYTES_MAX;
use mielin_wasm::Limits;
use serde::Serialize;

use super::copies;
use super::top::{self, budgets};
use super::wasm::read_module;
use crate::api::{
    AgentDetails, AgentList, Delivered, Done, Ended, MeshStatus, Message, Migrate, MoveLine, Moved,
    Spawn, Spawned, Usage,
};
use crate::args::{AgentCommand, LogsArgs, MigrateArgs, SendArgs, SpawnArgs, StrategyChoice};
use crate::client::{Client, JsonLines, agent_path, next_data};
use crate::duration::{format_bytes, format_us};
use crate::failure::Failure;
use crate::input::{PROGRAM_INPUT, read_file, read_stdin};
use crate::output::{Output, fields, short, stderr_is_terminal, table, write_stdout};

pub(crate) async fn run(
    data_dir: &Path,
    command: AgentCommand,
    output: Output,
) -> Result<(), Failure> {
    let client = Client::new(data_dir);
    match command {
        AgentCommand::List(_) => list(&client, output).await,
        AgentCommand::Top(arguments) => top::run(&client, &arguments, output).await,
        AgentCommand::Spawn(arguments) => spawn(&client, arguments, output).await,
        AgentCommand::Inspect(arguments) => inspect(&client, &arguments.agent, output).await,
        AgentCommand::Logs(arguments) => logs(&client, &arguments, output).await,
        AgentCommand::Send(arguments) => send(&client, arguments, output).await,
        AgentCommand::Pause(arguments) => {
            act(&client, &arguments.agent, "pause", "paused", output).await
        }
        AgentCommand::Resume(arguments) => {
            act(&client, &arguments.agent, "resume", "resumed", output).await
        }
        AgentCommand::Hibernate(arguments) => {
            act(&client, &arguments.agent, "hibernate", "sleeps", output).await
        }
        AgentCommand::Terminate(arguments) => {
            act(&client, &arguments.agent, "terminate", "terminated", output).await
        }
        AgentCommand::Recover(arguments) => {
            act(&client, &arguments.agent, "recover", "goes on", output).await
        }
        AgentCommand::Remove(arguments) => {
            act(&client, &arguments.agent, "remove", "removed", output).await
        }
        AgentCommand::Checkpoint(arguments) => {
            copies::checkpoint(&client, &arguments, output).await
        }
        AgentCommand::Restore(arguments) => copies::restore(&client, &arguments, output).await,
        AgentCommand::Clone(arguments) => copies::duplicate(&client, arguments, output).await,
        AgentCommand::Migrate(arguments) => migrate(&client, &arguments, output).await,
        AgentCommand::Wait(arguments) => wait(&client, &arguments.agent, output).await,
    }
}

async fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let list: AgentList = client.get("/v1/agents").await?;
    if output.is_json() {
        return output.result(&list, |_| String::new());
    }
    let mesh: MeshStatus = client.get("/v1/mesh").await?;
    let name_of = |node: &str| {
        let member = mesh.members.iter().find(|member| member.node == node);
        member
            .map_or(short(node), |member| member.name.as_str())
            .to_owned()
    };
    let names = |nodes: &[String]| {
        let names: Vec<_> = nodes.iter().map(|node| name_of(node)).collect();
        names.join(", ")
    };
    if !list.silent.is_empty() {
        let silent = names(&list.silent);
        output.progress(format!(
            "no answer from {silent}: agents there may be missing"
        ));
    }
    if !list.unlisted.is_empty() {
        let unlisted = names(&list.unlisted);
        output.progress(format!(
            "agents of {unlisted} are not listed: the registry is off there or here"
        ));
    }
    output.result(&list, |list| {
        if list.agents.is_empty() {
            return "no agents; start one with `mielin agent spawn FILE`\n".to_owned();
        }
        let rows: Vec<_> = list
            .agents
            .iter()
            .map(|agent| {
                [
                    agent.name.clone(),
                    agent.state.clone(),
                    name_of(&agent.node),
                    agent.agent.clone(),
                ]
            })
            .collect();
        table(&["NAME", "STATE", "NODE", "AGENT"], &rows)
    })
}

async fn spawn(client: &Client, arguments: SpawnArgs, output: Output) -> Result<(), Failure> {
    if arguments.budget.iter().any(String::is_empty) {
        return Err(BudgetError::Form(String::new()).into());
    }
    let budget = arguments.budget.join(",");
    budget.parse::<Budget>()?;
    let request = Spawn {
        module: read_module(&arguments.file)?,
        name: arguments.name,
        hint: arguments
            .file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned()),
        args: arguments.args,
        env: arguments.env,
        stdin: arguments
            .stdin
            .as_deref()
            .map_or(Ok(Vec::new()), read_input)?,
        allow: arguments.allow,
        budget,
    };
    let spawned: Spawned = client.post("/v1/agents", &request).await?;
    output.result(&spawned, |spawned| spawned.agent.clone())
}

/// A file, or standard input for `-`.
fn read_input(path: &Path) -> Result<Vec<u8>, Failure> {
    let max = Limits::default().input_bytes;
    if path == Path::new("-") {
        read_stdin(PROGRAM_INPUT, max)
    } else {
        read_file(path, PROGRAM_INPUT, max)
    }
}

async fn inspect(client: &Client, agent: &str, output: Output) -> Result<(), Failure> {
    let details: AgentDetails = client.get(&agent_path(agent, "")).await?;
    output.result(&details, |agent| {
        let mut text = fields(&[
            ("agent", agent.agent.clone()),
            ("name", agent.name.clone()),
            ("state", agent.state.clone()),
            (
                "node",
                format!("{} {}", agent.node_name, short(&agent.node)),
            ),
            ("moves", agent.moves.to_string()),
            ("may", agent.grants.clone()),
            ("memory", memory(&agent.usage)),
            ("stdout", format_bytes(agent.stdout_bytes)),
            ("stderr", format_bytes(agent.stderr_bytes)),
            (
                "messages",
                format!(
                    "{} received, {} waiting, {} sent",
                    agent.usage.messages_received, agent.mailbox_count, agent.usage.messages_sent
                ),
            ),
            (
                "time",
                format!(
                    "{} on a processor; {} in {} turns",
                    format_us(agent.usage.cpu_us),
                    format_us(agent.busy_us),
                    agent.turns
                ),
            ),
            ("calls", agent.usage.host_calls.to_string()),
            ("denied", agent.denied.to_string()),
            ("engine", agent.engine.clone()),
            ("module", agent.module.clone()),
        ]);
        if !agent.usage.budgets.is_empty() {
            text.push_str(&format!("budgets: {}\n", budgets(&agent.usage)));
        }
        if agent.usage.throttled {
            text.push_str("throttled: it was faster than its budget allows\n");
        }
        if let Some(node) = &agent.waits_for {
            text.push_str(&format!(
                "frozen: it was handed over to {}, which has not said whether it has it\n",
                short(node)
            ));
        }
        for line in &agent.host_log {
            text.push_str(&format!("{:>5}: {}\n", line.level, line.text));
        }
        text
    })
}

fn memory(usage: &Usage) -> String {
    let (bytes, max) = (usage.memory_bytes, usage.memory_bytes_max);
    format!("{} of at most {}", format_bytes(bytes), format_bytes(max))
}

/// Copies a log to standard output as the agent wrote it, byte for byte; says on standard error if it was cut off.
async fn logs(client: &Client, arguments: &LogsArgs, output: Output) -> Result<(), Failure> {
    let stream = if arguments.stderr { "stderr" } else { "stdout" };
    let below = format!("/logs?stream={stream}&follow={}", arguments.follow);
    let response = client
        .open(
            Method::GET,
            &agent_path(&arguments.agent, &below),
            Bytes::new(),
        )
        .await?;
    let mut body = response.into_body();
    while let Some(data) = next_data(&mut body).await? {
        write_stdout(&data)?;
    }
    // The log was printed, whatever becomes of this question.
    if let Ok(details) = client
        .get::<AgentDetails>(&agent_path(&arguments.agent, ""))
        .await
    {
        let len = if arguments.stderr {
            details.stderr_bytes
        } else {
            details.stdout_bytes
        };
        if len >= details.log_bytes_max {
            output.progress(format!(
                "the log is full: what the agent wrote to {stream} after these {} was not kept",
                format_bytes(len)
            ));
        }
    }
    Ok(())
}

/// What `agent send -o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Sent {
    Sequence(u64),
    /// The reply, if it is text.
    Reply(String),
    ReplyBase64(String),
}

async fn send(client: &Client, arguments: SendArgs, output: Output) -> Result<(), Failure> {
    let payload = match arguments.message.as_str() {
        "-" => read_stdin("message", PAYLOAD_BYTES_MAX)?,
        _ => arguments.message.into_bytes(),
    };
    let wait_ms = arguments
        .wait
        .then(|| u64::try_from(arguments.timeout.as_millis()).unwrap_or(u64::MAX));
    let request = Message { payload, wait_ms };
    let delivered = client
        .post(&agent_path(&arguments.agent, "/messages"), &request)
        .await?;
    match delivered {
        Delivered::Sequence(sequence) => output.result(&Sent::Sequence(sequence), |_| {
            format!("delivered as message {sequence}")
        }),
        Delivered::Reply(reply) if output.is_json() => {
            let sent = match String::from_utf8(reply) {
                Ok(text) => Sent::Reply(text),
                Err(error) => Sent::ReplyBase64(BASE64.encode(error.as_bytes())),
            };
            output.result(&sent, |_| String::new())
        }
        Delivered::Reply(mut reply) => {
            if !reply.ends_with(b"\n") {
                reply.push(b'\n');
            }
            write_stdout(&reply)
        }
    }
}

async fn act(
    client: &Client,
    agent: &str,
    action: &str,
    done: &str,
    output: Output,
) -> Result<(), Failure> {
    let acted: Spawned = client
        .post(&agent_path(agent, &format!("/{action}")), &Done {})
        .await?;
    output.result(&acted, |_| format!("{agent} {done}"))
}

async fn migrate(client: &Client, arguments: &MigrateArgs, output: Output) -> Result<(), Failure> {
    let strategy = match arguments.strategy {
        StrategyChoice::Auto => "auto",
        StrategyChoice::StopCopy => "stop-copy",
        StrategyChoice::PreCopy => "pre-copy",
        StrategyChoice::PostCopy => "post-copy",
        StrategyChoice::Hybrid => "hybrid",
    };
    let moved = move_agent(
        client,
        &arguments.agent,
        &arguments.node,
        strategy,
        Some(arguments.downtime_ms),
        |phase, bytes| {
            if stderr_is_terminal() {
                output.progress(format!("{phase:<14} {}", format_bytes(bytes)));
            }
        },
    )
    .await?;
    output.result(&moved, |moved| moved_text(moved, &arguments.node))
}

/// Moves an agent and tells `progress` each phase and the bytes sent until then.
pub(crate) async fn move_agent(
    client: &Client,
    agent: &str,
    node: &str,
    strategy: &str,
    downtime_ms: Option<u64>,
    mut progress: impl FnMut(&str, u64),
) -> Result<Moved, Failure> {
    let request = Migrate {
        node: node.to_owned(),
        strategy: strategy.to_owned(),
        downtime_ms,
    };
    let mut lines = JsonLines::new(
        client
            .post_for_stream(&agent_path(agent, "/migrate"), &request)
            .await?,
    );
    while let Some(line) = lines.next::<MoveLine>().await? {
        match line {
            MoveLine::Progress(step) => progress(&step.phase, step.bytes),
            MoveLine::Done(moved) => return Ok(*moved),
            MoveLine::Error(failure) => return Err(failure),
        }
    }
    Err(
        Failure::unreachable("the daemon stopped before the move was over")
            .hint("`mielin agent list` on another node shows where the agent is"),
    )
}

fn moved_text(moved: &Moved, node: &str) -> String {
    let mut text = format!(
        "moved to {node} ({}): down for {}, {} in all, {} sent, pages in {} {}\n",
        moved.strategy,
        format_us(moved.downtime_us),
        format_us(moved.total_us),
        format_bytes(moved.bytes),
        moved.rounds,
        if moved.rounds == 1 { "round" } else { "rounds" },
    );
    let rows: Vec<_> = moved
        .phases
        .iter()
        .map(|phase| [phase.phase.clone(), format_us(phase.us)])
        .collect();
    // The way to a leaf has none.
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&["PHASE", "TIME"], &rows));
    }
    if let Some(asked) = &moved.asked {
        text.push_str(&format!(
            "\nnot {asked}: none of its memory was left to follow it, or the target does not let memory follow\n"
        ));
    }
    if moved.followed > 0 {
        text.push_str(&format!(
            "\n{} pages followed it, and it waited for {} of them\n",
            moved.followed, moved.faults
        ));
    }
    if moved.page_bytes_sent < moved.page_bytes {
        text.push_str(&format!(
            "\n{} of pages crossed compressed to {}\n",
            format_bytes(moved.page_bytes),
            format_bytes(moved.page_bytes_sent)
        ));
    }
    if moved.throttled_percent > 0 {
        text.push_str(&format!(
            "\nit was kept from running for up to {} % of its time meanwhile\n",
            moved.throttled_percent
        ));
    }
    text
}

/// What `agent wait -o json` prints.
#[derive(Serialize)]
struct ExitCode {
    exit_code: i32,
}

async fn wait(client: &Client, agent: &str, output: Output) -> Result<(), Failure> {
    let ended: Ended = client.get(&agent_path(agent, "/wait")).await?;
    output.result(
        &ExitCode {
            exit_code: ended.exit_code,
        },
        |_| match &ended.failure {
            Some(failure) => format!("{} ({failure})", ended.exit_code),
            None => ended.exit_code.to_string(),
        },
    )
}
