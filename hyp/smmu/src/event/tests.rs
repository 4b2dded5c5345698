//! Every number decodes, the fields come from their places, and each event is one line.

use std::{format, string::ToString};

use bulkhead_core::{
    addr::{Iova, Ipa},
    ids::StreamId,
};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{Class, Event, Reason};

/// A guest's name of its stream.
const VIRTUAL: StreamId = StreamId(0x18);

#[test]
fn every_number_is_a_reason_and_back() {
    for number in 0..=u8::MAX {
        assert_eq!(Reason::from_number(number).number(), number);
    }
    let known = (0..=u8::MAX).filter(|number| !matches!(Reason::from_number(*number), Reason::Unknown(_)));
    assert_eq!(known.count(), 19);
}

#[test]
fn a_translation_fault_has_its_fields() {
    // F_TRANSLATION, stream 8, a privileged write at stage 2 of the input address.
    let event = Event::decode([0x10 | 8 << 32, 1 << 33 | 1 << 39 | 2 << 40, 0x1_2345_6789, 0x000f_0001_2345_6000]);
    assert_eq!(event.reason, Reason::Translation);
    assert_eq!(event.stream, StreamId(8));
    assert_eq!((event.iova, event.stage), (Some(Iova::new(0x1_2345_6789)), Some(2)));
    assert_eq!(event.ipa, Some(Ipa::new(0x000f_0001_2345_6000)));
    let access = event.access.expect("an access");
    assert!(access.is_write && access.is_privileged && !access.is_fetch);
    assert_eq!(event.class, Some(Class::Input));
    assert!(!event.is_stalled);
    assert_eq!(
        event.to_string(),
        "stream 0x8: privileged write at 0x123456789 (ipa 0xf000123456000): F_TRANSLATION, nothing is mapped there"
    );
}

#[test]
fn each_field_has_its_own_bits() {
    let base = Event::decode([0x13, 1 << 35, 0, 0]);
    let access = base.access.expect("an access");
    assert!(!access.is_write && !access.is_fetch && !access.is_privileged);
    assert_eq!((base.stage, base.class), (Some(1), Some(Class::ContextDescriptor)));
    assert_eq!((base.ipa, base.substream), (None, None));
    assert_eq!(Event::decode([0x13, 1 << 34, 0, 0]).access.map(|access| access.is_fetch), Some(true));
    assert!(Event::decode([0x13, 1 << 31, 0, 0]).is_stalled);
    assert_eq!(Event::decode([0x13, 1 << 40, 0, 0]).class, Some(Class::TableWalk));
    let pasid = Event::decode([0x13 | 1 << 11 | 0xabcde << 12, 0, 0, 0]);
    assert_eq!(pasid.substream, Some(0xabcde));
}

#[test]
fn an_identity_mapped_fault_does_not_say_its_address_twice() {
    let event = Event::decode([0x10 | 8 << 32, 1 << 35 | 1 << 39, 0x5000_0123, 0x5000_0000]);
    assert_eq!(event.to_string(), "stream 0x8: read at 0x50000123: F_TRANSLATION, nothing is mapped there");
}

#[test]
fn events_without_an_address_have_none() {
    for number in [0x02, 0x03, 0x04, 0x06, 0x08, 0x09, 0x0a, 0x21, 0x25, 0x7f] {
        let event = Event::decode([number, u64::MAX, u64::MAX, u64::MAX]);
        assert_eq!((event.iova, event.access, event.stage), (None, None, None), "{number:#x}");
    }
    let fetch = Event::decode([0x03 | 7 << 32, 0, 0, 0x1_0000_0008]);
    assert_eq!(fetch.fetch_addr, Some(0x1_0000_0008));
    assert_eq!(
        fetch.to_string(),
        "stream 0x7: access (fetch of 0x100000008): F_STE_FETCH, the stream table could not be read"
    );
}

#[test]
fn an_unknown_event_is_shown_raw() {
    let line = Event::decode([0xee | 1 << 32, 2, 3, 4]).to_string();
    assert_eq!(line, "stream 0x1: access: unknown event, unknown 0xee [1000000ee, 2, 3, 4]");
}

proptest! {
    /// The queue's memory is not trusted: any bits decode to something that prints as one line.
    #[test]
    fn any_record_decodes_to_one_line(raw in any::<[u64; 4]>()) {
        let event = Event::decode(raw);
        let line = format!("{event}");
        prop_assert!(!line.contains('\n') && line.len() < 250);
        prop_assert_eq!(event.raw, raw);
        prop_assert_eq!(u64::from(event.stream.0), raw[0] >> 32);
    }
}

/// Reason, word 1, word 3 of an SMMU's event with `raw`, as the guest finds them.
fn shown(raw: [u64; 4]) -> Option<(Reason, u64, u64)> {
    let words = Event::decode(raw).for_guest(VIRTUAL)?;
    assert_eq!(words[0] >> 8, u64::from(VIRTUAL.0) << 24 | (raw[0] & 0xffff_f800) >> 8);
    let shown = Event::decode(words);
    assert_eq!((shown.stream, shown.is_stalled, shown.ipa), (VIRTUAL, false, None));
    assert!(words[2] == raw[2] || words[2] == 0 && shown.iova.is_none());
    Some((shown.reason, words[1], words[3]))
}

/// Would miss: an address of ours, a stage that the guest does not have, a stalled transaction that it could resume.
#[test]
fn a_guest_sees_what_its_own_smmu_would_record() {
    const NOISE: u64 = 1 << 31 | 0xbeef | 1 << 44 | 1 << 36;
    const READ: u64 = 1 << 35 | 1 << 33;
    const S2: u64 = 1 << 39;
    let (cd, tt, input) = (0, 1 << 40, 2 << 40);
    let page = 0x5432_1000;
    for number in [0x10, 0x11, 0x12, 0x13] {
        let raw = |word1: u64| [0x8_0000_0000 | number | 1 << 11 | 7 << 12, word1 | READ | NOISE, 0xffff_0123, page];
        let same = Reason::from_number(u8::try_from(number).expect("a byte"));
        assert_eq!(shown(raw(input)), Some((same, READ | input, 0)), "stage 1: IPA is UNKNOWN there");
        assert_eq!(shown(raw(S2 | cd)), Some((Reason::CdFetch, 0, page)));
        assert_eq!(shown(raw(S2 | tt)), Some((Reason::WalkAbort, READ | tt, page)));
        assert_eq!(shown(raw(S2 | input)), None);
        assert_eq!(shown(raw(S2 | 3 << 40)), None, "reserved");
    }
    // FetchAddr is physical.
    let walk = |word1: u64| [0x8_0000_000b, word1 | READ | NOISE, 0xffff_0123, 0x8765_4320];
    assert_eq!(shown(walk(tt)), Some((Reason::WalkAbort, READ | tt, 0)));
    assert_eq!(shown(walk(S2 | tt)), Some((Reason::WalkAbort, READ | tt, 0)));
    assert_eq!(shown(walk(S2 | cd)), Some((Reason::CdFetch, 0, 0)));
    assert_eq!(shown(walk(S2 | input)), None);
    for (number, reason) in [
        (0x04, Reason::BadSte),
        (0x06, Reason::StreamDisabled),
        (0x08, Reason::BadSubstreamId),
        (0x09, Reason::CdFetch),
        (0x0a, Reason::BadCd),
    ] {
        assert_eq!(shown([0x8_0000_0000 | number, NOISE | READ, 0x1234, 0x8765_4320]), Some((reason, 0, 0)));
    }
    let shown_at_all = (0..=u8::MAX).filter(|number| shown([u64::from(*number), 0, 0, 0]).is_some());
    assert_eq!(shown_at_all.count(), 10, "five of the configuration, five of translation");
}

proptest! {
    /// Would miss: bits of the record that pass unseen.
    #[test]
    fn of_any_record_a_guest_gets_its_own_fields_alone(raw in any::<[u64; 4]>(), number in 0u64..0x26) {
        let raw = [raw[0] & !0xff | number, raw[1], raw[2], raw[3]];
        if let Some(words) = Event::decode(raw).for_guest(VIRTUAL) {
            prop_assert_eq!(words[0] >> 32, u64::from(VIRTUAL.0));
            prop_assert_eq!(words[0] & 0x700, 0);
            prop_assert_eq!(words[1] & !(0xe << 32 | 3 << 40), 0);
            let is_ipa = raw[1] >> 39 & 1 == 1 && number >= 0x10;
            prop_assert_eq!(words[3], if is_ipa { raw[3] & 0x000f_ffff_ffff_f000 } else { 0 });
        }
    }
}
