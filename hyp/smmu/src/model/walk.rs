//! The walk of stage 2, and why a translation fails.

use super::{
    DmaAccess, State,
    entry::Stage2,
    tlb::{Entry, Hit, Rights},
};
use crate::event::{Class, Reason};

/// Why a translation failed: at stage 2 and of the input, unless another says more.
pub(super) struct Fault {
    pub(super) reason: Reason,
    pub(super) is_stage1: bool,
    pub(super) class: Class,
    /// Where stage 2 has nothing; `None` for what the device put out.
    pub(super) ipa: Option<u64>,
    pub(super) fetch_addr: u64,
    /// A fault of stage 1 that CD.R suppresses.
    pub(super) is_quiet: bool,
}

impl Fault {
    pub(super) const fn new(reason: Reason) -> Self {
        Self { reason, is_stage1: false, class: Class::Input, ipa: None, fetch_addr: 0, is_quiet: false }
    }
}

/// AF of a descriptor.
const ACCESS_FLAG: u64 = 1 << 10;

impl State {
    /// Both stages of a transaction without stage 1: `input` is an IPA.
    pub(super) fn translate_stage2(&mut self, s2: &Stage2, input: u64, access: DmaAccess) -> Result<u64, Fault> {
        let hit = self.look_up_stage2(s2, input)?;
        if hit.rights.allow(access) { Ok(hit.output) } else { Err(Fault::new(Reason::Permission)) }
    }

    /// What stage 2 has for `input`, in the TLB or by a walk.
    pub(super) fn look_up_stage2(&mut self, s2: &Stage2, input: u64) -> Result<Hit, Fault> {
        match self.tlb.find(s2.vmid, input) {
            Some(hit) => Ok(hit),
            None => self.walk(s2, input),
        }
    }

    fn walk(&mut self, s2: &Stage2, input: u64) -> Result<Hit, Fault> {
        if input >> s2.ipa_bits != 0 {
            return Err(Fault::new(Reason::Translation));
        }
        let mut table = s2.root;
        for level in s2.level..=3 {
            // Bytes that one descriptor of this level covers.
            let bytes = 1u64 << (39 - 9 * level);
            if level != 3
                && let Some(next) = self.tlb.find_walk(s2.vmid, input, bytes)
            {
                table = next;
                continue;
            }
            let entries = if level == s2.level { u64::MAX } else { 512 };
            let at = table + (input / bytes % entries) * 8;
            let Some(descriptor) = self.memory.device_read(at) else {
                return Err(Fault { fetch_addr: at, ..Fault::new(Reason::WalkAbort) });
            };
            let output = descriptor & 0x0000_ffff_ffff_f000;
            match (descriptor & 3, level) {
                (3, 0..=2) => {
                    if output >> s2.oas_bits != 0 {
                        return Err(Fault::new(Reason::AddressSize));
                    }
                    self.tlb.insert_walk(s2.vmid, input, bytes, output);
                    table = output;
                }
                (1, 1 | 2) | (3, 3) => {
                    if output >> s2.oas_bits != 0 {
                        return Err(Fault::new(Reason::AddressSize));
                    }
                    if descriptor & ACCESS_FLAG == 0 {
                        if !s2.sets_access_flags {
                            return Err(Fault::new(Reason::AccessFlag));
                        }
                        // An atomic update (3.13.2). Before the permission check: there it is UNKNOWN whether it happens.
                        if !self.memory.device_update(at, descriptor, descriptor | ACCESS_FLAG) {
                            // The leaf was taken out meanwhile: a new walk finds nothing.
                            return Err(Fault::new(Reason::Translation));
                        }
                    }
                    let entry = Entry {
                        bytes,
                        output: output & !(bytes - 1),
                        rights: Rights { read: descriptor & 1 << 6 != 0, write: descriptor & 1 << 7 != 0 },
                    };
                    self.tlb.insert(s2.vmid, input, entry);
                    return self.tlb.find(s2.vmid, input).ok_or(Fault::new(Reason::Translation));
                }
                _ => return Err(Fault::new(Reason::Translation)),
            }
        }
        Err(Fault::new(Reason::Translation))
    }
}
