//! PSCI as a guest calls it: exact codes, and the power states against a model.

use std::vec::Vec;

use super::{Call, HostFacts, NOT_SUPPORTED, Outcome, PowerState, Psci, Workaround};
use proptest::prelude::{any, proptest};

const RAM: core::ops::Range<u64> = 0x4000_0000..0x8000_0000;
const INVALID_PARAMETERS: u64 = -2i64 as u64;
const ALREADY_ON: u64 = -4i64 as u64;
const ON_PENDING: u64 = -5i64 as u64;
const INVALID_ADDRESS: u64 = -9i64 as u64;

fn call(psci: &mut Psci, vcpu: usize, x: [u64; 4]) -> Outcome {
    psci.handle(vcpu, Call::decode(x), |ipa| RAM.contains(&ipa))
}

fn value(psci: &mut Psci, x: [u64; 4]) -> u64 {
    match call(psci, 0, x) {
        Outcome::Return(value) => value,
        outcome => panic!("{outcome:?}"),
    }
}

fn two() -> Psci {
    Psci::new(2, HostFacts::default())
}

#[test]
fn versions_and_features() {
    let mut psci = two();
    assert_eq!(value(&mut psci, [0x8400_0000, 0, 0, 0]), 0x1_0001);
    assert_eq!(value(&mut psci, [0x8000_0000, 0, 0, 0]), 0x1_0001);
    assert_eq!(value(&mut psci, [0x8400_0006, 0, 0, 0]), 2);
    for id in [
        0x8400_0000u64,
        0x8400_0001,
        0xc400_0001,
        0x8400_0002,
        0x8400_0003,
        0xc400_0003,
        0x8400_0004,
        0xc400_0004,
        0x8400_0006,
        0x8400_0008,
        0x8400_0009,
        0x8400_000a,
        0x8000_0000,
    ] {
        assert_eq!(value(&mut psci, [0x8400_000a, id, 0, 0]), 0, "{id:#x}");
    }
    for id in [0x8400_0012u64, 0xc400_0012, 0xc400_000e, 0x8400_0013, 0x8400_0005, 0x1234, 0x8400_1000] {
        assert_eq!(value(&mut psci, [0x8400_000a, id, 0, 0]), NOT_SUPPORTED, "{id:#x}");
    }
}

#[test]
fn what_is_not_implemented_is_not_supported() {
    // SYSTEM_RESET2, MEM_PROTECT, SYSTEM_SUSPEND, TRNG_VERSION, SDEI_VERSION, a vendor's, a yielding one, zero.
    for id in [
        0x8400_0012,
        0x8400_0013,
        0xc400_000e,
        0x8400_0050,
        0xc400_0020,
        0x8600_0000,
        0x0400_0000,
        0,
        0xffff_ffff,
        0x8400_0016,
        0xc400_0000,
    ] {
        assert_eq!(value(&mut two(), [id, 0, 0, 0]), NOT_SUPPORTED, "{id:#x}");
    }
}

#[test]
fn a_vcpu_goes_on_once_through_pending_and_off_by_itself() {
    let mut psci = two();
    let on = [0xc400_0003, 1, 0x4000_0000, 77];
    let info = [0xc400_0004, 1, 0, 0];
    assert_eq!(value(&mut psci, info), 1);
    assert_eq!(call(&mut psci, 0, on), Outcome::StartVcpu { vcpu: 1, entry: 0x4000_0000, context: 77 });
    assert_eq!((psci.state(1), value(&mut psci, info)), (PowerState::OnPending, 2));
    assert_eq!(value(&mut psci, on), ON_PENDING);
    psci.started(1);
    assert_eq!((psci.state(1), value(&mut psci, info)), (PowerState::On, 0));
    assert_eq!(value(&mut psci, on), ALREADY_ON);
    assert_eq!(call(&mut psci, 1, [0x8400_0002, 0, 0, 0]), Outcome::StopThisVcpu);
    assert_eq!((psci.state(1), psci.all_off()), (PowerState::Off, false));
    psci.started(1);
    assert_eq!(psci.state(1), PowerState::Off, "nobody has turned it on");
    assert!(matches!(call(&mut psci, 0, on), Outcome::StartVcpu { .. }));
    assert_eq!(call(&mut psci, 0, [0x8400_0002, 0, 0, 0]), Outcome::StopThisVcpu);
    psci.started(1);
    let _ = call(&mut psci, 1, [0x8400_0002, 0, 0, 0]);
    assert!(psci.all_off());
    psci.reset();
    assert_eq!((psci.state(0), psci.state(1)), (PowerState::On, PowerState::Off));
}

#[test]
fn bad_parameters_change_nothing() {
    let mut psci = two();
    for (x, code) in [
        ([0xc400_0003, 2, 0x4000_0000, 0], INVALID_PARAMETERS),
        ([0xc400_0003, 0x100, 0x4000_0000, 0], INVALID_PARAMETERS),
        ([0xc400_0003, 1 << 31 | 1, 0x4000_0000, 0], INVALID_PARAMETERS),
        ([0xc400_0003, 1 << 32 | 1, 0x4000_0000, 0], INVALID_PARAMETERS),
        ([0xc400_0003, 1, 0x3fff_fffc, 0], INVALID_ADDRESS),
        ([0xc400_0003, 1, 0x4000_0002, 0], INVALID_ADDRESS),
        ([0xc400_0003, 1, u64::MAX - 3, 0], INVALID_ADDRESS),
        ([0xc400_0004, 9, 0, 0], INVALID_PARAMETERS),
        ([0xc400_0004, 1, 1, 0], INVALID_PARAMETERS),
        ([0xc400_0004, 1, 4, 0], INVALID_PARAMETERS),
        ([0x8400_0001, 0x8000_0000, 0, 0], INVALID_PARAMETERS),
    ] {
        assert_eq!(value(&mut psci, x), code, "{x:x?}");
        assert_eq!(psci.state(1), PowerState::Off);
    }
}

#[test]
fn smc32_calls_ignore_the_upper_halves() {
    let junk = 0xdead_0000_0000u64;
    let outcome =
        call(&mut two(), 0, [junk << 16 | 0x8400_0003, junk << 16 | 1, junk << 16 | 0x4000_0000, junk << 16 | 7]);
    assert_eq!(outcome, Outcome::StartVcpu { vcpu: 1, entry: 0x4000_0000, context: 7 });
}

#[test]
fn the_whole_vm() {
    assert_eq!(call(&mut two(), 1, [0x8400_0008, 0, 0, 0]), Outcome::SystemOff);
    assert_eq!(call(&mut two(), 1, [0x8400_0009, 0, 0, 0]), Outcome::SystemReset);
    assert_eq!(call(&mut two(), 1, [0xc400_0001, 0, 0, 0]), Outcome::Standby);
}

/// Security rule 23: a guest learns of a mitigation what firmware says of it, and reaches it only where there is one.
#[test]
fn workarounds_follow_the_host() {
    for (host, seen, outcome) in [
        (0, 0, Some(Outcome::Workaround(Workaround::Three))),
        (1, 1, Some(Outcome::Return(0))),
        (-1, NOT_SUPPORTED, Some(Outcome::Return(NOT_SUPPORTED))),
        (-2, -2i64 as u64, Some(Outcome::Return(NOT_SUPPORTED))),
    ] {
        let mut psci = Psci::new(1, HostFacts { workaround_3: host, ..HostFacts::default() });
        assert_eq!(value(&mut psci, [0x8000_0001, 0x8000_3fff, 0, 0]), seen);
        assert_eq!(value(&mut psci, [0x8000_0001, 0x8000_8000, 0, 0]), NOT_SUPPORTED);
        assert_eq!(Some(call(&mut psci, 0, [0x8000_3fff, 0, 0, 0])), outcome);
    }
    assert_eq!(value(&mut two(), [0x8000_0001, 0x8000_0001, 0, 0]), 0);
    assert_eq!(value(&mut two(), [0x8000_0001, 0x8400_0050, 0, 0]), NOT_SUPPORTED);
    for workaround in [Workaround::One, Workaround::Two, Workaround::Three] {
        assert_eq!(Workaround::from_function_id(workaround.function_id()), Some(workaround));
    }
}

proptest! {
    /// Any four registers from any vCPU: no panic, and a vCPU is started only if it was off, at an address in RAM.
    #[test]
    fn any_call_is_answered(calls in proptest::collection::vec((0..9usize, 0..0x20u64, any::<bool>(), any::<[u64; 3]>(), 0..4u64), 0..60)) {
        let mut psci = Psci::new(3, HostFacts::default());
        for (vcpu, number, is_64, mut x, target) in calls {
            // Half of them with parameters that make sense.
            if x[0] & 1 == 0 {
                x = [target, 0x4000_0000 | x[1] & 0x1fff_ffff, x[2]];
            }
            let id = 0x8400_0000 | number | if is_64 { 1 << 30 } else { 0 };
            let before: Vec<_> = (0..8).map(|vcpu| psci.state(vcpu)).collect();
            let outcome = call(&mut psci, vcpu, [id, x[0], x[1], x[2]]);
            if let Outcome::StartVcpu { vcpu, entry, .. } = outcome {
                assert!(vcpu < 3 && before[vcpu] == PowerState::Off && RAM.contains(&entry) && entry % 4 == 0);
                assert_eq!(psci.state(vcpu), PowerState::OnPending);
            } else if outcome != Outcome::StopThisVcpu {
                assert!((0..8).all(|vcpu| psci.state(vcpu) == before[vcpu]));
            }
            if target == 3 {
                psci.started(vcpu);
            }
        }
    }
}
