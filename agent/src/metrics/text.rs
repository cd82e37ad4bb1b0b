//! The text form: `# HELP`, `# TYPE`, and lines of a name, labels and a number.

use std::fmt::{Display, Write as _};

/// Samples of one family.
const MAXIMUM_SAMPLES: usize = 4096;

/// What a family is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// The text so far.
#[derive(Debug)]
pub(super) struct Text {
    text: String,
    maximum: usize,
    family: &'static str,
    head: Option<String>,
    samples: usize,
}

impl Text {
    pub(super) fn new(maximum: usize) -> Self {
        Self { text: String::new(), maximum, family: "", head: None, samples: 0 }
    }

    /// What comes now is of this family. One without samples is not written.
    pub(super) fn family(&mut self, name: &'static str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head = Some(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        (self.family, self.samples) = (name, 0);
    }

    pub(super) fn gauges(&mut self, name: &'static str, help: &str) {
        self.family(name, help, Kind::Gauge);
    }

    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let mut line = self.head.take().unwrap_or_default();
        line.push_str(self.family);
        for (index, (name, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            // Writing to a string does not fail.
            let _ = write!(line, "{before}{name}=\"{}\"", escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(line, "{end} {value}");
        // GUARD: metrics-bounded -> evil_host_devices_without_end
        if self.samples >= MAXIMUM_SAMPLES || self.text.len() + line.len() > self.maximum {
            return;
        }
        self.samples += 1;
        self.text.push_str(&line);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// Names of devices and places are somebody's choice: none of them ends a label, or a line.
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for letter in value.chars().take(256) {
        match letter {
            '\\' | '"' => escaped.extend(['\\', letter]),
            letter if letter.is_control() => escaped.push('?'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
