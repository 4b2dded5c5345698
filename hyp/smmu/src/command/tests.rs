//! Golden words of every command, re-derived from IHI 0070 chapter 4.

use bulkhead_core::{
    addr::Ipa,
    ids::{StreamId, Vmid},
};

use super::{Command, Kind};

const VMID: Vmid = match Vmid::new(0xabcd) {
    Some(vmid) => vmid,
    None => panic!("not zero"),
};

fn va(asid: Option<u16>, num: u8, scale: u8, is_leaf: bool) -> Command {
    Command::TlbiNhVa { vmid: VMID, asid, va: 0xfedc_ba98_7654_3fff, num, scale, is_leaf }
}

#[test]
fn golden_words() {
    let stream = StreamId(0xdead_beef);
    let ipa = Ipa::new(0x000f_edcb_a987_6fff);
    let golden = [
        (Command::CfgiSte { stream, is_leaf: true }, [0xdead_beef_0000_0003, 1], Kind::Configuration),
        (Command::CfgiSte { stream, is_leaf: false }, [0xdead_beef_0000_0003, 0], Kind::Configuration),
        (Command::CfgiAll, [0x04, 31], Kind::Configuration),
        (Command::CfgiCdAll { stream }, [0xdead_beef_0000_0006, 0], Kind::Configuration),
        (Command::TlbiNhAll { vmid: VMID }, [0x0000_abcd_0000_0010, 0], Kind::Tlb),
        // ASID 63:48, VMID 47:32.
        (Command::TlbiNhAsid { vmid: VMID, asid: 0x1234 }, [0x1234_abcd_0000_0011, 0], Kind::Tlb),
        (va(Some(0x1234), 0, 0, true), [0x1234_abcd_0000_0012, 0xfedc_ba98_7654_3001], Kind::Tlb),
        (va(None, 0, 0, false), [0x0000_abcd_0000_0013, 0xfedc_ba98_7654_3000], Kind::Tlb),
        // NUM 16:12, SCALE 24:20, TG 75:74 = 4 KiB, TTL 73:72 = any.
        (va(Some(0x1234), 31, 20, false), [0x1234_abcd_0141_f012, 0xfedc_ba98_7654_3400], Kind::Tlb),
        (va(None, 0, 3, true), [0x0000_abcd_0030_0013, 0xfedc_ba98_7654_3401], Kind::Tlb),
        (Command::TlbiEl2All, [0x20, 0], Kind::Tlb),
        (Command::TlbiS12Vmall { vmid: VMID }, [0x0000_abcd_0000_0028, 0], Kind::Tlb),
        (
            Command::TlbiS2Ipa { vmid: VMID, ipa, is_leaf: true },
            [0x0000_abcd_0000_002a, 0x000f_edcb_a987_6001],
            Kind::Tlb,
        ),
        (
            Command::TlbiS2IpaRange { vmid: VMID, ipa, num: 31, scale: 20, is_leaf: false },
            // NUM 16:12, SCALE 24:20, TG 11:10 = 4 KiB.
            [0x0000_abcd_0141_f02a, 0x000f_edcb_a987_6400],
            Kind::Tlb,
        ),
        (Command::TlbiNsnhAll, [0x30, 0], Kind::Tlb),
        (Command::Sync, [0x46, 0], Kind::Sync),
    ];
    for (command, words, kind) in golden {
        assert_eq!(command.encode(), words, "{command:?}");
        assert_eq!(command.kind(), kind, "{command:?}");
    }
}

#[test]
fn no_field_spills_into_another() {
    // All ones in every field, one at a time: only its own bits change.
    let ipa = Ipa::new(u64::MAX);
    let base = Command::TlbiS2IpaRange { vmid: VMID, ipa: Ipa::new(0), num: 0, scale: 0, is_leaf: false };
    let [low, high] = base.encode();
    for (command, low_mask, high_mask) in [
        (Command::TlbiS2IpaRange { vmid: VMID, ipa, num: 0, scale: 0, is_leaf: false }, 0, 0x000f_ffff_ffff_f000),
        (Command::TlbiS2IpaRange { vmid: VMID, ipa: Ipa::new(0), num: 0xff, scale: 0, is_leaf: false }, 0x1f << 12, 0),
        (Command::TlbiS2IpaRange { vmid: VMID, ipa: Ipa::new(0), num: 0, scale: 0xff, is_leaf: false }, 0x1f << 20, 0),
    ] {
        let [changed_low, changed_high] = command.encode();
        assert_eq!((changed_low ^ low, changed_high ^ high), (low_mask, high_mask), "{command:?}");
    }
    let [low, high] = va(Some(0), 0xe0, 0xe0, false).encode();
    assert_eq!((low, high & 0xfff), (0x0000_abcd_0000_0012, 0), "what is cut off is no range");
}

/// Would miss: a refused command whose message leaves out whose it was.
#[test]
fn messages_say_whose() {
    let ipa = Ipa::new(0x4000_0000);
    assert_eq!(
        Command::CfgiSte { stream: StreamId(8), is_leaf: true }.to_string(),
        format!("CMD_CFGI_STE of stream {}, leaf true", StreamId(8))
    );
    assert_eq!(Command::TlbiS12Vmall { vmid: VMID }.to_string(), "CMD_TLBI_S12_VMALL of vmid 43981");
    assert_eq!(Command::CfgiCdAll { stream: StreamId(8) }.to_string(), "CMD_CFGI_CD_ALL of stream 0x8");
    assert_eq!(Command::TlbiNhAll { vmid: VMID }.to_string(), "CMD_TLBI_NH_ALL of vmid 43981");
    let asid = Command::TlbiNhAsid { vmid: VMID, asid: 18 };
    assert_eq!(asid.to_string(), "CMD_TLBI_NH_ASID of vmid 43981, asid 0x12");
    let words = "from 0xfedcba9876543fff, num 3, scale 1, leaf true";
    for (asid, text) in [(Some(18), "VA of vmid 43981, asid 0x12"), (None, "VAA of vmid 43981, asid 0x0")] {
        assert_eq!(va(asid, 3, 1, true).to_string(), format!("CMD_TLBI_NH_{text}, {words}"));
    }
    let range = Command::TlbiS2IpaRange { vmid: VMID, ipa, num: 3, scale: 1, is_leaf: false };
    assert_eq!(range.to_string(), format!("CMD_TLBI_S2_IPA of vmid 43981 from {ipa}, num 3, scale 1, leaf false"));
}
