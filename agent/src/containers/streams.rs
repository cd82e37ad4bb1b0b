//! The streams of a process that is about to be made, and what becomes of them when it is there.

use std::os::fd::OwnedFd;

use protocol::Endpoint;
use protocol::agent::{ReadStreamRequest, WriteStreamRequest};
use protocol::ids::ContainerId;
use protocol::status::RpcError;

use crate::context::Agent;
use crate::engine::Stdio;
use crate::streams::{HostSockets, Permits, Ports, Streams};

/// Streams that wait for their process.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Without pipes a terminal comes with the process.
    pipes: Option<Streams>,
    sockets: Option<HostSockets>,
}

impl Waiting {
    /// The sockets that the request names, taken from those who wait for it; `None` if it names none.
    pub(super) async fn sockets(agent: &Agent, ports: Ports) -> Result<Option<HostSockets>, RpcError> {
        match (&agent.passfd, ports.is_any()) {
            (_, false) => Ok(None),
            (Some(passfd), true) => Ok(Some(passfd.take(ports).await?)),
            // As upstream's without the port: the streams are absent.
            (None, true) => Ok(Some(HostSockets::default())),
        }
    }

    /// Pipes, or the wish for a terminal. `user` gets the ends that the process has.
    pub(super) fn open(
        agent: &Agent,
        terminal: bool,
        user: u32,
        sockets: Option<HostSockets>,
    ) -> Result<(Stdio, Self), RpcError> {
        if terminal {
            return Ok((Stdio::Terminal, Self { pipes: None, sockets }));
        }
        let (ends, streams) = Streams::pipes(agent.pipe_size)?;
        ends.give_to(user)?;
        let stdio = Stdio::Pipes { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr };
        Ok((stdio, Self { pipes: Some(streams), sockets }))
    }

    /// The process is there: its streams go to the host's sockets, to requests, or, where policy lets nobody read them, nowhere.
    pub(super) fn meet(
        self,
        agent: &Agent,
        container: &ContainerId,
        exec: &str,
        terminal: Option<OwnedFd>,
    ) -> Result<Streams, RpcError> {
        let streams = match (self.pipes, terminal) {
            (Some(streams), None) => streams,
            (None, Some(master)) => Streams::terminal(master)?,
            _ => {
                let text = "the engine gave other streams than were ordered".to_owned();
                return Err(RpcError::Failed("CONTAINER_STREAMS", text));
            }
        };
        let permits = permits(agent, container, exec, self.sockets.is_some());
        match self.sockets {
            Some(sockets) => streams.attach(sockets, permits),
            None if !permits.read => streams.drain(),
            None => {}
        }
        Ok(streams)
    }
}

/// What the policy says now of reading the streams of this process, and of writing them where the host would without asking again.
fn permits(agent: &Agent, container: &ContainerId, exec: &str, by_sockets: bool) -> Permits {
    let (container_id, exec_id) = (container.to_string(), exec.to_owned());
    let read = ReadStreamRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
        ..ReadStreamRequest::default()
    };
    let write = WriteStreamRequest { container_id, exec_id, ..WriteStreamRequest::default() };
    Permits {
        read: agent.gate.would_permit(Endpoint::ReadStdout, &read),
        write: by_sockets && agent.gate.would_permit(Endpoint::WriteStdin, &write),
    }
}
