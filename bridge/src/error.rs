//! Errors that cross to C++: a kind (pagemill::ErrorCode there) and a message.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    InvalidArgument,
    NotFound,
    Corrupt,
    Unsupported,
    Io,
    Internal,
}

#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }
    /// Puts "`what`: " before the message.
    pub fn within(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    /// cxx carries an error as this text alone: its first letter is the kind (src/tokenizer/bridge.cc
    /// takes it off again).
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let letter = match self.kind {
            Kind::InvalidArgument => 'A',
            Kind::NotFound => 'N',
            Kind::Corrupt => 'C',
            Kind::Unsupported => 'U',
            Kind::Io => 'O',
            Kind::Internal => 'I',
        };
        write!(f, "{letter}{}", self.message)
    }
}

impl std::error::Error for Error {}
