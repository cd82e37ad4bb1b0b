//! `innerkeep audit follow`: records are saved, verified and shown as they come.

use std::time::Duration;

use policy_engine::audit::{Frame, Story};
use serde_json::json;

use super::agent::{Address, Connection};
use super::saved::{self, Saved};
use super::{read_key, tell};
use crate::args::audit::FollowArgs;
use crate::error::Failure;
use crate::output::{Output, Report};

pub(super) fn run(arguments: &FollowArgs, output: Output) -> Result<(), Failure> {
    let Some(address) = Address::parse(&arguments.source)? else {
        return Err(Failure::Usage {
            argument: "SOURCE",
            expected: "an agent: a file does not change",
            found: arguments.source.clone(),
        });
    };
    let key = arguments.key.as_deref().map(read_key).transpose()?;
    let nonce = super::nonce(arguments.nonce.as_deref())?.map_or_else(super::random, Ok)?;
    let mut saved = Saved::open(&arguments.output)?;
    let connection = Connection::open(&address, arguments.timeout)?;
    // The genesis each time: another one is another start of the agent.
    let (_, begin) = connection.read(0)?;
    let first = begin.into_iter().take(1).collect::<Vec<_>>();
    if !saved.frames.is_empty() {
        Story::read(&[saved.frames.clone(), first].concat(), key.as_ref())?;
    }
    // The head first: what follows it is covered by a checkpoint.
    let last = if arguments.once { Some(head(&connection, &nonce)?) } else { None };
    let mut shown = 0;
    loop {
        let next = saved::next(&saved.frames);
        let (bytes, frames) = connection.read(next)?;
        if frames.is_empty() {
            if let Some(bytes) = last {
                saved.add(&bytes, Vec::new())?;
                let nonce = hex::encode(nonce);
                let report = Report {
                    json: json!({ "kind": "head", "nonce": nonce }),
                    text: format!("    head  nonce {nonce}"),
                };
                return output.result(&report).map_err(Failure::file("write to", "standard output"));
            }
            std::thread::sleep(Duration::from_secs(u64::from(arguments.interval)));
            continue;
        }
        let all = [saved.frames.as_slice(), &frames].concat();
        let story = Story::read(&all, key.as_ref())?;
        if story.next() <= next {
            let found = "records that were there already, instead of the next ones".to_owned();
            return Err(Failure::Service { code: "AUDIT_UNREACHABLE", found });
        }
        saved.add(&bytes, frames)?;
        for told in story.told().iter().skip(shown) {
            let report = Report { json: tell::facts(told), text: tell::line(told) };
            output.result(&report).map_err(Failure::file("write to", "standard output"))?;
        }
        shown = story.told().len();
        // Only what a signature covers is worth giving up the original for.
        if arguments.acknowledge && story.require_signed(&[]).is_ok() {
            connection.acknowledge(story.next())?;
        }
    }
}

/// A head that answers a nonce, with the evidence, as frames of a file.
fn head(connection: &Connection, nonce: &[u8]) -> Result<Vec<u8>, Failure> {
    let answer = connection.head(nonce, true)?;
    let evidence = Some(answer.evidence).filter(|evidence| !evidence.is_empty());
    let mut bytes = evidence.map(|evidence| Frame::Evidence(evidence).encode()).unwrap_or_default();
    bytes.extend(Frame::Head(answer.head).encode());
    Ok(bytes)
}
