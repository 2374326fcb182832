//! `worker_cpu_affinity`: which processors a worker may run on.

use crate::config::{Args, Call, Contexts, Cx, Diagnostic, Directive, Fault, Merge, Section, Severity, Slot};
use crate::modules::core::Process;

/// As many processors as the kernel's plain set can name.
const MAX: usize = 1024;

/// The row that this file brings.
pub(super) const COMMAND: Directive = Directive {
    name: "worker_cpu_affinity",
    contexts: Contexts::MAIN,
    args: Args::SOME,
    once: true,
    syntax: "cpumask ... | auto [cpumask]",
    doc: "The processors that each worker thread may run on, as masks with the first processor to the right; the last \
          mask holds for all further workers. `auto` gives each worker one processor, of those in the mask if there is \
          one.\n\nExample: `worker_cpu_affinity 0001 0010;`",
    file: file!(),
    apply: worker_cpu_affinity,
    ..Directive::BASE
};

/// Where the workers run.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    is_auto: bool,
    /// The processors of each mask.
    masks: Vec<Vec<usize>>,
}

impl Section for Affinity {
    type Raw = Option<Self>;

    fn merge(raw: &Self::Raw, _: Option<&Self>, cx: &mut Merge<'_>) -> Self {
        let affinity = raw.clone().unwrap_or_default();
        let count = affinity.masks.len();
        if !affinity.is_auto && count > 1 && count != cx.said::<Process>().worker_count() {
            let message = "the number of \"worker_processes\" is not equal to the number of \"worker_cpu_affinity\" \
                           masks, using last mask for remaining worker processes";
            let at = cx.first("worker_cpu_affinity");
            cx.report(Diagnostic::new(Severity::Warn, "affinity", message).near(at));
        }
        affinity
    }

    fn slot() -> &'static Slot {
        static SLOT: Slot = Slot::new();
        &SLOT
    }
}

impl Affinity {
    /// The processors that a worker may run on, by its number; `None`: any.
    pub fn of(&self, worker: usize) -> Option<Vec<usize>> {
        let mask = self.masks.get(worker).or_else(|| self.masks.last());
        match mask {
            None if self.is_auto => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                Some(vec![worker % processors])
            }
            Some(mask) if self.is_auto => Some(mask.get(worker % mask.len().max(1)).copied().into_iter().collect()),
            mask => mask.cloned(),
        }
    }
}

fn worker_cpu_affinity(cx: &mut Cx<'_>, call: &Call<'_>) -> Result<(), Fault> {
    let is_auto = call.bytes(0) == b"auto";
    if is_auto && call.len() > 2 {
        return Err(Fault::new("invalid number of arguments in \"worker_cpu_affinity\" directive"));
    }
    let masks = (usize::from(is_auto)..call.len()).map(|index| mask(call, index)).collect::<Result<_, _>>()?;
    *cx.edit::<Affinity>() = Some(Affinity { is_auto, masks });
    Ok(())
}

fn mask(call: &Call<'_>, index: usize) -> Result<Vec<usize>, Fault> {
    let word = call.bytes(index);
    if word.len() > MAX {
        return Err(Fault::new(format!("\"worker_cpu_affinity\" supports up to {MAX} CPUs only")).word(index));
    }
    let mut processors = Vec::new();
    let digits = word.iter().rev().filter(|byte| **byte != b' ');
    for (processor, digit) in digits.enumerate() {
        match digit {
            b'0' => {}
            b'1' => processors.push(processor),
            other => {
                let other = char::from(*other);
                let message = format!("invalid character \"{other}\" in \"worker_cpu_affinity\"");
                return Err(Fault::new(message).word(index));
            }
        }
    }
    Ok(processors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_text};

    #[test]
    fn workers_have_their_processors() {
        let check = |is_auto, masks: &[&[usize]], expected: [Option<Vec<usize>>; 3]| {
            let affinity = Affinity { is_auto, masks: masks.iter().map(|mask| mask.to_vec()).collect() };
            assert_eq!([0, 1, 2].map(|worker| affinity.of(worker)), expected, "{is_auto} {masks:?}");
        };
        check(false, &[], [None, None, None]);
        check(false, &[&[0], &[1, 2]], [Some(vec![0]), Some(vec![1, 2]), Some(vec![1, 2])]);
        check(true, &[&[1, 4]], [Some(vec![1]), Some(vec![4]), Some(vec![1])]);
        check(true, &[&[]], [Some(vec![]), Some(vec![]), Some(vec![])]);
    }

    #[test]
    fn words() {
        let check = |words: &str, expected: &[&str]| {
            let text = format!("worker_processes 2; {words} events {{}}");
            let config = load_text(LoadOptions { offline: true, ..LoadOptions::default() }, text.as_bytes());
            let findings: Vec<_> = config.built.diagnostics.iter().map(|finding| &*finding.message).collect();
            assert_eq!(findings, expected, "{words}");
        };
        let unequal = "the number of \"worker_processes\" is not equal to the number of \"worker_cpu_affinity\" masks, \
                       using last mask for remaining worker processes";
        check("worker_cpu_affinity 01 10;", &[]);
        check("worker_cpu_affinity 11;", &[]);
        check("worker_cpu_affinity 01 10 11;", &[unequal]);
        check("worker_cpu_affinity auto;", &[]);
        check("worker_cpu_affinity auto 0101;", &[]);
        check("worker_cpu_affinity auto 1 1;", &["invalid number of arguments in \"worker_cpu_affinity\" directive"]);
        check("worker_cpu_affinity 012;", &["invalid character \"2\" in \"worker_cpu_affinity\""]);
        check("worker_cpu_affinity 1; worker_cpu_affinity 1;", &["\"worker_cpu_affinity\" directive is duplicate"]);
    }
}
