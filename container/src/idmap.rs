//! Which ids of the host the container's users are.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

/// Ids inside a container started by root: enough for `nobody` (65534).
pub(crate) const LENGTH: u32 = 65_536;
/// First of the blocks that root's containers get: above what distributions give to users and services.
const FIRST: u32 = 0x4000_0000;
/// First of the ids that single processes of root's get, one for each process number that there can be (4,194,304), and the end of the
/// blocks. They end at 0x8000_0000, beyond which some programs take ids for negative numbers.
const SINGLES: u32 = END - (1 << 22);
const END: u32 = 0x8000_0000;
/// Number of blocks.
const BLOCKS: u32 = (SINGLES - FIRST) / LENGTH;

/// A run of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) length: u32,
}

/// A map for a new user namespace.
#[derive(Debug)]
pub struct IdMap {
    uids: Vec<Extent>,
    gids: Vec<Extent>,
    writer: Writer,
    /// Root's: the block, nobody else's until this is closed.
    block: Option<OwnedFd>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Writer {
    /// We may map any id.
    Root,
    /// The set-user-id programs check `/etc/subuid`.
    Helpers,
    /// Only ourselves, without supplementary groups.
    OwnIdOnly,
}

/// The ids could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum IdMapError {
    /// The socket whose name says that a block is in use.
    #[error("hold a block of ids")]
    Hold(#[source] Errno),
    /// Somebody has each of those names.
    #[error("each of the {BLOCKS} blocks of ids is in use (ss -xa lists their holders, @isolab/ids/N)")]
    NoBlock,
    /// Our own map or the lists of subordinate ids.
    #[error("read {path}")]
    Read {
        /// Which.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The child's map.
    #[error("write {path}")]
    Write {
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// `newuidmap` or `newgidmap`.
    #[error("run {program}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It refused.
    #[error("{program} refused the map of /etc/subuid and /etc/subgid: {message}")]
    Refused {
        /// Which.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

impl IdMap {
    /// The map for the next container: an unprivileged block of its own for root; the user's own subordinate ids, or else just the
    /// user, for others.
    ///
    /// # Errors
    /// Our own map can't be read, or no block is free.
    pub fn choose() -> Result<Self, IdMapError> {
        if rustix::process::geteuid().is_root() {
            let (block, held) = free_block()?;
            let [uids, gids] = own_maps()?.map(|map| vec![root_extent(&map, block)]);
            return Ok(Self { uids, gids, writer: Writer::Root, block: Some(held) });
        }
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let me = |outside| Extent { inside: 0, outside, length: 1 };
        let sub = |path: &str| {
            fs::read_to_string(path).ok().and_then(|text| subordinate(&text, uid, user_name(uid)))
        };
        let helpers = ["newuidmap", "newgidmap"].iter().all(|name| Path::new("/usr/bin").join(name).exists());
        match (helpers, sub("/etc/subuid"), sub("/etc/subgid")) {
            (true, Some(sub_uid), Some(sub_gid)) => Ok(Self {
                uids: vec![me(uid), sub_uid],
                gids: vec![me(gid), sub_gid],
                writer: Writer::Helpers,
                block: None,
            }),
            _ => {
                Ok(Self { uids: vec![me(uid)], gids: vec![me(gid)], writer: Writer::OwnIdOnly, block: None })
            }
        }
    }

    /// Highest id that is both a user's and a group's inside.
    #[must_use]
    pub fn last_id(&self) -> u32 {
        let last = |extents: &[Extent]| extents.iter().map(|e| e.inside + (e.length - 1)).max().unwrap_or(0);
        last(&self.uids).min(last(&self.gids))
    }

    /// Whether processes inside may set supplementary groups.
    #[must_use]
    pub fn allows_groups(&self) -> bool {
        self.writer != Writer::OwnIdOnly
    }

    /// Writes the map of the user namespace of process `pid`.
    ///
    /// # Errors
    /// The kernel or the helper refuses it.
    pub fn write(&self, pid: i32) -> Result<(), IdMapError> {
        let put = |file: &str, text: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, text).map_err(|source| IdMapError::Write { path, source })
        };
        match self.writer {
            Writer::Root => {
                put("uid_map", &lines(&self.uids))?;
                put("gid_map", &lines(&self.gids))
            }
            Writer::Helpers => {
                help("/usr/bin/newuidmap", pid, &self.uids)?;
                help("/usr/bin/newgidmap", pid, &self.gids)
            }
            Writer::OwnIdOnly => {
                // The kernel's condition for a group map written without privilege (user_namespaces(7)).
                put("setgroups", "deny")?;
                put("uid_map", &lines(&self.uids))?;
                put("gid_map", &lines(&self.gids))
            }
        }
    }

    /// What keeps its ids from being given to another container: to be closed when the last process that has them is gone.
    #[must_use]
    pub fn into_block(self) -> Option<OwnedFd> {
        self.block
    }
}

/// A block that no other container has. The search begins at our process number, and goes on where the last one ended.
fn free_block() -> Result<(u32, OwnedFd), IdMapError> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let next = || std::process::id().wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
    first_free(std::iter::repeat_with(next).take(BLOCKS as usize))
}

/// The first of these blocks that nobody holds. Who holds one has a socket of its name: such a name is one process's at a time, goes
/// with its end, and leads to no file. Nobody can connect to it.
fn first_free(blocks: impl Iterator<Item = u32>) -> Result<(u32, OwnedFd), IdMapError> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(IdMapError::Hold)?;
    for block in blocks {
        let name = SocketAddrUnix::new_abstract_name(format!("isolab/ids/{block}").as_bytes())
            .map_err(IdMapError::Hold)?;
        match bind(&socket, &name) {
            Ok(()) => return Ok((block, socket)),
            Err(Errno::ADDRINUSE) => {}
            Err(e) => return Err(IdMapError::Hold(e)),
        }
    }
    Err(IdMapError::NoBlock)
}

/// What a process that root starts can become so that nobody else is it.
#[derive(Clone, Copy, Debug)]
pub struct Singles {
    uids: (u32, u32),
    gids: (u32, u32),
}

impl Singles {
    /// Those that we may give; nothing where we may give none: we are not root, or of a user namespace of a single id.
    ///
    /// # Errors
    /// Our own map can't be read.
    pub fn of_root() -> Result<Option<Self>, IdMapError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let [uids, gids] = own_maps()?;
        let all = Self { uids: largest_run(&uids), gids: largest_run(&gids) };
        Ok(all.of(0).map(|_| all))
    }

    /// User and group of the process with this number.
    #[must_use]
    pub fn of(&self, process: u32) -> Option<(u32, u32)> {
        single(self.uids, process).zip(single(self.gids, process))
    }
}

/// A process's own id; in a user namespace the last one of its largest run.
fn single((start, length): (u32, u32), process: u32) -> Option<u32> {
    let wanted = SINGLES + process % (END - SINGLES);
    let has = |id: u32| id >= start && id - start < length;
    Some(if has(wanted) { wanted } else { start + length.checked_sub(1)? }).filter(|id| *id != 0)
}

/// Our own maps of users and groups. That of the kernel's first user namespace is known, and not read.
fn own_maps() -> Result<[String; 2], IdMapError> {
    /// `PROC_USER_INIT_INO` of the kernel.
    const FIRST_NAMESPACE: u64 = 0xefff_fffd;
    let read =
        |path: &'static str| fs::read_to_string(path).map_err(|source| IdMapError::Read { path, source });
    if fs::metadata("/proc/self/ns/user").is_ok_and(|meta| meta.ino() == FIRST_NAMESPACE) {
        let all = format!("0 0 {}\n", u32::MAX);
        return Ok([all.clone(), all]);
    }
    Ok([read("/proc/self/uid_map")?, read("/proc/self/gid_map")?])
}

/// First id, and the number of ids, of the largest run of a map.
fn largest_run(own_map: &str) -> (u32, u32) {
    let runs = own_map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inside, _, length) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        // The kernel makes no map that goes beyond the last id.
        inside.checked_add(length).map(|_| (inside, length))
    });
    runs.max_by_key(|&(_, length)| length).unwrap_or((0, u32::MAX))
}

/// The ids for root's container: the block, where we have all ids; in a user namespace, the end of its largest run.
pub(crate) fn root_extent(own_map: &str, block: u32) -> Extent {
    let wanted = FIRST + block * LENGTH;
    let (start, length) = largest_run(own_map);
    if start <= wanted && u64::from(start) + u64::from(length) >= u64::from(wanted) + u64::from(LENGTH) {
        return Extent { inside: 0, outside: wanted, length: LENGTH };
    }
    let taken = LENGTH.min(length);
    Extent { inside: 0, outside: start + (length - taken), length: taken }
}

fn lines(extents: &[Extent]) -> String {
    extents.iter().map(|e| format!("{} {} {}\n", e.inside, e.outside, e.length)).collect()
}

/// Our run in a list of subordinate ids, as ids from 1 on.
pub(crate) fn subordinate(text: &str, uid: u32, name: Option<String>) -> Option<Extent> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let (owner, start, length) = (fields.next()?, fields.next()?, fields.next()?);
        if owner != uid.to_string() && name.as_deref() != Some(owner) {
            return None;
        }
        let length = length.parse::<u32>().ok()?.min(LENGTH - 1);
        (length > 0).then_some(Extent { inside: 1, outside: start.parse().ok()?, length })
    })
}

fn user_name(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn help(program: &'static str, pid: i32, extents: &[Extent]) -> Result<(), IdMapError> {
    let numbers = extents.iter().flat_map(|e| [e.inside, e.outside, e.length]).map(|n| n.to_string());
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers)
        .output()
        .map_err(|source| IdMapError::Run { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(IdMapError::Refused { program, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_gets_an_unprivileged_block() {
        let all = "         0          0 4294967295\n";
        assert_eq!(root_extent(all, 3), Extent { inside: 0, outside: 0x4003_0000, length: 65_536 });
        assert_eq!(root_extent(all, BLOCKS - 1).outside, 0x7fbf_0000);
    }

    #[test]
    fn a_block_is_one_holders_until_it_is_closed() {
        // No container's, so that those of other tests are not in the way.
        let blocks = [BLOCKS, BLOCKS, BLOCKS + 1];
        let (first, held) = first_free(blocks.into_iter()).expect("a block");
        let (second, _other) = first_free(blocks.into_iter()).expect("a block");
        assert_eq!((first, second), (BLOCKS, BLOCKS + 1));
        let refused = first_free(blocks.into_iter()).map(|(block, _)| block);
        assert!(matches!(refused, Err(IdMapError::NoBlock)), "{refused:?}");
        drop(held);
        assert_eq!(first_free(blocks.into_iter()).expect("a block").0, BLOCKS);
    }

    #[test]
    fn each_process_gets_an_id_that_no_container_and_no_other_process_has() {
        let all = largest_run("         0          0 4294967295\n");
        assert_eq!((single(all, 0), single(all, 4_194_303)), (Some(0x7fc0_0000), Some(0x7fff_ffff)));
        assert_ne!(single(all, 1), single(all, 2));
        assert_eq!(single(largest_run("0 1000 1\n1 100000 65536\n"), 7), Some(65_536));
        assert_eq!(single(largest_run("0 1000 1\n"), 7), None, "there is only root");
    }

    #[test]
    fn root_of_a_user_namespace_gets_what_that_has() {
        let few = "0 1000 1\n1 100000 65536\n";
        assert_eq!(root_extent(few, 0), Extent { inside: 0, outside: 1, length: 65_536 });
        assert_eq!(root_extent("0 1000 1\n", 0), Extent { inside: 0, outside: 0, length: 1 });
        let beyond = "0 1000 1\n3333333333 0 3333333333\n";
        assert_eq!(root_extent(beyond, 0), Extent { inside: 0, outside: 0, length: 1 });
    }

    #[test]
    fn finds_the_subordinate_ids_by_name_or_number() {
        let text = "root:1:2\nann:100000:65536\n1001:300000:10\n";
        let ann = subordinate(text, 1000, Some("ann".into()));
        assert_eq!(ann, Some(Extent { inside: 1, outside: 100_000, length: 65_535 }));
        assert_eq!(subordinate(text, 1001, None), Some(Extent { inside: 1, outside: 300_000, length: 10 }));
        assert_eq!(subordinate(text, 1002, Some("bob".into())), None);
    }
}
