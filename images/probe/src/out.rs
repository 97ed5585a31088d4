//! What a probe says: items, one line each.

use std::io::{self, Write};

use crate::protocol::{Found, Item, Line, MAX_SEEN};
use crate::sys::Ended;

/// Where a probe's items go.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    probe: &'a str,
}

/// Writes a line at once: a probe that dies has said what it said.
pub(crate) fn say(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

/// The beginning of a text that is not too long.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_SEEN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl<'a> Out<'a> {
    pub(crate) const fn new(probe: &'a str) -> Self {
        Self { probe }
    }

    /// Whether it is that probe's.
    pub(crate) fn is_of(&self, probe: &str) -> bool {
        self.probe == probe
    }

    fn item(&self, item: &str, found: Found) -> Item {
        Item {
            probe: self.probe.to_owned(),
            item: item.to_owned(),
            found,
            errno: None,
            signal: None,
            call: None,
            seen: None,
        }
    }

    fn write(item: Item) {
        // Where nobody reads any more, nothing is left to say.
        let _ = say(&Line::Item(item));
    }

    /// An item with what was seen.
    pub(crate) fn say(&self, item: &str, found: Found, seen: &str) {
        Self::write(Item { seen: Some(cut(seen)), ..self.item(item, found) });
    }

    /// It worked.
    pub(crate) fn reached(&self, item: &str, seen: &str) {
        self.say(item, Found::Reached, seen);
    }

    /// It was seen; the host's truth tells what it means.
    pub(crate) fn told(&self, item: &str, seen: &str) {
        self.say(item, Found::Told, seen);
    }

    /// It is hidden, without an error.
    pub(crate) fn hidden(&self, item: &str, seen: &str) {
        self.say(item, Found::Blocked, seen);
    }

    /// There is none.
    pub(crate) fn absent(&self, item: &str, seen: &str) {
        self.say(item, Found::Absent, seen);
    }

    /// The error of an access by name.
    pub(crate) fn error(&self, item: &str, errno: i32, seen: &str) {
        let found = match errno {
            libc::ENOENT | libc::ENXIO | libc::ENODEV | libc::ENOTDIR => Found::Absent,
            libc::EPERM | libc::EACCES | libc::EROFS | libc::ENOSYS | libc::ECONNREFUSED | libc::ESRCH => {
                Found::Blocked
            }
            _ => Found::Unknown,
        };
        Self::write(Item { errno: Some(errno), seen: Some(cut(seen)), ..self.item(item, found) });
    }

    /// The same of an error of the library's.
    pub(crate) fn io(&self, item: &str, error: &io::Error, seen: &str) {
        match error.raw_os_error() {
            Some(errno) => self.error(item, errno, seen),
            None => self.say(item, Found::Unknown, &error.to_string()),
        }
    }

    /// A system call whose arguments fail after every check of rights: what refuses it is a filter or a missing right.
    pub(crate) fn call(&self, item: &str, number: u32, args: &[usize], ended: Ended) {
        let half = |i: usize| args.get(i).map_or(0, |arg| *arg as u32);
        let call = Some((number, [half(0), half(1), half(2)]));
        let entry = match ended {
            Ended::Value(value) if value >= 0 => Item { seen: None, ..self.item(item, Found::Reached) },
            Ended::Value(value) => {
                let errno = i32::try_from(-value).unwrap_or(i32::MAX);
                let found = match errno {
                    libc::EPERM | libc::EACCES => Found::Blocked,
                    // By a filter or by a kernel that has no such thing.
                    libc::EAFNOSUPPORT | libc::ENOSYS => Found::Absent,
                    _ => Found::Reached,
                };
                Item { errno: Some(errno), ..self.item(item, found) }
            }
            Ended::Signal(signal) => {
                let found = if signal == libc::SIGSYS { Found::Blocked } else { Found::Unknown };
                Item { signal: Some(signal), ..self.item(item, found) }
            }
            Ended::Late => Item { seen: Some("it waits".into()), ..self.item(item, Found::Reached) },
            Ended::NoChild(errno) => {
                Item { seen: Some(format!("no child: error {errno}")), ..self.item(item, Found::Unknown) }
            }
        };
        Self::write(Item { call, ..entry });
    }

    /// A call that says that there is no such thing.
    pub(crate) fn call_absent(&self, item: &str, number: u32, args: &[usize], errno: i32) {
        let half = |i: usize| args.get(i).map_or(0, |arg| *arg as u32);
        let call = Some((number, [half(0), half(1), half(2)]));
        Self::write(Item { call, errno: Some(errno), ..self.item(item, Found::Absent) });
    }
}
