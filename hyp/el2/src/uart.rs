//! The machine's UART, polled for output and by interrupt for input.

use core::ptr::NonNull;

use arm_pl011_uart::{Interrupts, PL011Registers, Uart as Pl011, UniqueMmioPointer};
use bulkhead_core::addr::PhysAddr;

/// Most reads of the flag register before a byte is given up: a UART without clock must not stop the machine.
const FULL_POLLS: u32 = 1_000_000;

/// UARTCR (DDI 0183 3.3.8).
const CONTROL_OFFSET: usize = 0x30;
/// UARTEN, TXE and RXE: without firmware nobody has set them.
const CONTROL_ON: u32 = 1 << 0 | 1 << 8 | 1 << 9;

/// A PL011 whose baud rate the firmware has set. It is never programmed again.
pub struct Uart {
    device: Pl011<'static>,
}

impl Uart {
    /// The PL011 at `base`.
    ///
    /// # Safety
    /// `base` is a PL011's registers, mapped as device memory, and nobody else uses them.
    pub unsafe fn new(base: PhysAddr) -> Option<Self> {
        let address = usize::try_from(base.as_u64()).ok()?;
        let control: *mut u32 = core::ptr::with_exposed_provenance_mut(address + CONTROL_OFFSET);
        // SAFETY: the caller's promise; UARTCR is a 32-bit register of every PL011.
        let enabled = unsafe { control.read_volatile() };
        if enabled & CONTROL_ON != CONTROL_ON {
            // SAFETY: as above. Line settings and baud rate stay as they are.
            unsafe { control.write_volatile(enabled | CONTROL_ON) };
        }
        let registers = NonNull::new(core::ptr::with_exposed_provenance_mut::<PL011Registers>(address))?;
        // SAFETY: the caller's promise.
        let registers = unsafe { UniqueMmioPointer::new(registers) };
        Some(Self { device: Pl011::new(registers) })
    }

    /// Sends one byte, or drops it when the FIFO stays full.
    pub fn write_byte(&mut self, byte: u8) {
        for _ in 0..FULL_POLLS {
            if !self.device.is_tx_fifo_full() {
                self.device.write_word(byte);
                return;
            }
        }
    }

    /// A byte from the keyboard, if one waits. Framing and break errors are dropped.
    pub fn read_byte(&mut self) -> Option<u8> {
        self.device.read_word().ok().flatten()
    }

    /// Lets arriving bytes raise the interrupt.
    pub fn enable_receive_interrupt(&mut self) {
        self.device.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
    }

    /// Clears what the interrupt stood for.
    pub fn acknowledge(&mut self) {
        self.device.clear_interrupts(Interrupts::RXI | Interrupts::RTI);
    }
}
