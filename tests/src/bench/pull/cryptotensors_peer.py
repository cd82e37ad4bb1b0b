"""The Python package `cryptotensors` on the SafeTensors file that is sealed for ours.

protect MODEL OUTPUT KEYS: writes the same tensors encrypted and signed, and the keys.
load FILE KEYS: loads all of them as a user does, and says as JSON how long that took without the start of Python.
"""

import base64
import json
import os
import subprocess
import sys
import time

import cryptotensors
import numpy
from cryptotensors.numpy import load_file, save_file


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def signing_key() -> dict:
    private = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    command = ["openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER"]
    public = subprocess.run(command, check=True, capture_output=True, input=private).stdout
    return {"kty": "okp", "alg": "ed25519", "kid": "sign", "d": text(private[-32:]), "x": text(public[-32:])}


def protect(model: str, output: str, keys: str) -> None:
    encryption = {"kty": "oct", "alg": "aes256gcm", "kid": "encrypt", "k": text(os.urandom(32))}
    signing = signing_key()
    save_file(load_file(model), output, config={"enc_key": encryption, "sign_key": signing})
    with open(keys, "w") as file:
        json.dump({"keys": [encryption, signing]}, file)


def load(path: str, keys: str) -> None:
    cryptotensors.register_direct_key_provider(files=[keys])
    start = time.perf_counter()
    tensors = load_file(path)
    seconds = time.perf_counter() - start
    first = next(iter(sorted(tensors)))
    head = numpy.ascontiguousarray(tensors[first]).view(numpy.uint8).reshape(-1)[:32]
    size = sum(tensor.nbytes for tensor in tensors.values())
    print(json.dumps({"seconds": seconds, "bytes": size, "head": head.tobytes().hex()}))


if __name__ == "__main__":
    {"protect": protect, "load": load}[sys.argv[1]](*sys.argv[2:])
