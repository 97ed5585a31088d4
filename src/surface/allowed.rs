//! What each level may ask of the host's kernel, from the filters themselves: nothing is run.

use isolab_bench::surface::{Allowed, Party};
use isolab_container::seccomp::{GROUPS, Verdict, name};
use isolab_vmm::confinement;

/// What may be asked of the host's kernel, by the filters that are shipped.
pub(super) fn allowed(level: &str) -> Vec<Allowed> {
    let names = |calls: &[i64]| -> Vec<String> {
        calls.iter().filter_map(|call| u32::try_from(*call).ok()).map(name).collect()
    };
    match level {
        "container" => {
            let with = |wanted: fn(Verdict) -> bool| {
                let groups = GROUPS.iter().filter(move |group| wanted(group.verdict));
                groups.flat_map(|group| group.calls).map(|(_, name)| (*name).to_owned()).collect()
            };
            vec![Allowed {
                party: Party::Workload,
                after_takeover: false,
                filtered: true,
                always: with(|verdict| verdict == Verdict::Allow),
                by_argument: with(|verdict| matches!(verdict, Verdict::Check(_))),
            }]
        }
        "vm" => confinement::all()
            .map(|thread| Allowed {
                party: if thread.of_processor { Party::Processors } else { Party::Devices },
                after_takeover: true,
                filtered: true,
                always: names(&thread.always),
                by_argument: names(&thread.by_argument),
            })
            .into(),
        _ => vec![Allowed {
            party: Party::Workload,
            after_takeover: false,
            filtered: false,
            always: vec![],
            by_argument: vec![],
        }],
    }
}
