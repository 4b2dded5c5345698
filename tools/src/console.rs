//! Runs QEMU with its console read line by line.

pub mod text;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{qemu::QemuLine, setup::qemu::PROGRAM};

/// Jiffies per second in `/proc`: USER_HZ, the same on every Linux.
const USER_HZ: f64 = 100.0;

/// What reading the console came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line, without escape sequences.
    Line(String),
    /// QEMU has ended.
    End,
    /// The deadline has passed.
    Timeout,
}

/// A running QEMU. It is killed when this is dropped.
pub struct Machine {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
    last: Vec<String>,
}

impl Machine {
    /// Starts QEMU; the console goes to `log`, too.
    ///
    /// # Errors
    /// When QEMU cannot be started or the log cannot be written.
    pub fn start(line: &QemuLine, log: &Path) -> Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut log_file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        writeln!(log_file, "{}", line.to_shell())?;
        let mut child = Command::new(PROGRAM)
            .args(line.as_slice())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file.try_clone()?)
            .spawn()
            .with_context(|| format!("{PROGRAM} cannot be started: run `./justw setup`"))?;
        let output = child.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                let line = text::clean(&String::from_utf8_lossy(&line));
                let _ = writeln!(log_file, "{line}");
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, log: log.to_path_buf(), last: Vec::new() })
    }

    /// The next thing that happens, until `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Event {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.last.push(line.clone());
                Event::Line(line)
            }
            Err(RecvTimeoutError::Disconnected) => Event::End,
            Err(RecvTimeoutError::Timeout) => Event::Timeout,
        }
    }

    /// Reads until a line for which `is_wanted` holds; `None` when QEMU ends or the time is over.
    pub fn wait_for(&mut self, deadline: Instant, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        loop {
            match self.next(deadline) {
                Event::Line(line) if is_wanted(&line) => return Some(line),
                Event::Line(_) => {}
                Event::End | Event::Timeout => return None,
            }
        }
    }

    /// Types `text` on the console.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("QEMU has no input")?;
        input.write_all(text.as_bytes())?;
        Ok(input.flush()?)
    }

    /// Every line so far.
    pub fn lines(&self) -> &[String] {
        &self.last
    }

    /// The last `count` lines, indented, for a message.
    pub fn tail(&self, count: usize) -> String {
        let start = self.last.len().saturating_sub(count);
        let lines = self.last[start..].iter().map(|line| format!("    | {line}\n"));
        format!("{}    (all of it: {})", lines.collect::<String>(), self.log.display())
    }

    /// CPU seconds, user and system, that QEMU has used so far; `None` once it has ended.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The second field is a name in parentheses that may hold spaces; utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let jiffies = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some((jiffies(14)? + jiffies(15)?) / USER_HZ)
    }

    /// Waits until QEMU has ended by itself.
    pub fn has_ended_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            match self.next(deadline) {
                Event::Line(_) => {}
                Event::End => return true,
                Event::Timeout => return false,
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
