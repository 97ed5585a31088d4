//! `isolab kernel`: the guest kernels.

use isolab_images::kernels::{AddKernel, FetchStep, KernelEntry, KernelStore, add, fetch};
use isolab_images::store::Store;

use crate::cli::KernelCommand;

/// The kernels of the store.
///
/// # Errors
/// No home directory.
pub(crate) fn store() -> anyhow::Result<KernelStore> {
    Ok(KernelStore::new(Store::home()?.join("kernels")))
}

/// Fetches the distribution's kernel, telling how far it is.
///
/// # Errors
/// The step that failed.
pub(crate) fn fetch_stock() -> anyhow::Result<KernelEntry> {
    Ok(fetch(&store()?, &mut |step| eprintln!("isolab: {}", told(step)))?)
}

/// Carries out the command.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn kernel(command: KernelCommand) -> anyhow::Result<u8> {
    let store = store()?;
    match command {
        KernelCommand::Fetch => announce(&fetch_stock()?),
        KernelCommand::Add { path, name, modules } => {
            announce(&add(&store, &AddKernel { path, name: Some(name), modules })?);
        }
        KernelCommand::Ls(json) => {
            let infos: Vec<_> = store.list()?.iter().map(|entry| entry.info().clone()).collect();
            if json.json {
                println!("{}", serde_json::to_string_pretty(&infos)?);
            } else {
                println!("{:12}  {:28}  {:8}  {:>7}  MODULES", "NAME", "VERSION", "FORMAT", "MiB");
                for info in infos {
                    let (name, version, mib) = (&info.name, &info.version, info.size_bytes >> 20);
                    let format = format!("{:?}", info.format).to_lowercase();
                    println!("{name:12}  {version:28}  {format:8}  {mib:>7}  {}", info.modules.len());
                }
            }
        }
        KernelCommand::Inspect { name } => {
            println!("{}", serde_json::to_string_pretty(store.get(&name)?.info())?);
        }
        KernelCommand::Rm { names } => {
            for name in names {
                store.remove(&name)?;
                println!("removed kernel {name}");
            }
        }
    }
    Ok(0)
}

fn told(step: &FetchStep) -> String {
    match step {
        FetchStep::Resolving => "asking apt for the newest cloud kernel".into(),
        FetchStep::Downloading { package, version } => format!("downloading {package} {version}"),
        FetchStep::Unpacking { bytes } => format!("unpacking {} MiB", bytes >> 20),
    }
}

fn announce(entry: &KernelEntry) {
    let info = entry.info();
    println!("{} {} {:?}, {} guest modules", info.name, info.version, info.format, info.modules.len());
}
