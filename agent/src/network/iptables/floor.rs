//! What packet filters of the host may not do, whatever policy permits: workload and guest components speak to each other over the loopback
//! addresses, and no rule leads that traffic elsewhere, copies or marks it, or brings other traffic there.
//!
//! ```text
//!  text ─▶ lines as iptables-save writes them, nothing else ─▶ rule of nat, mangle, raw? ─▶ target
//!    ACCEPT, RETURN, a chain of the text ─▶ yes: every rule of that chain is looked at by itself
//!    one of the list ─▶ only if the rule says by -d, -i or -o that loopback traffic is not meant, and no loopback address is its goal
//!    any other ─▶ no, in the other tables neither: it copies packets, or hands them to programs
//! ```
//! The programs read far more than they write: abbreviated options, options in one word, the name of a program to load modules with. What
//! is read here is read in one way only, and the rest is refused, in every table.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Filters, TABLES};
use crate::network::error::NetworkError;
use crate::network::value;

/// The programs read lines in pieces of 10,240 bytes: what is longer would be two lines for them.
const MAXIMUM_LINE_BYTES: usize = 4096;
/// Tables whose rules change, lead or copy what passes. In the others a rule lets it through or not.
const DIVERTING: [&str; 3] = ["nat", "mangle", "raw"];
/// Options of one letter that a rule may have. Each but `-f` has one value.
const SHORT: [&str; 9] = ["-s", "-d", "-i", "-o", "-p", "-f", "-m", "-j", "-g"];
/// Options of the programs themselves, none of which a rule is written with; `modprobe` names a program to be run.
const OWN: [&str; 33] = [
    "append",
    "delete",
    "check",
    "insert",
    "replace",
    "list",
    "list-rules",
    "flush",
    "zero",
    "new-chain",
    "delete-chain",
    "rename-chain",
    "policy",
    "source",
    "destination",
    "src",
    "dst",
    "protocol",
    "in-interface",
    "out-interface",
    "jump",
    "table",
    "numeric",
    "verbose",
    "wait",
    "wait-interval",
    "exact",
    "fragments",
    "version",
    "help",
    "line-numbers",
    "modprobe",
    "goto",
];
/// Verdicts that leave a packet as and where it is.
const HARMLESS: [&str; 2] = ["ACCEPT", "RETURN"];
/// Targets that take no address: what they do to other traffic than that of loopback is the host's business.
const PLAIN: [&str; 16] = [
    "DROP",
    "REJECT",
    "MARK",
    "CONNMARK",
    "CT",
    "NOTRACK",
    "TCPMSS",
    "TCPOPTSTRIP",
    "DSCP",
    "TOS",
    "TTL",
    "HL",
    "ECN",
    "CLASSIFY",
    "CHECKSUM",
    "LOG",
];
/// Targets that no chain may be called like: the programs take the target.
const OTHERS: [&str; 21] = [
    "QUEUE",
    "NFQUEUE",
    "TEE",
    "TPROXY",
    "NETMAP",
    "TRACE",
    "AUDIT",
    "CLUSTERIP",
    "CONNSECMARK",
    "DNPT",
    "HMARK",
    "IDLETIMER",
    "LED",
    "NFLOG",
    "RATEEST",
    "SECMARK",
    "SET",
    "SNPT",
    "SYNPROXY",
    "ULOG",
    "MIRROR",
];

/// Looks at a whole text.
pub(super) fn check(filters: Filters, text: &[u8]) -> Result<(), NetworkError> {
    let mut reader = Reader { is_ipv6: filters.is_ipv6, number: 0, table: None, chains: BTreeSet::new() };
    for line in text.split(|byte| *byte == b'\n') {
        reader.number += 1;
        let line = std::str::from_utf8(line).map_err(|_| reader.form("text"))?;
        reader.line(line)?;
    }
    Ok(())
}

struct Reader<'a> {
    is_ipv6: bool,
    /// Of the line, from 1.
    number: usize,
    table: Option<&'static str>,
    /// Chains of the table that the text makes.
    chains: BTreeSet<&'a str>,
}

impl<'a> Reader<'a> {
    fn form(&self, expected: &'static str) -> NetworkError {
        NetworkError::FilterForm { line: self.number, expected }
    }

    fn loopback(&self, what: &'static str) -> NetworkError {
        NetworkError::FilterLoopback { line: self.number, what }
    }

    fn line(&mut self, line: &'a str) -> Result<(), NetworkError> {
        let is_plain = line.len() <= MAXIMUM_LINE_BYTES
            && !line.contains('\\')
            && line.chars().all(|letter| letter == '\t' || !letter.is_control());
        // GUARD: filter-line -> evil_host_filter_text_that_two_read_differently
        if !is_plain {
            return Err(self.form("lines of at most 4096 bytes without control characters and backslashes"));
        }
        match (line.as_bytes().first(), self.table) {
            (None | Some(b'#'), _) => Ok(()),
            (Some(b'*'), None) => {
                let table = TABLES.into_iter().find(|table| line.strip_prefix('*') == Some(*table));
                self.table = Some(table.ok_or_else(|| self.form("the name of a table behind '*'"))?);
                self.chains.clear();
                Ok(())
            }
            (_, Some(_)) if line == "COMMIT" => {
                self.table = None;
                Ok(())
            }
            (Some(b':'), Some(table)) => self.chain(line, DIVERTING.contains(&table)),
            (Some(b'-' | b'['), Some(table)) => self.rule(line, DIVERTING.contains(&table)),
            _ => Err(self.form("the form that iptables-save writes")),
        }
    }

    /// `:NAME POLICY [0:0]`; a chain of the text's own has `-` for a policy.
    fn chain(&mut self, line: &'a str, diverts: bool) -> Result<(), NetworkError> {
        let form = "':', the name of a chain, and its policy";
        let mut words = line.strip_prefix(':').unwrap_or(line).split(' ');
        let (Some(name), Some(policy)) = (words.next(), words.next()) else { return Err(self.form(form)) };
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_target = HARMLESS.contains(&name)
            || PLAIN.contains(&name)
            || OTHERS.contains(&name)
            || matches!(name, "DNAT" | "SNAT" | "REDIRECT" | "MASQUERADE");
        // GUARD: filter-chain -> evil_host_chain_called_like_a_target
        if is_target || name.is_empty() || name.starts_with('-') || !name.bytes().all(is_letter) {
            return Err(self.form("the name of a chain that is none of a target"));
        }
        // GUARD: filter-policy -> evil_host_redirects_loopback_traffic
        if diverts && !matches!(policy, "-" | "ACCEPT") {
            return Err(self.loopback("a chain that drops it"));
        }
        if policy == "-" {
            self.chains.insert(name);
        }
        Ok(())
    }

    fn rule(&self, line: &'a str, diverts: bool) -> Result<(), NetworkError> {
        let words = self.words(line)?;
        let words = match words.as_slice() {
            [first, rest @ ..] if first.text.starts_with('[') => rest,
            words => words,
        };
        let [append, chain, rest @ ..] = words else { return Err(self.form("-A and the name of a chain")) };
        // GUARD: filter-append -> evil_host_filter_text_that_two_read_differently
        if append.option() != Some("-A") || chain.option().is_some() {
            return Err(self.form("-A and the name of a chain"));
        }
        for word in rest {
            self.option(word)?;
        }
        self.goal(rest, diverts)
    }

    /// Only options that rules are written with, each in a word of its own.
    fn option(&self, word: &Word<'_>) -> Result<(), NetworkError> {
        let Some(option) = word.option() else { return Ok(()) };
        let is_known = match option.strip_prefix("--") {
            // The programs take any beginning of a name that is not also that of another.
            Some(long) => {
                let name = long.split('=').next().unwrap_or(long);
                !OWN.iter().any(|own| own.starts_with(name))
            }
            None => SHORT.contains(&option),
        };
        // GUARD: filter-option -> evil_host_filter_that_names_a_program
        if !is_known || word.is_quoted {
            return Err(self.form("options of rules, as iptables-save writes them"));
        }
        Ok(())
    }

    /// What a rule does. `diverts`: its table can lead traffic elsewhere.
    fn goal(&self, words: &[Word<'_>], diverts: bool) -> Result<(), NetworkError> {
        let (spares_loopback, words) = self.head(words);
        let at = words.iter().position(|word| matches!(word.option(), Some("-j" | "-g")));
        // A rule that only counts.
        let Some(at) = at else { return Ok(()) };
        let (is_goto, more) = match words.get(at..) {
            Some([jump, more @ ..]) => (jump.text == "-g", more),
            _ => return Ok(()),
        };
        let [target, arguments @ ..] = more else { return Err(self.form("a target")) };
        let goes_on = HARMLESS.contains(&target.text) && !is_goto || self.chains.contains(target.text);
        if goes_on {
            return if arguments.is_empty() { Ok(()) } else { Err(self.form("nothing behind the target")) };
        }
        self.target(target.text, arguments, is_goto)?;
        // GUARD: filter-loopback -> evil_host_redirects_loopback_traffic
        if diverts && !spares_loopback {
            return Err(self.loopback("a rule without -d, -i or -o that leaves it out"));
        }
        Ok(())
    }

    /// The beginning of a rule, which every reader reads alike: option and value, one after the other. Whether it leaves loopback traffic out.
    fn head<'w, 't>(&self, mut words: &'w [Word<'t>]) -> (bool, &'w [Word<'t>]) {
        let mut spares = false;
        loop {
            let (negated, rest) = match words {
                [not, rest @ ..] if not.text == "!" => (true, rest),
                words => (false, words),
            };
            match rest {
                [option, value, more @ ..]
                    if !value.is_quoted && matches!(option.text, "-s" | "-d" | "-i" | "-o" | "-p") =>
                {
                    spares |= match option.text {
                        "-d" => self.spares_network(value.text, negated),
                        "-i" | "-o" => spares_link(value.text, negated),
                        _ => false,
                    };
                    words = more;
                }
                [option, more @ ..] if option.text == "-f" => words = more,
                _ => return (spares, words),
            }
        }
    }

    fn spares_network(&self, text: &str, negated: bool) -> bool {
        let family = if self.is_ipv6 { 10 } else { 2 };
        let Ok(Some((address, length))) = value::network("network", text, family) else { return false };
        let (own, own_length): (IpAddr, u8) = if self.is_ipv6 {
            (Ipv6Addr::LOCALHOST.into(), 128)
        } else {
            (Ipv4Addr::new(127, 0, 0, 0).into(), 8)
        };
        let begins_alike = |bits: u8| first_bits(address, bits) == first_bits(own, bits);
        if negated {
            length <= own_length && begins_alike(length)
        } else {
            !begins_alike(length.min(own_length))
        }
    }

    fn target(&self, name: &str, arguments: &[Word<'_>], is_goto: bool) -> Result<(), NetworkError> {
        let mut arguments = arguments.iter().map(|word| word.text);
        let takes = match name {
            "DNAT" => "--to-destination",
            "SNAT" => "--to-source",
            "REDIRECT" | "MASQUERADE" => "--to-ports",
            _ => "",
        };
        // GUARD: filter-target -> evil_host_copies_traffic_by_a_filter
        if is_goto || takes.is_empty() && !PLAIN.contains(&name) {
            return Err(NetworkError::FilterTarget { line: self.number });
        }
        if takes.is_empty() {
            return Ok(());
        }
        while let Some(argument) = arguments.next() {
            match argument {
                "--random" | "--random-fully" | "--persistent" => {}
                _ if argument == takes => {
                    let value = arguments.next();
                    // GUARD: filter-goal -> evil_host_brings_traffic_to_loopback
                    if takes != "--to-ports" && !value.is_some_and(is_elsewhere) {
                        return Err(self.loopback(
                            "a rule that leads traffic there, or to an address that cannot be read",
                        ));
                    }
                }
                _ => return Err(self.form("the options of the target")),
            }
        }
        Ok(())
    }

    /// Words between blanks; one in quotes may hold some.
    fn words(&self, line: &'a str) -> Result<Vec<Word<'a>>, NetworkError> {
        let is_blank = |letter: char| matches!(letter, ' ' | '\t');
        let (mut words, mut rest) = (Vec::new(), line.trim_start_matches(is_blank));
        while !rest.is_empty() {
            let (text, more, is_quoted) = match rest.strip_prefix('"') {
                Some(quoted) => {
                    let Some((text, more)) = quoted.split_once('"') else {
                        return Err(self.form("a quote that ends"));
                    };
                    (text, more, true)
                }
                None => {
                    let end = rest.find(is_blank).unwrap_or(rest.len());
                    let (text, more) = rest.split_at_checked(end).unwrap_or((rest, ""));
                    (text, more, false)
                }
            };
            let is_whole = more.is_empty() || more.starts_with(is_blank);
            // GUARD: filter-words -> evil_host_filter_text_that_two_read_differently
            if !is_whole || text.is_empty() || !is_quoted && text.contains('"') {
                return Err(self.form("words between blanks, quotes around whole ones"));
            }
            words.push(Word { text, is_quoted });
            rest = more.trim_start_matches(is_blank);
        }
        Ok(words)
    }
}

#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    is_quoted: bool,
}

impl<'a> Word<'a> {
    /// The word, if the programs could take it for an option.
    fn option(&self) -> Option<&'a str> {
        Some(self.text).filter(|text| text.starts_with('-'))
    }
}

/// Whether `lo` is left out. `eth+` is every link whose name begins with `eth`.
fn spares_link(name: &str, negated: bool) -> bool {
    let means_loopback = match name.strip_suffix('+') {
        Some(beginning) => "lo".starts_with(beginning),
        None => name == "lo",
    };
    // `! -o lo+` leaves `lo` out as well, and `! -o l` does not.
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    is_name && means_loopback == negated
}

/// The goals of DNAT and SNAT, `A`, `A-B`, `A:80`, `[A]:80`: all readable, and none of them this machine's own.
fn is_elsewhere(value: &str) -> bool {
    let addresses = match value.strip_prefix('[') {
        // `[::2]:80`, `[::2]-[::9]:80`.
        Some(rest) => match rest.rsplit_once(']') {
            Some((addresses, port)) if port.is_empty() || is_port(port) => addresses.replace("]-[", "-"),
            _ => return false,
        },
        // Only one of IPv4 has its port behind a single colon.
        None => match value.split_once(':') {
            Some((address, port)) if !port.contains(':') => {
                if !is_port(&format!(":{port}")) {
                    return false;
                }
                address.to_owned()
            }
            _ => value.to_owned(),
        },
    };
    if addresses.is_empty() {
        // The port alone.
        return true;
    }
    let (first, last) = addresses.split_once('-').unwrap_or((&addresses, &addresses));
    match (first.parse::<IpAddr>(), last.parse::<IpAddr>()) {
        (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) => {
            let own = Ipv4Addr::new(127, 0, 0, 0)..=Ipv4Addr::new(127, 255, 255, 255);
            !first.is_unspecified() && first <= last && (last < *own.start() || first > *own.end())
        }
        (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last))) => {
            // `::`, `::1`, and addresses of IPv4 in another coat.
            let own = Ipv6Addr::UNSPECIFIED..=Ipv4Addr::BROADCAST.to_ipv6_mapped();
            first <= last && first > *own.end()
        }
        _ => false,
    }
}

fn is_port(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'/');
    text.strip_prefix(':').is_some_and(|port| !port.is_empty() && port.bytes().all(is_letter))
}

fn first_bits(address: IpAddr, bits: u8) -> u128 {
    let (value, all) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    value.checked_shr(u32::from(u8::saturating_sub(all, bits))).unwrap_or(0)
}

#[cfg(test)]
mod tests;
