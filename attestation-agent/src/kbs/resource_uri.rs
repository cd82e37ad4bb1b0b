//! `kbs://[host]/repository/type/tag` and `kbs+plugin://[host]/path[?query]`.
//!
//! The host is not used, as upstream: the configured broker always answers. It is checked for its characters and
//! dropped, so that two spellings of one resource are equal.

use std::fmt;

use super::error::ConfigFault;

const URI_MAX: usize = 2_048;
const SEGMENTS_MAX: usize = 16;
const SEGMENT_MAX: usize = 255;

/// A resource of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceUri {
    plugin: String,
    path: String,
    query: Option<String>,
}

impl ResourceUri {
    /// Reads a URI. Plugin `resource` (scheme `kbs`) has exactly three segments.
    ///
    /// # Errors
    ///
    /// `KBS_RESOURCE_URI_INVALID`, saying what was expected.
    pub fn parse(uri: &str) -> Result<Self, ConfigFault> {
        let bad = |expected| ConfigFault::ResourceUri { expected };
        // GUARD: kbs-uri-size -> evil_caller_names_a_huge_uri
        if uri.len() > URI_MAX {
            return Err(bad("at most 2048 bytes"));
        }
        let (scheme, rest) = uri.split_once("://").ok_or(bad("kbs:// or kbs+plugin://"))?;
        let plugin = match scheme.split_once('+') {
            None if scheme == "kbs" => "resource",
            Some(("kbs", plugin)) => plugin,
            _ => return Err(bad("kbs:// or kbs+plugin://")),
        };
        // GUARD: kbs-uri-plugin -> evil_caller_leaves_the_plugin
        if !is_name(plugin, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            return Err(bad("a plugin of lower-case letters, digits and '-'"));
        }
        let (host, path) = rest.split_once('/').ok_or(bad("a path behind the host"))?;
        // GUARD: kbs-uri-host -> evil_caller_hides_text_in_the_host
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)) {
            return Err(bad("an empty host, or a name or address with a port"));
        }
        let (path, query) = match path.split_once('?') {
            None => (path, None),
            Some((path, query)) => (path, Some(query)),
        };
        // GUARD: kbs-uri-path -> evil_caller_leaves_the_path
        if !path.split('/').all(is_segment) {
            return Err(bad("segments of letters, digits, '-', '_' and '.', not starting with '.'"));
        }
        let segments = path.split('/').count();
        // GUARD: kbs-uri-segments -> evil_caller_names_another_number_of_segments
        if segments > SEGMENTS_MAX || (plugin == "resource" && segments != 3) {
            return Err(bad("repository/type/tag for a resource, at most 16 segments for a plugin"));
        }
        // GUARD: kbs-uri-query -> evil_caller_ends_the_request_line
        if !query.is_none_or(|query| is_name(query, is_query)) {
            return Err(bad("a query of letters, digits and \"-_.~=&%\""));
        }
        Ok(Self { plugin: plugin.to_owned(), path: path.to_owned(), query: query.map(str::to_owned) })
    }

    /// The path below the URL of the broker, beginning with `/kbs/v0/`.
    pub(super) fn request_path(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("/kbs/v0/{}/{}{query}", self.plugin, self.path)
    }
}

impl fmt::Display for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.plugin.as_str() {
            "resource" => write!(f, "kbs:///{}", self.path)?,
            plugin => write!(f, "kbs+{plugin}:///{}", self.path)?,
        }
        match &self.query {
            None => Ok(()),
            Some(query) => write!(f, "?{query}"),
        }
    }
}

fn is_segment(segment: &str) -> bool {
    segment.len() <= SEGMENT_MAX
        && !segment.starts_with('.')
        && is_name(segment, |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_query(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~=&%".contains(&byte)
}

fn is_name(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
