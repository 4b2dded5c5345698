//! The machine's UART, shared line by line between the hypervisor and its VMs.
//!
//! A line carries its writer's name in colour. A VM with the keyboard's focus may keep a line open (a prompt, an echo): its
//! next bytes follow on that line, until somebody else has something to say.

use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};

use bulkhead_vdev::vuart::LineBuffer;

use crate::{lock::Mutex, panic, uart::Uart, vm::Vm};

/// Colours of VM names, by VM; the hypervisor's own is bold white.
const COLOURS: [&str; 6] = ["\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[31m"];

/// Who writes a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The hypervisor.
    Hypervisor,
    /// The VM with this index.
    Vm(u8),
}

struct Console {
    uart: Option<Uart>,
    open_line: Option<Writer>,
}

static CONSOLE: Mutex<Console> = Mutex::new(Console { uart: None, open_line: None });

/// Writes with CR before LF to the UART.
struct Out<'a>(&'a mut Uart);

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.0.write_byte(b'\r');
            }
            self.0.write_byte(byte);
        }
        Ok(())
    }
}

impl Console {
    fn begin(&mut self, writer: Writer, name: &str) {
        if self.open_line == Some(writer) {
            return;
        }
        let must_close = self.open_line.take().is_some();
        let Some(uart) = self.uart.as_mut() else { return };
        let mut out = Out(uart);
        let colour = match writer {
            Writer::Hypervisor => "\x1b[1m",
            Writer::Vm(vm) => COLOURS[usize::from(vm) % COLOURS.len()],
        };
        let close = if must_close { "\n" } else { "" };
        let _ = write!(out, "{close}{colour}[{name}]\x1b[0m ");
    }

    fn text(&mut self, text: fmt::Arguments<'_>) {
        if let Some(uart) = self.uart.as_mut() {
            let _ = Out(uart).write_fmt(text);
        }
    }
}

/// Runs `f` on the console. After a panic the lock is passed by: its holder was stopped and will not come back.
fn with<R>(f: impl FnOnce(&mut Console) -> R) -> R {
    if panic::is_panicking() {
        // SAFETY: the CPU that panicked is the only one that still runs hypervisor code.
        return f(unsafe { &mut *CONSOLE.as_mut_ptr() });
    }
    f(&mut CONSOLE.lock())
}

/// Gives the console its UART.
pub fn set_uart(uart: Uart) {
    with(|console| console.uart = Some(uart));
}

/// Whether there is a UART to write to.
pub fn is_present() -> bool {
    with(|console| console.uart.is_some())
}

/// Runs `f` on the UART, between lines.
pub fn with_uart<R>(f: impl FnOnce(&mut Uart) -> R) -> Option<R> {
    with(|console| console.uart.as_mut().map(f))
}

/// One whole line.
pub fn line(writer: Writer, name: &str, text: fmt::Arguments<'_>) {
    with(|console| {
        // A line of its own, even behind the writer's own prompt.
        if console.open_line.take().is_some() {
            console.text(format_args!("\n"));
        }
        console.begin(writer, name);
        console.text(text);
        console.text(format_args!("\n"));
    });
}

/// Text without an end: the line stays open for `writer`.
pub fn partial(writer: Writer, name: &str, text: &str) {
    with(|console| {
        console.begin(writer, name);
        console.text(format_args!("{text}"));
        console.open_line = Some(writer);
    });
}

/// Bytes of a guest's line, cleaned by its line buffer; `is_end` closes the line.
pub fn bytes(writer: Writer, name: &str, text: &[u8], is_end: bool) {
    with(|console| {
        console.begin(writer, name);
        if let Some(uart) = console.uart.as_mut() {
            text.iter().for_each(|&byte| uart.write_byte(byte));
        }
        console.text(format_args!("{}", if is_end { "\x1b[0m\n" } else { "" }));
        console.open_line = (!is_end).then_some(writer);
    });
}

/// Closes the line that `writer` has open.
fn close(writer: Writer) {
    with(|console| {
        if console.open_line == Some(writer) {
            console.text(format_args!("\x1b[0m\n"));
            console.open_line = None;
        }
    });
}

/// One byte of a VM's output. On a line that is open it follows at once: a person sees what they type.
pub fn guest_byte(vm: &Vm, line: &mut LineBuffer, byte: u8) {
    let writer = Writer::Vm(vm.id.0);
    line.push(byte, |text| bytes(writer, vm.name(), text, byte == b'\n'));
    if byte == b'\n' {
        close(writer);
    } else if has_open_line(writer) {
        line.flush(|text| bytes(writer, vm.name(), text, false));
    }
}

/// Whether `writer` has the open line.
pub fn has_open_line(writer: Writer) -> bool {
    with(|console| console.open_line == Some(writer))
}

/// The name under which the hypervisor writes.
pub const NAME: &str = "bulkhead";

struct Logger;

impl Log for Logger {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (before, after) = match record.level() {
            Level::Error => ("\x1b[31merror:\x1b[0m ", ""),
            Level::Warn => ("\x1b[33mwarning:\x1b[0m ", ""),
            _ => ("", ""),
        };
        line(Writer::Hypervisor, NAME, format_args!("{before}{}{after}", record.args()));
    }

    fn flush(&self) {}
}

/// Sends what the crates log to the console.
pub fn init_log() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
