//! What the guests said, turned into verdicts.

use std::collections::BTreeMap;

use super::runs::{Run, Vm};

/// What was seen on the console of a run.
#[derive(Clone, Debug)]
pub struct Judge {
    run: Run,
    reports: BTreeMap<(String, String), Report>,
    served: BTreeMap<String, Transfer>,
    fetched: BTreeMap<String, Transfer>,
    boots: BTreeMap<String, usize>,
    has_ended: bool,
}

/// How often a report was good, and the first time that it was not.
#[derive(Clone, Debug, Default)]
struct Report {
    good: usize,
    failure: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Transfer {
    bytes: u64,
    checksum: String,
}

impl Judge {
    /// Of a run that has not begun.
    pub fn new(run: &Run) -> Self {
        Self {
            run: *run,
            reports: BTreeMap::new(),
            served: BTreeMap::new(),
            fetched: BTreeMap::new(),
            boots: BTreeMap::new(),
            has_ended: false,
        }
    }

    /// Takes the next console line.
    pub fn see(&mut self, line: &str) {
        let Some((vm, said)) = split(line) else { return };
        let vm = vm.to_owned();
        if said == "ready" {
            *self.boots.entry(vm).or_default() += 1;
        } else if let Some(name) = said.strip_prefix("ok ") {
            self.reports.entry((vm, name.to_owned())).or_default().good += 1;
        } else if let Some((name, reason)) = said.strip_prefix("FAIL ").and_then(|rest| rest.split_once(':')) {
            self.reports
                .entry((vm, name.to_owned()))
                .or_default()
                .failure
                .get_or_insert_with(|| reason.trim().to_owned());
        } else if let Some(transfer) = said.strip_prefix("serves ").and_then(Transfer::parse) {
            self.served.entry(vm).or_insert(transfer);
        } else if let Some(transfer) = said.strip_prefix("fetched ").and_then(Transfer::parse) {
            self.fetched.insert(vm, transfer);
        }
    }

    /// QEMU has ended by itself.
    pub fn machine_ended(&mut self) {
        self.has_ended = true;
    }

    /// Whether every check was passed.
    pub fn is_complete(&self) -> bool {
        self.verdicts().iter().all(|(_, verdict)| verdict.is_ok())
    }

    /// Every check and how it went.
    pub fn verdicts(&self) -> Vec<(String, Result<(), String>)> {
        let mut verdicts = Vec::new();
        for vm in self.run.vms {
            verdicts.push((format!("{}: boots to userspace, times: {}", vm.name, vm.boots), self.boots(vm)));
        }
        for (from, to) in self.run.transfers {
            let name = format!("{from} to {to}: {} MiB by TCP, checksums equal", self.run.transfer_mib);
            verdicts.push((name, self.transfer(from, to)));
        }
        for vm in self.run.vms {
            for (name, times) in vm.all_reports() {
                let title = if times == 1 { name.to_owned() } else { format!("{name}, times: {times}") };
                verdicts.push((format!("{}: {title}", vm.name), self.report(vm.name, name, times)));
            }
        }
        let end = if self.has_ended { Ok(()) } else { Err("the time was over first".to_owned()) };
        verdicts.push(("machine: powers off when all have stopped".to_owned(), end));
        verdicts
    }

    fn boots(&self, vm: &Vm) -> Result<(), String> {
        let boots = self.boots.get(vm.name).copied().unwrap_or_default();
        if boots == vm.boots { Ok(()) } else { Err(format!("it did {boots} times")) }
    }

    fn report(&self, vm: &str, name: &str, times: usize) -> Result<(), String> {
        let report = self.reports.get(&(vm.to_owned(), name.to_owned())).ok_or("it was never said")?;
        match &report.failure {
            Some(reason) => Err(reason.clone()),
            None if report.good == times => Ok(()),
            None => Err(format!("it was said {} times", report.good)),
        }
    }

    fn transfer(&self, from: &str, to: &str) -> Result<(), String> {
        let served = self.served.get(from).ok_or_else(|| format!("{from} served nothing"))?;
        let fetched = self.fetched.get(to).ok_or_else(|| format!("{to} fetched nothing"))?;
        if served != fetched || served.bytes != self.run.transfer_mib << 20 {
            return Err(format!("{from} served {served:?}, {to} fetched {fetched:?}"));
        }
        Ok(())
    }
}

impl Transfer {
    /// `N bytes md5 CHECKSUM -`, as `md5sum` ends its line.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let bytes = words.next()?.parse().ok()?;
        let checksum = words.nth(2)?.to_owned();
        Some(Self { bytes, checksum })
    }
}

/// The VM and what its `init` says in `[vm] bulkhead-guest: …`.
fn split(line: &str) -> Option<(&str, &str)> {
    let (vm, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (_, said) = rest.split_once("bulkhead-guest: ")?;
    Some((vm, said.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::{
        super::runs::{RUNS, Run},
        Judge,
    };

    const SUM: &str = "d41d8cd98f00b204e9800998ecf8427e";

    /// A run in which everything goes well, but for what is fetched.
    fn all(run: &Run, fetched: &str) -> Judge {
        let mut judge = Judge::new(run);
        for (from, to) in run.transfers {
            judge.see(&format!("[{from}] bulkhead-guest: serves {} bytes md5 {SUM}  -", run.transfer_mib << 20));
            judge.see(&format!("[{to}] bulkhead-guest: fetched {fetched}  -"));
        }
        for vm in run.vms {
            let boots = std::iter::repeat_n("ready".to_owned(), vm.boots);
            let reports = vm.all_reports().flat_map(|(name, times)| std::iter::repeat_n(format!("ok {name}"), times));
            for said in boots.chain(reports) {
                judge.see(&format!("[{}] bulkhead-guest: {said}", vm.name));
            }
        }
        judge.machine_ended();
        judge
    }

    fn good(run: &Run) -> Judge {
        all(run, &format!("{} bytes md5 {SUM}", run.transfer_mib << 20))
    }

    /// Would miss: a verdict that no console output can make fail.
    #[test]
    fn everything_must_be_said() {
        for run in &RUNS {
            assert!(good(run).is_complete());
            assert!(Judge::new(run).verdicts().iter().all(|(_, verdict)| verdict.is_err()));
        }
    }

    /// Would miss: a short or changed transfer.
    #[test]
    fn transfers_must_be_whole_and_the_same() {
        for run in &RUNS {
            assert!(
                !all(run, &format!("{} bytes md5 00000000000000000000000000000000", run.transfer_mib << 20))
                    .is_complete()
            );
            assert!(!all(run, &format!("1048576 bytes md5 {SUM}")).is_complete());
        }
    }

    /// Would miss: a failure that a later success covers, one reboot too many or too few.
    #[test]
    fn a_failure_stays_and_times_are_counted() {
        for run in &RUNS {
            for line in ["ready", "ok traffic", "FAIL traffic: round 3 came back different", "FAIL traffic: "] {
                let mut judge = good(run);
                judge.see(&format!("[alpha] bulkhead-guest: {line}"));
                assert!(!judge.is_complete());
            }
        }
    }
}
