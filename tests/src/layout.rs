//! The thief's tools for an OCI image layout: plain file operations that mend every digest on the way up, as a registry could.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Artifact type of the manifest with the payloads.
pub const ARTIFACT: &str = "application/vnd.innerkeep.sealed.v1";
/// Artifact type of a grant's manifest.
pub const GRANT: &str = "application/vnd.innerkeep.grant.v1";
/// Artifact type of a signature's manifest.
pub const SIGNATURE: &str = "application/vnd.innerkeep.signature.v1";

/// An OCI image layout.
#[derive(Clone, Debug)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// The layout in a directory.
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// A copy in another directory; blobs are copied too, since thieves write into them.
    pub fn copy(&self, to: &Path) -> Self {
        std::fs::create_dir_all(to.join("blobs/sha256")).expect("make the copy");
        for name in ["oci-layout", "index.json"] {
            std::fs::copy(self.directory.join(name), to.join(name)).expect("copy");
        }
        for entry in std::fs::read_dir(self.directory.join("blobs/sha256")).expect("list the blobs") {
            let entry = entry.expect("list the blobs");
            std::fs::copy(entry.path(), to.join("blobs/sha256").join(entry.file_name()))
                .expect("copy a blob");
        }
        Self::at(to)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// `index.json`.
    pub fn index(&self) -> Value {
        read_json(&self.directory.join("index.json"))
    }

    /// Replaces `index.json`.
    pub fn write_index(&self, index: &Value) {
        std::fs::write(self.directory.join("index.json"), index.to_string()).expect("write the index");
    }

    /// The descriptors of the manifests of an artifact type.
    pub fn descriptors(&self, artifact_type: &str) -> Vec<Value> {
        let index = self.index();
        let manifests = index["manifests"].as_array().expect("the index has manifests").clone();
        manifests.into_iter().filter(|one| self.json(one)["artifactType"] == artifact_type).collect()
    }

    /// The only manifest of an artifact type.
    pub fn manifest(&self, artifact_type: &str) -> Value {
        let found = self.descriptors(artifact_type);
        assert_eq!(found.len(), 1, "manifests of type {artifact_type}");
        self.json(&found[0])
    }

    /// The blob of a descriptor.
    pub fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap_or_else(|| panic!("no digest in {descriptor}"));
        self.directory.join("blobs/sha256").join(digest.strip_prefix("sha256:").expect("a SHA-256 digest"))
    }

    /// The bytes of the blob of a descriptor.
    pub fn blob(&self, descriptor: &Value) -> Vec<u8> {
        let path = self.blob_path(descriptor);
        std::fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    }

    /// The JSON in the blob of a descriptor.
    pub fn json(&self, descriptor: &Value) -> Value {
        read_json(&self.blob_path(descriptor))
    }

    /// The ciphertext blob of a payload.
    pub fn payload(&self, payload: usize) -> PathBuf {
        self.blob_path(&self.manifest(ARTIFACT)["layers"][payload])
    }

    /// The tag table of a payload.
    pub fn tags(&self, payload: usize) -> PathBuf {
        let manifest = self.manifest(ARTIFACT);
        let payloads = manifest["layers"].as_array().expect("layers").len() / 2;
        self.blob_path(&manifest["layers"][payloads + payload])
    }

    /// The core.
    pub fn core(&self) -> Value {
        self.json(&self.manifest(ARTIFACT)["config"])
    }

    /// The core's digest, as text.
    pub fn core_digest(&self) -> String {
        self.manifest(ARTIFACT)["config"]["digest"].as_str().expect("a digest").to_owned()
    }

    /// The grants' objects.
    pub fn grants(&self) -> Vec<Value> {
        self.descriptors(GRANT).iter().map(|one| self.json(&self.json(one)["layers"][0])).collect()
    }

    /// Stores a blob and returns the descriptor with its new digest and size.
    pub fn put(&self, mut descriptor: Value, bytes: &[u8]) -> Value {
        let digest = hex::encode(Sha256::digest(bytes));
        std::fs::write(self.directory.join("blobs/sha256").join(&digest), bytes).expect("write a blob");
        descriptor["digest"] = Value::String(format!("sha256:{digest}"));
        descriptor["size"] = bytes.len().into();
        descriptor
    }

    /// Changes the manifest at a position of the index; manifests that name it as their subject follow.
    pub fn alter_manifest(&self, position: usize, alter: impl FnOnce(&mut Value)) {
        let mut index = self.index();
        let old = index["manifests"][position].clone();
        let mut manifest = self.json(&old);
        alter(&mut manifest);
        let new = self.put(old.clone(), &canonical(&manifest));
        index["manifests"][position] = new.clone();
        for other in index["manifests"].as_array_mut().expect("manifests") {
            let mut referrer = self.json(other);
            if referrer["subject"]["digest"] == old["digest"] {
                referrer["subject"]["digest"] = new["digest"].clone();
                referrer["subject"]["size"] = new["size"].clone();
                *other = self.put(other.clone(), &canonical(&referrer));
            }
        }
        self.write_index(&index);
    }

    /// The positions in the index of the manifests of an artifact type.
    pub fn positions(&self, artifact_type: &str) -> Vec<usize> {
        let index = self.index();
        let manifests = index["manifests"].as_array().expect("manifests");
        (0..manifests.len())
            .filter(|at| self.json(&manifests[*at])["artifactType"] == artifact_type)
            .collect()
    }

    /// Changes the bytes of the core.
    pub fn alter_core_bytes(&self, alter: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let position = self.positions(ARTIFACT)[0];
        self.alter_manifest(position, |manifest| {
            let bytes = alter(self.blob(&manifest["config"]));
            manifest["config"] = self.put(manifest["config"].clone(), &bytes);
        });
    }

    /// Changes the core and writes it canonically.
    pub fn alter_core(&self, alter: impl FnOnce(&mut Value)) {
        self.alter_core_bytes(|bytes| {
            let mut core = serde_json::from_slice(&bytes).expect("the core is JSON");
            alter(&mut core);
            canonical(&core)
        });
    }

    /// Changes the bytes of a grant.
    pub fn alter_grant_bytes(&self, grant: usize, alter: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        self.alter_referrer_bytes(self.positions(GRANT)[grant], alter);
    }

    /// Changes a grant and writes it canonically.
    pub fn alter_grant(&self, grant: usize, alter: impl FnOnce(&mut Value)) {
        self.alter_grant_bytes(grant, |bytes| {
            let mut object = serde_json::from_slice(&bytes).expect("a grant is JSON");
            alter(&mut object);
            canonical(&object)
        });
    }

    /// Changes the signature object and writes it canonically.
    pub fn alter_signature(&self, alter: impl FnOnce(&mut Value)) {
        self.alter_referrer_bytes(self.positions(SIGNATURE)[0], |bytes| {
            let mut object = serde_json::from_slice(&bytes).expect("a signature is JSON");
            alter(&mut object);
            canonical(&object)
        });
    }

    fn alter_referrer_bytes(&self, position: usize, alter: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        self.alter_manifest(position, |manifest| {
            let bytes = alter(self.blob(&manifest["layers"][0]));
            manifest["layers"][0] = self.put(manifest["layers"][0].clone(), &bytes);
        });
    }

    /// Takes the grants of another layout over: they then name this layout's artifact as their subject.
    pub fn adopt_grants(&self, from: &Self) {
        let mut index = self.index();
        let artifact = self.descriptors(ARTIFACT)[0].clone();
        for descriptor in from.descriptors(GRANT) {
            let mut manifest = from.json(&descriptor);
            self.put(json!({}), &from.blob(&manifest["layers"][0]));
            self.put(json!({}), &from.blob(&manifest["config"]));
            for member in ["digest", "size"] {
                manifest["subject"][member] = artifact[member].clone();
            }
            let descriptor = self.put(descriptor, &canonical(&manifest));
            index["manifests"].as_array_mut().expect("manifests").push(descriptor);
        }
        self.write_index(&index);
    }

    /// Removes all manifests of a type from the index.
    pub fn drop_manifests(&self, artifact_type: &str) {
        let mut index = self.index();
        let manifests = index["manifests"].as_array_mut().expect("manifests");
        manifests.retain(|one| self.json(one)["artifactType"] != artifact_type);
        self.write_index(&index);
    }
}

/// The canonical bytes of a JSON value without exotic numbers or member names: members sorted, no white space.
pub fn canonical(value: &Value) -> Vec<u8> {
    let mut sorted = value.clone();
    // Whether the library keeps members in order of insertion is decided by features that other crates turn on.
    sorted.sort_all_objects();
    sorted.to_string().into_bytes()
}

/// Flips a bit of a file in place.
pub fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    bytes[offset] ^= 1;
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn read_json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("parse {}: {error}", path.display()))
}
