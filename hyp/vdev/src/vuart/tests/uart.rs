//! The PL011 as a driver sees it.

use crate::{
    mmio::Width,
    vuart::{RX_FIFO_BYTES, Vuart},
};

const DR: u64 = 0x00;
const FR: u64 = 0x18;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;
const RX: u64 = 1 << 4;
const TX: u64 = 1 << 5;
const RT: u64 = 1 << 6;

fn read(uart: &mut Vuart, offset: u64) -> u64 {
    uart.read(offset, Width::Word)
}

fn write(uart: &mut Vuart, offset: u64, value: u64) {
    assert_eq!(uart.write(offset, Width::Word, value), None);
}

/// amba drivers match on these (Linux: id 0x00041011, mask 0x000fffff).
#[test]
fn identification_is_an_arm_pl011() {
    let mut uart = Vuart::new();
    let mut id = |base: u64| (0..4).fold(0, |id, n| id | read(&mut uart, base + 4 * n) << (8 * n));
    assert_eq!(id(0xfe0) & 0xf_ffff, 0x4_1011);
    assert_eq!(id(0xff0), 0xb105_f00d);
}

#[test]
fn every_byte_written_goes_out_at_once() {
    let mut uart = Vuart::new();
    for width in [Width::Byte, Width::Half, Width::Word] {
        assert_eq!(uart.write(DR, width, 0x141), Some(b'A'));
    }
    assert_eq!(uart.write(DR, Width::Double, 0x41), None);
    assert_eq!(uart.write(1, Width::Byte, 0x41), None);
    assert_eq!(read(&mut uart, FR) & 0b1010_1000, 0x80, "TXFE, not TXFF, not BUSY");
}

/// Linux: transmit until the ring is empty, enable TXIM, expect the interrupt, clear it, mask it.
#[test]
fn transmit_interrupt_is_raised_by_sending_and_cleared_by_icr() {
    let mut uart = Vuart::new();
    write(&mut uart, IMSC, TX);
    assert!(!uart.irq_level());
    uart.write(DR, Width::Byte, 65);
    assert!(uart.irq_level());
    assert_eq!((read(&mut uart, RIS), read(&mut uart, MIS)), (TX, TX));
    write(&mut uart, ICR, TX);
    assert!(!uart.irq_level());
    uart.write(DR, Width::Byte, 65);
    write(&mut uart, IMSC, RX);
    assert_eq!((read(&mut uart, RIS), read(&mut uart, MIS), uart.irq_level()), (TX, 0, false));
}

/// Linux: startup, then handler: read MIS, clear it in ICR, read DR until RXFE. One key must raise it, reading ends it.
#[test]
fn one_byte_raises_the_receive_timeout_until_it_is_read() {
    let mut uart = Vuart::new();
    write(&mut uart, CR, 0x301);
    write(&mut uart, LCR_H, 0x70);
    write(&mut uart, IMSC, RX | RT);
    assert_eq!(read(&mut uart, FR) & 0x10, 0x10);
    assert!(uart.receive(b'x'));
    assert!(uart.irq_level());
    assert_eq!(read(&mut uart, MIS), RT);
    write(&mut uart, ICR, RX | RT);
    assert!(uart.irq_level(), "a byte that is not read is not forgotten");
    assert_eq!(read(&mut uart, FR) & 0x10, 0);
    assert_eq!(read(&mut uart, DR), u64::from(b'x'));
    assert_eq!(read(&mut uart, FR) & 0x10, 0x10);
    assert!(!uart.irq_level());
    assert_eq!(read(&mut uart, DR), 0, "an empty FIFO reads 0");
}

#[test]
fn fifo_keeps_order_and_refuses_more_than_it_holds() {
    let mut uart = Vuart::new();
    write(&mut uart, LCR_H, 0x10);
    for byte in 0..32u8 {
        assert!(uart.can_receive() && uart.receive(byte));
    }
    assert!(!uart.can_receive() && !uart.receive(99));
    assert_eq!(read(&mut uart, FR) & 0x40, 0x40, "RXFF");
    for byte in 0..32u64 {
        assert_eq!(read(&mut uart, DR), byte);
    }
    assert_eq!(read(&mut uart, FR) & 0x50, 0x10);
}

#[test]
fn receive_interrupt_follows_its_level() {
    for (level, trigger) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28)] {
        let mut uart = Vuart::new();
        write(&mut uart, LCR_H, 0x10);
        write(&mut uart, IFLS, level << 3);
        for count in 1..=RX_FIFO_BYTES {
            uart.receive(0);
            assert_eq!(read(&mut uart, RIS) & RX != 0, count >= trigger);
        }
    }
}

#[test]
fn registers_keep_what_they_have_room_for() {
    let mut uart = Vuart::new();
    for (offset, kept) in [(0x24, 0xffff), (0x28, 0x3f), (LCR_H, 0xff), (CR, 0xffff), (IFLS, 0x3f), (IMSC, 0x7ff)] {
        write(&mut uart, offset, u64::MAX);
        assert_eq!(read(&mut uart, offset), kept);
    }
    uart.reset();
    assert_eq!((read(&mut uart, CR), read(&mut uart, IFLS), read(&mut uart, IMSC)), (0x300, 0x12, 0));
}

#[test]
fn no_access_panics_and_unknown_registers_read_zero() {
    let mut uart = Vuart::new();
    for offset in (0..0x1010).chain([u64::MAX, 1 << 32]) {
        for width in Width::ALL {
            uart.write(offset, width, u64::MAX);
            let value = uart.read(offset, width);
            assert!(value <= width.mask());
            assert!(value == 0 || offset % 4 == 0);
        }
    }
    assert_eq!(uart.read(0x48, Width::Word), 0);
}
