//! What the hypervisor counted of a virtual SMMU.

use std::collections::BTreeMap;

use anyhow::Result;

use super::super::{Limit, Report, machine};
use crate::console::Machine;

/// Kinds of commands, as the hypervisor names them.
const KINDS: [&str; 4] = ["page", "range", "asid", "all"];
/// Instructions at EL2 from a trapped batch's entry to its eret, and of each command in it, at most.
const BATCH: f64 = 1200.0;
const COMMAND: f64 = 60.0;
/// Exits of a driver that probes the SMMU and sets it up, at most.
const BOOT: f64 = 100.0;
const EXITS: &str = "exits";

/// Counters of the hypervisor's line about the virtual SMMU, and of the exits to it.
#[derive(Debug)]
pub struct Counts(BTreeMap<String, f64>);

impl Counts {
    /// Those of a machine that has ended.
    ///
    /// # Errors
    /// When they were not printed.
    pub fn of(machine: &Machine) -> Result<Self> {
        let mut counts = machine::counts(machine, "vsmmu")?;
        counts.insert("exits".to_owned(), machine::exits(machine)?.get("smmu").copied().unwrap_or_default());
        Ok(Self(counts))
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn commands(&self, whose: &str) -> f64 {
        KINDS.iter().map(|kind| self.get(&format!("{whose}-{kind}"))).sum()
    }

    /// What is set against the guest's CMD_SYNCs.
    fn named(&self) -> [(&'static str, f64); 4] {
        [
            (EXITS, self.get("exits")),
            ("guest's TLBIs", self.commands("guest")),
            ("TLBIs sent", self.commands("sent")),
            ("SYNCs sent", self.get("syncs")),
        ]
    }

    /// By the guest's CMD_SYNC, by the trap and by MiB that a NIC moved, the boot's few included.
    pub fn show(&self, report: &mut Report, title: &str, is_judged: bool, mebibytes: f64) {
        let judged = |limit| if is_judged { limit } else { Limit::None };
        let guest_syncs = self.get("guest-syncs");
        for (name, count) in self.named() {
            let limit = if name == EXITS { judged(Limit::AtMost(1.0 + BOOT / guest_syncs)) } else { Limit::None };
            report.figure(&format!("{title}: {name} per guest SYNC"), count / guest_syncs, "", limit);
        }
        for (name, count) in self.named().into_iter().chain([("guest's SYNCs", guest_syncs)]) {
            report.figure(&format!("{title}: {name} per MiB"), count / mebibytes, "", Limit::None);
        }
        for kind in KINDS {
            let count = self.get(&format!("sent-{kind}"));
            report.figure(&format!("{title}: sent by {kind}, share"), count / self.commands("sent"), "", Limit::None);
        }
        let calls = self.get("calls");
        let commands = (self.commands("guest") + guest_syncs) / calls;
        let instructions = self.get("instructions") / calls;
        report.figure(&format!("{title}: commands of a trap"), commands, "", Limit::None);
        let most = judged(Limit::AtMost(limit_of(commands)));
        report.figure(&format!("{title}: EL2 instructions of a trap"), instructions, "insns", most);
        report.figure(&format!("{title}: most of one trap"), self.get("worst"), "insns", Limit::None);
        report.figure(&format!("{title}: changes of policy"), self.get("switches"), "", Limit::None);
    }
}

/// EL2's instructions for a batch of `commands`, its CMD_SYNC among them, at most.
pub fn limit_of(commands: f64) -> f64 {
    BATCH + COMMAND * commands
}
