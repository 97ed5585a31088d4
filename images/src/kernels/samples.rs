//! Small made-up modules, kernels and packages for tests.

use std::io::Write;

use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};

/// A relocatable object with this `.modinfo` and some type data behind some code.
pub(super) fn module(info: &str) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let text = object.section_id(object::write::StandardSection::Text);
    object.append_section_data(text, &[0xc3; 64], 16);
    let segment = object.segment_name(StandardSegment::Data).to_vec();
    let modinfo = object.add_section(segment, b".modinfo".to_vec(), SectionKind::ReadOnlyData);
    object.append_section_data(modinfo, info.as_bytes(), 1);
    let btf = object.add_section(Vec::new(), b".BTF".to_vec(), SectionKind::Other);
    object.append_section_data(btf, &[9; 40], 1);
    object.write().unwrap()
}

/// A bzImage: header, `payload`, and nothing that runs.
pub(super) fn bzimage(release: &str, payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    let paragraphs = u32::try_from((payload.len() + 4).div_ceil(16)).unwrap();
    image[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[15, 2]);
    image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    image[0x236] = 1;
    let length = u32::try_from(payload.len()).unwrap();
    image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
    let text = format!("{release} (builder@host) #1 SMP");
    image[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
    image.extend_from_slice(payload);
    image.resize(1024 + usize::try_from(paragraphs).unwrap() * 16, 0);
    image
}

/// A vmlinux of one loadable segment that holds the kernel's banner.
pub(super) fn vmlinux(release: &str) -> Vec<u8> {
    let data = format!("\0Linux version %s\0Linux version {release} (builder@host)\0").into_bytes();
    let size = u64::try_from(data.len()).unwrap();
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&2u16.to_le_bytes());
    elf.extend_from_slice(&62u16.to_le_bytes());
    elf.extend_from_slice(&1u32.to_le_bytes());
    for word in [0x100_0000u64, 64, 0] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    elf.extend_from_slice(&1u32.to_le_bytes());
    elf.extend_from_slice(&5u32.to_le_bytes());
    for word in [120, 0x100_0000, 0x100_0000, size, size, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&data);
    elf
}

/// xz, as Debian compresses.
pub(super) fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A tar of regular files, names as Debian writes them.
pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap());
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An ar archive, the container of a Debian package.
pub(super) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in members {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, content.len()).unwrap();
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}
