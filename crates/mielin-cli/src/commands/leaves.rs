//! `mielin mesh leaf`.

use crate::api::{LeafAdmitted, LeafLine, LeafList, NewLeaf, path_segment};
use crate::args::LeafCommand;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, short, table};

pub(super) async fn run(
    client: &Client,
    command: LeafCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        LeafCommand::Add(arguments) => {
            let new = NewLeaf {
                name: arguments.name,
            };
            let admitted: LeafAdmitted = client.post("/v1/leaves", &new).await?;
            output.result(&admitted, |admitted| format!("{}\n", admitted.admission))
        }
        LeafCommand::List(_) => {
            let list: LeafList = client.get("/v1/leaves").await?;
            output.result(&list, list_text)
        }
        LeafCommand::Remove(arguments) => {
            let path = format!("/v1/leaves/{}/remove", path_segment(&arguments.leaf));
            let removed: LeafLine = client.post(&path, &()).await?;
            output.result(&removed, |removed| {
                format!("leaf {} is admitted no more\n", removed.name)
            })
        }
    }
}

fn list_text(list: &LeafList) -> String {
    if list.leaves.is_empty() {
        return "no leaves; `mielin mesh leaf add NAME` admits one\n".to_owned();
    }
    let rows: Vec<_> = list
        .leaves
        .iter()
        .map(|leaf| {
            [
                leaf.name.clone(),
                leaf.state.clone(),
                battery(leaf),
                match leaf.ready {
                    Some(true) => "yes".to_owned(),
                    Some(false) => "no".to_owned(),
                    None => "-".to_owned(),
                },
                leaf.agents.len().to_string(),
                leaf.number.to_string(),
                leaf.node
                    .as_deref()
                    .map_or_else(|| "-".to_owned(), |node| short(node).to_owned()),
            ]
        })
        .collect();
    let titles = [
        "NAME", "STATE", "BATTERY", "READY", "AGENTS", "NUMBER", "NODE",
    ];
    table(&titles, &rows)
}

fn battery(leaf: &LeafLine) -> String {
    match (leaf.battery_percent, leaf.charging) {
        (Some(percent), Some(true)) => format!("{percent}% charging"),
        (Some(percent), _) => format!("{percent}%"),
        (None, _) => "-".to_owned(),
    }
}
