//! Domains against a naive model, behind an SMMU that forgets nothing by itself.

mod machine;
mod mappings;
mod random;
