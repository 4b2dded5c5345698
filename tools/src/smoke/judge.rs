//! What the guests said, turned into verdicts.

use std::collections::BTreeMap;

/// What guests report with `report`, by VM.
const REPORTS: [(&str, &str); 9] = [
    ("alpha", "ping-gateway"),
    ("alpha", "ping-neighbour"),
    ("beta", "ping-gateway"),
    ("beta", "ping-neighbour"),
    ("beta", "again-ping-gateway"),
    ("beta", "again-ping-neighbour"),
    ("alpha", "traffic"),
    ("alpha", "carrier"),
    ("alpha", "quiet-log"),
];
/// Bytes of each transfer.
const TRANSFER_BYTES: u64 = 64 << 20;

/// What was seen on the console.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    reports: BTreeMap<(String, String), Result<(), String>>,
    served: BTreeMap<String, Transfer>,
    fetched: BTreeMap<String, Transfer>,
    ready: BTreeMap<String, usize>,
    traffic_has_begun: bool,
    has_reset: bool,
    has_ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Transfer {
    bytes: u64,
    checksum: String,
}

impl Judge {
    /// Takes the next console line.
    pub fn see(&mut self, line: &str) {
        let Some((vm, said)) = split(line) else { return };
        let vm = vm.to_owned();
        if said == "ready" {
            *self.ready.entry(vm).or_default() += 1;
        } else if said == "traffic begins" {
            self.traffic_has_begun = true;
        } else if said == "resets" {
            self.has_reset = true;
        } else if let Some(name) = said.strip_prefix("ok ") {
            self.reports.entry((vm, name.to_owned())).or_insert(Ok(()));
        } else if let Some((name, reason)) = said.strip_prefix("FAIL ").and_then(|rest| rest.split_once(": ")) {
            self.reports.insert((vm, name.to_owned()), Err(reason.to_owned()));
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

    /// Whether alpha moves data now.
    pub fn traffic_has_begun(&self) -> bool {
        self.traffic_has_begun
    }

    /// Whether beta has said all that it says after its reset.
    pub fn neighbour_is_back(&self) -> bool {
        let has = |name: &str| self.reports.contains_key(&("beta".to_owned(), name.to_owned()));
        has("again-ping-gateway") && has("again-ping-neighbour")
    }

    /// Whether every check was passed.
    pub fn is_complete(&self) -> bool {
        self.verdicts().iter().all(|(_, verdict)| verdict.is_ok())
    }

    /// Every check and how it went.
    pub fn verdicts(&self) -> Vec<(String, Result<(), String>)> {
        let never = || Err("it was never said".to_owned());
        let mut verdicts = Vec::new();
        for vm in ["alpha", "beta"] {
            let is_up = self.ready.contains_key(vm);
            verdicts.push((format!("{vm}: boots to userspace"), if is_up { Ok(()) } else { never() }));
        }
        for (from, to) in [("alpha", "beta"), ("beta", "alpha")] {
            verdicts.push((format!("{from} to {to}: 64 MiB by TCP, checksums equal"), self.transfer(from, to)));
        }
        let boots = self.ready.get("beta").copied().unwrap_or_default();
        let reset = if self.has_reset && boots == 2 {
            Ok(())
        } else {
            Err(format!("asked for: {}, boots: {boots}", self.has_reset))
        };
        verdicts.push(("beta: resets and boots again".to_owned(), reset));
        for (vm, name) in REPORTS {
            let verdict = self.reports.get(&(vm.to_owned(), name.to_owned())).cloned().unwrap_or_else(never);
            verdicts.push((format!("{vm}: {name}"), verdict));
        }
        let boots = self.ready.get("alpha").copied().unwrap_or_default();
        let alone = if boots == 1 { Ok(()) } else { Err(format!("alpha booted {boots} times")) };
        verdicts.push(("alpha: booted once".to_owned(), alone));
        let end = if self.has_ended { Ok(()) } else { Err("the time was over first".to_owned()) };
        verdicts.push(("machine: powers off when both have stopped".to_owned(), end));
        verdicts
    }

    fn transfer(&self, from: &str, to: &str) -> Result<(), String> {
        let served = self.served.get(from).ok_or_else(|| format!("{from} served nothing"))?;
        let fetched = self.fetched.get(to).ok_or_else(|| format!("{to} fetched nothing"))?;
        if served != fetched || served.bytes != TRANSFER_BYTES {
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
    use super::Judge;

    fn all(fetched: &str) -> Judge {
        let mut judge = Judge::default();
        let sum = "d41d8cd98f00b204e9800998ecf8427e";
        for line in [
            "[alpha] bulkhead-guest: ready".to_owned(),
            "[beta] bulkhead-guest: ready".to_owned(),
            format!("[alpha] bulkhead-guest: serves 67108864 bytes md5 {sum}  -"),
            format!("[beta] bulkhead-guest: serves 67108864 bytes md5 {sum}  -"),
            format!("[alpha] bulkhead-guest: fetched 67108864 bytes md5 {sum}  -"),
            format!("[beta] bulkhead-guest: fetched {fetched}  -"),
            "[beta] bulkhead-guest: resets".to_owned(),
            "[beta] bulkhead-guest: ready".to_owned(),
        ] {
            judge.see(&line);
        }
        for (vm, name) in super::REPORTS {
            judge.see(&format!("[{vm}] bulkhead-guest: ok {name}"));
        }
        judge.machine_ended();
        judge
    }

    /// Would miss: a verdict that no console output can make fail.
    #[test]
    fn everything_must_be_said() {
        assert!(all("67108864 bytes md5 d41d8cd98f00b204e9800998ecf8427e").is_complete());
        assert!(!Judge::default().is_complete());
        assert!(Judge::default().verdicts().iter().all(|(_, verdict)| verdict.is_err()));
    }

    /// Would miss: a short or changed transfer.
    #[test]
    fn transfers_must_be_whole_and_the_same() {
        assert!(!all("67108864 bytes md5 00000000000000000000000000000000").is_complete());
        assert!(!all("62914560 bytes md5 d41d8cd98f00b204e9800998ecf8427e").is_complete());
    }

    /// Would miss: a failure that a later success covers.
    #[test]
    fn a_failure_stays() {
        let mut judge = all("67108864 bytes md5 d41d8cd98f00b204e9800998ecf8427e");
        judge.see("[alpha] bulkhead-guest: FAIL traffic: round 3 came back different");
        judge.see("[alpha] bulkhead-guest: ok traffic");
        assert!(!judge.is_complete());
    }
}
