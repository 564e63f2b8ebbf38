//! What Linux promises of a file system, in small checks of our own, family by family.
//!
//! The program `behaviours` runs them in a directory and prints a line for each; on the store
//! itself and through a mount of it, so that the store says what can be expected. POSIX and
//! the manual pages are where the checks have their promises from.

mod acls;
mod aio;
mod attributes;
mod copies;
mod descriptors;
mod exchanges;
mod file_locks;
mod flags;
mod handles;
mod kinds;
mod kit;
pub mod known;
mod links;
mod listings;
mod locks;
mod maps;
mod movements;
mod nameless;
mod names;
mod notices;
mod numbers;
mod offsets;
mod opens;
mod owners;
mod permissions;
mod planted;
mod privileges;
mod renames;
mod results;
mod run;
mod sizes;
mod space;
mod symlinks;
mod syncs;
mod sys;
mod times;
mod watches;

pub use kit::TWO_CLOCKS;
pub use results::Results;
pub use run::{run, run_planted};

/// One promise.
struct Check {
    family: &'static str,
    name: &'static str,
    run: fn() -> kit::Outcome,
}

/// The checks of a family: functions of these names.
macro_rules! checks {
    ($family:literal: $($name:ident),+ $(,)?) => {
        pub(super) const CHECKS: &[super::Check] = &[
            $(super::Check { family: $family, name: stringify!($name), run: $name }),+
        ];
    };
}
use checks;

const FAMILIES: &[&[Check]] = &[
    acls::CHECKS,
    aio::CHECKS,
    attributes::CHECKS,
    copies::CHECKS,
    flags::CHECKS,
    handles::CHECKS,
    kinds::CHECKS,
    watches::CHECKS,
    notices::CHECKS,
    names::CHECKS,
    links::CHECKS,
    nameless::CHECKS,
    listings::CHECKS,
    locks::CHECKS,
    file_locks::CHECKS,
    maps::CHECKS,
    numbers::CHECKS,
    syncs::CHECKS,
    offsets::CHECKS,
    sizes::CHECKS,
    opens::CHECKS,
    descriptors::CHECKS,
    permissions::CHECKS,
    owners::CHECKS,
    privileges::CHECKS,
    renames::CHECKS,
    exchanges::CHECKS,
    space::CHECKS,
    symlinks::CHECKS,
    times::CHECKS,
    movements::CHECKS,
];
