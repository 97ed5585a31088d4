//! Checks of the machine: what runs guest kernel code (T01, T02).

use super::{Evidence, Found};
use crate::environment::HostClass;

pub(super) fn kvm_backend(e: Evidence<'_>) -> Option<Found> {
    Some(match e.host.class {
        _ if !e.has_vm() => Found::pass("no vm among the arms"),
        HostClass::EmulatedLab => {
            Found::pass("every arm ran on the same emulated CPU; what may be claimed is narrower")
        }
        HostClass::Hardware | HostClass::Nested => Found::pass("guest kernels run in hardware"),
        class => Found::fail(
            format!("guest kernel code does not run in hardware here (class {class:?})").to_lowercase(),
        ),
    })
}

pub(super) fn nested(e: Evidence<'_>) -> Option<Found> {
    Some(match e.host.class {
        HostClass::Nested if e.has_vm() => {
            Found::fail("this machine is a VM itself: not the cost of KVM on bare metal")
        }
        _ => Found::pass("not nested, or no vm among the arms"),
    })
}
