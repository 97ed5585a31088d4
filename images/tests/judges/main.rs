//! Images before judges that are not ours.

mod erofs;
mod export;
mod model;

use std::path::Path;
use std::process::Command;

/// Output of a judge that must agree; nothing where it is not installed.
fn judge(program: &str, args: &[&Path]) -> Option<String> {
    let out = match Command::new(program).args(args).output() {
        Ok(out) => out,
        Err(e) => {
            println!("skipped: {program}: {e}");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{program} refused: {text}");
    Some(text)
}
