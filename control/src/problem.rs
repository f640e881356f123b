//! What is wrong with a document, said so that its author can act on it.

use std::{fmt, path::Path, sync::Arc};

use serde::Serialize;

/// Whether a document was refused or merely remarked upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document is not in force (its last good form may be).
    Error,
    /// The document is in force; something about it deserves a look.
    Warning,
}

/// One thing wrong in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Refused or remarked upon.
    pub severity: Severity,
    /// In which file.
    pub file: Box<Path>,
    /// On which line, from 1; none where the file could not be read.
    pub line: Option<u32>,
    /// In which column, from 1.
    pub column: Option<u32>,
    /// In which document, such as `McpBackend github`, as far as it can be told.
    pub document: Option<Box<str>>,
    /// In which field, such as `spec.policy.idleTimeout`.
    pub field: Option<Box<str>>,
    /// What is wrong: a clause. Quotes no value of an environment variable.
    pub message: Box<str>,
    /// What to do about it: a clause.
    pub remedy: Box<str>,
    /// Whether the last good form of the document stays in force.
    pub last_good_kept: bool,
}

/// All problems of the moment, in the order of files and lines.
pub type Problems = Arc<Vec<Problem>>;

impl Problem {
    /// An error about a place in a file.
    #[must_use]
    pub fn error(file: &Path, message: impl Into<Box<str>>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: None,
            column: None,
            document: None,
            field: None,
            message: message.into(),
            remedy: Box::default(),
            last_good_kept: false,
        }
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Says where, counted from 1; 0 stands for unknown.
    #[must_use]
    pub fn at(mut self, line: u64, column: u64) -> Self {
        let known = |n| u32::try_from(n).ok().filter(|n| *n > 0);
        self.line = known(line);
        self.column = known(column);
        self
    }

    /// Says in which document.
    #[must_use]
    pub fn of(mut self, document: Option<String>) -> Self {
        self.document = document.map(Into::into);
        self
    }

    /// Says in which field.
    #[must_use]
    pub fn field(mut self, field: impl Into<Box<str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Box<str>>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        f.write_str(": ")?;
        for part in [&self.document, &self.field].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        if self.last_good_kept {
            f.write_str(" (its last good form stays in force)")?;
        }
        Ok(())
    }
}
