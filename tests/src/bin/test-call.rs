//! One call of a ttrpc service, for guests that have no other client: `test-call SOCKET SERVICE METHOD PAYLOAD`. Payload and answer are messages
//! in protobuf, hex; the answer is the whole response message of ttrpc (specification: containerd/ttrpc, PROTOCOL.md).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const MAXIMUM: usize = 4 << 20;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, service, method, payload] = arguments.as_slice() else {
        anyhow::bail!("test-call SOCKET SERVICE METHOD PAYLOAD");
    };
    let fields =
        [(1, service.as_bytes().to_vec()), (2, method.as_bytes().to_vec()), (3, hex::decode(payload)?)];
    let request: Vec<u8> =
        fields.iter().flat_map(|(number, bytes)| tests::protobuf::field(*number, bytes)).collect();
    let mut frame = u32::try_from(request.len())?.to_be_bytes().to_vec();
    frame.extend(1_u32.to_be_bytes());
    frame.extend([REQUEST, 0]);
    frame.extend(request);
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(&frame)?;
    let mut head = [0; 10];
    stream.read_exact(&mut head)?;
    let [a, b, c, d, _, _, _, _, kind, _] = head;
    anyhow::ensure!(kind == RESPONSE, "expected a response, found a message of type {kind}");
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
    anyhow::ensure!(length <= MAXIMUM, "a response of {length} bytes");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    println!("{}", hex::encode(answer));
    Ok(())
}
