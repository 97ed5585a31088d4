use std::io::Write;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::invariants::{HEADER, SECTORS, answered_and_written_where_it_may, image, rustix_memfd};
use super::*;
use crate::devices::driver::{DATA, Driver, ram};

const BUFFER: u64 = DATA + 0x1000;
const STATUS: u64 = DATA + 0x8000;
const UNTOUCHED: u8 = 0xee;

/// Serves one request; returns its status byte, the used length and the buffer.
fn request(kind: u32, sector: u64, pieces: &[(u64, u32, bool)]) -> (u8, u32, Vec<u8>) {
    let (file, content) = image();
    let check = file.try_clone().unwrap();
    let ram = ram();
    let mut block = Block::open(file).unwrap();
    let mut header = kind.to_le_bytes().to_vec();
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    ram.write_slice(&header, GuestAddress(HEADER)).unwrap();
    ram.write_slice(&[UNTOUCHED; 0x8001], GuestAddress(BUFFER)).unwrap();
    let mut driver = Driver::new(&ram, 0);
    driver.chain(pieces);
    let served = block.serve(&ram, &mut [driver.queue()]).unwrap();
    assert!(served.interrupt);
    let mut buffer = vec![0; 0x7000];
    ram.read_slice(&mut buffer, GuestAddress(BUFFER)).unwrap();
    let mut after = vec![0; content.len()];
    check.read_exact_at(&mut after, 0).unwrap();
    assert_eq!(after, content, "the image changed");
    (ram.read_obj(GuestAddress(STATUS)).unwrap(), driver.used().1, buffer)
}

fn simple(kind: u32, sector: u64, len: u32) -> (u8, u32, Vec<u8>) {
    request(kind, sector, &[(HEADER, 16, false), (BUFFER, len, true), (STATUS, 1, true)])
}

#[test]
fn reads_what_the_image_holds() {
    let (status, used, buffer) = simple(id::VIRTIO_BLK_T_IN, 3, 1024);
    assert_eq!((status, used), (0, 1025));
    assert_eq!(buffer[..1024], image().1[3 * 512..5 * 512]);
    assert_eq!(buffer[1024], UNTOUCHED);
}

#[test]
fn reads_into_pieces_of_any_shape() {
    // The status byte is the end of the last piece, and the header comes in two.
    let pieces =
        [(HEADER, 5, false), (HEADER + 5, 11, false), (BUFFER, 100, true), (BUFFER + 100, 413, true)];
    let (_, used, buffer) = request(id::VIRTIO_BLK_T_IN, 0, &pieces);
    assert_eq!(used, 513);
    assert_eq!(buffer[..512], image().1[..512]);
    assert_eq!(buffer[512], 0);
}

#[test]
fn refuses_to_read_beyond_the_image() {
    for (sector, len) in
        [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (1 << 55, 512)]
    {
        let (status, used, buffer) = simple(id::VIRTIO_BLK_T_IN, sector, len);
        assert_eq!((status, used), (1, 1), "sector {sector}");
        assert!(buffer.iter().all(|&b| b == UNTOUCHED));
    }
}

#[test]
fn refuses_a_read_that_is_not_whole_sectors() {
    assert_eq!(simple(id::VIRTIO_BLK_T_IN, 0, 511).0, 1);
}

#[test]
fn refuses_every_request_that_writes() {
    let writes = [
        (id::VIRTIO_BLK_T_OUT, 1),
        (id::VIRTIO_BLK_T_FLUSH, 2),
        (id::VIRTIO_BLK_T_DISCARD, 2),
        (id::VIRTIO_BLK_T_WRITE_ZEROES, 2),
        (id::VIRTIO_BLK_T_SECURE_ERASE, 2),
        (u32::MAX, 2),
    ];
    for (kind, wanted) in writes {
        let pieces = [(HEADER, 16, false), (BUFFER, 512, false), (STATUS, 1, true)];
        assert_eq!(request(kind, 0, &pieces).0, wanted, "type {kind}");
    }
}

#[test]
fn serial_number_says_nothing_of_the_host() {
    let (status, used, buffer) = simple(id::VIRTIO_BLK_T_GET_ID, 0, 20);
    assert_eq!((status, used), (0, 21));
    assert_eq!(&buffer[..20], b"isolab-image\0\0\0\0\0\0\0\0");
}

#[test]
fn capacity_is_whole_sectors() {
    let mut file = rustix_memfd();
    file.write_all(&[0; 1000]).unwrap();
    assert_eq!(Block::open(file).unwrap().config()[..8], 1_u64.to_le_bytes());
}

proptest! {
    #[test]
    fn any_request_is_answered_and_writes_only_where_it_may(
        kind in prop_oneof![0_u32..16, any::<u32>()],
        sector in prop_oneof![0..SECTORS + 2, any::<u64>()],
        lens in prop::collection::vec((0_u32..0x1800, any::<bool>()), 1..5),
    ) {
        answered_and_written_where_it_may(kind, sector, &lens);
    }
}
