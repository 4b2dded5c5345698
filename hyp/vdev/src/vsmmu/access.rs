//! A guest's loads and stores (IHI 0070 6.2).

use super::{
    Host, Next, Vsmmu,
    registers::{CR0, CR0_MASK, GBPA, IRQ_CTRL_MASK, offset},
};
use crate::{memory::GuestMemory, mmio::Width};

/// Where the second page starts.
const PAGE_1: u64 = 0x1_0000;

impl Vsmmu {
    /// What a load of `width` at `offset` of the frame reads. Loads of less than a word, across words, and of what is not
    /// there read 0.
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        match (word(offset), width) {
            (Some(at), Width::Word) => self.registers.word(at).into(),
            (Some(at), Width::Double) if Width::Double.is_aligned(offset) => self.registers.double(at),
            _ => 0,
        }
    }

    /// A store of `value`. Stores of less than a word, and of two words where no 64-bit register is, are ignored.
    pub fn write(
        &mut self,
        offset: u64,
        width: Width,
        value: u64,
        memory: &mut impl GuestMemory,
        host: &mut impl Host,
    ) -> Next {
        let [a, b, c, d, high @ ..] = value.to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        let queue = if (offset, width) == (offset::CMDQ_PROD as u64, Width::Word) {
            // The one store of everyday life.
            let queue = self.command_queue();
            self.registers.set(offset::CMDQ_PROD, queue.index(low));
            queue
        } else {
            match (word(offset), width) {
                (Some(at), Width::Word) => self.write_word(at, low, memory, host),
                (Some(at), Width::Double) if is_double(at) => {
                    self.registers.write(at, low);
                    self.registers.write(at + 4, u32::from_le_bytes(high));
                }
                _ => return Next::Done,
            }
            self.command_queue()
        };
        self.drain(&queue, memory, host)
    }

    fn write_word(&mut self, at: usize, value: u32, memory: &mut impl GuestMemory, host: &mut impl Host) {
        match at {
            offset::CR0 => self.write_cr0(value & CR0_MASK, memory, host),
            offset::GBPA => self.write_gbpa(value, memory, host),
            offset::IRQ_CTRL => {
                self.registers.set(offset::IRQ_CTRL, value & IRQ_CTRL_MASK);
                self.registers.set(offset::IRQ_CTRLACK, value & IRQ_CTRL_MASK);
            }
            _ => self.registers.write(at, value),
        }
    }

    /// Acknowledges at once, but for SMMUEN where the hardware did not follow.
    fn write_cr0(&mut self, value: u32, memory: &mut impl GuestMemory, host: &mut impl Host) {
        self.registers.set(offset::CR0, value);
        let smmuen = CR0::SMMUEN.mask;
        let mut acknowledged = value;
        if (value ^ self.registers.word(offset::CR0ACK)) & smmuen != 0
            && self.configure(0, u32::MAX, value & smmuen != 0, memory, host).is_err()
        {
            acknowledged ^= smmuen;
        }
        self.registers.set(offset::CR0ACK, acknowledged);
    }

    /// Takes a value with UPDATE = 1, and clears that bit once it holds.
    fn write_gbpa(&mut self, value: u32, memory: &mut impl GuestMemory, host: &mut impl Host) {
        let (abort, update) = (GBPA::ABORT.mask << 20, 1 << 31);
        if value & update == 0 {
            return;
        }
        // A store that is repeated: nothing is due.
        if value & abort == self.registers.word(offset::GBPA) {
            return;
        }
        self.registers.set(offset::GBPA, value & abort);
        if !self.is_enabled() && self.configure(0, u32::MAX, false, memory, host).is_err() {
            self.registers.set(offset::GBPA, value & (abort | update));
        }
    }
}

/// The kept word that an offset of the frame names: the indices of the event queue are in page 1, all else in page 0.
#[inline(always)]
fn word(offset: u64) -> Option<usize> {
    let at = usize::try_from(offset & !PAGE_1).ok()?;
    let is_index = matches!(at, offset::EVENTQ_PROD | offset::EVENTQ_CONS);
    ((offset >= PAGE_1) == is_index && at < offset::END && at.is_multiple_of(4)).then_some(at)
}

/// Whether a 64-bit register starts at a word.
fn is_double(at: usize) -> bool {
    matches!(
        at,
        offset::GERROR_IRQ_CFG0
            | offset::STRTAB_BASE
            | offset::CMDQ_BASE
            | offset::EVENTQ_BASE
            | offset::EVENTQ_IRQ_CFG0
    )
}
