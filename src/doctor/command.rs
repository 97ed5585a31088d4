//! The command `isolab doctor`.

use super::{Inputs, Scope, examine, fix};
use crate::cli::DoctorArgs;
use crate::{hint, kernel, say};
use isolab_images::kernels::STOCK;
use isolab_images::store::Store;

/// Examines, mends if asked, prints.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn command(args: &DoctorArgs) -> anyhow::Result<u8> {
    let inputs = Inputs { stock_kernel: Store::home()?.join("kernels").join(STOCK), lab: hint::in_lab() };
    let mut report = examine(&inputs);
    if args.fix {
        report = fix(report, &inputs, Scope::Run, args.yes, &mut || kernel::fetch_stock().map(drop))?;
    }
    let text = if args.json { report.json()? } else { report.text() };
    say::all(text)?;
    Ok(report.status())
}
