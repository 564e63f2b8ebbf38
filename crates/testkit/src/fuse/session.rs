//! A mounted file system in one call: front-end, clients on every queue, INIT.

use std::path::Path;

use anyhow::{Context, Result};

use super::abi;
use super::client::{ClientOptions, FuseClient};
use crate::frontend::{Frontend, Options};

/// A client on each queue of one device, after INIT.
#[derive(Debug)]
pub struct Session {
    /// On the high-priority queue: FORGET and INTERRUPT.
    pub hiprio: FuseClient,
    /// One on each request queue; move them into threads.
    pub clients: Vec<FuseClient>,
    /// What the daemon answered to INIT.
    pub init: abi::InitOut,
    /// The device. Dropping it hangs up.
    pub frontend: Frontend,
}

impl Session {
    /// Connects with the default options.
    pub fn open(socket: &Path) -> Result<Self> {
        Self::open_with(socket, &Options::default(), &ClientOptions::default())
    }

    /// Connects, sets everything up and sends INIT on the first request queue.
    pub fn open_with(socket: &Path, device: &Options, client: &ClientOptions) -> Result<Self> {
        let mut frontend = Frontend::connect(socket, device)?;
        let forgetting = ClientOptions {
            depth: 1,
            data_bytes: 64 << 10,
            data_across_border: false,
            ..*client
        };
        let hiprio = FuseClient::on(&mut frontend, 0, &forgetting)?;
        let mut clients = (1..=device.request_queues)
            .map(|index| FuseClient::on(&mut frontend, index, client))
            .collect::<Result<Vec<_>>>()?;
        let first = clients.first_mut().context("no request queue")?;
        let init = first.init().context("INIT")?;
        Ok(Self {
            hiprio,
            clients,
            init,
            frontend,
        })
    }

    /// The client on the first request queue.
    ///
    /// # Panics
    ///
    /// When it was taken.
    pub fn client(&mut self) -> &mut FuseClient {
        self.clients.first_mut().expect("a client")
    }
}
