//! Every system register by its encoding: none kills, what is not virtualised is absent or reads as zero.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{
    check,
    code::{self, Encoding},
    exception::expect_fault,
    mem, params, println, program, psci,
    random::Random,
};

program!(main);

/// `rdvl x0, #1`, of SVE.
const READ_VECTOR_LENGTH: u32 = 0x04bf_5020;
/// `smstart sm`, of SME.
const START_STREAMING: u32 = 0xd503_437f;

fn register(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Encoding {
    Encoding::new(op0, op1, crn, crm, op2).expect("the encoding is in range")
}

/// Value of an ID register; they never fault.
fn id(crm: u32, op2: u32) -> u64 {
    code::read(register(3, 0, 0, crm, op2)).unwrap_or_else(|fault| panic!("ID register c{crm} {op2}: {fault:?}"))
}

fn field(value: u64, shift: u32) -> u64 {
    value >> shift & 0xf
}

fn features() {
    let pfr0 = id(4, 0);
    let pfr1 = id(4, 1);
    let dfr0 = id(5, 0);
    check!(field(pfr0, 4) >= 1, "EL1 is there");
    check!(field(pfr0, 8) == 0, "no EL2"; pfr0);
    check!(field(pfr0, 12) == 0, "no EL3"; pfr0);
    check!(field(pfr0, 16) < 2 && field(pfr0, 20) < 2, "FP and SIMD are there"; pfr0);
    check!(field(pfr0, 28) == 0, "no RAS"; pfr0);
    check!(field(pfr0, 32) == 0, "no SVE"; pfr0);
    check!(field(pfr0, 44) == 0, "no activity monitors"; pfr0);
    check!(field(pfr1, 8) == 0, "no MTE"; pfr1);
    check!(field(pfr1, 24) == 0, "no SME"; pfr1);
    check!(matches!(field(dfr0, 8), 0 | 0xf), "no PMU"; dfr0);
    check!(field(dfr0, 4) == 0 && field(dfr0, 32) == 0 && field(dfr0, 44) == 0, "no trace, no statistics"; dfr0);
    check!((0..8).all(|op2| id(4, op2) == id(4, op2)), "ID registers are constant");
    let encodings = || (1..8).flat_map(|crm| (0..8).map(move |op2| (crm, op2)));
    let is_readable = encodings().all(|(crm, op2)| code::read(register(3, 0, 0, crm, op2)).is_ok());
    check!(is_readable, "the whole ID space can be read");
}

/// What a feature that is absent would be used with.
fn absent() {
    let is_undefined = |register| code::read(register).err().is_some_and(|fault| fault.is_undefined());
    let is_zero_or_undefined = |register| code::read(register).map_or_else(|fault| fault.is_undefined(), |v| v == 0);
    check!(is_undefined(register(3, 0, 1, 2, 0)), "ZCR_EL1 is undefined");
    let fault = code::execute(READ_VECTOR_LENGTH);
    check!(fault.is_err_and(|fault| fault.is_undefined()), "SVE instructions are undefined"; fault);
    let fault = code::execute(START_STREAMING);
    check!(fault.is_err_and(|fault| fault.is_undefined()), "SME instructions are undefined"; fault);
    check!(is_undefined(register(3, 4, 1, 1, 0)), "HCR_EL2 is undefined");
    check!(is_undefined(register(3, 4, 2, 1, 0)), "VTTBR_EL2 is undefined");
    check!(is_undefined(register(3, 6, 1, 1, 0)), "SCR_EL3 is undefined");
    check!(is_undefined(register(3, 4, 12, 11, 0)), "ICH_HCR_EL2 is undefined");
    check!(is_undefined(register(3, 0, 15, 15, 7)), "an implementation-defined one is undefined");
    check!(is_undefined(register(3, 7, 11, 15, 7)), "an unallocated one is undefined");
    for (name, register) in [
        ("PMCR_EL0", register(3, 3, 9, 12, 0)),
        ("PMCCNTR_EL0", register(3, 3, 9, 13, 0)),
        ("PMEVCNTR0_EL0", register(3, 3, 14, 8, 0)),
        ("PMINTENSET_EL1", register(3, 0, 9, 14, 1)),
        ("DBGBVR0_EL1", register(2, 0, 0, 0, 4)),
        ("DBGWCR0_EL1", register(2, 0, 0, 0, 7)),
        ("MDSCR_EL1", register(2, 0, 0, 2, 2)),
    ] {
        let reading = code::read(register);
        check!(is_zero_or_undefined(register), "{name} reads as zero or is undefined"; reading);
    }
    let written = code::write(register(2, 0, 0, 0, 4), 0xffff_0000);
    let reading = code::read(register(2, 0, 0, 0, 4));
    check!(reading.map_or(true, |value| value == 0), "a breakpoint cannot be set"; (written, reading));
}

fn is_read_harmless(register: Encoding) -> bool {
    // ICC_IAR0/1_EL1 acknowledge; RNDR may fail by flags alone; the rest only tell.
    register != Encoding { op0: 3, op1: 0, crn: 12, crm: 8, op2: 0 }
        && register != Encoding { op0: 3, op1: 0, crn: 12, crm: 12, op2: 0 }
}

/// Reads all 32,768 encodings: each gives a value or an undefined-instruction exception.
fn sweep() {
    let (mut values, mut undefined, mut other) = (0_u32, 0_u32, 0_u32);
    for op0 in 2..4 {
        for op1 in 0..8 {
            for index in 0..2048 {
                let register = register(op0, op1, index >> 7, index >> 3 & 15, index & 7);
                if !is_read_harmless(register) {
                    continue;
                }
                match code::read(register) {
                    Ok(_) => values += 1,
                    Err(fault) if fault.is_undefined() || fault.is_register_trap() => undefined += 1,
                    Err(fault) => {
                        other += 1;
                        println!("      {register:?}: {fault:x?}");
                    }
                }
            }
        }
    }
    check!(other == 0, "every read gives a value or is undefined"; other);
    check!(values > 50 && undefined > 30_000, "most are undefined"; (values, undefined));
}

/// Writes junk where that cannot take the program's own footing away.
fn scribble() {
    let mut random = Random::new(2);
    let mut tries = 0;
    for _ in 0..20_000 {
        #[allow(clippy::cast_possible_truncation, reason = "the low bits of a random number")]
        let bits = random.next_u64() as u32;
        // The system instructions' neighbours, op0 2, the PMU, the GIC and everything implementation-defined.
        let candidate = register(2 + (bits & 1), bits >> 1 & 7, bits >> 4 & 15, bits >> 8 & 15, bits >> 12 & 7);
        // Timers, the interrupt controller and thread registers are used by other tests and do no harm here.
        if candidate.holds_program() {
            continue;
        }
        tries += 1;
        if let Err(fault) = code::write(candidate, random.next_u64())
            && !fault.is_undefined()
            && !fault.is_register_trap()
        {
            println!("FAIL: {candidate:?}: {fault:x?}");
        }
    }
    check!(tries > 10_000, "random writes survived");
}

fn calls_keep_registers() {
    let result = psci::hvc(0x8400_ffff, [11, 22, 33]);
    check!(result[0].cast_signed() << 32 >> 32 == -1, "an unknown call says so"; result);
    let fault = expect_fault(|| {
        psci::smc(u64::from(psci::VERSION), [0; 3]);
    });
    check!(fault.is_none_or(|fault| fault.is_undefined()), "SMC is answered or undefined"; fault);
}

fn main() {
    features();
    absent();
    calls_keep_registers();
    sweep();
    scribble();
    mem::write64(params::scratch(), 5);
    check!(mem::read64(params::scratch()) == 5, "the VM lives");
}
