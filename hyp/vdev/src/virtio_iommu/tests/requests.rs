//! Every request and every status.

use bulkhead_core::addr::PAGE_SIZE;

use super::{
    super::{
        Reach,
        transport::{feature, offset},
    },
    ENDPOINTS, FAULT, Guest, INVAL, LAST, MSI, NOENT, NOMEM, OK, RAM, RAM_BYTES, RANGE, SIZE, map, unmap, words,
};

const A: u32 = ENDPOINTS[0];
const B: u32 = ENDPOINTS[1];
const RW: u32 = 3;
const PAGE: u64 = PAGE_SIZE - 1;

/// Would miss: an endpoint in two domains, a domain that outlives its last endpoint or dies before, two kinds of one
/// domain, flags or reserved bytes that nobody looks at.
#[test]
fn attach_and_detach() {
    let mut guest = Guest::new();
    assert_eq!(guest.attach(7, 99, 0), NOENT);
    assert_eq!(guest.attach(7, A, 2), INVAL);
    assert_eq!(guest.send(&words(1, &[7, A, 0, 1])), INVAL, "reserved");
    assert_eq!(guest.attach(0x1_0000, A, 0), RANGE);
    assert_eq!((guest.attach(7, A, 0), guest.attach(7, B, 1), guest.attach(7, B, 0)), (OK, INVAL, OK));
    assert_eq!(guest.domains.reach[&B], Reach::Domain(0));
    assert_eq!((guest.detach(8, A), guest.detach(7, 99), guest.detach(7, ENDPOINTS[2])), (INVAL, NOENT, INVAL));
    assert_eq!(guest.map(7, 0x1000, 0x1fff, RAM, RW), OK);
    // A leaves for a domain of its own: the old one stays for B.
    assert_eq!(guest.attach(8, A, 0), OK);
    assert_eq!((guest.domains.reach[&A], guest.domains.reach[&B]), (Reach::Domain(1), Reach::Domain(0)));
    assert_eq!(guest.map(7, 0x1000, 0x1fff, RAM, RW), INVAL, "still there");
    assert_eq!((guest.detach(7, B), guest.domains.reach[&B]), (OK, Reach::Nothing));
    assert_eq!((guest.map(7, 0x5000, 0x5fff, RAM, RW), guest.detach(7, B)), (NOENT, INVAL), "the domain is gone");
    assert_eq!((guest.attach(7, B, 0), guest.map(7, 0x1000, 0x1fff, RAM, RW)), (OK, OK), "and a new one is empty");
    let attaches = guest.domains.attaches;
    assert_eq!((guest.attach(7, B, 0), guest.domains.attaches), (OK, attaches), "attached already");
}

/// Would miss: bypass that was not negotiated, or that reaches anything but the VM's RAM; requests on a bypass domain.
#[test]
fn bypass_domains_have_no_mappings() {
    let mut guest = Guest::new();
    assert_eq!((guest.attach(3, A, 1), guest.domains.reach[&A]), (OK, Reach::Ram));
    assert_eq!((guest.map(3, 0x1000, 0x1fff, RAM, RW), guest.unmap(3, 0, LAST)), (INVAL, INVAL));
    assert!(guest.domains.domains.iter().all(Option::is_none));
    assert_eq!((guest.detach(3, A), guest.domains.reach[&A]), (OK, Reach::Nothing));
    guest.store(offset::STATUS, 0);
    guest.sent = 0;
    guest.put(super::USED, &[0; 4]);
    guest.negotiate(feature::VERSION_1 | feature::MAP_UNMAP);
    guest.set_up(0, super::DESCRIPTORS, super::AVAILABLE, super::USED);
    guest.store(offset::STATUS, 0xf);
    assert_eq!((guest.attach(3, A, 1), guest.attach(3, A, 0)), (INVAL, OK));
}

/// Would miss: a mapping past the input range, over the window of MSIs, of part of a page, over another, out of RAM, with
/// a flag that means nothing here.
#[test]
fn map_refuses_what_it_should() {
    let mut guest = Guest::new();
    assert_eq!(guest.map(1, 0, PAGE, RAM, RW), NOENT);
    assert_eq!(guest.map(0x1_0000, 0, PAGE, RAM, RW), RANGE);
    assert_eq!(guest.attach(1, A, 0), OK);
    for (first, last, ipa, flags, status) in [
        (0x1000, 0x1000 + PAGE, RAM, 4, INVAL),
        (0x1000, 0x1000 + PAGE, RAM, 1 << 31, INVAL),
        (0x2000, 0x1fff, RAM, RW, INVAL),
        (0x1800, 0x27ff, RAM, RW, RANGE),
        (0x1000, 0x17ff, RAM, RW, RANGE),
        (0x1000, 0x1fff, RAM + 8, RW, RANGE),
        (LAST - PAGE, LAST + PAGE_SIZE, RAM, RW, RANGE),
        (LAST + 1, LAST + PAGE_SIZE, RAM, RW, RANGE),
        (u64::MAX - PAGE, u64::MAX, RAM, RW, RANGE),
        (0, u64::MAX, RAM, RW, RANGE),
        (MSI.first, MSI.first + PAGE, RAM, RW, INVAL),
        (MSI.first - PAGE_SIZE, MSI.first + PAGE, RAM, RW, INVAL),
        (MSI.last - PAGE, MSI.last + PAGE_SIZE, RAM, RW, INVAL),
        (0, LAST, RAM, RW, INVAL),
        (0x1000, 0x1fff, RAM - PAGE_SIZE, RW, FAULT),
        (0x1000, 0x1fff, RAM + RAM_BYTES, RW, FAULT),
        (0x1000, 0x1fff, u64::MAX - PAGE, RW, FAULT),
        // The first steps succeed, and are taken back.
        (0x1000, 0xffff, RAM + RAM_BYTES - 5 * PAGE_SIZE, RW, FAULT),
    ] {
        assert_eq!(guest.map(1, first, last, ipa, flags), status, "{first:#x} {last:#x} {ipa:#x} {flags:#x}");
        assert!(guest.domains.domains[0].as_ref().expect("domain").is_empty(), "{first:#x}");
    }
    let (read, write) = (guest.map(1, 0x1000, 0x1fff, RAM, 1), guest.map(1, LAST - PAGE, LAST, RAM, 2));
    assert_eq!((read, write, guest.map(1, 0x2000, 0x2fff, RAM, 0)), (OK, OK, OK));
    let made: std::vec::Vec<_> =
        guest.domains.domains[0].as_ref().expect("domain").values().map(|made| (made.2, made.3)).collect();
    assert_eq!(made, [(true, false), (false, false), (false, true)]);
    assert_eq!(guest.map(1, 0, 0x1fff, RAM, RW), INVAL, "over another, found in the first step");
    assert_eq!(guest.map(1, 0x10_0000, 0x10_ffff, RAM, RW), OK, "in four steps");
    assert_eq!(guest.map(1, 0xf_6000, 0x10_0fff, RAM, RW), INVAL, "over another, found later");
    assert_eq!(guest.domains.domains[0].as_ref().expect("domain").len(), 4);
}

/// Would miss: the examples of 5.13.6.6, (1) to (7), and that an unmap that would split removes nothing.
#[test]
fn unmap_is_as_the_specification_illustrates() {
    let range = |first: u64, last: u64| (first * PAGE_SIZE, last * PAGE_SIZE + PAGE);
    type Pair = (u64, u64);
    let cases: [(&[Pair], Pair, u8, usize); 8] = [
        (&[], (0, 4), OK, 0),
        (&[(0, 9)], (0, 9), OK, 0),
        (&[(0, 4), (5, 9)], (0, 9), OK, 0),
        (&[(0, 9)], (0, 4), RANGE, 1),
        (&[(0, 4), (5, 9)], (0, 4), OK, 1),
        (&[(0, 4)], (0, 9), OK, 0),
        (&[(0, 4), (10, 14)], (0, 14), OK, 0),
        (&[(0, 4), (5, 9)], (0, 7), RANGE, 2),
    ];
    for (mappings, (first, last), status, left) in cases {
        let mut guest = Guest::new();
        assert_eq!(guest.unmap(1, 0, PAGE), NOENT);
        assert_eq!(guest.attach(1, A, 0), OK);
        for (first, last) in mappings {
            let (first, last) = range(*first, *last);
            assert_eq!(guest.map(1, first, last, RAM, RW), OK);
        }
        let (first, last) = range(first, last);
        assert_eq!(guest.unmap(1, first, last), status, "{mappings:?}");
        assert_eq!(guest.domains.domains[0].as_ref().expect("domain").len(), left, "{mappings:?}");
        assert_eq!(guest.unmap(1, last, first), INVAL);
        assert_eq!((guest.unmap(1, 0, u64::MAX), guest.unmap(0xffff_ffff, 0, 9)), (OK, RANGE));
        assert!(guest.domains.domains[0].as_ref().expect("domain").is_empty());
    }
}

/// Would miss: a property that Linux does not parse, a list that is not filled up, a status that the driver never looks
/// at since the length is not that of the whole answer.
#[test]
fn probe_lists_the_window_of_msis() {
    let mut guest = Guest::new();
    let mut request = words(5, &[A]);
    request.resize(72, 0x55);
    let at = guest.queue(&request, 36);
    guest.kick();
    assert_eq!(guest.written(), 36);
    let text: [u8; 40] = guest.get(at);
    let expected =
        [&[1, 0, 20, 0, 1, 0, 0, 0][..], &MSI.first.to_le_bytes(), &MSI.last.to_le_bytes(), &[0; 12], &[0xee; 4]];
    assert_eq!(text[..], expected.concat());
    for (endpoint, bytes, status) in [(99u32, 36, NOENT), (A, 35, INVAL), (A, 4, INVAL), (99, 4, NOENT)] {
        request[4..8].copy_from_slice(&endpoint.to_le_bytes());
        let at = guest.queue(&request, bytes);
        guest.kick();
        assert_eq!(guest.written(), bytes);
        let text: [u8; 36] = guest.get(at);
        let (list, rest) = text.split_at(usize::try_from(bytes - 4).expect("small"));
        assert!(list.iter().all(|byte| *byte == 0) && rest[0] == status, "{endpoint} {bytes}");
    }
}

/// Would miss: an unknown or short request that is answered or acted on; one that was not negotiated.
#[test]
fn what_is_no_request_comes_back_unwritten() {
    let mut guest = Guest::new();
    for request in [
        &words(0, &[1; 20])[..],
        &words(6, &[1; 20]),
        &words(255, &[1; 20]),
        &words(1, &[1, A, 0]),
        &map(1, 0, PAGE, RAM, RW)[..35],
        &unmap(1, 0, PAGE)[..27],
        &words(5, &[A]),
        &[],
    ] {
        let at = guest.queue(request, 4);
        guest.kick();
        assert_eq!((guest.written(), guest.get(at)), (0, [0xee; 4]), "{request:x?}");
    }
    // Without room for a status.
    for bytes in [0, 3] {
        let at = guest.queue(&words(1, &[1, A, 0, 0]), bytes);
        guest.kick();
        assert_eq!((guest.written(), guest.get(at)), (0, [0xee; 4]));
    }
    assert_eq!(guest.domains.attaches, 0);
}

/// Would miss: an endpoint that still reaches its old domain when there is no table for the new one.
#[test]
fn without_tables_an_endpoint_reaches_nothing() {
    let mut guest = Guest::new();
    guest.domains.tables = 1;
    assert_eq!((guest.attach(1, A, 0), guest.attach(2, B, 0)), (OK, NOMEM));
    assert_eq!(guest.domains.reach[&B], Reach::Nothing);
    assert_eq!((guest.attach(1, B, 0), guest.attach(2, B, 0), guest.domains.reach[&B]), (OK, NOMEM, Reach::Nothing));
}

/// Would miss: a flush for each request of a batch; one that comes after the driver was told; a batch that takes the
/// hypervisor for longer than its bound.
#[test]
fn a_batch_is_flushed_once_and_in_turns() {
    let mut guest = Guest::new();
    assert_eq!(guest.attach(1, A, 0), OK);
    for page in 0..u64::from(SIZE / 2) {
        guest.queue(&map(1, page << 12, page << 12 | PAGE, RAM, RW), 4);
    }
    let syncs = guest.domains.syncs;
    assert_eq!((guest.kick(), guest.domains.syncs - syncs), (1, 1));
    for page in 0..u64::from(SIZE / 2) {
        guest.queue(&unmap(1, page << 12, page << 12 | PAGE), 4);
    }
    assert_eq!((guest.kick(), guest.domains.syncs - syncs, guest.used_index()), (1, 2, guest.sent));
    guest.queue(&map(1, 0, 0xffff, RAM, RW), 4);
    assert_eq!((guest.kick(), guest.used_index()), (4, guest.sent), "four steps of four pages");
}

/// Would miss: an unmap that the driver takes for done though the SMMU did not confirm it.
#[test]
fn nothing_is_told_that_was_not_flushed() {
    let mut guest = Guest::new();
    assert_eq!((guest.attach(1, A, 0), guest.map(1, 0, PAGE, RAM, RW)), (OK, OK));
    guest.domains.is_stuck = true;
    let told = guest.used_index();
    guest.queue(&unmap(1, 0, PAGE), 4);
    guest.kick();
    assert_eq!(guest.used_index(), told);
    assert_eq!((guest.load(offset::STATUS), guest.load(offset::INTERRUPT_STATUS) & 2), (0x4f, 2), "needs a reset");
    assert_eq!((guest.kick(), guest.used_index()), (1, told), "and does nothing until then");
}
