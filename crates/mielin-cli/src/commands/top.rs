//! `mielin agent top`: what the agents of the mesh use up, again and again.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use terminal_size::{Height, Width, terminal_size};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::{Usage, UsageLine, UsageList};
use crate::args::{SortChoice, TopArgs};
use crate::client::Client;
use crate::duration::{format_bytes, format_us};
use crate::failure::Failure;
use crate::output::{Output, short, stdout_is_terminal, table, write_stdout};

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Top left, and: clear the rest of the line, clear what is below (ECMA-48, CUP, EL and ED).
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K";
const END_OF_SCREEN: &str = "\x1b[J";

/// What `agent top -o json` prints: one such line each time.
#[derive(Debug, Serialize)]
struct Top {
    /// What the shares of a processor are of.
    interval_ms: u64,
    agents: Vec<TopLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TopLine {
    #[serde(flatten)]
    line: UsageLine,
    /// Of one processor; `None` of an agent that was not there before, or does not answer.
    cpu_percent: Option<f64>,
}

pub(crate) async fn run(
    client: &Client,
    arguments: &TopArgs,
    output: Output,
) -> Result<(), Failure> {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before = look(client).await?;
    loop {
        ticks.tick().await;
        let after = look(client).await?;
        let top = compare(&before, &after, arguments.sort);
        if output.is_json() {
            output.result(&top, |_| String::new())?;
        } else if arguments.once {
            write_stdout(text(&top).as_bytes())?;
        } else if stdout_is_terminal() {
            write_stdout(screen(&text(&top), terminal_size()).as_bytes())?;
        } else {
            write_stdout(format!("{}\n", text(&top)).as_bytes())?;
        }
        if arguments.once {
            return Ok(());
        }
        before = after;
    }
}

/// What was seen, and when.
struct Look {
    at: Instant,
    list: UsageList,
}

async fn look(client: &Client) -> Result<Look, Failure> {
    let list = client.get("/v1/usage").await?;
    let at = Instant::now();
    Ok(Look { at, list })
}

fn compare(before: &Look, after: &Look, sort: SortChoice) -> Top {
    let interval = after.at.saturating_duration_since(before.at);
    let cpu_us = |line: &UsageLine| Some(line.usage.as_ref()?.cpu_us);
    let earlier = before.list.agents.iter();
    let earlier: HashMap<_, _> = earlier
        .filter_map(|line| Some((line.agent.as_str(), cpu_us(line)?)))
        .collect();
    let lines = after.list.agents.iter().map(|line| {
        let earlier = earlier.get(line.agent.as_str());
        let used = cpu_us(line).zip(earlier);
        let percent = used.map(|(now, earlier)| {
            let used = now.saturating_sub(*earlier) as f64;
            let share = used / interval.as_micros().max(1) as f64;
            (share * 1000.0).round() / 10.0
        });
        TopLine {
            line: line.clone(),
            cpu_percent: percent,
        }
    });
    let mut agents: Vec<_> = lines.collect();
    agents.sort_by(|a, b| order(sort, a, b));
    Top {
        interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        agents,
        silent: after.list.silent.clone(),
    }
}

/// Numbers from the largest, names from A; what is equal by name.
fn order(sort: SortChoice, a: &TopLine, b: &TopLine) -> Ordering {
    let largest = |number: fn(&Usage) -> u64| {
        let of = |line: &TopLine| Reverse(line.line.usage.as_ref().map(number));
        of(a).cmp(&of(b))
    };
    let percent = |line: &TopLine| line.cpu_percent.unwrap_or(-1.0);
    let ordering = match sort {
        SortChoice::Cpu => percent(b).total_cmp(&percent(a)),
        SortChoice::Time => largest(|usage| usage.cpu_us),
        SortChoice::Memory => largest(|usage| usage.memory_bytes),
        SortChoice::Messages => {
            largest(|usage| usage.messages_received.saturating_add(usage.messages_sent))
        }
        SortChoice::Log => largest(|usage| usage.log_bytes),
        SortChoice::HostCalls => largest(|usage| usage.host_calls),
        SortChoice::State => state(&a.line).cmp(state(&b.line)),
        SortChoice::Node => node(&a.line).cmp(node(&b.line)),
        SortChoice::Name => Ordering::Equal,
    };
    ordering.then_with(|| a.line.name.cmp(&b.line.name))
}

fn state(line: &UsageLine) -> &str {
    match &line.usage {
        Some(usage) if usage.throttled => "throttled",
        _ => &line.state,
    }
}

fn node(line: &UsageLine) -> &str {
    line.node.name.as_deref().unwrap_or(short(&line.node.node))
}

fn text(top: &Top) -> String {
    let sum: f64 = top
        .agents
        .iter()
        .filter_map(|agent| agent.cpu_percent)
        .sum();
    let mut text = format!(
        "{} {}, {sum:.1}% of a processor\n",
        top.agents.len(),
        if top.agents.len() == 1 {
            "agent"
        } else {
            "agents"
        },
    );
    if !top.silent.is_empty() {
        let silent: Vec<_> = top.silent.iter().map(|node| short(node)).collect();
        text.push_str(&format!(
            "not shown: agents of {}, which give no answer or no list\n",
            silent.join(", ")
        ));
    }
    text.push('\n');
    let rows: Vec<_> = top.agents.iter().map(row).collect();
    let heading = [
        "NAME", "STATE", "NODE", "CPU", "TIME", "MEMORY", "IN", "OUT", "LOG", "CALLS", "BUDGETS",
    ];
    text.push_str(&table(&heading, &rows));
    text
}

fn row(agent: &TopLine) -> [String; 11] {
    let line = &agent.line;
    let number =
        |number: &dyn Fn(&Usage) -> String| line.usage.as_ref().map_or("-".to_owned(), number);
    [
        line.name.clone(),
        state(line).to_owned(),
        node(line).to_owned(),
        agent
            .cpu_percent
            .map_or("-".to_owned(), |percent| format!("{percent:.1}%")),
        number(&|usage| format_us(usage.cpu_us)),
        number(&|usage| format_bytes(usage.memory_bytes)),
        number(&|usage| usage.messages_received.to_string()),
        number(&|usage| usage.messages_sent.to_string()),
        number(&|usage| format_bytes(usage.log_bytes)),
        number(&|usage| usage.host_calls.to_string()),
        number(&budgets),
    ]
}

/// The budgets of an agent, with how much of each is used up.
pub(crate) fn budgets(usage: &Usage) -> String {
    let parts = usage
        .budgets
        .iter()
        .map(|line| match (line.used, line.max) {
            (Some(used), Some(max)) => {
                let percent = u128::from(used) * 100 / u128::from(max.max(1));
                format!("{} ({percent}%)", line.budget)
            }
            _ => line.budget.clone(),
        });
    parts.collect::<Vec<_>>().join(" ")
}

/// The text over what the terminal shows, cut to its size.
fn screen(text: &str, size: Option<(Width, Height)>) -> String {
    let (width, height) = size.map_or((80, 24), |(width, height)| (width.0, height.0));
    let (width, height) = (usize::from(width.max(1)), usize::from(height.max(2)));
    let count = text.lines().count();
    let mut screen = HOME.to_owned();
    // The cursor stands on the line below the last.
    let shown = if count < height { count } else { height - 2 };
    for line in text.lines().take(shown) {
        screen.extend(line.chars().take(width));
        screen.push_str(END_OF_LINE);
        screen.push_str("\r\n");
    }
    if shown < count {
        let more = format!("… and {} more", count - shown);
        screen.extend(more.chars().take(width));
        screen.push_str(END_OF_LINE);
        screen.push_str("\r\n");
    }
    screen.push_str(END_OF_SCREEN);
    screen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BudgetLine, NodeName};

    fn line(name: &str, usage: Option<Usage>) -> UsageLine {
        UsageLine {
            agent: format!("id of {name}"),
            name: name.to_owned(),
            state: "running".to_owned(),
            node: NodeName {
                node: "0123456789abcdef".to_owned(),
                name: (name != "far").then(|| "here".to_owned()),
            },
            usage,
        }
    }

    fn usage(cpu_us: u64, memory_bytes: u64) -> Usage {
        Usage {
            throttled: false,
            cpu_us,
            memory_bytes,
            memory_bytes_max: 1 << 20,
            messages_received: 1,
            messages_sent: 2,
            log_bytes: 3,
            host_calls: 4,
            budgets: Vec::new(),
        }
    }

    fn looks() -> (Look, Look) {
        let at = Instant::now();
        let look = |after_ms, agents| Look {
            at: at + Duration::from_millis(after_ms),
            list: UsageList {
                agents,
                silent: Vec::new(),
            },
        };
        let before = vec![
            line("a", Some(usage(1000, 1))),
            line("b", Some(usage(0, 1))),
        ];
        let mut throttled = usage(501_000, 2 << 10);
        throttled.throttled = true;
        throttled.budgets = vec![
            BudgetLine {
                budget: "cpu=10s".to_owned(),
                used: Some(501_000_000),
                max: Some(10_000_000_000),
            },
            BudgetLine {
                budget: "cpu=20%".to_owned(),
                used: None,
                max: None,
            },
        ];
        let after = vec![
            line("a", Some(usage(201_000, 5 << 20))),
            line("b", Some(throttled)),
            line("far", None),
            line("new", Some(usage(7_000_000, 1))),
        ];
        (look(0, before), look(2000, after))
    }

    #[test]
    fn the_share_is_that_of_the_interval() {
        let (before, after) = looks();
        let top = compare(&before, &after, SortChoice::Name);
        let shares: Vec<_> = top.agents.iter().map(|agent| agent.cpu_percent).collect();
        assert_eq!(shares, [Some(10.0), Some(25.1), None, None]);
        assert_eq!(top.interval_ms, 2000);
        let json = serde_json::to_value(&top).expect("serializes");
        let b = &json["agents"][1];
        assert_eq!(
            (&b["cpu_percent"], &b["host_calls"]),
            (&25.1.into(), &4.into())
        );
        assert_eq!(b["budgets"][0]["budget"], "cpu=10s");
        assert!(json["agents"][2]["cpu_us"].is_null());
    }

    #[test]
    fn the_order_is_the_one_asked_for() {
        let (before, after) = looks();
        let names = |sort| {
            let top = compare(&before, &after, sort);
            let names = top.agents.iter().map(|agent| agent.line.name.clone());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(SortChoice::Cpu), "b a far new");
        assert_eq!(names(SortChoice::Time), "new b a far");
        assert_eq!(names(SortChoice::Memory), "a b new far");
        assert_eq!(names(SortChoice::Name), "a b far new");
        assert_eq!(names(SortChoice::State), "a far new b");
        assert_eq!(names(SortChoice::Node), "far a b new");
    }

    #[test]
    fn people_read_what_is_used_of_what() {
        let (before, after) = looks();
        let text = text(&compare(&before, &after, SortChoice::Cpu));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "4 agents, 35.1% of a processor");
        let cells: Vec<_> = lines[3].split_whitespace().collect();
        assert_eq!(cells[..4], ["b", "throttled", "here", "25.1%"]);
        assert!(lines[3].ends_with("cpu=10s (5%) cpu=20%"), "{text}");
        let far: Vec<_> = lines[5].split_whitespace().collect();
        assert_eq!(far[..5], ["far", "running", "0123456789ab", "-", "-"]);
    }

    #[test]
    fn a_screen_holds_no_more_than_it_can() {
        let size = |width, height| Some((Width(width), Height(height)));
        let whole = screen("one\ntwo\n", size(80, 24));
        assert_eq!(whole, "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n\x1b[J");
        let cut = screen("one\ntwo\nthree\nfour\n", size(3, 4));
        assert_eq!(cut, "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n… a\x1b[K\r\n\x1b[J");
        assert!(screen("one\n", size(0, 0)).contains("\x1b[J"));
    }
}
