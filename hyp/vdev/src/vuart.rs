//! A PL011 UART (DDI 0183) as Linux's amba-pl011 and earlycon drive it.
//!
//! Transmission is instant: every byte written to DR goes straight to the caller, the transmit FIFO is always empty. Reception has a FIFO of 32 bytes; the receive timeout interrupt is raised as soon as
//! the FIFO holds anything, since no further byte is ever "in flight" (Linux reads all that there is on either
//! interrupt). Modem lines, DMA and errors are absent.

mod line;
mod registers;
#[cfg(test)]
mod tests;

pub use line::{LINE_MAX, LineBuffer};

use crate::mmio::Width;
use heapless::Deque;
use registers::{CR, FR, INT, LCR_H, identification, offset};
use tock_registers::LocalRegisterCopy;

/// Bytes that wait for the guest at most; revision 3 of the PL011 has this depth.
pub const RX_FIFO_BYTES: usize = 32;

/// The UART of one VM. Not locked: EL2 holds one lock around it.
#[derive(Clone, Debug)]
pub struct Vuart {
    rx: Deque<u8, RX_FIFO_BYTES>,
    /// Raw state of the transmit interrupt: latched when a byte goes out, as the FIFO drains below its level.
    tx_raised: bool,
    ibrd: u16,
    fbrd: u16,
    lcr_h: LocalRegisterCopy<u32, LCR_H::Register>,
    cr: LocalRegisterCopy<u32, CR::Register>,
    ifls: u16,
    imsc: u16,
}

impl Default for Vuart {
    fn default() -> Self {
        Self::new()
    }
}

impl Vuart {
    /// A UART in its reset state (DDI 0183 3.2).
    pub const fn new() -> Self {
        Self {
            rx: Deque::new(),
            tx_raised: false,
            ibrd: 0,
            fbrd: 0,
            lcr_h: LocalRegisterCopy::new(0),
            cr: LocalRegisterCopy::new(0x300),
            ifls: 0x12,
            imsc: 0,
        }
    }

    /// Back to the reset state; bytes that were not read are gone.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// A byte for the guest. Returns false when the FIFO is full and the byte is dropped: the sender may try later.
    pub fn receive(&mut self, byte: u8) -> bool {
        self.rx.push_back(byte).is_ok()
    }

    /// Whether [`Vuart::receive`] would take a byte.
    pub fn can_receive(&self) -> bool {
        !self.rx.is_full()
    }

    /// Level of the combined interrupt, to be passed to the virtual GIC after every call here.
    pub fn irq_level(&self) -> bool {
        self.raw_interrupts() & self.imsc != 0
    }

    /// The guest reads `width` at `offset`; unknown registers read 0. Reading DR takes a byte out of the FIFO.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        if offset & 3 != 0 || width == Width::Double {
            return 0;
        }
        let value: u32 = match offset {
            offset::DR => self.rx.pop_front().map_or(0, u32::from),
            offset::FR => self.flags(),
            offset::IBRD => self.ibrd.into(),
            offset::FBRD => self.fbrd.into(),
            offset::LCR_H => self.lcr_h.get(),
            offset::CR => self.cr.get(),
            offset::IFLS => self.ifls.into(),
            offset::IMSC => self.imsc.into(),
            offset::RIS => self.raw_interrupts().into(),
            offset::MIS => (self.raw_interrupts() & self.imsc).into(),
            _ => identification(offset).into(),
        };
        width.narrow(value.into())
    }

    /// The guest writes `value` at `offset`. Returns a byte that it sends.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Option<u8> {
        if offset & 3 != 0 || width == Width::Double {
            return None;
        }
        let value = (width.narrow(value) & 0xffff) as u16;
        match offset {
            offset::DR => return self.send((value & 0xff) as u8),
            offset::IBRD => self.ibrd = value,
            offset::FBRD => self.fbrd = value & 0x3f,
            offset::LCR_H => self.lcr_h.set(u32::from(value) & 0xff),
            offset::CR => self.cr.set(u32::from(value)),
            offset::IFLS => self.ifls = value & 0x3f,
            offset::IMSC => self.imsc = value & INT::ALL,
            // Receive states follow the FIFO and cannot be cleared while it holds anything.
            offset::ICR if value & INT::TX != 0 => self.tx_raised = false,
            _ => {}
        }
        None
    }

    /// UARTEN and TXE are not asked: earlycon and bare-metal guests write before configuring, and QEMU lets them.
    fn send(&mut self, byte: u8) -> Option<u8> {
        self.tx_raised = true;
        Some(byte)
    }

    fn flags(&self) -> u32 {
        let fifo = self.lcr_h.is_set(LCR_H::FEN);
        let rx_full = if fifo { self.rx.is_full() } else { !self.rx.is_empty() };
        // Clear to send, carrier and data set ready are given: nobody waits for a modem.
        (FR::CTS::SET
            + FR::DSR::SET
            + FR::DCD::SET
            + FR::TXFE::SET
            + FR::RXFE.val(self.rx.is_empty().into())
            + FR::RXFF.val(rx_full.into()))
        .value
    }

    /// RIS. Receive and receive timeout hold as long as there is a byte.
    fn raw_interrupts(&self) -> u16 {
        let mut raised = if self.tx_raised { INT::TX } else { 0 };
        if !self.rx.is_empty() {
            raised |= INT::RT;
            if !self.lcr_h.is_set(LCR_H::FEN) || self.rx.len() >= self.rx_trigger() {
                raised |= INT::RX;
            }
        }
        raised
    }

    /// Bytes from which on the receive interrupt is raised (IFLS.RXIFLSEL).
    fn rx_trigger(&self) -> usize {
        match self.ifls >> 3 & 7 {
            0 => RX_FIFO_BYTES / 8,
            1 => RX_FIFO_BYTES / 4,
            2 => RX_FIFO_BYTES / 2,
            3 => RX_FIFO_BYTES * 3 / 4,
            _ => RX_FIFO_BYTES * 7 / 8,
        }
    }
}
