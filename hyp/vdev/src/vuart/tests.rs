//! Tests of the UART and of line assembly.

mod line;
mod uart;
