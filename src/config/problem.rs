//! What is wrong with a configuration, where it was said, and what is allowed.

use std::fmt;
use std::sync::Arc;

/// Where a value was given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// In the file that is compiled in, at a line.
    BuiltIn {
        /// From 1.
        line: usize,
    },
    /// In a file of the operator's.
    File {
        /// The path as it was given.
        path: Arc<str>,
        /// From 1; 0 for the file as a whole.
        line: usize,
    },
    /// In an environment variable, by its name.
    Environment(Arc<str>),
    /// In a flag of the command line, by its name; a `--set` with the key it sets.
    Flag(Arc<str>),
    /// By the program that embeds the gateway.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn { line } => write!(formatter, "built-in default.toml:{line}"),
            Self::File { path, line: 0 } => formatter.write_str(path),
            Self::File { path, line } => write!(formatter, "{path}:{line}"),
            Self::Environment(name) | Self::Flag(name) => formatter.write_str(name),
            Self::Program => formatter.write_str("the program"),
        }
    }
}

impl Origin {
    /// Whether it is a `--set` of that key, and shown so.
    fn sets(&self, key: &str) -> bool {
        matches!(self, Self::Flag(name) if name.strip_prefix("--set ") == Some(key))
    }
}

/// One thing that is wrong. Shown as `file:line: key: what is wrong and what is allowed`; never shows a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Where it was said.
    pub origin: Origin,
    /// The key's full name, dotted; absent when it is not about one key.
    pub key: Option<String>,
    /// What is wrong and what is allowed.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            // It is named already.
            Some(key) if self.origin.sets(key) => write!(formatter, "{}: {}", self.origin, self.detail),
            Some(key) => write!(formatter, "{}: {key}: {}", self.origin, self.detail),
            None => write!(formatter, "{}: {}", self.origin, self.detail),
        }
    }
}

/// All that is wrong with a configuration, in the order of the layers and of their lines. Shown one a line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all is well.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is about this key.
    pub(super) fn are_about(&self, key: &str) -> bool {
        self.0.iter().any(|problem| problem.key.as_deref() == Some(key))
    }

    /// Adds one about a key.
    pub(super) fn key(&mut self, origin: Origin, key: String, detail: impl Into<String>) {
        self.0.push(Problem { origin, key: Some(key), detail: detail.into() });
    }

    /// Adds one that is not about one key.
    pub(super) fn general(&mut self, origin: Origin, detail: impl Into<String>) {
        self.0.push(Problem { origin, key: None, detail: detail.into() });
    }

    /// Adds one.
    pub(crate) fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// The same, each said to be the program's.
    pub(super) fn by_program(mut self) -> Self {
        for problem in &mut self.0 {
            problem.origin = Origin::Program;
        }
        self
    }

    /// Adds those of another check.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The same, with those of a later check that do not follow from them: not of a key that was found wrong already, nor of
    /// the secrets or destinations where the sections by which these are judged are not as they were meant.
    pub(crate) fn with_others(mut self, others: Self) -> Self {
        let is_wrong = |section: &str| {
            let of = |key: &str| key.split('.').next() == Some(section);
            self.0.iter().any(|problem| problem.key.as_deref().is_some_and(of))
        };
        let (egress, secrets) = (is_wrong("egress"), is_wrong("secrets"));
        let last =
            |key: &str, names: &[&str]| key.rsplit('.').next().is_some_and(|last| names.contains(&last));
        let stands = |problem: &Problem| match problem.key.as_deref() {
            Some(key) => {
                let is_unjudged = egress && last(key, &["destination"]);
                let is_unread = secrets && last(key, &["secret", "secret_file", "secret_env"]);
                !(self.are_about(key) || is_unjudged || is_unread)
            }
            None => true,
        };
        let others: Vec<_> = others.0.into_iter().filter(stands).collect();
        self.0.extend(others);
        self
    }

    /// The same in order, each once.
    pub(crate) fn sorted(mut self) -> Self {
        self.0.sort();
        self.0.dedup();
        self
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(formatter, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
