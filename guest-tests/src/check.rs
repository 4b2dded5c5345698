//! Checks: each prints `ok: …` or `FAIL: …`; panics end the program.

use core::panic::PanicInfo;

use crate::{console, psci};

/// Prints `ok: text` when the condition holds, `FAIL: text` when not. Values for diagnosis follow a `;`.
#[macro_export]
macro_rules! check {
    ($condition:expr, $text:literal $(, $argument:expr)* $(; $value:expr)*) => {
        if $condition {
            $crate::println!("ok: {}", format_args!($text $(, $argument)*));
        } else {
            $crate::println!("FAIL: {}", format_args!($text $(, $argument)*));
            $( $crate::println!("      {} = {:#x?}", stringify!($value), $value); )*
        }
    };
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::emergency(format_args!("FAIL: {info}"));
    psci::system_off()
}
