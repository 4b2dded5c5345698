//! QEMU's own record of the SMMU: what was translated, and what was not.

mod twins;

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use crate::qemu::QemuLine;

/// Offset of SMMU_CR0 and its SMMUEN bit (IHI 0070 6.3.9).
const CR0_OFFSET: u64 = 0x20;
const CR0_SMMUEN: u64 = 1;
/// What must not happen once the SMMU is enabled.
const FORBIDDEN: [&str; 4] =
    ["smmuv3_translate_bypass", "smmuv3_translate_disable", "smmuv3_translate_abort", "smmuv3_record_event"];
const WRITES: &str = "smmuv3_write_mmio";

/// Makes QEMU write these events to `file`; those for [`judge_twins`] if they are wanted.
pub fn enable(line: &mut QemuLine, file: &Path, has_twins: bool) {
    let twins = has_twins.then_some(twins::INSERT);
    for event in FORBIDDEN.into_iter().chain([WRITES]).chain(twins) {
        line.option("-trace", event);
    }
    line.option("-D", &file.to_string_lossy());
}

/// Judges the trace in `file`.
///
/// # Errors
/// The first event that must not be there, or that the SMMU was never enabled.
pub fn judge(file: &Path) -> Result<(), String> {
    judge_lines(lines(file)?)
}

/// Judges whether devices of two VMs have used the same ASID and addresses.
///
/// # Errors
/// That they have not.
pub fn judge_twins(file: &Path) -> Result<(), String> {
    twins::judge(lines(file)?)
}

fn lines(file: &Path) -> Result<impl Iterator<Item = String>, String> {
    let trace = File::open(file).map_err(|error| format!("no trace in {}: {error}", file.display()))?;
    Ok(BufReader::new(trace).lines().map_while(Result::ok))
}

fn judge_lines(lines: impl Iterator<Item = String>) -> Result<(), String> {
    let mut is_enabled = false;
    for line in lines {
        if is_enabled && FORBIDDEN.iter().any(|event| line.contains(event)) {
            return Err(line);
        }
        if let Some(value) = cr0_write(&line) {
            is_enabled |= value & CR0_SMMUEN != 0;
            if is_enabled && value & CR0_SMMUEN == 0 {
                return Err(format!("the SMMU was disabled: {line}"));
            }
        }
    }
    if is_enabled { Ok(()) } else { Err("the SMMU was never enabled".to_owned()) }
}

/// The value of a write to SMMU_CR0: `smmuv3_write_mmio addr: 0x20 val:0x1 size: 0x4(0)`.
fn cr0_write(line: &str) -> Option<u64> {
    let rest = line.split_once(WRITES)?.1;
    (hexadecimal(rest, "addr:")? == CR0_OFFSET).then(|| hexadecimal(rest, "val:")).flatten()
}

/// The number `0x…` behind `key`.
fn hexadecimal(text: &str, key: &str) -> Option<u64> {
    let text = text.split_once(key)?.1.trim_start().strip_prefix("0x")?;
    let digits = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    u64::from_str_radix(&text[..digits], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::judge_lines;

    fn judge(lines: &[&str]) -> Result<(), String> {
        judge_lines(lines.iter().map(|line| (*line).to_owned()))
    }

    const ENABLE: &str = "smmuv3_write_mmio addr: 0x20 val:0xd size: 0x4(0)";
    const DISABLE: &str = "smmuv3_write_mmio addr: 0x20 val:0xc size: 0x4(0)";
    const BYPASS: &str =
        "smmuv3_translate_bypass smmuv3-iommu-memory-region-16-1 sid=0x10 bypass (smmu disabled) iova:0x0";

    /// Would miss: a stream that bypasses after the SMMU is on, or an SMMU that is switched off again.
    #[test]
    fn from_enabling_on_nothing_bypasses() {
        assert_eq!(judge(&[BYPASS, DISABLE, ENABLE, ENABLE]), Ok(()));
        assert!(judge(&[ENABLE, BYPASS]).is_err());
        assert!(judge(&[ENABLE, DISABLE]).is_err());
        assert!(judge(&[ENABLE, "smmuv3_record_event smmuv3 F_TRANSLATION sid=0x10"]).is_err());
    }

    /// Would miss: a test that passes because there was no trace at all.
    #[test]
    fn the_smmu_must_be_enabled() {
        assert!(judge(&[]).is_err());
        assert!(judge(&["smmuv3_write_mmio addr: 0x2020 val:0x1 size: 0x4(0)"]).is_err());
    }
}
