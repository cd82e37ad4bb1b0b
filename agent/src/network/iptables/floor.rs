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

mod addresses;
mod words;

use std::collections::BTreeSet;

use super::{Filters, TABLES};
use crate::network::error::NetworkError;
use addresses::{is_elsewhere, spares_link, spares_network};
use words::{Word, words};

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
        let words = words(line).ok_or_else(|| self.form("words between blanks, quotes around whole ones"))?;
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
        for pair in rest.windows(2) {
            self.extension(pair)?;
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

    /// Behind `-m` and `-p` is the name of a library that the programs load.
    fn extension(&self, pair: &[Word<'_>]) -> Result<(), NetworkError> {
        let [option, name] = pair else { return Ok(()) };
        let is_name =
            name.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        // GUARD: filter-extension -> evil_host_filter_that_names_a_program
        if matches!(option.text, "-m" | "-p") && !is_name {
            return Err(self.form("the name of a match or protocol"));
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
                        "-d" => spares_network(value.text, self.is_ipv6, negated),
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
}

#[cfg(test)]
mod tests;
