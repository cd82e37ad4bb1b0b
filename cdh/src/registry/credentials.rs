//! Credentials for registries: a subset of Docker's `config.json`.
//!
//! ```json
//! {"auths": {"registry.example/team": {"auth": "dXNlcjpwYXNzd29yZA=="}}}
//! ```
//!
//! The longest key that is the repository, one of its parents or its registry is used. Helpers (`credHelpers`, `credsStore`) and
//! identity tokens are not; an entry with nothing that can be used is refused.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::error::RegistryError;
use super::reference::{DOCKER, Reference, is_repository, normal_registry};

/// Largest document.
pub const CREDENTIALS_MAX: usize = 1 << 20;
const ENTRIES_MAX: usize = 1_024;

/// User and password of one registry or repository. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Login {
    /// base64 of `user:password`.
    basic: Zeroizing<String>,
}

impl Login {
    /// A user and a password.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG` for a user with a colon, or an empty one.
    pub fn new(user: &str, password: &str) -> Result<Self, RegistryError> {
        // GUARD: login-user -> evil_credentials_are_refused
        if user.is_empty() || user.contains(':') {
            return Err(bad("a user without ':'"));
        }
        let plain = Zeroizing::new(format!("{user}:{password}"));
        Ok(Self { basic: Zeroizing::new(STANDARD.encode(plain.as_bytes())) })
    }

    /// Value of `Authorization`.
    pub(super) fn basic(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Basic {}", *self.basic))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// Logins by `registry[/path]`.
#[derive(Debug, Default)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<Wiped>,
    username: Option<Wiped>,
    password: Option<Wiped>,
}

/// Text that is wiped when dropped. Written only for the process that sends it.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(super) struct Wiped(pub(super) Zeroizing<String>);

impl Serialize for Wiped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl From<String> for Wiped {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Credentials {
    /// Reads a document of at most [`CREDENTIALS_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG`.
    pub fn parse(json: &[u8]) -> Result<Self, RegistryError> {
        // GUARD: credentials-size -> evil_credentials_are_refused
        if json.len() > CREDENTIALS_MAX {
            return Err(bad("at most 1 MiB"));
        }
        let document: Document = serde_json::from_slice(json).map_err(|_| bad("{\"auths\": {…}}"))?;
        let mut credentials = Self::default();
        for (key, entry) in &document.auths {
            credentials.insert(key, entry.login()?)?;
        }
        Ok(credentials)
    }

    /// Adds a login for a registry, or for what is below a path of one.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG` for a key that is no such place, or that is there already.
    pub fn insert(&mut self, key: &str, login: Login) -> Result<(), RegistryError> {
        let key = normal_key(key).ok_or_else(|| bad("keys of the form registry[/path]"))?;
        // GUARD: credentials-doubled -> evil_credentials_are_refused
        if self.logins.len() >= ENTRIES_MAX || self.logins.insert(key, login).is_some() {
            return Err(bad("at most 1024 different registries"));
        }
        Ok(())
    }

    /// The login for a repository, if there is one.
    #[must_use]
    pub fn of(&self, reference: &Reference) -> Option<&Login> {
        let name = reference.name();
        let mut scope = name.as_str();
        loop {
            if let Some(login) = self.logins.get(scope) {
                return Some(login);
            }
            scope = scope.rsplit_once('/')?.0;
        }
    }
}

impl Entry {
    fn login(&self) -> Result<Login, RegistryError> {
        let expected = || bad("auth: base64 of user:password");
        match (&self.auth, &self.username, &self.password) {
            (Some(auth), None, None) => {
                let plain =
                    Zeroizing::new(STANDARD.decode(auth.0.trim().as_bytes()).map_err(|_| expected())?);
                let text = std::str::from_utf8(&plain).map_err(|_| expected())?;
                let (user, password) = text.split_once(':').ok_or_else(expected)?;
                // Files are often made by `echo`.
                Login::new(user, password.trim_end_matches(['\n', '\r', '\0']))
            }
            (None, Some(user), Some(password)) => Login::new(&user.0, &password.0),
            _ => Err(expected()),
        }
    }
}

/// `registry[/path]`; the URL forms of old tools name their registry.
fn normal_key(key: &str) -> Option<String> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let is_url = bare.is_some();
    let (registry, path) = match bare.unwrap_or(key).split_once('/') {
        Some((registry, path)) => (registry, path.trim_end_matches('/')),
        None => (bare.unwrap_or(key), ""),
    };
    let registry = normal_registry(registry)?;
    let is_docker_url = registry == DOCKER && matches!(path, "v1" | "v2");
    if path.is_empty() || is_url || is_docker_url {
        return Some(registry);
    }
    is_repository(path).then(|| format!("{registry}/{path}"))
}

/// Never says what was found.
fn bad(expected: &'static str) -> RegistryError {
    RegistryError::Config { what: "registry credentials", expected, found: "something else".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(credentials: &Credentials, reference: &str) -> Option<String> {
        let login = credentials.of(&Reference::parse(reference).unwrap())?;
        Some(String::from_utf8(STANDARD.decode(login.basic.as_bytes()).unwrap()).unwrap())
    }

    #[test]
    fn the_longest_place_decides() {
        let entry = |text: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(text));
        let json = format!(
            r#"{{"auths":{{"r.example":{},"r.example/team":{},"https://index.docker.io/v1/":{},"x.example:5000":{{"username":"a","password":"b"}}}},"HttpHeaders":{{}}}}"#,
            entry("u:all"),
            entry("t:te:am\n"),
            entry("d:hub"),
        );
        let credentials = Credentials::parse(json.as_bytes()).unwrap();
        assert_eq!(found(&credentials, "r.example/other/x").as_deref(), Some("u:all"));
        assert_eq!(found(&credentials, "r.example/team/x").as_deref(), Some("t:te:am"));
        assert_eq!(found(&credentials, "r.example/teams/x").as_deref(), Some("u:all"));
        assert_eq!(found(&credentials, "busybox").as_deref(), Some("d:hub"));
        assert_eq!(found(&credentials, "x.example:5000/x").as_deref(), Some("a:b"));
        assert_eq!(found(&credentials, "x.example/x"), None, "another port is another registry");
        assert_eq!(format!("{credentials:?}").matches("Login(..)").count(), 4);
    }

    #[test]
    fn evil_credentials_are_refused() {
        let auth = STANDARD.encode("u:p");
        for refused in [
            "{".to_owned(),
            r#"{"auths":[1]}"#.to_owned(),
            r#"{"auths":{"r.example":{}}}"#.to_owned(),
            r#"{"auths":{"r.example":{"auth":"%"}}}"#.to_owned(),
            format!(r#"{{"auths":{{"r.example":{{"auth":"{}"}}}}}}"#, STANDARD.encode("no colon")),
            format!(r#"{{"auths":{{"r.example":{{"auth":"{}"}}}}}}"#, STANDARD.encode(":p")),
            format!(r#"{{"auths":{{"r.example/A":{{"auth":"{auth}"}}}}}}"#),
            format!(
                r#"{{"auths":{{"r.example":{{"auth":"{auth}"}},"https://R.example/":{{"auth":"{auth}"}}}}}}"#
            ),
            " ".repeat(CREDENTIALS_MAX + 1),
        ] {
            let error = Credentials::parse(refused.as_bytes()).unwrap_err();
            assert_eq!(error.code(), "REGISTRY_CONFIG", "{refused:.100}");
        }
        let error = Credentials::parse(" ".repeat(CREDENTIALS_MAX + 1).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("at most 1 MiB"), "{error}");
        assert_eq!(Login::new("a:b", "c").unwrap_err().code(), "REGISTRY_CONFIG");
    }
}
