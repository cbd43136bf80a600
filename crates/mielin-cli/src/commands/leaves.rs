//! `mielin mesh leaf`.

use mielin_mesh_core::leaf::{Admission, SecretKey};
use mielin_page::{NAME_BYTES_MAX, NameTooLong, Page};
use serde::Serialize;

use super::random;
use crate::api::{LeafAdmitted, LeafLine, LeafList, NewLeaf, RemoveLeaf, WayLine, path_segment};
use crate::args::{LeafAddArgs, LeafCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::out_file::OutFile;
use crate::output::{Output, short, table};

pub(super) async fn run(
    client: &Client,
    command: LeafCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        LeafCommand::Add(arguments) => add(client, arguments, output).await,
        LeafCommand::List(_) => {
            let list: LeafList = client.get("/v1/leaves").await?;
            output.result(&list, list_text)
        }
        LeafCommand::Remove(arguments) => {
            let path = format!("/v1/leaves/{}/remove", path_segment(&arguments.leaf));
            let removed: LeafLine = client
                .post(
                    &path,
                    &RemoveLeaf {
                        force: arguments.force,
                    },
                )
                .await?;
            output.result(&removed, |removed| {
                format!("leaf {} is admitted no more\n", removed.name)
            })
        }
    }
}

async fn add(client: &Client, arguments: LeafAddArgs, output: Output) -> Result<(), Failure> {
    let LeafAddArgs { name, page, .. } = arguments;
    if page.is_some() && name.len() > NAME_BYTES_MAX {
        let error = NameTooLong { bytes: name.len() };
        return Err(Failure::usage(error.to_string()).hint("choose a shorter name"));
    }
    if let Some(page) = page.as_deref().filter(|page| page.exists()) {
        return Err(Failure::refused(format!(
            "{} exists, and may be the only page of another leaf",
            page.display()
        ))
        .hint("name another file"));
    }
    // Where no page can be made nobody is admitted.
    let secrets = (random()?, random()?);
    let file = page.as_deref().map(OutFile::at).transpose()?;
    let admitted: LeafAdmitted = client.post("/v1/leaves", &NewLeaf { name }).await?;
    let page = match file {
        None => None,
        Some(file) => {
            let written = write_page(&admitted, secrets, file);
            Some(written.map_err(|failure| {
                let hint = format!(
                    "{}; the leaf is admitted: `mielin mesh leaf remove {}` takes that back",
                    failure.hint, admitted.name
                );
                failure.hint(hint)
            })?)
        }
    };
    output.result(&Added { admitted, page }, |added| match &added.page {
        None => format!("{}\n", added.admitted.admission),
        Some(page) => format!(
            "leaf {} is admitted; its provisioning page is {page}\n",
            added.admitted.name
        ),
    })
}

/// What `mesh leaf add -o json` prints.
#[derive(Serialize)]
struct Added {
    #[serde(flatten)]
    admitted: LeafAdmitted,
    /// The file with the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<String>,
}

fn write_page(
    admitted: &LeafAdmitted,
    (key, seed): ([u8; 32], [u8; 32]),
    mut file: OutFile,
) -> Result<String, Failure> {
    let strange = |error: &dyn std::fmt::Display| {
        Failure::internal(format!("the daemon's admission is none: {error}"))
    };
    let admission = admitted
        .admission
        .parse::<Admission>()
        .map_err(|error| strange(&error))?;
    let key = SecretKey::from_bytes(key);
    let page = Page::new(&admitted.name, key, admission, seed).map_err(|error| strange(&error))?;
    let name = file.name().to_owned();
    file.write(&page.encode())?;
    file.finish()?;
    Ok(name)
}

fn list_text(list: &LeafList) -> String {
    let ways: String = list.ways.iter().map(way_text).collect();
    if list.leaves.is_empty() {
        return format!("no leaves; `mielin mesh leaf add NAME` admits one\n\n{ways}");
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
    format!("{}\n{ways}", table(&titles, &rows))
}

/// A line for each way, so that people see why a leaf that they have set up does not appear.
fn way_text(way: &WayLine) -> String {
    let WayLine {
        kind,
        way,
        closed,
        packets,
        dropped,
        last_dropped,
    } = way;
    let mut text = format!("{kind} {way}: {packets} packets taken in, {dropped} dropped");
    if let Some(why) = last_dropped {
        text += &format!(" (the last one: {why})");
    }
    if let Some(why) = closed {
        text += &format!("; closed: {why}");
    }
    text + "\n"
}

fn battery(leaf: &LeafLine) -> String {
    match (leaf.battery_percent, leaf.charging) {
        (Some(percent), Some(true)) => format!("{percent}% charging"),
        (Some(percent), _) => format!("{percent}%"),
        (None, _) => "-".to_owned(),
    }
}
