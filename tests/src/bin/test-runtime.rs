//! A runtime of the host, obedient or evil, for whoever has none: `test-runtime SOCKET` speaks to the guest agent over its vsock (`SOCKET` takes
//! `CONNECT PORT`, as hypervisors' hybrid sockets do). Calls come on standard input, one JSON object a line; each is answered by a line on standard
//! output: `{"status": "OK" or the name of a ttrpc status, "text": …, "reply": …}`.

use anyhow::{Context, bail};
use protocol::agent::{
    CopyFileRequest, GetMetricsRequest, SetPolicyRequest, Storage, UpdateInterfaceRequest,
};
use protocol::types::{IPAddress, Interface};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use tests::agent_client::requests::{create, exec, read, remove, sandbox, signal, start, wait};
use tests::agent_client::{AgentClient, PORT, Refused};
use xtask::vm::connect_vsock;

/// Until the agent listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// A regular file that only its owner reads.
const FILE_MODE: u32 = 0o100_600;

/// What a runtime asks for.
#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
enum Call {
    CreateSandbox {
        id: String,
        #[serde(default)]
        storages: Vec<Disk>,
    },
    CreateContainer {
        id: String,
        root: String,
        args: Vec<String>,
        #[serde(default)]
        env: Vec<String>,
        #[serde(default)]
        annotations: HashMap<String, String>,
        #[serde(default)]
        storages: Vec<Disk>,
    },
    StartContainer {
        id: String,
    },
    WaitProcess {
        id: String,
    },
    SignalProcess {
        id: String,
        signal: u32,
    },
    RemoveContainer {
        id: String,
    },
    ExecProcess {
        id: String,
        exec: String,
        args: Vec<String>,
    },
    ReadStdout {
        id: String,
        length: u32,
    },
    CopyFile {
        path: String,
        data: String,
    },
    SetPolicy {
        text: String,
    },
    GetMetrics,
    UpdateInterface {
        name: String,
        hardware: String,
        address: String,
        mask: String,
    },
}

/// A storage of the wire.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    driver: String,
    source: String,
    fstype: String,
    place: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    driver_options: Vec<String>,
}

impl From<Disk> for Storage {
    fn from(disk: Disk) -> Self {
        let Disk { driver, source, fstype, place, options, driver_options } = disk;
        Self { driver, source, fstype, mount_point: place, options, driver_options, ..Self::default() }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket] = arguments.as_slice() else { bail!("test-runtime SOCKET") };
    let client = AgentClient::over(connect(Path::new(socket))?);
    for line in std::io::stdin().lock().lines() {
        let call: Call = serde_json::from_str(&line?).context("a call")?;
        let answer = match make(&client, call) {
            Ok(reply) => json!({ "status": "OK", "text": "", "reply": reply }),
            Err(Refused { code, text }) => json!({ "status": code, "text": text, "reply": null }),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn connect(socket: &Path) -> anyhow::Result<std::os::unix::net::UnixStream> {
    let end = Instant::now() + PATIENCE;
    loop {
        match connect_vsock(socket, PORT) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn make(client: &AgentClient, call: Call) -> Result<Value, Refused> {
    Ok(match call {
        Call::CreateSandbox { id, storages } => {
            let mut request = sandbox(&id);
            request.storages = storages.into_iter().map(Storage::from).collect();
            client.create_sandbox(&request).map(|_| Value::Null)?
        }
        Call::CreateContainer { id, root, args, env, annotations, storages } => {
            let mut request = create(&id, &root, &words(&args));
            request.storages = storages.into_iter().map(Storage::from).collect();
            if let Some(spec) = request.OCI.as_mut() {
                spec.Annotations = annotations;
                if let Some(process) = spec.Process.as_mut() {
                    process.Env.extend(env);
                }
            }
            client.create_container(&request).map(|_| Value::Null)?
        }
        Call::StartContainer { id } => client.start_container(&start(&id)).map(|_| Value::Null)?,
        Call::WaitProcess { id } => {
            client.wait_process(&wait(&id, "")).map(|ended| json!({ "exit": ended.status }))?
        }
        Call::SignalProcess { id, signal: number } => {
            client.signal_process(&signal(&id, "", number)).map(|_| Value::Null)?
        }
        Call::RemoveContainer { id } => client.remove_container(&remove(&id)).map(|_| Value::Null)?,
        Call::ExecProcess { id, exec: process, args } => {
            client.exec_process(&exec(&id, &process, &words(&args))).map(|_| Value::Null)?
        }
        Call::ReadStdout { id, length } => {
            let data = client.read_stdout(&read(&id, "", length))?.data;
            json!({ "bytes": data.len() })
        }
        Call::CopyFile { path, data } => {
            let request = CopyFileRequest {
                path,
                file_size: i64::try_from(data.len()).unwrap_or(i64::MAX),
                file_mode: FILE_MODE,
                dir_mode: 0o750,
                data: data.into_bytes(),
                ..CopyFileRequest::default()
            };
            client.copy_file(&request).map(|_| Value::Null)?
        }
        Call::SetPolicy { text } => {
            let request = SetPolicyRequest { policy: text, ..SetPolicyRequest::default() };
            client.set_policy(&request).map(|_| Value::Null)?
        }
        Call::UpdateInterface { name, hardware, address, mask } => {
            let interface = Interface {
                device: name.clone(),
                name,
                hwAddr: hardware,
                IPAddresses: vec![IPAddress { address, mask, ..IPAddress::default() }],
                ..Interface::default()
            };
            let request = UpdateInterfaceRequest {
                interface: Some(interface).into(),
                ..UpdateInterfaceRequest::default()
            };
            client.update_interface(&request).map(|_| Value::Null)?
        }
        Call::GetMetrics => {
            let metrics = client.get_metrics(&GetMetricsRequest::default())?.metrics;
            json!({ "metrics": metrics })
        }
    })
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}
