//! Stream tables and their entries (rules 15, 16).

use bulkhead_core::stage1::ContextTable;

use super::*;

/// A table's second level, aligned to its largest size.
const LEAF: u64 = RAM + 0x1_0000;

/// An entry with Config = `config`, and ones wherever stage 1 alone has no field.
fn entry(config: u64, at: u64) -> [u64; 8] {
    [
        1 | config << 1 | at | 0b11 << 4 | 31 << 59,
        !(0xfc | 1 << 27),
        u64::MAX,
        u64::MAX,
        u64::MAX,
        u64::MAX,
        u64::MAX,
        u64::MAX,
    ]
}

/// The configurations of the two streams, after SMMUEN was set.
fn enable(vm: &mut Vm) -> [StreamConfig; 2] {
    vm.write(0x20, 1);
    assert_eq!(vm.read(0x24), 1);
    let calls = vm.calls();
    let [Call::Configure(8, first), Call::Configure(0x10, second)] = calls[..] else { panic!("{calls:?}") };
    [first, second]
}

fn with_table(base: u64, cfg: u64) -> Vm {
    let mut vm = Vm::new();
    vm.write_double(0x80, base);
    vm.write(0x88, cfg);
    vm
}

/// Would miss: a field of stage 2, ATS, EL2 or substreams that changes anything; a Config that is treated as another; an
/// entry that would run a guest's stage 1 at an address that it may not name.
#[test]
fn entries_are_read_by_an_allow_list() {
    let at = RAM + 0x1_1040;
    let table = |inner, outer, shareability| {
        StreamConfig::Stage1(ContextTable { at: Ipa::new(at), inner, outer, shareability })
    };
    let abort = StreamConfig::Abort;
    let plain = [
        abort,
        abort,
        abort,
        abort,
        StreamConfig::Bypass,
        table(0, 0, 0),
        StreamConfig::Invalid,
        StreamConfig::Invalid,
    ];
    for (config, expected) in (0..).zip(plain) {
        let mut vm = with_table(STRTAB, 8);
        vm.put(STRTAB + 8 * 64, &entry(config, at));
        assert_eq!(enable(&mut vm), [expected, StreamConfig::Invalid], "Config {config:#b}");
    }
    for attributes in 0..64_u64 {
        let mut vm = with_table(STRTAB, 8);
        vm.put(STRTAB + 8 * 64, &[1 | 5 << 1 | at, attributes << 2]);
        let two = |shift: u32| u8::try_from(attributes >> shift & 3).expect("two bits");
        let shareability = if two(4) == 1 { 0 } else { two(4) };
        assert_eq!(enable(&mut vm)[0], table(two(0), two(2), shareability));
    }
    // V = 0; a stall that is disabled where there is none; a descriptor past the VM's addresses.
    for words in [[5 << 1 | at, 0], [1 | 5 << 1 | at, 1 << 27], [1 | 5 << 1 | 1 << ABILITY.oas_bits, 0]] {
        let mut vm = with_table(STRTAB, 8);
        vm.put(STRTAB + 8 * 64, &words);
        assert_eq!(enable(&mut vm)[0], StreamConfig::Invalid, "{words:x?}");
    }
}

/// Memory that notes what is asked for.
struct Noting<'m>(Slab<'m>, Vec<(u64, usize)>);

impl crate::memory::GuestMemory for Noting<'_> {
    fn words(&mut self, at: Ipa, count: usize) -> Option<&[AtomicU64]> {
        self.1.push((at.as_u64(), count));
        self.0.words(at, count)
    }
}

/// Would miss: a context descriptor that is read, which is the hardware's alone, through stage 2.
#[test]
fn context_descriptors_are_not_looked_at() {
    let Vm { mut smmu, mut host, ram } = with_table(STRTAB, 8);
    let mut memory = Noting(Slab::new(Ipa::new(RAM), &ram), vec![]);
    // One stream's is in RAM, the other's is not.
    for (stream, at) in [(8, RAM + 0x1_1000), (0x10, 0x0900_0000)] {
        memory.0.write(Ipa::new(STRTAB + stream * 64), &(1 | 5 << 1 | at).to_le_bytes()).expect("in RAM");
    }
    assert_eq!(smmu.write(0x20, Width::Word, 1, &mut memory, &mut host), Next::Done);
    assert_eq!(memory.1, [(STRTAB + 8 * 64, 2), (STRTAB + 0x10 * 64, 2)]);
    assert!(host.calls.iter().all(|call| matches!(call, Call::Configure(_, StreamConfig::Stage1(_)))));
}

/// Would miss: a table outside of RAM, past its end, or with a size that moves its start.
#[test]
fn tables_are_bounded() {
    let bypass = [1 | 4 << 1];
    let found = |base: u64, cfg: u64| {
        let mut vm = with_table(base, cfg);
        for stream in STREAMS {
            vm.put(STRTAB + u64::from(stream) * 64, &bypass);
        }
        enable(&mut vm)
    };
    let (yes, no) = (StreamConfig::Bypass, StreamConfig::Invalid);
    assert_eq!(found(STRTAB, 8), [yes, yes]);
    // Stream 8 needs 4 bits, stream 0x10 needs 5.
    assert_eq!(found(STRTAB, 5), [yes, yes]);
    assert_eq!(found(STRTAB, 4), [yes, no]);
    assert_eq!(found(STRTAB, 3), [no, no]);
    // The base is aligned to the size that is written, reserved formats are linear.
    assert_eq!(found(STRTAB | 0x3fc0, 8 | 3 << 16), [yes, yes]);
    assert_eq!(found(STRTAB, 12), [no, no]);
    for cfg in [20, 46, 58, 63] {
        assert_eq!(found(STRTAB, cfg), [no, no]);
    }
    for base in [0, RAM - 0x4000, RAM + RAM_BYTES, 0x00ff_ffff_ffff_c000, u64::MAX] {
        assert_eq!(found(base, 8), [no, no]);
    }
}

/// Would miss: a level-1 descriptor whose span is none, reserved, past the split or too short for the stream.
#[test]
fn tables_of_two_levels_are_bounded() {
    let found = |split: u64, span: u64, leaf: u64| {
        let mut vm = with_table(STRTAB, 8 | split << 6 | 1 << 16);
        vm.put(STRTAB, &[leaf | span]);
        for stream in STREAMS {
            vm.put(LEAF + u64::from(stream) * 64, &[1 | 4 << 1]);
        }
        enable(&mut vm)
    };
    let (yes, no) = (StreamConfig::Bypass, StreamConfig::Invalid);
    for (split, bits) in [(6, 6), (8, 8), (10, 10), (0, 6), (7, 6), (31, 6)] {
        for span in 0..32 {
            let expected = match span {
                5 => [yes, no],
                6.. if span <= bits + 1 => [yes, yes],
                _ => [no, no],
            };
            assert_eq!(found(split, span, LEAF), expected, "split {split}, span {span}");
        }
    }
    assert_eq!(found(6, 7, LEAF + 0xfc0), [yes, yes]);
    for leaf in [0, RAM - 0x1000, RAM + RAM_BYTES, 0x00ff_ffff_ffff_f000] {
        assert_eq!(found(6, 7, leaf), [no, no]);
    }
}

/// Would miss: a stream that meets anything but GBPA while the SMMU is off; a change of it that is not acknowledged, or is
/// although the hardware did not follow.
#[test]
fn an_smmu_that_is_off_aborts_or_bypasses() {
    let all = |config: StreamConfig| STREAMS.map(|stream| Call::Configure(stream, config));
    let mut vm = with_table(STRTAB, 8);
    vm.write(0x44, 1 << 20);
    assert_eq!((vm.calls(), vm.read(0x44)), (vec![], 0));
    vm.write(0x44, 1 << 31 | 1 << 20);
    assert_eq!((vm.calls(), vm.read(0x44)), (all(StreamConfig::Abort).to_vec(), 1 << 20));
    enable(&mut vm);
    vm.write(0x44, 1 << 31);
    assert_eq!((vm.calls(), vm.read(0x44)), (vec![], 0));
    vm.write(0x20, 0);
    assert_eq!((vm.calls(), vm.read(0x24)), (all(StreamConfig::Bypass).to_vec(), 0));
    vm.host.has_failed = true;
    vm.write(0x20, 1);
    assert_eq!((vm.read(0x20), vm.read(0x24)), (1, 0));
    vm.write(0x44, 1 << 31 | 1 << 20);
    assert_eq!(vm.read(0x44), 1 << 31 | 1 << 20);
    vm.host.has_failed = false;
    vm.write(0x20, 1);
    assert_eq!((vm.read(0x24), vm.calls().len()), (1, 4));
}

/// Would miss: a stream without an entry that is told of as if it had one that is not valid.
#[test]
fn events_name_what_the_guests_own_table_lacks() {
    let bad_ste = |stream: u64| [0x04 | stream << 32, 0, 0, 0];
    let told = |base: u64, cfg: u64, cr2: u64| {
        let mut vm = with_table(base, cfg);
        vm.write_double(0xa0, EVENTQ | 7);
        vm.write(0x2c, cr2);
        vm.write(0x20, 0b101);
        vm.record(bad_ste(0x10));
        (vm.read(0x1_00a8), vm.get(EVENTQ) & 0xff, vm.get(EVENTQ + 24))
    };
    assert_eq!(told(STRTAB, 8, 2), (1, 0x04, 0));
    assert_eq!(told(STRTAB, 4, 2), (1, 0x02, 0));
    assert_eq!(told(STRTAB, 4, 0), (0, 0, 0));
    assert_eq!(told(RAM + RAM_BYTES, 8, 0), (1, 0x03, RAM + RAM_BYTES + 0x10 * 64));
}
