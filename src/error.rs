//! What the world can do to a run. Wrong shapes are not here: they are bugs of the caller, and panic.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One variant for each broken promise; the text is the one line that a user sees.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work, with the way out.
    #[error("{0}")]
    Config(String),
    /// Data that cannot be learnt from.
    #[error("{path}: {problem}", path = .path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or folder that the system would not let us use.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's word for it.
        source: std::io::Error,
    },
    /// A checkpoint that does not hold together, or not with this run.
    #[error("checkpoint {path}: {problem}", path = .path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is missing, broken or different.
        problem: String,
    },
    /// A device that does not exist or cannot do what was asked.
    #[error("{0}")]
    Device(String),
    /// More memory than there is or than was allowed, in bytes.
    #[error("needs {needed} bytes, the limit is {limit}: {advice}")]
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
        /// What would fit.
        advice: String,
    },
    /// A device that stopped working during a run.
    #[error("device lost: {0}; what was saved is safe, --resume goes on from it")]
    Lost(String),
    /// Losses or gradients that stopped being numbers.
    #[error("{0}")]
    NotFinite(String),
    /// The user asked to stop; the checkpoint is written.
    #[error("interrupted at step {step}; checkpoint written")]
    Interrupted {
        /// Optimizer steps done.
        step: u64,
    },
}

impl Error {
    /// Process exit code: 1 run failed, 2 bad usage or input, 3 memory or device lost, 130 interrupted.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Config(_)
            | Error::Data { .. }
            | Error::Device(_)
            | Error::Checkpoint { .. }
            | Error::File { .. } => 2,
            Error::Memory { .. } | Error::Lost(_) => 3,
            Error::NotFinite(_) => 1,
            Error::Interrupted { .. } => 130,
        }
    }

    /// Names the file behind a system error.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }
}
