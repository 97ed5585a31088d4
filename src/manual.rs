//! `isolab man`: manual pages out of the help.

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::Cli;

/// The page of a command, or without one of isolab.
///
/// # Errors
/// There is no such command.
pub(crate) fn page(path: &[String]) -> anyhow::Result<Vec<u8>> {
    // Built, the commands below know the names above them, and options of all.
    let mut found = Cli::command();
    found.build();
    for name in path {
        let next = found.find_subcommand(name).cloned();
        found =
            next.with_context(|| format!("isolab has no command {:?}; see `isolab --help`", path.join(" ")))?;
    }
    let title = found.get_bin_name().unwrap_or("isolab").replace(' ', "-");
    let usage = found.render_usage().to_string().trim_start_matches("Usage: ").to_owned();
    let below = found.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(found.override_usage(usage).after_help(None::<&'static str>))
        .title(title)
        .source(concat!("isolab ", env!("CARGO_PKG_VERSION")))
        .manual("isolab");
    let mut page = Vec::new();
    man.render(&mut page)?;
    for (heading, text) in sections(&below) {
        let mut section = Vec::new();
        Man::new(Command::new("isolab").after_help(text)).render_extra_section(&mut section)?;
        let section = String::from_utf8(section)?;
        // Lines of examples stay lines.
        page.extend(section.replace("SH EXTRA", &format!("SH {heading}\n.nf")).bytes());
        page.extend(b".fi\n");
    }
    Ok(page)
}

/// What stands at the end of a help, by its headings.
fn sections(text: &str) -> Vec<(&'static str, String)> {
    const HEADINGS: [(&str, &str); 3] =
        [("Examples:", "EXAMPLES"), ("Example:", "EXAMPLES"), ("Exit status: ", "\"EXIT STATUS\"")];
    let section = |part: &str| {
        let found = HEADINGS.iter().find_map(|(word, heading)| Some((*heading, part.strip_prefix(word)?)));
        let (heading, rest) = found.unwrap_or(("NOTES", part));
        (heading, rest.trim_start_matches('\n').to_owned())
    };
    text.split("\n\n").filter(|part| !part.is_empty()).map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(words: &[&str]) -> String {
        let path: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        String::from_utf8(page(&path).expect("a page")).expect("text")
    }

    #[test]
    fn pages_have_the_sections_of_manual_pages() {
        let own = page_of(&[]);
        let version = concat!("\"isolab ", env!("CARGO_PKG_VERSION"), "\"");
        for part in [".SH EXAMPLES", ".SH \"EXIT STATUS\"", version] {
            assert!(own.contains(part), "{part}: {own}");
        }
        let run = page_of(&["run"]);
        assert!(run.contains("[\\-\\- <CMD>...]"), "{run}");
        assert!(run.contains("print(1)"), "{run}");
        assert!(!own.contains("EXTRA") && !run.contains("EXTRA"), "{own}{run}");
        page(&["no-such".to_owned()]).expect_err("no such command");
    }
}
