//! Event records: what the SMMU says of a transaction that it aborted (IHI 0070 7.3).

mod guest;
mod reason;

use core::fmt;

use bulkhead_core::{
    addr::{Iova, Ipa},
    ids::StreamId,
};
use tock_registers::register_bitfields;

pub use self::reason::Reason;

/// Size of an event record in bytes.
pub const EVENT_BYTES: u64 = 32;
/// 64-bit words of an event record.
pub const EVENT_WORDS: usize = 4;

// The layout of the translation-related faults (7.3.13); the others use a part of it.
register_bitfields![u64,
    EVENT0 [
        NUMBER OFFSET(0) NUMBITS(8) [],
        SSV OFFSET(11) NUMBITS(1) [],
        SUBSTREAM OFFSET(12) NUMBITS(20) [],
        STREAM OFFSET(32) NUMBITS(32) []
    ],
    EVENT1 [
        STALL OFFSET(31) NUMBITS(1) [],
        PNU OFFSET(33) NUMBITS(1) [],
        IND OFFSET(34) NUMBITS(1) [],
        RNW OFFSET(35) NUMBITS(1) [],
        S2 OFFSET(39) NUMBITS(1) [],
        CLASS OFFSET(40) NUMBITS(2) []
    ]
];

/// Bits 51:12 of word 3, where the event holds an IPA.
const IPA: u64 = 0x000f_ffff_ffff_f000;
/// Bits 51:3 of word 3, where the event holds the address of a failed fetch.
const FETCH_ADDR: u64 = 0x000f_ffff_ffff_fff8;

/// What the transaction wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// A write, else a read.
    pub is_write: bool,
    /// An instruction fetch.
    pub is_fetch: bool,
    /// Privileged.
    pub is_privileged: bool,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.is_fetch, self.is_write) {
            (true, _) => "fetch",
            (false, true) => "write",
            (false, false) => "read",
        };
        write!(f, "{}{what}", if self.is_privileged { "privileged " } else { "" })
    }
}

/// What the SMMU was doing when the fault came (CLASS, 7.3.13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Reading a context descriptor.
    ContextDescriptor,
    /// Walking a stage-1 table.
    TableWalk,
    /// Translating the input address.
    Input,
    /// Reserved.
    Reserved,
}

/// One event record, decoded. `None` where the record's kind does not hold the field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Why.
    pub reason: Reason,
    /// Whose transaction.
    pub stream: StreamId,
    /// PASID, where the transaction had one.
    pub substream: Option<u32>,
    /// Address that the device put out.
    pub iova: Option<Iova>,
    /// Guest-physical page, on a fault at stage 2.
    pub ipa: Option<Ipa>,
    /// What the transaction wanted.
    pub access: Option<Access>,
    /// What the SMMU was doing.
    pub class: Option<Class>,
    /// Stage of the translation that faulted, 1 or 2.
    pub stage: Option<u8>,
    /// Address of a structure or table that could not be read.
    pub fetch_addr: Option<u64>,
    /// The transaction waits for CMD_RESUME: never, with the entries of this driver.
    pub is_stalled: bool,
    /// The record as it was read.
    pub raw: [u64; EVENT_WORDS],
}

impl Event {
    /// Decodes a record. Every value decodes to something.
    pub fn decode(raw: [u64; EVENT_WORDS]) -> Self {
        let [word0, word1, word2, word3] = raw;
        let reason = Reason::from_number(low_byte(EVENT0::NUMBER.read(word0)));
        let is_translation_fault = reason.is_translation_fault();
        let has_stage2 = EVENT1::S2.is_set(word1);
        let has_fetch_addr =
            matches!(reason, Reason::SteFetch | Reason::CdFetch | Reason::VmsFetch | Reason::WalkAbort);
        Self {
            reason,
            stream: StreamId(low_word(EVENT0::STREAM.read(word0))),
            substream: EVENT0::SSV.is_set(word0).then(|| low_word(EVENT0::SUBSTREAM.read(word0))),
            iova: reason.has_address().then_some(Iova::new(word2)),
            ipa: (is_translation_fault && has_stage2 && reason != Reason::WalkAbort).then_some(Ipa::new(word3 & IPA)),
            access: is_translation_fault.then(|| Access {
                is_write: !EVENT1::RNW.is_set(word1),
                is_fetch: EVENT1::IND.is_set(word1),
                is_privileged: EVENT1::PNU.is_set(word1),
            }),
            class: is_translation_fault.then(|| match EVENT1::CLASS.read(word1) {
                0 => Class::ContextDescriptor,
                1 => Class::TableWalk,
                2 => Class::Input,
                _ => Class::Reserved,
            }),
            stage: is_translation_fault.then_some(if has_stage2 { 2 } else { 1 }),
            fetch_addr: has_fetch_addr.then_some(word3 & FETCH_ADDR),
            is_stalled: is_translation_fault && EVENT1::STALL.is_set(word1),
            raw,
        }
    }
}

impl fmt::Display for Event {
    /// One part of a log line, without the stream's owner: `write at 0x1000: F_TRANSLATION, nothing is mapped there`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.stream)?;
        if let Some(substream) = self.substream {
            write!(f, " pasid {substream:#x}")?;
        }
        match self.access {
            Some(access) => write!(f, ": {access}")?,
            None => f.write_str(": access")?,
        }
        if let Some(iova) = self.iova {
            write!(f, " at {iova}")?;
        }
        if let Some(ipa) = self.ipa
            && self.iova.is_none_or(|iova| iova.as_u64() & !0xfff != ipa.as_u64())
        {
            write!(f, " (ipa {ipa})")?;
        }
        if let Some(at) = self.fetch_addr {
            write!(f, " (fetch of {at:#x})")?;
        }
        write!(f, ": {}, {}", self.reason.name(), self.reason.meaning())?;
        if let Reason::Unknown(number) = self.reason {
            write!(f, " {number:#x} {:x?}", self.raw)?;
        }
        Ok(())
    }
}

/// The low 8 bits.
fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// The low 32 bits.
fn low_word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
