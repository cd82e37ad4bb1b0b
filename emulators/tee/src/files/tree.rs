//! The directories and files that are always there.

use evidence::Octets;

use crate::launch::TeeKind;
use crate::tee::Tee;

/// Number of the file system's root.
pub(crate) const ROOT: u64 = 1;

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Directory,
    /// The directory in which entries are made.
    Reports,
    /// A register that can be extended.
    Register(usize),
    /// A value of the launch.
    Launch(Octets<48>),
    /// The event log.
    EventLog,
    /// The ACPI table that points to it.
    Table(Vec<u8>),
}

impl Kind {
    pub(crate) const fn mode(&self) -> u16 {
        match self {
            Self::Directory | Self::Reports => 0o755,
            Self::Register(_) => 0o644,
            Self::Launch(_) => 0o444,
            Self::EventLog | Self::Table(_) => 0o400,
        }
    }

    pub(crate) const fn is_directory(&self) -> bool {
        matches!(self, Self::Directory | Self::Reports)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) parent: u64,
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// All nodes; the number of a node is its place, counted from 1.
#[derive(Debug)]
pub(crate) struct Tree(Vec<Node>);

impl Tree {
    pub(crate) fn of(tee: &Tee) -> Self {
        let mut tree = Self(vec![Node { parent: ROOT, name: String::new(), kind: Kind::Directory }]);
        tree.add("kernel/config/tsm/report", Kind::Reports);
        if let Some([mrtd, mrconfigid, mrowner, mrownerconfig]) = tee.launch_values() {
            let measurements = "devices/virtual/misc/tdx_guest/measurements";
            for register in 0..4 {
                tree.add(&format!("{measurements}/rtmr{register}:sha384"), Kind::Register(register));
            }
            tree.add(&format!("{measurements}/mrtd:sha384"), Kind::Launch(mrtd));
            tree.add(&format!("{measurements}/mrconfigid"), Kind::Launch(mrconfigid));
            tree.add(&format!("{measurements}/mrowner"), Kind::Launch(mrowner));
            tree.add(&format!("{measurements}/mrownerconfig"), Kind::Launch(mrownerconfig));
            tree.add("firmware/acpi/tables/CCEL", Kind::Table(tee.ccel_table().to_vec()));
            tree.add("firmware/acpi/tables/data/CCEL", Kind::EventLog);
        }
        if tee.kind() == TeeKind::Snp {
            tree.add("devices/platform/sev-guest", Kind::Directory);
            tree.add("devices/virtual/misc/sev-guest", Kind::Directory);
        }
        tree
    }

    fn add(&mut self, path: &str, kind: Kind) {
        let mut parent = ROOT;
        let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
        for name in above.split('/') {
            parent = self.child(parent, name).unwrap_or_else(|| self.push(parent, name, Kind::Directory));
        }
        self.push(parent, last, kind);
    }

    fn push(&mut self, parent: u64, name: &str, kind: Kind) -> u64 {
        self.0.push(Node { parent, name: name.to_owned(), kind });
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Node> {
        self.0.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    pub(crate) fn child(&self, parent: u64, name: &str) -> Option<u64> {
        self.children(parent).find(|(_, node)| node.name == name).map(|(number, _)| number)
    }

    pub(crate) fn children(&self, parent: u64) -> impl Iterator<Item = (u64, &Node)> {
        (ROOT..).zip(&self.0).filter(move |(number, node)| node.parent == parent && *number != ROOT)
    }
}
