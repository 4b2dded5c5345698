//! The hypervisor's own small shell on the machine's UART.

mod maps;
mod show;

use heapless::String;

use crate::{
    console::{self, NAME, Writer},
    lifecycle,
    lock::Mutex,
    vm,
    vm::{Request, State, Vm},
};

/// Longest command line.
const LINE_MAX: usize = 80;

static LINE: Mutex<String<LINE_MAX>> = Mutex::new(String::new());

/// Prints one line of the shell's answer.
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::console::line($crate::console::Writer::Hypervisor, $crate::console::NAME, format_args!($($argument)*))
    };
}
pub(crate) use say;

fn prompt() {
    console::partial(Writer::Hypervisor, NAME, "> ");
}

/// The shell gets the keyboard.
pub fn open() {
    LINE.lock().clear();
    say!("keyboard: hypervisor shell, `help` lists the commands ({} moves on)", crate::keyboard::SWITCH_KEY_NAME);
    prompt();
}

/// A key for the shell.
pub fn key(byte: u8) {
    let mut line = LINE.lock();
    match byte {
        b'\r' | b'\n' => {
            let command = core::mem::take(&mut *line);
            drop(line);
            console::bytes(Writer::Hypervisor, NAME, b"", true);
            run(command.trim());
            prompt();
        }
        0x08 | 0x7f if line.pop().is_some() => console::partial(Writer::Hypervisor, NAME, "\x08 \x08"),
        b' '..=b'~' if line.push(char::from(byte)).is_ok() => {
            console::partial(Writer::Hypervisor, NAME, char::from(byte).encode_utf8(&mut [0; 4]));
        }
        _ => (),
    }
}

fn run(command: &str) {
    let mut words = command.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => (),
        (Some("help"), None, _) => help(),
        (Some("vm"), None, _) => show::vms(),
        (Some("smmu"), None, _) => {
            show::smmus();
            maps::all();
        }
        (Some("mem"), None, _) => show::memory(),
        (Some("vm"), Some(action @ ("start" | "stop" | "reset")), Some(name)) => match vm::find(name) {
            Some(vm) => act(vm, action),
            None => say!("no vm has the name {name}: `vm` lists them"),
        },
        _ => say!("`{command}` is no command: `help` lists them"),
    }
}

fn help() {
    say!("vm                        VMs: state, CPU time, exits by reason");
    say!("vm start|stop|reset NAME  changes the state of one");
    say!(
        "smmu                      SMMUs: streams, owners, states, faults, commands, flushes; DMA maps, what their calls cost"
    );
    say!("mem                       memory of the hypervisor and of each VM");
    say!("{}                    moves the keyboard to the next VM", crate::keyboard::SWITCH_KEY_NAME);
}

fn act(vm: &'static Vm, action: &str) {
    match action {
        "start" => match lifecycle::start(vm) {
            Ok(()) => say!("vm {} starts", vm.name()),
            Err(state) => say!("vm {} is {state}: only a stopped one can be started", vm.name()),
        },
        _ if vm.state() != State::Running => {
            say!("vm {} is {}: only a running one can be told to {action}", vm.name(), vm.state())
        }
        "stop" => vm.ask(Request::Stop),
        _ => vm.ask(Request::Reset),
    }
}
