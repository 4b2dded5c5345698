//! Console output on the PL011, whole lines at a time.

use core::fmt::{self, Write};

use bulkhead_core::vplat::UART_BASE;
use spin::mutex::TicketMutex;

use crate::mem;

const DATA: u64 = 0x00;
const FLAGS: u64 = 0x18;
const CONTROL: u64 = 0x30;
const TRANSMIT_FULL: u32 = 1 << 5;
/// UARTEN, TXE, RXE.
const ENABLE: u32 = 0x301;

static LINE: TicketMutex<()> = TicketMutex::new(());

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
        Ok(())
    }
}

/// Sends one byte as it is.
pub fn put(byte: u8) {
    while mem::read32(UART_BASE.as_u64() + FLAGS) & TRANSMIT_FULL != 0 {}
    mem::write32(UART_BASE.as_u64() + DATA, u32::from(byte));
}

/// Turns the UART on, as firmware would.
pub fn enable() {
    mem::write32(UART_BASE.as_u64() + CONTROL, ENABLE);
}

/// Prints one line. Use [`crate::println!`]; not from an interrupt handler.
pub fn print_line(line: fmt::Arguments<'_>) {
    let _line = LINE.lock();
    emergency(line);
}

/// Prints one line whoever holds the console: for a program's last words.
pub fn emergency(line: fmt::Arguments<'_>) {
    // The UART never returns an error.
    let _ = writeln!(Uart, "{line}");
}

/// Prints a line on the console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::print_line(format_args!($($argument)*)) };
}
