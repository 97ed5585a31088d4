//! The root: image below, a limited tmpfs above, the kernel's file systems on it.
//!
//! Everything is built on one tmpfs of our own (the skeleton), on a mount point of the old root and unreachable afterwards. Its names
//! are ours; names of the image are opened as real directories first (`openat2`) and mounted on by descriptor, because a
//! symbolic link there could lead a mount anywhere.

use core::ffi::CStr;

use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::mount::{self, flag};
use isolab_bare::sys::{CWD, Errno, Fd, fs};
use isolab_bare::text::Text;
use isolab_wire::job::{Job, flag as job_flag, tmpfs_inodes};

use crate::Place;
use crate::channels::ROOT;
use crate::guest::await_node;
use crate::plan::{self, Level, Mount, Options};

/// The guest's image: the first and only disk.
const DISK: &CStr = c"/dev/vda";

/// Whether the root is the overlay of image and tmpfs.
fn has_overlay(job: &Job<'_>) -> bool {
    !job.has(job_flag::READ_ONLY)
}

/// Flags of every mount that holds the image's files: its devices are none, and its set-id programs have no effect.
const IMAGE_FLAGS: usize = flag::NODEV | flag::NOSUID;

/// Cuts this mount namespace off from the host's and mounts the skeleton.
pub(crate) fn skeleton(place: Place, job: &Job<'_>) -> Result<(), Errno> {
    let point = match place {
        // A directory that every host has, below its root: so both are put aside in one step, which costs a grace period.
        Place::Container => {
            mount::mount(None, c"/", None, flag::REC | flag::PRIVATE, None)?;
            c"/proc"
        }
        Place::Guest => c"/",
    };
    let [mut size, mut inodes] = [Text::<32>::new(), Text::<32>::new()];
    size.number(job.header.tmpfs_bytes.max(4096));
    inodes.number(tmpfs_inodes(job.header.tmpfs_bytes));
    let (Some(size), Some(inodes)) = (size.c_str(), inodes.c_str()) else { return Err(Errno::NAMETOOLONG) };
    let options = [(c"size", size), (c"nr_inodes", inodes), (c"mode", c"0755")];
    let skeleton = mount::detached_new(c"tmpfs", &options, IMAGE_FLAGS)?;
    mount::attach(skeleton, point)?;
    fs::chdir_fd(skeleton)?;
    io::close(skeleton);
    fs::mkdir(CWD, c"lower", 0o755)?;
    if has_overlay(job) {
        // The overlay's root takes its mode from here; an image whose root is closed to others is not supported.
        for name in [c"upper", c"work", c"root"] {
            fs::mkdir(CWD, name, 0o755)?;
        }
    }
    Ok(())
}

/// Attaches the image below the skeleton as `lower`.
pub(crate) fn lower(place: Place, job: &Job<'_>) -> Result<(), Errno> {
    let flags = IMAGE_FLAGS | flag::RDONLY;
    if place == Place::Guest {
        await_node(DISK)?;
        return mount::mount(Some(DISK), c"lower", Some(c"erofs"), flags, None);
    }
    if job.has(job_flag::ROOT_IS_DIR) {
        let copy = mount::detached_copy(ROOT)?;
        mount::attach(copy, c"lower")?;
        io::close(copy);
    } else {
        mount::attach(ROOT, c"lower")?;
    }
    io::close(ROOT);
    mount::add_attributes(c"lower", flags)
}

/// Stacks the writable tmpfs on the image where the job has one; the root's descriptor.
pub(crate) fn overlay(place: Place, job: &Job<'_>) -> Result<Fd, Errno> {
    let root = if has_overlay(job) {
        // A user namespace may only use `user.` attributes for the overlay's own notes.
        let options = match place {
            Place::Container => c"lowerdir=lower,upperdir=upper,workdir=work,userxattr",
            Place::Guest => c"lowerdir=lower,upperdir=upper,workdir=work",
        };
        mount::mount(Some(c"overlay"), c"root", Some(c"overlay"), IMAGE_FLAGS, Some(options))?;
        c"root"
    } else {
        c"lower"
    };
    io::open(CWD, root, open::PATH | open::DIRECTORY | open::CLOEXEC, 0)
}

/// A detached copy of the image's own mount, which the overlay hides: it goes to /dev, so that everybody inside can
/// see what lies below the root.
pub(crate) fn image_below(job: &Job<'_>) -> Result<Option<Fd>, Errno> {
    if !has_overlay(job) {
        return Ok(None);
    }
    let dir = io::open(CWD, c"lower", open::PATH | open::DIRECTORY | open::CLOEXEC, 0)?;
    let copy = mount::detached_copy(dir);
    io::close(dir);
    copy.map(Some)
}

/// Mounts the plan on the root. Without an overlay (`--read-only`) the image must have the directories itself.
pub(crate) fn kernel_file_systems(
    place: Place,
    job: &Job<'_>,
    root: Fd,
    image: Option<Fd>,
) -> Result<(), Errno> {
    let applies = |m: &&Mount| m.level == Level::Both || place == Place::Guest;
    for entry in plan::ON_IMAGE.iter().filter(applies) {
        let point = match fs::open_real_dir(root, entry.at) {
            Err(Errno::NOENT) if !job.has(job_flag::READ_ONLY) => {
                fs::mkdir(root, entry.at, 0o755)?;
                fs::open_real_dir(root, entry.at)
            }
            other => other,
        }?;
        fs::chdir_fd(point)?;
        io::close(point);
        mount_at(entry, c".", job)?;
    }
    if job.has(job_flag::READ_ONLY)
        && let Ok(point) = fs::open_real_dir(root, plan::TEMPORARY.at)
    {
        fs::chdir_fd(point)?;
        io::close(point);
        mount_at(&plan::TEMPORARY, c".", job)?;
    }
    // From here on the names are those of our own tmpfs on /dev.
    fs::chdir_fd(root)?;
    fs::chdir(c"dev")?;
    for entry in plan::ON_DEV.iter().filter(applies) {
        fs::mkdir(CWD, entry.at, 0o755)?;
        mount_at(entry, entry.at, job)?;
    }
    if let Some(image) = image {
        fs::mkdir(CWD, plan::IMAGE, 0o755)?;
        mount::attach(image, plan::IMAGE)?;
        io::close(image);
    }
    for &(name, on_host, major, minor) in &plan::NODES {
        match place {
            Place::Guest => {
                fs::mknod_char(CWD, name, 0o666, major, minor)?;
                fs::chmod(CWD, name, 0o666)?;
            }
            // No device node can be made in a user namespace, but the host's own can be bound, while the old
            // root is still the root: `/dev` is the host's here.
            Place::Container => {
                let flags = open::WRONLY | open::CREAT | open::EXCL | open::CLOEXEC;
                io::close(io::open(CWD, name, flags, 0o666)?);
                mount::mount(Some(on_host), name, None, flag::BIND, None)?;
            }
        }
    }
    for (name, target) in plan::LINKS {
        fs::symlink(target, CWD, name)?;
    }
    Ok(())
}

fn mount_at(entry: &Mount, target: &CStr, job: &Job<'_>) -> Result<(), Errno> {
    let mount = |options| mount::mount(Some(entry.fs), target, Some(entry.fs), entry.flags, options);
    match entry.options {
        Options::No => mount(None),
        Options::Fixed(options) => mount(Some(options)),
        Options::Either(first, second) => match mount(Some(first)) {
            Err(Errno::INVAL) => mount(Some(second)),
            other => other,
        },
        Options::Sized(options) => {
            let mut text = Text::<96>::new();
            text.push(options.as_bytes()).push(b",size=").number(job.header.tmpfs_bytes.max(4096));
            text.push(b",nr_inodes=").number(tmpfs_inodes(job.header.tmpfs_bytes));
            mount(Some(text.c_str().ok_or(Errno::NAMETOOLONG)?))
        }
    }
}

/// Makes the root the root; nothing of the old one stays reachable.
pub(crate) fn enter(place: Place, root: Fd) -> Result<(), Errno> {
    fs::chdir_fd(root)?;
    io::close(root);
    match place {
        Place::Container => {
            mount::pivot_root_here()?;
            // The old root now lies on the new one, with the skeleton below it.
            mount::detach(c".")?;
        }
        // The kernel's first root can't be pivoted away from; it is covered and left.
        Place::Guest => {
            mount::mount(Some(c"."), c"/", None, flag::MOVE, None)?;
            fs::chroot(c".")?;
        }
    }
    fs::chdir(c"/")
}

/// Hides and write-protects what tells of the host. Only names of the kernel's own file systems.
pub(crate) fn mask(job: &Job<'_>) -> Result<(), Errno> {
    if !job.has(job_flag::CONFINE) {
        return Ok(());
    }
    for path in plan::PROTECTED {
        match mount::mount(Some(path), path, None, flag::BIND | flag::REC, None) {
            Ok(()) => {}
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e),
        }
        mount::add_attributes(path, flag::RDONLY | flag::NOSUID | flag::NODEV | flag::NOEXEC)?;
    }
    for path in plan::MASKED_FILES {
        match mount::mount(Some(c"/dev/null"), path, None, flag::BIND, None) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    for path in plan::MASKED_DIRS {
        let flags = flag::RDONLY | flag::NOSUID | flag::NODEV | flag::NOEXEC;
        match mount::mount(Some(c"tmpfs"), path, Some(c"tmpfs"), flags, Some(c"size=4k,nr_inodes=1")) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
