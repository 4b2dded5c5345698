//! Registers of the PL011 (DDI 0183 3.2).

use tock_registers::register_bitfields;

/// Byte offsets.
pub(super) mod offset {
    pub const DR: u64 = 0x000;
    pub const FR: u64 = 0x018;
    pub const IBRD: u64 = 0x024;
    pub const FBRD: u64 = 0x028;
    pub const LCR_H: u64 = 0x02c;
    pub const CR: u64 = 0x030;
    pub const IFLS: u64 = 0x034;
    pub const IMSC: u64 = 0x038;
    pub const RIS: u64 = 0x03c;
    pub const MIS: u64 = 0x040;
    pub const ICR: u64 = 0x044;
}

register_bitfields! {u32,
    /// Flags.
    pub(super) FR [
        CTS OFFSET(0) NUMBITS(1) [],
        DSR OFFSET(1) NUMBITS(1) [],
        DCD OFFSET(2) NUMBITS(1) [],
        RXFE OFFSET(4) NUMBITS(1) [],
        RXFF OFFSET(6) NUMBITS(1) [],
        TXFE OFFSET(7) NUMBITS(1) [],
    ],
    /// Line control.
    pub(super) LCR_H [
        FEN OFFSET(4) NUMBITS(1) [],
    ],
    /// Control.
    pub(super) CR [
        UARTEN OFFSET(0) NUMBITS(1) [],
        TXE OFFSET(8) NUMBITS(1) [],
        RXE OFFSET(9) NUMBITS(1) [],
    ],
}

/// Bits of IMSC, RIS, MIS and ICR.
#[allow(non_snake_case, reason = "named as the register group is")]
pub(super) mod INT {
    /// Receive.
    pub const RX: u16 = 1 << 4;
    /// Transmit.
    pub const TX: u16 = 1 << 5;
    /// Receive timeout.
    pub const RT: u16 = 1 << 6;
    /// All that exist.
    pub const ALL: u16 = 0x7ff;
}

/// PeriphID and CellID: PL011, Arm, revision 3 (a FIFO of 32 bytes).
pub(super) const fn identification(offset: u64) -> u8 {
    match offset {
        0xfe0 => 0x11,
        0xfe4 => 0x10,
        0xfe8 => 0x34,
        0xfec => 0x00,
        0xff0 => 0x0d,
        0xff4 => 0xf0,
        0xff8 => 0x05,
        0xffc => 0xb1,
        _ => 0,
    }
}
