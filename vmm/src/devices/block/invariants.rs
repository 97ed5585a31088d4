//! What holds for any request to the block device.

use std::io::Write;
use std::os::unix::fs::FileExt;

use super::*;
use crate::devices::driver::{DATA, Driver, RAM, ram};

pub(super) const SECTORS: u64 = 16;
pub(super) const HEADER: u64 = DATA;

pub(super) fn image() -> (File, Vec<u8>) {
    let content: Vec<u8> =
        (0..SECTORS * SECTOR).map(|i| u8::try_from(i % 251).expect("it is there")).collect();
    let mut file = rustix_memfd();
    file.write_all(&content).expect("it is there");
    (file, content)
}

pub(super) fn rustix_memfd() -> File {
    rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).expect("it is there").into()
}

/// A request of any type, sector and pieces (length, whether the device may write; at most 4) is answered or breaks the queue. Only
/// those pieces and the used ring change, the status is one that there is, and the image stays what it was.
pub fn answered_and_written_where_it_may(kind: u32, sector: u64, lens: &[(u32, bool)]) {
    let (file, content) = image();
    let kept = file.try_clone().expect("another descriptor");
    let ram = ram();
    let mut block = Block::open(file).expect("an image");
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    ram.write_slice(&header, GuestAddress(HEADER)).expect("in RAM");
    let mut driver = Driver::new(&ram, 0);
    let places = (HEADER..).step_by(0x2000);
    let mut pieces: Vec<_> =
        places.zip(lens).take(4).map(|(at, &(len, writable))| (at, len % 0x1800, writable)).collect();
    pieces.sort_by_key(|piece| piece.2);
    driver.chain(&pieces);
    let snapshot = |ram: &GuestRam| {
        let mut bytes = vec![0; usize::try_from(RAM).expect("small")];
        ram.read_slice(&mut bytes, GuestAddress(0)).expect("in RAM");
        bytes
    };
    let before = snapshot(&ram);
    let answered = block.serve(&ram, &mut [driver.queue()]);
    let mut after = snapshot(&ram);
    let writable: u32 = pieces.iter().filter(|piece| piece.2).map(|piece| piece.1).sum();
    if answered.is_ok() {
        let (used, written) = driver.used();
        assert!(used == 1 && (1..=writable).contains(&written), "{written} of {writable} bytes written");
        let &(at, len, _) = pieces.last().expect("a piece for the status");
        assert!(after[usize::try_from(at).expect("small") + len as usize - 1] <= 2, "no status");
    }
    for (at, len, writable) in pieces {
        let at = usize::try_from(at).expect("small");
        if writable {
            after[at..at + len as usize].copy_from_slice(&before[at..at + len as usize]);
        }
    }
    // The used ring is the device's.
    assert!(
        after[0x2000..] == before[0x2000..] && after[..0x1800] == before[..0x1800],
        "other memory changed"
    );
    let mut image = vec![0; content.len()];
    kept.read_exact_at(&mut image, 0).expect("read");
    assert!(image == content, "the image changed");
}
