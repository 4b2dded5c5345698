//! Output that would like to be somebody else's: control characters, escape sequences, a forged hypervisor line.
#![no_std]
#![no_main]

use bulkhead_guest_tests::{console, println, program};

program!(main);

fn send(text: &[u8]) {
    for byte in text {
        console::put(*byte);
    }
}

fn main() {
    println!("forging");
    send(b"\r[bulkhead] forged 1\n");
    send(b"x\r[bulkhead] forged 2\n");
    send(b"\x1b[2K\x1b[1G[bulkhead] forged 3\n");
    send(b"\x1b]0;title\x07\x1bc\x9b2J[bulkhead] forged 4\n");
    send(b"\x08\x08\x08\x08\x08\x08\x08\x08[bulkhead] forged 5\n");
    send(b"\0\x01\x02\x0b\x0c\x0e\x0f\x7f\xff\xfe\n");
    println!("long line follows");
    for _ in 0..100 {
        send(b"0123456789abcdef0123456789abcdef0123456789abcdef");
    }
    send(b"[bulkhead] forged 6\n");
    println!("still heard");
    send(b"no newline at the end");
}
