//! The state file is data of unknown origin: any bytes give a state or an error, and what is read is checked before it is used.

use proptest::prelude::*;

use super::format::decode;
use super::invariants::{a_state_that_fits_or_an_error, device, encoded, state};
use super::*;

#[test]
fn a_state_reads_back_as_it_was_written() {
    let bytes = encoded();
    let back = decode(&bytes).unwrap();
    assert_eq!((back.memory_bytes, back.pieces, back.cpus.len()), (1 << 20, state().pieces, 2));
    assert_eq!(back.cpus[1].msrs, VcpuState::blank().msrs);
    assert_eq!((back.clock.clock, back.rng), (7, device().state()));
}

#[test]
fn a_machine_of_another_size_and_another_format_are_named() {
    let error = state().check(2 << 20, 2).unwrap_err();
    assert_eq!(error.to_string(), "the template is of a machine with 1 MiB and 2 cpus, not 2 MiB and 2 cpus");
    state().check(1 << 20, 1).unwrap_err();
    state().check(1 << 20, 2).unwrap();
    let mut bytes = encoded();
    bytes[8] = 9;
    let error = decode(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the template's state is of format 9, and this isolab reads {FORMAT}")
    );
}

#[test]
fn devices_take_only_what_their_driver_could_have_set() {
    let device = device();
    let good = serde_json::to_value(device.state()).unwrap();
    let given = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut state = good.clone();
        change(&mut state);
        device.set_state(&serde_json::from_value(state).unwrap(), |_| Ok(()))
    };
    given(&|_| {}).unwrap();
    given(&|s| s["registers"]["id"] = 2.into()).unwrap_err();
    given(&|s| s["registers"]["features"] = 0.into()).unwrap_err();
    given(&|s| s["registers"]["status"] = 0x100.into()).unwrap_err();
    given(&|s| s["registers"]["queues"] = serde_json::json!([])).unwrap_err();
    given(&|s| s["registers"]["queues"][0]["size"] = 3.into()).unwrap_err();
    given(&|s| s["positions"] = serde_json::json!([[0, 0]])).unwrap_err();
    // Active, with a queue outside of RAM.
    given(&|s| {
        s["registers"]["status"] = 15.into();
        s["registers"]["driver_features"] = s["registers"]["features"].clone();
        s["registers"]["queues"][0]["ready"] = true.into();
        s["registers"]["queues"][0]["descriptors"] = (u64::MAX - 15).into();
        s["positions"] = serde_json::json!([[0, 0]]);
    })
    .unwrap_err();
}

proptest! {
    #[test]
    fn any_bytes_give_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        a_state_that_fits_or_an_error(&bytes);
        // Behind a good header, too.
        let whole = [&encoded()[..16], &bytes].concat();
        a_state_that_fits_or_an_error(&whole);
    }

    #[test]
    fn a_state_cut_short_or_longer_is_refused(at in any::<prop::sample::Index>(), more in 1_usize..100) {
        let bytes = encoded();
        prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
        prop_assert!(decode(&[&bytes[..], &vec![0; more]].concat()).is_err());
    }

    #[test]
    fn a_changed_state_harms_nobody(at in any::<prop::sample::Index>(), to: u8) {
        let mut bytes = encoded();
        let at = at.index(bytes.len());
        bytes[at] = to;
        a_state_that_fits_or_an_error(&bytes);
    }
}
