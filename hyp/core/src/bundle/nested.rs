//! How a VM's own stage 1 is served: what its invalidations become.

/// What the invalidations of a guest's stage 1 become, once it waits for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NestedFlush {
    /// What costs least, as each of its address spaces behaves.
    Auto,
    /// Page by page.
    Page,
    /// Ranges.
    Range,
    /// All of the VM's translations.
    Context,
    /// All of the VM's translations at once for each of its commands, as Xen's series does: to compare.
    Each,
}

impl NestedFlush {
    /// Every policy, by the number that a record has.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Page, Self::Range, Self::Context, Self::Each];

    /// Its name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Page => "page",
            Self::Range => "range",
            Self::Context => "context",
            Self::Each => "each",
        }
    }
}
