//! Where results go: standard output, files, or what else is at the place that was named.

use std::fs::{File, Metadata};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use isolab_bench::report::text;
use rustix::fs::{Access, access};

use crate::cli::OutputOptions;
use crate::say;

impl OutputOptions {
    /// Refuses outputs that can't be written before anything is run.
    ///
    /// # Errors
    /// A file can't be written, or both are one.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        [&self.json, &self.html].into_iter().flatten().try_for_each(|path| check_path(path))?;
        match (&self.json, &self.html) {
            (Some(json), Some(html)) if same(json, html) => {
                bail!("--json and --html both name {}; give each its own file", json.display())
            }
            _ => Ok(()),
        }
    }

    /// Whether no table is printed.
    pub(crate) fn silent(&self) -> bool {
        self.quiet || [&self.json, &self.html].into_iter().flatten().any(|path| is_stdout(path))
    }
}

/// Refuses a place that can't be written, so that nothing is measured for it.
///
/// # Errors
/// With the reason.
pub(crate) fn check_path(path: &Path) -> anyhow::Result<()> {
    if is_stdout(path) {
        return Ok(());
    }
    let refused = |why: String| Err(anyhow!("{} can't be written: {why}", path.display()));
    let dir = directory(path);
    if !dir.is_dir() {
        return refused(format!("{} is not a directory", dir.display()));
    }
    // A file is written anew beside what is there; what is no file is written to.
    let (place, rights) = match std::fs::metadata(path) {
        Ok(there) if there.is_dir() => return refused("it is a directory".into()),
        Ok(there) if !there.is_file() => (path, Access::WRITE_OK),
        _ => (dir, Access::WRITE_OK | Access::EXEC_OK),
    };
    access(place, rights).or_else(|errno| refused(format!("{}: {errno}", place.display())))
}

/// Where the file lies.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Whether two names are one place, which the second to be written would have for itself.
pub(crate) fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        let there = path.canonicalize();
        there.or_else(|_| {
            Ok::<_, std::io::Error>(
                directory(path).canonicalize()?.join(path.file_name().unwrap_or_default()),
            )
        })
    };
    a == b || real(a).is_ok_and(|a| real(b).is_ok_and(|b| a == b))
}

/// Writes what is made for a place, where one was named.
///
/// # Errors
/// It can't be made or written.
pub(crate) fn put_to(
    place: Option<&PathBuf>,
    content: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    place.map_or(Ok(()), |path| put(path, &content()?))
}

/// How a text report is printed, `to_stdout` or into a file.
pub(crate) fn text_style(to_stdout: bool) -> text::TextStyle {
    let colour = to_stdout
        && std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    text::TextStyle { colour, ..text::TextStyle::default() }
}

/// `-`.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whole or not at all: written beside its place and renamed, with the mode of what was there; a link is followed. What is there and is no
/// file (a device, a pipe) is written to. `-`: to standard output.
///
/// # Errors
/// It can't be written.
pub(crate) fn put(path: &Path, content: &str) -> anyhow::Result<()> {
    if is_stdout(path) {
        return say::all(content);
    }
    let there = std::fs::metadata(path).ok();
    if there.as_ref().is_some_and(|it| !it.is_file() && !it.is_dir()) {
        let written = File::options().write(true).open(path);
        return written
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .with_context(|| format!("write {}", path.display()));
    }
    let target = if there.is_some() { std::fs::canonicalize(path) } else { Ok(path.to_owned()) };
    let target = target.with_context(|| format!("write {}", path.display()))?;
    let mut name = target.file_name().context("a file name is missing")?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = target.with_file_name(name);
    let whole = |mut file: File| {
        file.write_all(content.as_bytes())?;
        there.filter(Metadata::is_file).map_or(Ok(()), |it| file.set_permissions(it.permissions()))?;
        file.sync_all()
    };
    let written =
        File::create_new(&temporary).and_then(whole).and_then(|()| std::fs::rename(&temporary, &target));
    if written.is_err() {
        // Best effort: the error that counts is the first.
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_a_mode_stays_and_what_is_no_file_is_written_to() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

        let dir = tempfile::tempdir().expect("temporary directory");
        let (file, link, pipe) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("pipe"));
        std::fs::write(&file, "before").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
        symlink("file", &link).expect("link");
        put(&link, "after").expect("written");
        assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "after");
        assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        let made =
            rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        made.expect("a pipe");
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read_to_string(pipe).expect("read")
        });
        put(&pipe, "through").expect("written");
        assert_eq!(reader.join().expect("a reader"), "through");
        assert!(std::fs::metadata(&pipe).expect("there").file_type().is_fifo());
        let full = put(Path::new("/dev/full"), "nothing fits").expect_err("a full device");
        assert!(format!("{full:#}").contains("No space left"), "{full:#}");
    }

    #[test]
    fn what_cannot_be_written_is_refused_before() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "").expect("written");
        std::os::unix::fs::symlink("file", at("link")).expect("link");
        check_path(&at("file")).expect("a file");
        check_path(&at("new")).expect("a new one");
        check_path(Path::new("/dev/null")).expect("a device");
        check_path(dir.path()).expect_err("a directory");
        check_path(&at("file/new")).expect_err("below a file");
        check_path(&at("no/new")).expect_err("nowhere");
        assert!(same(&at("link"), &at("file")) && same(&at("new"), &at("./new")));
        assert!(!same(&at("new"), &at("file")));
        let both = |json: &str, html: &str| OutputOptions {
            json: Some(at(json)),
            html: Some(at(html)),
            quiet: false,
        };
        both("record", "page").check().expect("two files");
        let error = both("link", "file").check().expect_err("one file");
        assert!(error.to_string().contains("its own file"), "{error}");
    }

    #[test]
    fn a_file_is_written_whole_or_stays_as_it_was() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("record.json");
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir(dir.path())
                .expect("list")
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
                .collect();
            names.sort();
            names
        };
        for content in ["first", "second"] {
            put(&path, content).expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), content);
            assert_eq!(names(), ["record.json"]);
        }
        // What lies at the name of the unfinished file is not written to.
        let unfinished = format!("record.json.{}.tmp", std::process::id());
        std::fs::create_dir(dir.path().join(&unfinished)).expect("directory");
        let error = put(&path, "third").expect_err("the name is taken");
        assert!(error.to_string().contains("record.json"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "second");
        std::fs::remove_dir(dir.path().join(&unfinished)).expect("removed");
        // It can't be renamed over a directory, and is gone.
        put(dir.path(), "fourth").expect_err("a directory");
        std::fs::create_dir(dir.path().join("page.html")).expect("directory");
        put(&dir.path().join("page.html"), "fifth").expect_err("a directory");
        assert_eq!(names(), ["page.html", "record.json"]);
    }
}
