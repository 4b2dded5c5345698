//! Every number decodes, the fields come from their places, and each event is one line.

use std::{format, string::ToString};

use bulkhead_core::{
    addr::{Iova, Ipa},
    ids::StreamId,
};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{Class, Event, Reason};

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
