//! The state file: a header of 16 bytes (eight of [`MAGIC`], version, zero; little endian), then the state as `postcard` encodes
//! it.

use std::fs::File;
use std::io::{Read, Write};

use super::{MachineState, TemplateError, damaged};

/// Version of both files. One number for all that a template depends on in this isolab.
pub const FORMAT: u32 = 2;
const MAGIC: [u8; 8] = *b"isolabVM";
const HEADER_LEN: usize = 16;
/// More than eight processors with all their registers take.
const MAX_LEN: u64 = 4 << 20;

/// Writes a state.
pub(crate) fn write(state: &MachineState, mut file: &File) -> Result<(), TemplateError> {
    let body = postcard::to_allocvec(state).map_err(|_| damaged("its state can't be written"))?;
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    let failed = |source| TemplateError::File { step: "write the template's state", source };
    file.write_all(&header).and_then(|()| file.write_all(&body)).map_err(failed)
}

/// Reads a state, which is one that could have been written, but not more than that.
pub(crate) fn read(file: &File) -> Result<MachineState, TemplateError> {
    let mut bytes = Vec::new();
    let failed = |source| TemplateError::File { step: "read the template's state", source };
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    decode(&bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Result<MachineState, TemplateError> {
    let (head, body) =
        bytes.split_first_chunk::<HEADER_LEN>().ok_or_else(|| damaged("its state is cut short"))?;
    let [m @ .., v0, v1, v2, v3, 0, 0, 0, 0] = head else { return Err(damaged("its state has no header")) };
    if *m != MAGIC {
        return Err(damaged("its state has no header"));
    }
    let found = u32::from_le_bytes([*v0, *v1, *v2, *v3]);
    if found != FORMAT {
        return Err(TemplateError::Format { found });
    }
    let state = postcard::take_from_bytes::<MachineState>(body);
    let (state, rest) = state.map_err(|_| damaged("its state is cut short or altered"))?;
    if !rest.is_empty() || !state.has_its_chips() {
        return Err(damaged("its state is altered"));
    }
    Ok(state)
}
