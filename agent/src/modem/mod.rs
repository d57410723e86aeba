//! The modem: framing, ports, discovery and the FN990A's dialect.
//!
//! ```text
//! discovery (sysfs -> which modem, which port) ─► port (bytes <-> at) ─► dialect (identity, versions, baseline)
//!                                              └► manager (mmcli): while ModemManager has the ports
//! ```
//! [`at`] decides and knows no clock and no file; [`port`] is the only place that opens a tty.

pub mod at;
pub mod baseline;
pub mod dialect;
pub mod discovery;
pub mod driver;
pub mod lock;
pub mod manager;
pub mod measure;
pub mod port;
pub mod ready;
pub mod recording;
pub mod standing;
pub mod urc;

pub use baseline::{Baseline, Difference, Registration};
pub use dialect::{Identity, ModemError};
pub use discovery::{Abnormal, Bus, Condition, Modem, Snapshot, UsbDevice};
pub use lock::{Busy, ModemLock};
pub use port::{Exchange, Port, PortError};
pub use ready::{NotReady, Place, Ready, Seen, Sought, Survey, survey, wait_ready};
