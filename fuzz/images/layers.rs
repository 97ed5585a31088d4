//! Layers over each other: the tree is that of a naive model on a map of paths.

use arbitrary::Arbitrary;
use isolab_fuzz::made;
use isolab_images::invariants::{layer_of, same_as_the_model};
use libfuzzer_sys::Corpus;

#[derive(Arbitrary, Debug)]
struct Input {
    layers: [(u16, u16, u8, u8, u8); 3],
    /// Places that change with each other, in turn.
    order: [u8; 16],
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    made(data, |input: Input| {
        let layers = input.layers.map(layer_of);
        let shuffled = layers.clone().map(|mut layer| {
            let len = layer.len().max(1);
            for (at, other) in input.order.iter().enumerate().take(layer.len()) {
                layer.swap(at, usize::from(*other) % len);
            }
            layer
        });
        same_as_the_model(&layers.each_ref().map(Vec::as_slice), &shuffled.each_ref().map(Vec::as_slice));
    })
}
