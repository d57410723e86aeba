//! Why the store did not do what it was asked.

use rusqlite::ErrorCode;

/// The store itself failed; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Try again later: the API answers 503.
    #[error("the store is unavailable: {0}")]
    Unavailable(Unavailable),
    #[error(
        "the database has schema {found}, this program knows up to {known}: upgrade the program"
    )]
    NewerSchema { found: usize, known: usize },
    #[error("the database file: {0}")]
    Open(String),
    /// A statement that should have worked: a defect here or a damaged file.
    #[error("database: {0}")]
    Database(String),
}

/// What keeps the store from working just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("the queue of writes is full")]
    QueueFull,
    #[error("the database is locked by somebody else")]
    Busy,
    #[error("other dry runs are being made")]
    Looking,
    #[error("the disk is full")]
    DiskFull,
    #[error("the database is read-only")]
    ReadOnly,
    #[error("the disk reported an error")]
    Disk,
    #[error("it is shutting down")]
    Stopped,
    #[error("the write was rolled back with its group")]
    RolledBack,
}

impl Unavailable {
    /// The disk takes no writes: what is tried again soon will fail again.
    pub fn is_of_the_disk(self) -> bool {
        match self {
            Self::DiskFull | Self::ReadOnly | Self::Disk => true,
            Self::QueueFull | Self::Busy | Self::Looking | Self::Stopped | Self::RolledBack => {
                false
            }
        }
    }

    /// Seconds after which to try again.
    pub fn retry_after_s(self) -> u64 {
        if self.is_of_the_disk() { 30 } else { 2 }
    }
}

impl StoreError {
    /// Whether the same will work once the machine is well again, whatever it was.
    pub fn passes(&self) -> bool {
        match self {
            Self::Unavailable(reason) => {
                reason.is_of_the_disk()
                    || matches!(reason, Unavailable::QueueFull | Unavailable::Busy)
            }
            Self::NewerSchema { .. } | Self::Open(_) | Self::Database(_) => false,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let unavailable = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Unavailable::Busy,
            Some(ErrorCode::DiskFull) => Unavailable::DiskFull,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Unavailable::ReadOnly,
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Unavailable::Disk,
            _ => return Self::Database(error.to_string()),
        };
        Self::Unavailable(unavailable)
    }
}

impl From<Unavailable> for StoreError {
    fn from(reason: Unavailable) -> Self {
        Self::Unavailable(reason)
    }
}

/// Why a verb changed nothing: its own rule refused (`R`), or the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Rejection<R> {
    #[error("{0}")]
    Refused(R),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<R> From<rusqlite::Error> for Rejection<R> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The refusal of verbs that have no rule to refuse by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Never {}

impl From<Rejection<Never>> for StoreError {
    fn from(rejection: Rejection<Never>) -> Self {
        match rejection {
            Rejection::Store(error) => error,
            Rejection::Refused(never) => match never {},
        }
    }
}
