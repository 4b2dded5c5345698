//! What can go wrong between the driver and an SMMU.

use bulkhead_core::{
    addr::PhysAddr,
    ids::{StreamId, Vmid},
};

use crate::{cmdq::CommandError, command::Command, features::FeatureError, ste::SteError};

/// Why the driver could not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u64)]
pub enum Error {
    /// The SMMU lacks something that isolation needs.
    #[error(transparent)]
    Unsupported(#[from] FeatureError),
    /// A register did not take the expected value in time.
    #[error("{register} stayed at {last:#x} for {timeout_us} us")]
    Timeout {
        /// Name in the specification.
        register: &'static str,
        /// Its last value.
        last: u32,
        /// How long it was polled, in microseconds.
        timeout_us: u64,
    },
    /// The SMMU did not consume a command: its queue is stuck.
    #[error("the command queue stayed at CONS {cons:#x}, PROD {prod:#x} for {timeout_us} us")]
    QueueStuck {
        /// CMDQ_CONS as last read.
        cons: u32,
        /// CMDQ_PROD as last written.
        prod: u32,
        /// How long it was polled, in microseconds.
        timeout_us: u64,
    },
    /// The SMMU refused a command; the queue has been recovered.
    #[error("the smmu refused {command}: {reason}")]
    CommandRefused {
        /// The command.
        command: Command,
        /// CMDQ_CONS.ERR.
        reason: CommandError,
    },
    /// A command was refused between a flush's submission and the proof of its completion: it may be one of its own.
    #[error("a flush of vmid {} is not relied upon: the smmu refused a command", vmid.as_u16())]
    FlushUnsure {
        /// Whose translations were to be flushed.
        vmid: Vmid,
    },
    /// CMDQ_CONS holds an index outside what was submitted: the SMMU is not to be trusted any more.
    #[error("CMDQ_CONS {cons:#x} is outside what was submitted (PROD {prod:#x})")]
    QueueCorrupt {
        /// CMDQ_CONS as last read.
        cons: u32,
        /// CMDQ_PROD as last written.
        prod: u32,
    },
    /// A base register did not keep what was written: the address is not what the hardware takes.
    #[error("{register} reads {read:#x} after {written:#x} was written")]
    NotKept {
        /// Name in the specification.
        register: &'static str,
        /// What was written.
        written: u64,
        /// What was read back.
        read: u64,
    },
    /// No memory for a table or a queue.
    #[error("no {pages} pages aligned to {alignment:#x} for the {what}")]
    NoMemory {
        /// What for.
        what: &'static str,
        /// Pages of 4 KiB.
        pages: u64,
        /// In bytes.
        alignment: u64,
    },
    /// The allocator gave memory that the SMMU cannot take.
    #[error("memory at {at} for the {what} is not aligned to {alignment:#x} or past {oas_bits} bits")]
    BadMemory {
        /// What for.
        what: &'static str,
        /// Where.
        at: PhysAddr,
        /// In bytes.
        alignment: u64,
        /// Output address size in bits.
        oas_bits: u8,
    },
    /// The stream is outside the stream table.
    #[error("stream {stream} is past the last of the table, {last:#x}")]
    StreamOutOfRange {
        /// The stream.
        stream: StreamId,
        /// Highest stream that the table holds.
        last: u32,
    },
    /// The stream is another VM's, or is already attached.
    #[error("stream {stream} is attached with vmid {}", owner.as_u16())]
    StreamOwned {
        /// The stream.
        stream: StreamId,
        /// Whose it is.
        owner: Vmid,
    },
    /// The stream's last detach did not finish: its flush has to succeed first.
    #[error("stream {stream} is quarantined: its last flush did not finish")]
    StreamQuarantined {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is not attached.
    #[error("stream {stream} is not attached")]
    NotAttached {
        /// The stream.
        stream: StreamId,
    },
    /// Another stream with this VMID uses another table: the TLB cannot tell the two apart.
    #[error("vmid {} is in use with the table at {root}", vmid.as_u16())]
    VmidConflict {
        /// The VMID.
        vmid: Vmid,
        /// Root of the table in use.
        root: PhysAddr,
    },
    /// The translation that was asked for is not one this SMMU can do.
    #[error(transparent)]
    Entry(#[from] SteError),
    /// The driver's fixed tables are full.
    #[error("no room for another {what}: {capacity} at most")]
    Full {
        /// What there is no room for.
        what: &'static str,
        /// How many there can be.
        capacity: usize,
    },
    /// The highest stream of the machine is beyond what the SMMU can tell apart.
    #[error("stream {last:#x} is past the {sid_bits} bits that the smmu tells apart")]
    StreamIdTooWide {
        /// Highest stream of the machine.
        last: u32,
        /// IDR1.SIDSIZE.
        sid_bits: u8,
    },
}
