//! From whatever firmware left to "every stream in abort" (security rules 1, 2, 11), and back to it on a panic.

use bulkhead_core::ids::SmmuId;
use heapless::Vec;

use super::{Config, Counters, Smmu};
use crate::{
    cmdq::{Cmdq, QueueFeatures},
    command::{COMMAND_BYTES, Command},
    error::Error,
    event::EVENT_BYTES,
    evtq::Evtq,
    features::{Features, IdRegisters},
    gerror::Gerror,
    platform::Platform,
    registers::{BASE_ALLOCATE, CR0, CR1, CR2, GBPA, IRQ_CTRL, QUEUE_BASE_ADDR, offset},
    stream_table::{StreamTable, alloc},
    wait::poll,
};

/// Base-2 logarithm of the commands in the command queue: one page.
const CMDQ_LOG2: u8 = 8;
/// Base-2 logarithm of the events in the event queue: 64 KiB, room for a page's worth of faulting words twice over.
const EVENTQ_LOG2: u8 = 11;
/// Bound of each wait of a panicking hypervisor.
const PANIC_TIMEOUT_US: u64 = 10_000;
/// Bits of CR0 and CR0ACK that the driver knows.
const CR0_MASK: u32 = 0x1f;
/// Bits of IRQ_CTRL and IRQ_CTRLACK.
const IRQ_CTRL_MASK: u32 = 0b111;

impl<P: Platform> Smmu<P> {
    /// Takes an SMMU over, whatever state it was left in. Afterwards it translates, and every stream is in abort.
    ///
    /// From the first step on no transaction passes untranslated that did not do so before; after the second none
    /// does (IHI 0070 6.3, SMMU_GBPA; 3.11). On error the SMMU is left off with GBPA.ABORT, as far as it still obeys: every
    /// transaction is aborted. Memory that was allocated is not given back.
    pub fn take_over(mut platform: P, id: SmmuId, config: Config) -> Result<Self, Error> {
        let taken = take_over(&mut platform, &config);
        match taken {
            Ok(Parts { features, table, cmdq, evtq }) => Ok(Self {
                platform,
                id,
                config,
                features,
                table,
                cmdq,
                evtq,
                streams: Vec::new(),
                past: Vec::new(),
                stray_budget: config.budget(),
                counters: Counters::default(),
                failure: Error::QueueStuck { cons: 0, prod: 0, timeout_us: config.timeout_us },
                stale_contexts: 0,
                rides: Default::default(),
            }),
            Err(error) => {
                // The first error is the one to tell; that the SMMU does not obey either adds nothing to it.
                let _ = panic_abort(&mut platform);
                Err(error)
            }
        }
    }
}

/// Leaves every stream in abort, by registers alone: for a hypervisor that is going down.
///
/// Safe to call in any state and at any time, as often as wanted. First GBPA.ABORT, then SMMUEN off: if the first does
/// not take effect, the SMMU is left as it is, since its stream table holds nothing that bypasses. Takes at most
/// 40 ms.
pub fn panic_abort<P: Platform>(platform: &mut P) -> Result<(), Error> {
    let timeout_us = PANIC_TIMEOUT_US;
    set_global_abort(platform, timeout_us)?;
    // A write of CR0 that has not taken effect yet must not be overtaken by another (6.3, SMMU_CR0).
    let pending = platform.read32(offset::CR0) & CR0_MASK;
    poll(platform, "CR0ACK", offset::CR0ACK, timeout_us, |ack| ack & CR0_MASK == pending)?;
    write_cr0(platform, 0, timeout_us)
}

/// What take-over makes.
struct Parts {
    features: Features,
    table: StreamTable,
    cmdq: Cmdq,
    evtq: Evtq,
}

fn take_over<P: Platform>(platform: &mut P, config: &Config) -> Result<Parts, Error> {
    let timeout_us = config.timeout_us;
    let id = IdRegisters {
        idr0: platform.read32(offset::IDR0),
        idr1: platform.read32(offset::IDR1),
        idr3: platform.read32(offset::IDR3),
        idr5: platform.read32(offset::IDR5),
        aidr: platform.read32(offset::AIDR),
    };
    let mut features = Features::from_idr(&id, config.needed_oas_bits)?;
    if config.is_forced_non_coherent {
        features = features.forced_non_coherent();
    }

    // 1. What comes through while the SMMU is off is aborted. 2. It is off.
    set_global_abort(platform, timeout_us)?;
    write_cr0(platform, 0, timeout_us)?;

    // 3. No interrupts; no MSIs of firmware's (3.18.2); its errors are not ours.
    write_irq_ctrl(platform, 0, timeout_us)?;
    if features.has_msi {
        platform.write64(offset::GERROR_IRQ_CFG0, 0);
        platform.write64(offset::EVENTQ_IRQ_CFG0, 0);
        if features.has_pri {
            platform.write64(offset::PRIQ_IRQ_CFG0, 0);
        }
    }
    let stale = Gerror::active(platform);
    Gerror::acknowledge(platform, stale);

    // 4. Tables and queues.
    platform.write32(offset::CR1, memory_attributes(&features));
    let mut cr2 = CR2::RECINVSID::SET;
    if features.has_broadcast_tlb {
        // The CPUs' TLBIs are for their own tables: without PTM they would empty the SMMU's TLB as well.
        cr2 += CR2::PTM::SET;
    }
    platform.write32(offset::CR2, cr2.into());
    let table = StreamTable::new(platform, &features, config.last_stream)?;
    write_base(platform, "STRTAB_BASE", offset::STRTAB_BASE, table.base_register())?;
    platform.write32(offset::STRTAB_BASE_CFG, table.config_register());
    let kept = platform.read32(offset::STRTAB_BASE_CFG);
    if kept != table.config_register() {
        return Err(Error::NotKept {
            register: "STRTAB_BASE_CFG",
            written: table.config_register().into(),
            read: kept.into(),
        });
    }

    // 5. The command queue, and through it: nothing cached of whatever was configured before.
    let log2 = CMDQ_LOG2.min(features.cmdq_log2);
    let base = alloc(platform, &features, "command queue", COMMAND_BYTES << log2)?;
    let register = (base.as_u64() & QUEUE_BASE_ADDR) | u64::from(log2);
    write_base(platform, "CMDQ_BASE", offset::CMDQ_BASE, register)?;
    platform.write32(offset::CMDQ_PROD, 0);
    platform.write32(offset::CMDQ_CONS, 0);
    let queue_features =
        QueueFeatures { is_coherent: features.is_coherent, has_ranges: features.has_range_invalidation };
    let mut cmdq = Cmdq::new(base, log2, queue_features, timeout_us);
    let mut cr0 = CR0::CMDQEN::SET;
    write_cr0(platform, cr0.into(), timeout_us)?;
    let mut commands: Vec<Command, 3> = Vec::new();
    // Three commands at most fit in three places.
    let _ = commands.push(Command::CfgiAll);
    if features.has_hyp {
        let _ = commands.push(Command::TlbiEl2All);
    }
    let _ = commands.push(Command::TlbiNsnhAll);
    cmdq.submit(platform, &commands)?;

    // 6. The event queue and the wired interrupts.
    let log2 = EVENTQ_LOG2.min(features.eventq_log2);
    let base = alloc(platform, &features, "event queue", EVENT_BYTES << log2)?;
    let register = (base.as_u64() & QUEUE_BASE_ADDR) | u64::from(log2);
    write_base(platform, "EVENTQ_BASE", offset::EVENTQ_BASE, register)?;
    platform.write32(offset::EVENTQ_PROD, 0);
    platform.write32(offset::EVENTQ_CONS, 0);
    let evtq = Evtq::new(base, log2, features.is_coherent);
    cr0 += CR0::EVENTQEN::SET;
    write_cr0(platform, cr0.into(), timeout_us)?;
    let interrupts = IRQ_CTRL::EVENTQ::SET + IRQ_CTRL::GERROR::SET;
    write_irq_ctrl(platform, interrupts.into(), timeout_us)?;

    // 7. On. With ATS in the SMMU, ATSCHK first: without it, what a device calls translated is believed (5.2, STE.EATS).
    if features.has_ats {
        cr0 += CR0::ATSCHK::SET;
        write_cr0(platform, cr0.into(), timeout_us)?;
    }
    cr0 += CR0::SMMUEN::SET;
    write_cr0(platform, cr0.into(), timeout_us)?;
    Ok(Parts { features, table, cmdq, evtq })
}

/// Makes the SMMU abort what arrives while it is off (6.3, SMMU_GBPA).
fn set_global_abort<P: Platform>(platform: &mut P, timeout_us: u64) -> Result<(), Error> {
    let is_idle = |value| !GBPA::UPDATE.is_set(value);
    let old = poll(platform, "GBPA", offset::GBPA, timeout_us, is_idle)?;
    let update = u32::from(GBPA::UPDATE::SET) | u32::from(GBPA::ABORT::SET);
    platform.write32(offset::GBPA, old | update);
    let is_aborting = |value| is_idle(value) && GBPA::ABORT.is_set(value);
    poll(platform, "GBPA", offset::GBPA, timeout_us, is_aborting)?;
    Ok(())
}

/// Writes CR0 and waits until it has taken effect (6.3, SMMU_CR0).
fn write_cr0<P: Platform>(platform: &mut P, value: u32, timeout_us: u64) -> Result<(), Error> {
    platform.write32(offset::CR0, value);
    poll(platform, "CR0ACK", offset::CR0ACK, timeout_us, |ack| ack & CR0_MASK == value)?;
    Ok(())
}

/// Writes IRQ_CTRL and waits until it has taken effect (6.3, SMMU_IRQ_CTRL).
fn write_irq_ctrl<P: Platform>(platform: &mut P, value: u32, timeout_us: u64) -> Result<(), Error> {
    platform.write32(offset::IRQ_CTRL, value);
    let is_done = |ack| ack & IRQ_CTRL_MASK == value;
    poll(platform, "IRQ_CTRLACK", offset::IRQ_CTRLACK, timeout_us, is_done)?;
    Ok(())
}

/// Writes a 64-bit base register and reads it back: an address that does not fit is cut off silently (rule 11).
fn write_base<P: Platform>(platform: &mut P, register: &'static str, at: u32, value: u64) -> Result<(), Error> {
    platform.write64(at, value | BASE_ALLOCATE);
    let read = platform.read64(at) & !BASE_ALLOCATE;
    if read == value { Ok(()) } else { Err(Error::NotKept { register, written: value, read }) }
}

/// CR1: how the SMMU reads its tables and queues.
fn memory_attributes(features: &Features) -> u32 {
    let attributes = if features.is_coherent {
        CR1::TABLE_SH::Inner
            + CR1::TABLE_OC::WriteBack
            + CR1::TABLE_IC::WriteBack
            + CR1::QUEUE_SH::Inner
            + CR1::QUEUE_OC::WriteBack
            + CR1::QUEUE_IC::WriteBack
    } else {
        CR1::TABLE_SH::Outer
            + CR1::TABLE_OC::NonCacheable
            + CR1::TABLE_IC::NonCacheable
            + CR1::QUEUE_SH::Outer
            + CR1::QUEUE_OC::NonCacheable
            + CR1::QUEUE_IC::NonCacheable
    };
    attributes.into()
}
