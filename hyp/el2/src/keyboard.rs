//! The machine's keyboard: one VM or the shell has it, a key moves it on.

use core::sync::atomic::{
    AtomicBool, AtomicU8,
    Ordering::{Acquire, Relaxed, Release},
};

use bulkhead_core::vplat;
use log::info;

use crate::{console, console::Writer, lock::Mutex, shell, time, virtual_gic, vm, vm::Vm};

/// The key that moves the keyboard's focus: Ctrl-T.
pub const SWITCH_KEY: u8 = 0x14;
/// Its name, for the boot log.
pub const SWITCH_KEY_NAME: &str = "Ctrl-T";
/// Bytes that wait for a guest whose UART is full.
const WAITING_MAX: usize = 256;
/// Bytes taken in one interrupt.
const BYTES_PER_INTERRUPT: usize = 64;
/// The hypervisor's shell, as a focus.
const SHELL: u8 = u8::MAX;

static FOCUS: AtomicU8 = AtomicU8::new(SHELL);
static WAITING: Mutex<heapless::Deque<u8, WAITING_MAX>> = Mutex::new(heapless::Deque::new());
static IS_TICK_WANTED: AtomicBool = AtomicBool::new(false);

/// The VM that the keyboard belongs to.
fn focused() -> Option<&'static Vm> {
    let focus = FOCUS.load(Acquire);
    vm::all().find(|vm| vm.id.0 == focus)
}

/// Gives the keyboard to the first VM.
pub fn init() {
    if let Some(first) = vm::all().next() {
        FOCUS.store(first.id.0, Release);
    }
}

fn move_on() {
    let focus = FOCUS.load(Acquire);
    let next = vm::all().find(|vm| focus == SHELL || vm.id.0 > focus);
    FOCUS.store(next.map_or(SHELL, |vm| vm.id.0), Release);
    WAITING.lock().clear();
    match next {
        Some(vm) => info!("keyboard: vm {} ({SWITCH_KEY_NAME} moves it on)", vm.name()),
        None => shell::open(),
    }
}

/// The UART's interrupt: bytes go to whoever has the keyboard.
#[cold]
#[inline(never)]
pub fn interrupt() {
    // First, so that a byte that comes after the last read raises the line again.
    let _ = console::with_uart(|uart| uart.acknowledge());
    for _ in 0..BYTES_PER_INTERRUPT {
        let Some(byte) = console::with_uart(|uart| uart.read_byte()).flatten() else { break };
        if byte == SWITCH_KEY {
            move_on();
        } else if let Some(vm) = focused() {
            // What does not fit is lost, as on a real line without flow control.
            let _ = WAITING.lock().push_back(byte);
            feed_waiting(vm);
        } else {
            shell::key(byte);
        }
    }
}

/// Moves waiting bytes into the UART of `vm`, if it has the keyboard and room.
pub fn feed_waiting(vm: &'static Vm) {
    if FOCUS.load(Relaxed) != vm.id.0 || WAITING.lock().is_empty() {
        return;
    }
    let mut serial = vm.serial.lock();
    while serial.uart.can_receive() {
        let Some(byte) = WAITING.lock().pop_front() else { break };
        serial.uart.receive(byte);
    }
    let is_high = serial.uart.irq_level();
    // Under the lock, as the guest's own accesses do it: levels arrive in their order.
    virtual_gic::set_level(vm, vplat::UART_INTID, is_high);
}

/// Wants [`tick`] to run soon, on any CPU.
pub fn ask_tick() {
    if !IS_TICK_WANTED.swap(true, Relaxed) {
        time::arm_ms(time::QUIET_MS);
    }
}

/// EL2's timer: prints what VMs have left of a line for a while (a prompt).
pub fn tick() {
    time::disarm();
    IS_TICK_WANTED.store(false, Relaxed);
    let now = time::ticks();
    // A little less than the timer waits, so that one tick does for a line that ended just before.
    let quiet = time::frequency() * time::QUIET_MS * 3 / 4 / 1000;
    let mut is_waiting = false;
    for vm in vm::all() {
        let mut serial = vm.serial.lock();
        if !serial.line.is_pending() {
            continue;
        }
        if now.wrapping_sub(serial.last_output) < quiet {
            is_waiting = true;
            continue;
        }
        serial.line.flush(|text| console::bytes(Writer::Vm(vm.id.0), vm.name(), text, false));
    }
    if is_waiting {
        ask_tick();
    }
}
