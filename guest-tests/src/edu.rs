//! QEMU's `edu` device: a DMA engine that goes wherever it is told (docs/specs/edu.rst).

use crate::{mem, pci::Function, timer};

/// Vendor ID and Device ID.
pub const ID: u32 = 0x11e8_1234;
/// Bytes of its internal buffer, and so of one transfer.
pub const BUFFER_BYTES: u64 = 4096;
/// Value of the identification register.
pub const IDENTIFICATION: u32 = 0x0100_00ed;

const LIVENESS: u64 = 0x04;
const INTERRUPT_STATUS: u64 = 0x24;
const INTERRUPT_RAISE: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
const DMA_RUN: u64 = 1;
const DMA_TO_MEMORY: u64 = 2;
const DMA_INTERRUPT: u64 = 4;
/// Where the internal buffer is for the DMA engine.
const BUFFER: u64 = 0x4_0000;
/// A transfer takes 100 ms; a loaded machine more.
const DMA_LIMIT_MS: u64 = 5000;

/// An edu device, its BAR in place.
#[derive(Clone, Copy, Debug)]
pub struct Edu {
    /// Its PCI function.
    pub function: Function,
    base: u64,
}

impl Edu {
    /// Finds the edu after `skip` others, places its BAR and enables it.
    pub fn find(skip: usize) -> Option<Self> {
        let function = Function::find(ID, skip)?;
        Some(Self { function, base: function.enable() })
    }

    /// The first edu, which must be there.
    pub fn first() -> Self {
        Self::find(0).expect("this VM has an edu device")
    }

    /// Where its registers are.
    pub fn base(self) -> u64 {
        self.base
    }

    /// The identification register.
    pub fn identification(self) -> u32 {
        mem::read32(self.base)
    }

    /// Writes the liveness register; returns what it then reads, the complement.
    pub fn liveness(self, value: u32) -> u32 {
        mem::write32(self.base + LIVENESS, value);
        mem::read32(self.base + LIVENESS)
    }

    /// Bits raised and not acknowledged.
    pub fn interrupt_status(self) -> u32 {
        mem::read32(self.base + INTERRUPT_STATUS)
    }

    /// Raises its interrupt with the bits of `value`.
    pub fn raise(self, value: u32) {
        mem::write32(self.base + INTERRUPT_RAISE, value);
    }

    /// Acknowledges bits; with the last one the line goes down.
    pub fn acknowledge(self, value: u32) {
        mem::write32(self.base + INTERRUPT_ACKNOWLEDGE, value);
    }

    /// Starts copying `bytes` bytes at `iova` to the device's buffer, at `offset` in it.
    pub fn start_read(self, iova: u64, offset: u64, bytes: u64) {
        self.start(iova, BUFFER + offset, bytes, DMA_RUN);
    }

    /// Starts copying `bytes` bytes of the device's buffer, from `offset` in it, to `iova`.
    pub fn start_write(self, iova: u64, offset: u64, bytes: u64) {
        self.start(BUFFER + offset, iova, bytes, DMA_RUN | DMA_TO_MEMORY);
    }

    /// Like [`Self::start_write`], with an interrupt (bit 0x100) at the end.
    pub fn start_write_with_interrupt(self, iova: u64, offset: u64, bytes: u64) {
        self.start(BUFFER + offset, iova, bytes, DMA_RUN | DMA_TO_MEMORY | DMA_INTERRUPT);
    }

    fn start(self, source: u64, destination: u64, bytes: u64, command: u64) {
        // The program's stores must be in memory before the device looks.
        crate::cpu::dsb();
        mem::write64(self.base + DMA_SOURCE, source);
        mem::write64(self.base + DMA_DESTINATION, destination);
        mem::write64(self.base + DMA_COUNT, bytes);
        mem::write64(self.base + DMA_COMMAND, command);
    }

    /// Whether a transfer is still under way.
    pub fn is_busy(self) -> bool {
        mem::read64(self.base + DMA_COMMAND) & DMA_RUN != 0
    }

    /// Waits for the end of the transfer; whether it came.
    pub fn wait(self) -> bool {
        // Polled with rests between: each poll of a busy device leaves the emulator.
        (0..DMA_LIMIT_MS / 5).any(|_| {
            timer::delay_ms(5);
            !self.is_busy()
        })
    }

    /// Copies memory to the buffer and waits; whether the transfer ended, not whether it succeeded.
    pub fn read(self, iova: u64, offset: u64, bytes: u64) -> bool {
        self.start_read(iova, offset, bytes);
        self.wait()
    }

    /// Copies the buffer to memory and waits; whether the transfer ended, not whether it succeeded.
    pub fn write(self, iova: u64, offset: u64, bytes: u64) -> bool {
        self.start_write(iova, offset, bytes);
        self.wait()
    }
}
