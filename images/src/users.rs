//! Who `--user` or an image's `USER` is, by the image's own `/etc/passwd` and `/etc/group`.
//!
//! A number is always a number, even where the image has a user of that name: `passwd` must not turn `1000`
//! into root. What can't be resolved is an error, never root.

use std::fs::File;

use isolab_wire::job::MAX_GROUPS;

use crate::erofs::{ErofsReadError, Image};
use crate::job::User;

/// Largest `passwd` or `group` that is read.
const MAX_FILE: u64 = 1 << 20;

/// Why a user can't be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not `U` or `U:G`.
    #[error("user `{}` is not NAME, UID, NAME:GROUP or UID:GID", spec.escape_debug())]
    Syntax {
        /// As given.
        spec: String,
    },
    /// No such line.
    #[error("the image's {file} has no `{}`: give a number or another name", name.escape_debug())]
    Unknown {
        /// Which file.
        file: &'static str,
        /// The name.
        name: String,
    },
    /// The line that counts is damaged.
    #[error("line {line} of the image's {file} is damaged: give --user as UID:GID")]
    Line {
        /// Which file.
        file: &'static str,
        /// Which line, from 1.
        line: usize,
    },
    /// More groups than a job holds.
    #[error("the user is in more than {MAX_GROUPS} groups of the image's /etc/group: give --user as UID:GID")]
    TooManyGroups,
    /// The file can't be read.
    #[error("read the image's {file}")]
    Read {
        /// Which file.
        file: &'static str,
        /// Why.
        source: ErofsReadError,
    },
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Resolves `U` or `U:G` in an image; nothing or an empty string means user 0 as in the image format's own rules.
///
/// Without `:G`, the group is the user's own and the supplementary groups are those that list the name; a number
/// without a line in `passwd` has group 0 and no others, as with other runtimes. With `:G`, there are no others.
///
/// # Errors
/// See [`UserError`].
pub fn resolve(image: &File, spec: Option<&str>) -> Result<User, UserError> {
    let image = Image::open(image).map_err(|source| UserError::Read { file: PASSWD, source })?;
    let load = |file| match image.lookup(str::as_bytes(file)).and_then(|node| image.read(&node, MAX_FILE)) {
        Ok(bytes) => Ok(bytes),
        Err(ErofsReadError::NotFound { .. }) => Ok(Vec::new()),
        Err(source) => Err(UserError::Read { file, source }),
    };
    from_files(&load(PASSWD)?, &load(GROUP)?, spec.unwrap_or_default())
}

fn from_files(passwd: &[u8], group: &[u8], spec: &str) -> Result<User, UserError> {
    let spec = if spec.is_empty() { "0" } else { spec };
    let (user, own_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let named = |part: &str| !part.is_empty() && !part.contains([':', '\n', '\0']);
    if !named(user) || !own_group.is_none_or(named) {
        return Err(UserError::Syntax { spec: spec.to_owned() });
    }
    let number = number_or_name(user, spec)?;
    let line = account(passwd, user, number)?;
    let uid = match (number, &line) {
        (Some(uid), _) => uid,
        (None, Some(line)) => line.uid,
        (None, None) => return Err(UserError::Unknown { file: PASSWD, name: user.to_owned() }),
    };
    if let Some(name) = own_group {
        let gid = match number_or_name(name, spec)? {
            Some(gid) => gid,
            None => group_id(group, name)?,
        };
        return Ok(User { uid, gid, groups: Vec::new() });
    }
    let Some(line) = line else { return Ok(User { uid, gid: 0, groups: Vec::new() }) };
    Ok(User { uid, gid: line.gid, groups: memberships(group, line.name, line.gid)? })
}

/// The number, or nothing for a name; a number out of range is an error.
fn number_or_name(text: &str, spec: &str) -> Result<Option<u32>, UserError> {
    if !text.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(None);
    }
    id(text.as_bytes()).map(Some).ok_or_else(|| UserError::Syntax { spec: spec.to_owned() })
}

/// An id; `u32::MAX` means "no change" to the kernel and is none.
fn id(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 10 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok().filter(|&id| id != u32::MAX)
}

struct Account<'f> {
    name: &'f [u8],
    uid: u32,
    gid: u32,
}

/// Numbered lines, split at colons.
fn lines(file: &[u8]) -> impl Iterator<Item = (usize, Vec<&[u8]>)> {
    file.split(|&c| c == b'\n')
        .enumerate()
        .map(|(i, line)| (i + 1, line.strip_suffix(b"\r").unwrap_or(line).split(|&c| c == b':').collect()))
}

/// The first line of `passwd` with this number or, without one, this name.
fn account<'f>(passwd: &'f [u8], name: &str, number: Option<u32>) -> Result<Option<Account<'f>>, UserError> {
    for (n, fields) in lines(passwd) {
        let uid = fields.get(2).and_then(|field| id(field));
        let wanted = match number {
            Some(number) => uid == Some(number),
            None => fields[0] == name.as_bytes(),
        };
        if wanted {
            let gid = fields.get(3).and_then(|field| id(field));
            let (Some(uid), Some(gid), 7) = (uid, gid, fields.len()) else {
                return Err(UserError::Line { file: PASSWD, line: n });
            };
            return Ok(Some(Account { name: fields[0], uid, gid }));
        }
    }
    Ok(None)
}

fn group_id(group: &[u8], name: &str) -> Result<u32, UserError> {
    let (line, fields) = lines(group)
        .find(|(_, fields)| fields[0] == name.as_bytes())
        .ok_or_else(|| UserError::Unknown { file: GROUP, name: name.to_owned() })?;
    let gid = fields.get(2).and_then(|field| id(field)).filter(|_| fields.len() == 4);
    gid.ok_or(UserError::Line { file: GROUP, line })
}

/// Groups that list the user, without the primary one, in order of the file.
fn memberships(group: &[u8], user: &[u8], primary: u32) -> Result<Vec<u32>, UserError> {
    let mut groups = Vec::new();
    for (line, fields) in lines(group) {
        let members = fields.get(3).copied().unwrap_or_default();
        if user.is_empty() || !members.split(|&c| c == b',').any(|member| member == user) {
            continue;
        }
        let gid = fields.get(2).and_then(|field| id(field)).filter(|_| fields.len() == 4);
        let gid = gid.ok_or(UserError::Line { file: GROUP, line })?;
        if gid != primary && !groups.contains(&gid) {
            groups.push(gid);
        }
        if groups.len() > MAX_GROUPS {
            return Err(UserError::TooManyGroups);
        }
    }
    Ok(groups)
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants {
    use super::*;

    /// A user by number is that number whatever the files say; one by name is of a line with that name, and never becomes root
    /// because something else failed.
    pub fn the_number_that_was_asked_for(passwd: &[u8], group: &[u8], uid: u32) {
        if let Ok(user) = from_files(passwd, group, &uid.to_string()) {
            assert_eq!(user.uid, uid);
        }
        for name in ["a", "root", "0a"] {
            let line = |line: &[u8]| line.starts_with(format!("{name}:").as_bytes());
            let Ok(user) = from_files(passwd, group, name) else { continue };
            assert!(passwd.split(|&c| c == b'\n').any(line), "{name} is on no line");
            assert!(user.uid != u32::MAX && user.groups.len() <= MAX_GROUPS);
        }
        if let Ok(user) = from_files(passwd, group, &format!("{uid}:{uid}")) {
            assert_eq!((user.uid, user.gid, user.groups.len()), (uid, uid, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbin:x:1:2::/:/x\n7:x:0:0::/:/x\nbad:x:-1:0::/:/x\nshort:x:9\nwww:x:33:34::/:/x\n";
    const G: &[u8] = b"root:x:0:\nbin:x:2:www\nadm:x:4:root,www\nwww:x:34:www\nbroken:x:zz:\n";

    fn ok(spec: &str) -> (u32, u32, Vec<u32>) {
        let user = from_files(P, G, spec).expect(spec);
        (user.uid, user.gid, user.groups)
    }

    #[test]
    fn names_and_numbers_resolve_as_the_files_say() {
        assert_eq!(ok(""), (0, 0, vec![4]));
        assert_eq!(ok("root"), (0, 0, vec![4]));
        assert_eq!(ok("www"), (33, 34, vec![2, 4]));
        assert_eq!(ok("33"), (33, 34, vec![2, 4]));
        assert_eq!(ok("www:bin"), (33, 2, vec![]));
        assert_eq!(ok("www:77"), (33, 77, vec![]));
        assert_eq!(ok("12345"), (12345, 0, vec![]));
    }

    #[test]
    fn a_number_is_never_taken_for_a_name() {
        assert_eq!(ok("7"), (7, 0, vec![]));
    }

    #[test]
    fn nothing_that_fails_becomes_root() {
        for spec in [
            "nobody",
            "bad",
            "short",
            "www:none",
            "www:broken",
            ":",
            "www:",
            ":bin",
            "a:b:c",
            "4294967295",
            "4294967296",
            "99999999999",
            "-1",
            "+0",
            " root",
            "0x0",
            "www:4294967295",
            "ro\not",
        ] {
            assert!(from_files(P, G, spec).is_err(), "{spec:?}");
        }
        assert!(matches!(from_files(b"", b"", "www"), Err(UserError::Unknown { .. })));
        assert_eq!(from_files(b"", b"", "").expect("no files").uid, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_files_give_the_number_that_was_asked_for_or_an_error(
            passwd in proptest::collection::vec(prop_oneof![Just(b':'), Just(b'\n'), Just(b'0'), any::<u8>()], 0..200),
            group in proptest::collection::vec(prop_oneof![Just(b':'), Just(b'\n'), Just(b','), any::<u8>()], 0..200),
            uid in 0..10_u32,
        ) {
            invariants::the_number_that_was_asked_for(&passwd, &group, uid);
        }
    }
}
