//! What set-up would do: said first, then done.

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::workspace::Workspace;

type Action = Box<dyn Fn(&Workspace) -> Result<()>>;

/// One thing to do.
pub struct Step {
    what: String,
    is_system: bool,
    action: Action,
}

impl Step {
    /// A step that changes the system: packages, toolchains.
    pub fn system(what: String, action: impl Fn(&Workspace) -> Result<()> + 'static) -> Self {
        Self { what, is_system: true, action: Box::new(action) }
    }

    /// A step that only fills the cache.
    pub fn cache(what: String, action: impl Fn(&Workspace) -> Result<()> + 'static) -> Self {
        Self { what, is_system: false, action: Box::new(action) }
    }
}

/// The steps still to do, in order.
#[derive(Default)]
pub struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    /// Appends `step`.
    pub fn add(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What changes, in words.
    pub fn describe(&self, workspace: &Workspace) -> String {
        let list = |is_system: bool| {
            let steps = self.steps.iter().filter(|step| step.is_system == is_system);
            steps.map(|step| format!("  - {}\n", step.what)).collect::<String>()
        };
        let (system, cache) = (list(true), list(false));
        let or_nothing = |text: String| if text.is_empty() { "  nothing\n".to_owned() } else { text };
        format!(
            "set-up changes on the system:\n{}set-up puts into {}:\n{}",
            or_nothing(system),
            workspace.cache().display(),
            or_nothing(cache)
        )
    }

    /// Does every step, with a progress bar where the output is a terminal.
    ///
    /// # Errors
    /// The first step that fails.
    pub fn run(self, workspace: &Workspace) -> Result<()> {
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(self.steps.len() as u64).with_style(style);
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        for step in self.steps {
            bar.set_message(step.what.clone());
            if bar.is_hidden() {
                eprintln!("set-up: {}", step.what);
            }
            (step.action)(workspace).with_context(|| format!("set-up: {}", step.what))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }
}
