//! Translations of two VMs that only their VMIDs tell apart.

use std::collections::BTreeMap;

use super::hexadecimal;

/// An entry of the SMMU's TLB: `smmu_iotlb_insert IOTLB ++ asid=1 vmid=2 addr=0xfffff000 tg=1 level=3`.
pub const INSERT: &str = "smmu_iotlb_insert";
/// So many addresses must be used by two VMs.
const ADDRESSES_MIN: usize = 16;

/// Judges a trace.
///
/// # Errors
/// How few addresses two VMs have used with the same ASID.
pub fn judge(lines: impl Iterator<Item = String>) -> Result<(), String> {
    let mut owners = BTreeMap::<(u64, u64), Vec<u64>>::new();
    for (vmid, asid, address) in lines.filter_map(|line| entry(&line)) {
        let owners = owners.entry((asid, address)).or_default();
        if !owners.contains(&vmid) {
            owners.push(vmid);
        }
    }
    let twins = owners.values().filter(|owners| owners.len() > 1).count();
    if twins >= ADDRESSES_MIN { Ok(()) } else { Err(format!("{twins} addresses of {}", owners.len())) }
}

/// VMID, ASID and address; none for an entry of stage 2 alone, which has an ASID of -1.
fn entry(line: &str) -> Option<(u64, u64, u64)> {
    let rest = line.split_once(INSERT)?.1;
    let decimal = |key: &str| rest.split_once(key)?.1.split(' ').next()?.parse().ok();
    Some((decimal("vmid=")?, decimal("asid=")?, hexadecimal(rest, "addr=")?))
}

#[cfg(test)]
mod tests {
    use super::judge;

    fn entries(vmid: u64, asid: i64, count: u64) -> impl Iterator<Item = String> {
        (0..count).map(move |page| {
            format!("smmu_iotlb_insert IOTLB ++ asid={asid} vmid={vmid} addr=0x{:x} tg=1 level=3", page << 12)
        })
    }

    /// Would miss: a trace of one VM, or of ASIDs and addresses that differ, taken for two VMs' that do not.
    #[test]
    fn two_vmids_must_share_an_asid_and_addresses() {
        assert!(judge(entries(1, 1, 20).chain(entries(2, 1, 20))).is_ok());
        assert!(judge(entries(1, 1, 20).chain(entries(1, 1, 20))).is_err());
        assert!(judge(entries(1, 1, 20).chain(entries(2, 2, 20))).is_err());
        assert!(judge(entries(1, -1, 20).chain(entries(2, -1, 20))).is_err());
        assert!(judge(entries(1, 1, 20).chain(entries(2, 1, 8))).is_err());
    }
}
