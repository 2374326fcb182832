//! The modules' handlers and filters, in the order in which they run, and which of them a location needs.

use std::sync::LazyLock;

use crate::config::Settings;
use crate::http::{Filter, Handler, Module, Phase};
use crate::modules::MODULES;

/// Which modules have something to do in a location: a bit for each in the list. The handlers and filters of the others
/// are not called there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acting(u64);

const _: () = assert!(MODULES.len() <= u64::BITS as usize, "each module has a bit");

impl Acting {
    /// Those that have where these settings hold.
    pub fn under(settings: &Settings) -> Self {
        let acts = |module: &Module| module.acts.is_none_or(|acts| acts(settings));
        let bits = MODULES.iter().zip(bits()).filter(|(module, _)| acts(module)).map(|(_, bit)| bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }

    fn includes(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

fn bits() -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator {
    (0..MODULES.len()).map(|number| 1 << number)
}

/// The handlers of all modules, by phase, and their filters, each with its module's bit.
#[derive(Debug, Default)]
pub struct Phases {
    by_phase: [Vec<(u64, Handler)>; Phase::Log as usize + 1],
    filters: Vec<(u64, Filter)>,
}

impl Phases {
    /// Those of the program's list of modules.
    pub fn get() -> &'static Self {
        static PHASES: LazyLock<Phases> = LazyLock::new(Phases::new);
        &PHASES
    }

    /// As in nginx, where each module goes before those that stand earlier in the list.
    fn new() -> Self {
        let mut phases = Self::default();
        for (module, bit) in MODULES.iter().zip(bits()).rev() {
            for (phase, handler) in module.phases {
                phases.by_phase[*phase as usize].push((bit, *handler));
            }
            phases.filters.extend(module.filter.map(|filter| (bit, filter)));
        }
        phases
    }

    /// What runs in a phase, in order.
    pub fn of(&'static self, phase: Phase, acting: Acting) -> impl Iterator<Item = Handler> {
        wanted(&self.by_phase[phase as usize], acting)
    }

    /// The filters that an answer goes through, in order.
    pub fn filters(&'static self, acting: Acting) -> impl Iterator<Item = Filter> {
        wanted(&self.filters, acting)
    }
}

fn wanted<T: Copy>(all: &[(u64, T)], acting: Acting) -> impl Iterator<Item = T> {
    all.iter().filter(move |(bit, _)| acting.includes(*bit)).map(|(_, one)| *one)
}
