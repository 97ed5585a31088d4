//! What an image says about its own start: the OCI config as data.

use std::collections::BTreeMap;

use oci_spec::image::Config;
use serde::{Deserialize, Serialize};

use crate::escape::Escaped;

/// Defaults that the image brings; a job may override each.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// First words of the command.
    pub entrypoint: Vec<String>,
    /// Words after the entry point where the user gives none.
    pub cmd: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `USER` as written: `name`, `uid`, `name:group`, `uid:gid`.
    pub user: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name or number of the signal that asks the workload to end.
    pub stop_signal: Option<String>,
}

/// A configuration that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// NUL in a text that becomes an argument or a variable.
    #[error("{what} {text} holds a NUL byte")]
    Nul {
        /// Which text.
        what: &'static str,
        /// The text.
        text: Escaped,
    },
    /// An entry without a name or without `=`.
    #[error("environment entry {0} is not NAME=value")]
    Environment(Escaped),
    /// A working directory that does not start at the root.
    #[error("working directory {0} is not absolute")]
    Workdir(Escaped),
}

impl ImageConfig {
    /// From the OCI document; empty texts count as not given.
    ///
    /// # Errors
    /// A text that can't be what it is for.
    pub fn from_oci(config: &Config) -> Result<Self, ConfigError> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
        let labels = config.labels().iter().flatten();
        let ours = Self {
            entrypoint: words(config.entrypoint()),
            cmd: words(config.cmd()),
            env: words(config.env()),
            workdir: given(config.working_dir()),
            user: given(config.user()),
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            stop_signal: given(config.stop_signal()),
        };
        ours.check()?;
        Ok(ours)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let arguments = self.entrypoint.iter().chain(&self.cmd).map(|text| ("argument", text));
        let env = self.env.iter().map(|text| ("environment entry", text));
        let single =
            [("working directory", &self.workdir), ("user", &self.user), ("stop signal", &self.stop_signal)];
        let single = single.into_iter().filter_map(|(what, text)| text.as_ref().map(|text| (what, text)));
        for (what, text) in arguments.chain(env).chain(single) {
            if text.contains('\0') {
                return Err(ConfigError::Nul { what, text: text.as_str().into() });
            }
        }
        for entry in &self.env {
            if entry.find('=').is_none_or(|at| at == 0) {
                return Err(ConfigError::Environment(entry.as_str().into()));
            }
        }
        match &self.workdir {
            Some(dir) if !dir.starts_with('/') => Err(ConfigError::Workdir(dir.as_str().into())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ImageConfig, ConfigError> {
        ImageConfig::from_oci(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn takes_what_docker_writes() {
        let config = parse(
            r#"{"Hostname":"","User":"","Env":["PATH=/bin","E=a=b\nc"],"Cmd":["sh"],"WorkingDir":"","Entrypoint":null,
                "Labels":null,"Volumes":{"/v":{}},"OnBuild":null,"StopSignal":"SIGINT","ArgsEscaped":true}"#,
        );
        let expected = ImageConfig {
            cmd: vec!["sh".into()],
            env: vec!["PATH=/bin".into(), "E=a=b\nc".into()],
            stop_signal: Some("SIGINT".into()),
            ..ImageConfig::default()
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn refuses_hostile_texts() {
        let table = [
            (r#"{"Cmd":["a\u0000b"]}"#, "argument \"a\\x00b\" holds a NUL byte"),
            (r#"{"Entrypoint":["\u0000"]}"#, "argument \"\\x00\" holds a NUL byte"),
            (r#"{"User":"root\u0000"}"#, "user \"root\\x00\" holds a NUL byte"),
            (r#"{"Env":["A=\u0000"]}"#, "environment entry \"A=\\x00\" holds a NUL byte"),
            (r#"{"Env":["A"]}"#, "environment entry \"A\" is not NAME=value"),
            (r#"{"Env":["=A"]}"#, "environment entry \"=A\" is not NAME=value"),
            (r#"{"WorkingDir":"etc"}"#, "working directory \"etc\" is not absolute"),
            (r#"{"WorkingDir":"../.."}"#, "working directory \"../..\" is not absolute"),
        ];
        for (json, message) in table {
            assert_eq!(parse(json).unwrap_err().to_string(), message, "{json}");
        }
    }
}
