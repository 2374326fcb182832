//! The rewrite phase: a program of steps for each block, run in the order of the file.
//!
//! The module `rewrite` has most of the steps; others (`set_misc`) add theirs with [`push_step`].

use std::sync::Arc;

use super::module::{Jump, Next};
use super::request::Request;
use crate::config::{Contexts, Cx, Merge, Section, Slot};

/// One step.
pub trait Step: Send + Sync {
    /// Carries it out.
    fn run(&self, request: &mut Request) -> Flow;
}

/// What comes after a step.
#[derive(Debug)]
pub enum Flow {
    /// The next one.
    On,
    /// Nothing more of this program.
    Stop,
    /// The end of the phase, with this.
    End(Next<'static>),
}

/// The steps of a `server` or `location`, those of its `if` blocks among them. They are not inherited.
pub struct Program {
    steps: Arc<[Arc<dyn Step>]>,
}

impl Program {
    /// Whether there is anything to run.
    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }
}

impl Section for Program {
    type Raw = Vec<Arc<dyn Step>>;
    const ALWAYS: bool = true;

    fn merge(raw: &Self::Raw, _: Option<&Self>, _: &mut Merge<'_>) -> Self {
        Self { steps: raw.as_slice().into() }
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

/// Adds a step at the end of the program that a directive stands in.
pub fn push_step(cx: &mut Cx<'_>, step: impl Step + 'static) {
    if let Some(program) = program(cx) {
        program.push(Arc::new(step));
    }
}

/// How many steps the program has that a directive stands in.
pub fn step_count(cx: &mut Cx<'_>) -> usize {
    program(cx).map_or(0, |program| program.len())
}

/// Takes the steps after the first so many: what a block inside has added.
pub fn take_steps(cx: &mut Cx<'_>, first: usize) -> Vec<Arc<dyn Step>> {
    program(cx).map_or_else(Vec::new, |program| program.split_off(first))
}

/// The steps of an `if` stand in the program of the block around it.
fn program<'c>(cx: &'c mut Cx<'_>) -> Option<&'c mut Vec<Arc<dyn Step>>> {
    cx.edit_around::<Program>(Contexts::SERVER.union(Contexts::LOCATION))
}

/// The handler of the phase, on the server's level and in locations.
pub fn run(request: &mut Request) -> Next<'_> {
    let program = request.settings::<Program>();
    if program.steps.is_empty() {
        return Next::Declined;
    }
    let steps = Arc::clone(&program.steps);
    request.uri_changed = false;
    match run_steps(&steps, request) {
        Flow::End(next) => next,
        Flow::On | Flow::Stop if request.uri_changed => Next::Jump(Jump::Rewritten),
        Flow::On | Flow::Stop => Next::Declined,
    }
}

/// Runs steps until one of them ends it.
pub fn run_steps(steps: &[Arc<dyn Step>], request: &mut Request) -> Flow {
    for step in steps {
        match step.run(request) {
            Flow::On => {}
            flow => return flow,
        }
    }
    Flow::On
}
