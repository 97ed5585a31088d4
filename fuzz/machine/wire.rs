//! Job blocks, messages and marks: what the encoder makes is read back whole, any bytes are read or refused.

use arbitrary::{Arbitrary, Unstructured};
use isolab_images::job::{BlockOptions, Job, Stdio, User};
use isolab_wire::control::MESSAGE_LEN;
use isolab_wire::job::{HEADER_LEN, Header};
use isolab_wire::mark::RECORD_LEN;
use libfuzzer_sys::Corpus;

#[path = "../../images/tests/wire/invariants.rs"]
mod invariants;
use invariants::{ends_read_back, marks_read_back, messages_read_back, read_all, reads_back};

#[derive(Arbitrary, Debug)]
struct Input {
    words: [Vec<String>; 2],
    texts: [String; 2],
    user: (u32, u32, Vec<u32>),
    memory_bytes: u64,
    flags: [bool; 6],
    terminal: (u8, u16, u16),
    limits: Vec<(u32, u64, u64)>,
    filter: Option<Vec<[u8; 8]>>,
    fault: (u8, u16),
    message: [u8; MESSAGE_LEN],
    mark: [u8; RECORD_LEN],
    number: u32,
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    read_all(data);
    if data.len() > HEADER_LEN {
        // Behind a beginning that says the right length, too.
        let mut bytes = data.to_vec();
        let header = Header::default().encode(u32::try_from(bytes.len()).unwrap_or_default());
        bytes[..12].copy_from_slice(&header[..12]);
        read_all(&bytes);
    }
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return Corpus::Keep };
    let text = |text: String| text.replace('\0', "").chars().take(200).collect::<String>();
    let [argv, env] = input.words.map(|words| words.into_iter().take(20).map(text).collect::<Vec<_>>());
    let [workdir, hostname] = input.texts.map(text);
    let (uid, gid, mut groups) = input.user;
    groups.truncate(16);
    let [read_only, marks, root_is_dir, program, no_groups, template] = input.flags;
    let (kind, rows, cols) = input.terminal;
    let stdio = match kind % 3 {
        0 => Stdio::Output,
        1 => Stdio::Interactive,
        _ => Stdio::Terminal { rows, cols },
    };
    let job = Job {
        image: "sha256:0".to_owned(),
        argv: if argv.is_empty() { vec!["a".to_owned()] } else { argv },
        env,
        workdir,
        hostname,
        memory_bytes: input.memory_bytes,
        read_only,
        marks,
        stdio,
        user: User { uid, gid, groups },
        cpus: 1,
        pids: 1,
        timeout: None,
    };
    let filter = input.filter.map(|insns| insns.into_iter().take(64).collect::<Vec<_>>().concat());
    let limits = &input.limits[..input.limits.len().min(4)];
    let confine_with = filter.as_deref();
    let fault = input.fault;
    reads_back(
        &job,
        &BlockOptions { confine_with, root_is_dir, program, no_groups, limits, fault, template },
    );
    messages_read_back(rows, cols, 1 + kind % 64, input.message);
    marks_read_back(input.number, input.memory_bytes, input.mark);
    ends_read_back(kind, 1 + kind % 127, rows, input.number);
    Corpus::Keep
}
