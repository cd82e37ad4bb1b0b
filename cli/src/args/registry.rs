//! Arguments of `innerkeep push`, `pull` and `copy`.

use std::path::PathBuf;

use clap::Args;

/// How registries are spoken to.
#[derive(Args, Debug)]
pub(crate) struct RegistryArgs {
    /// Certificates of authorities that vouch for registries (PEM), for example /etc/ssl/certs/ca-certificates.crt; without one there is no https.
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_ca: Vec<PathBuf>,
    /// Logins: Docker's config.json with `auths`.
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_auth: Option<PathBuf>,
    /// Mirrors, blocked and insecure registries: registries.conf, version 2.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_plain_http")]
    pub(crate) registries: Option<PathBuf>,
    /// Proxy for https, `http://[user:password@]host[:port]`; the environment is not looked at.
    #[arg(long, value_name = "URL")]
    pub(crate) https_proxy: Option<String>,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    pub(crate) timeout: u64,
    /// INSECURE: plain http to the registries on the command line; anybody on the way can read it, and answer to tags.
    #[arg(long)]
    pub(crate) insecure_plain_http: bool,
}

/// `innerkeep push`.
#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// The image layout: `DIR`, with one tag, or `DIR:TAG`; or a `.sealed` file.
    pub(crate) layout: String,
    /// Where to: registry/repository:tag.
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `innerkeep pull`.
#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// From where: registry/repository, with a tag or digest.
    pub(crate) from: String,
    /// The image layout: `DIR:TAG`, or `DIR` for the tag `latest`, made if it is not there; or a new `.sealed` file.
    pub(crate) layout: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `innerkeep copy`.
#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// From where: registry/repository, with a tag or digest; a `.sealed` file; or an image layout, as a path: /DIR:TAG, ./DIR:TAG.
    pub(crate) from: String,
    /// Where to: registry/repository:tag; a new `.sealed` file; or an image layout, as a path.
    pub(crate) to: String,
    /// Directory for blobs on their way, where a cut copy is continued from [default: a new one, removed afterwards].
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
