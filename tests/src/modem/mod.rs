//! A modem that is simulated down to the serial bytes: real ptys, a sysfs tree, a flash that survives.
//!
//! ```text
//! SimulatedModem / RemoteModem ─► control ─► machine ─► shape, tree    what USB shows
//!                                                   ├─► at, urc, voice  AT ports
//!                                                   └─► frame, loader   diag port  ◄─ sim-uxfp
//! ```

mod at;
mod control;
mod flash;
pub mod frame;
mod loader;
mod machine;
pub mod process;
mod pty;
mod settings;
mod shape;
mod surroundings;
mod tree;
mod urc;
mod voice;

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

pub use control::{Mode, RemoteModem, Request, State};
pub use flash::{Flash, FlashCondition};
pub use settings::Settings;
pub use surroundings::Surroundings;

use crate::faults::ModemFault;
use crate::firmware::Versions;
use control::Order;
use machine::Machine;

/// A modem on a thread of this process; it goes with this value, its flash file stays.
#[derive(Debug)]
pub struct SimulatedModem {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl SimulatedModem {
    /// Connects power. The modem is on USB after [`Settings::enumeration`].
    pub fn start(settings: Settings) -> io::Result<SimulatedModem> {
        let (orders, received) = mpsc::channel();
        let machine = Machine::new(settings)?;
        let thread = std::thread::Builder::new().name("sim-modem".into()).spawn(move || {
            if let Err(error) = machine.run(&received) {
                log::error!("the simulated modem stopped: {error}");
            }
        })?;
        Ok(SimulatedModem { orders: Some(orders), thread: Some(thread) })
    }

    pub fn ask(&self, request: Request) -> io::Result<State> {
        let (answer, answered) = mpsc::channel();
        let stopped = || io::Error::other("the simulated modem has stopped");
        let orders = self.orders.as_ref().ok_or_else(stopped)?;
        orders.send(Order { request, answer }).map_err(|_| stopped())?;
        answered.recv().map_err(|_| stopped())
    }

    pub fn state(&self) -> io::Result<State> {
        self.ask(Request::State)
    }

    /// What the flash holds now.
    pub fn versions(&self) -> io::Result<Versions> {
        Ok(self.state()?.flash.versions)
    }

    /// Gone from USB when it returns.
    pub fn power_cut(&self) -> io::Result<State> {
        self.ask(Request::PowerCut)
    }

    pub fn power_on(&self) -> io::Result<State> {
        self.ask(Request::PowerOn)
    }

    pub fn set_fault(&self, fault: ModemFault) -> io::Result<State> {
        self.ask(Request::SetFault(fault))
    }

    pub fn surround(&self, surroundings: Surroundings) -> io::Result<State> {
        self.ask(Request::Surround(surroundings))
    }
}

impl Drop for SimulatedModem {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed.
            let _ = thread.join();
        }
    }
}
