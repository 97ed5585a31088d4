//! `isolab completions`: what a shell offers.

use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::levels;

/// The script for a shell.
pub(crate) fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut offered(&Cli::command()), "isolab", &mut script);
    script
}

/// A command without what its help hides, with the values that are known.
fn offered(command: &Command) -> Command {
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned().map(with_values);
    let below = command.get_subcommands().filter(|below| !below.is_hide_set()).map(offered);
    // clap wants names that live as long as the program, which ends with this.
    let offered = Command::new(command.get_name().to_owned().leak() as &str).args(args).subcommands(below);
    match command.get_about() {
        Some(about) => offered.about(about.clone()),
        None => offered,
    }
}

fn with_values(arg: Arg) -> Arg {
    match arg.get_id().as_str() {
        "level" | "levels" => arg.value_parser(levels::names().collect::<Vec<_>>()),
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_tests_are_not_offered_and_levels_are() {
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            let script = String::from_utf8(script(shell)).expect("text");
            for hidden in ["report-fd", "test-fault", "knob", "progress-lines"] {
                assert!(!script.contains(hidden), "{shell} offers {hidden}");
            }
            for known in ["guest-console", "process", "max-instances", "snapshot"] {
                assert!(script.contains(known), "{shell} lacks {known}");
            }
        }
    }
}
