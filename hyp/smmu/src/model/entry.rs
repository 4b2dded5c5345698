//! What a stream table entry says, and what makes it ILLEGAL (IHI 0070 5.2).

use super::State;

/// Stage 2 as an entry has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage2 {
    pub(super) vmid: u16,
    pub(super) root: u64,
    pub(super) ipa_bits: u32,
    /// Level of the root table.
    pub(super) level: u32,
    pub(super) oas_bits: u32,
    pub(super) is_recording: bool,
    /// S2HA.
    pub(super) sets_access_flags: bool,
}

/// A valid entry; `None` in its place is abort.
pub(super) enum Decoded {
    /// Bypass, or stage 1 alone.
    Unconfined,
    /// Stage 2, and where the context descriptor is whose stage 1 comes before it, as an IPA.
    Stage2(Stage2, Option<u64>),
}

impl State {
    /// What an entry says; `Err` names what makes it ILLEGAL or not valid (5.2).
    pub(super) fn decode_entry(&self, entry: &[u64; 8]) -> Result<Option<Decoded>, &'static str> {
        let id = self.config.id;
        let check = |is_ok: bool, what| if is_ok { Ok(()) } else { Err(what) };
        check(entry[0] & 1 != 0, "STE.V")?;
        match entry[0] >> 1 & 7 {
            0..=3 => return Ok(None),
            4 | 5 => return Ok(Some(Decoded::Unconfined)),
            _ => {}
        }
        let context = (entry[0] >> 1 & 1 != 0).then_some(entry[0] & !0xf);
        check(context.is_some() || entry[0] >> 4 == 0, "STE word 0")?;
        let has_type_override = id.idr1 & 1 << 27 != 0;
        let shcfg = 3 << 44;
        let stage1 = if context.is_some() { 0xff | 1 << 27 } else { 0 };
        check(entry[1] & !(1 << 19 | shcfg | stage1) == 0, "STE word 1")?;
        check(has_type_override || entry[1] & shcfg == 0, "STE.SHCFG")?;
        let word = entry[2];
        check(word & 0xf800_0000_ffff_0000 == 0, "STE word 2")?;
        let vmid = u16::try_from(word & 0xffff).unwrap_or(0);
        check(id.idr0 & 1 << 18 != 0 || vmid <= 0xff, "STE.S2VMID")?;
        check(word >> 46 & 3 == 0, "STE.S2TG")?;
        check(word >> 51 & 1 == 1, "STE.S2AA64")?;
        check(word >> 52 & 1 == 0, "STE.S2ENDI")?;
        check(word >> 55 & 1 == 0, "STE.S2HD")?;
        let sets_access_flags = word >> 56 & 1 == 1;
        check(!sets_access_flags || id.idr0 & 3 << 6 != 0, "STE.S2HA without HTTU")?;
        // With tables that are not write-back cacheable it is IMPLEMENTATION DEFINED what becomes of an update (5.2).
        check(!sets_access_flags || word >> 40 & 0xf == 0b0101, "STE.S2HA without cacheable walks")?;
        check(word >> 57 & 1 == 0, "STE.S2S")?;
        let oas_bits = [32, 36, 40, 42, 44, 48, 52, 0][(id.idr5 & 7) as usize];
        let s2ps = [32, 36, 40, 42, 44, 48, 52, 0][(word >> 48 & 7) as usize];
        check(s2ps != 0 && s2ps <= oas_bits, "STE.S2PS")?;
        let t0sz = u32::try_from(word >> 32 & 63).unwrap_or(0);
        check((16..=39).contains(&t0sz), "STE.S2T0SZ")?;
        let ipa_bits = 64 - t0sz;
        check(ipa_bits <= oas_bits, "STE.S2T0SZ")?;
        // Up to 16 tables are concatenated at level 2 (DDI 0487 D8.2.2); at the other levels one root table is modelled.
        let (level, low, high) = match word >> 38 & 3 {
            0 => (2, 22, 34),
            1 => (1, 31, 39),
            2 => (0, 40, 48),
            _ => return Err("STE.S2SL0"),
        };
        check((low..=high).contains(&ipa_bits), "STE.S2SL0 with S2T0SZ")?;
        let root = entry[3];
        check(root & !0x0000_ffff_ffff_fff0 == 0 && root >> oas_bits == 0, "STE.S2TTB")?;
        let root_bytes = if level == 2 { 4096 << ipa_bits.saturating_sub(30) } else { 4096 };
        check(root & (root_bytes - 1) == 0, "STE.S2TTB's alignment")?;
        if let Some(at) = context {
            check(id.idr0 & 1 << 1 != 0, "STE.Config without stage 1")?;
            // S1Fmt, S1CDMax; past the input range it is CONSTRAINED UNPREDICTABLE what is fetched (3.4.3).
            check(at & 0x30 == 0 && at >> ipa_bits == 0, "STE.S1ContextPtr")?;
            check(entry[1] >> 6 & 3 != 1, "STE.S1CSH")?;
            // ILLEGAL where stalls cannot be configured (5.5); elsewhere it must be set for PCIe clients.
            check((entry[1] >> 27 & 1 == 1) == (id.idr0 >> 24 & 3 == 0), "STE.S1STALLD")?;
            // A walk of the guest's could otherwise read a device.
            check(word >> 54 & 1 == 1, "STE.S2PTW")?;
        }
        check(entry[4..].iter().all(|word| *word == 0), "STE words 4 to 7")?;
        let is_recording = word >> 58 & 1 == 1;
        let oas_bits = s2ps;
        let s2 = Stage2 { vmid, root, ipa_bits, level, oas_bits, is_recording, sets_access_flags };
        Ok(Some(Decoded::Stage2(s2, context)))
    }
}
