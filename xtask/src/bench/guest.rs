//! The guest of a measurement: our front-end, connected to one daemon.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use virtiofs_testkit::frontend::{Frontend, Options, Waiting};
use virtiofs_testkit::fuse::abi::{EntryOut, ForgetOne};
use virtiofs_testkit::fuse::{Answer, Caller, ClientOptions, FuseClient, Request};

use super::daemon::Daemon;

/// Requests in flight at most.
pub(super) const DEPTH_MAX: u16 = 32;

/// Node of the shared directory.
pub(super) const ROOT: u64 = 1;

/// How long to wait for a reply.
const LIMIT: Duration = Duration::from_secs(10);

/// A connected guest.
pub(super) struct Guest {
    requests: FuseClient,
    priority: FuseClient,
    /// Lookups that the guest owes the daemon a FORGET for.
    owed: Vec<ForgetOne>,
    /// The share, as the host sees it.
    share: PathBuf,
    _frontend: Frontend,
}

impl Guest {
    /// Shakes hands and sends INIT.
    pub(super) fn connect(daemon: &Daemon) -> Result<Self> {
        let mut frontend = Frontend::connect(&daemon.socket, &Options::default())?;
        let options = ClientOptions {
            depth: DEPTH_MAX,
            limit: LIMIT,
            ..ClientOptions::default()
        };
        let priority = ClientOptions {
            data_bytes: 4096,
            ..options
        };
        let mut requests = FuseClient::on(&mut frontend, 1, &options)?;
        let priority = FuseClient::on(&mut frontend, 0, &priority)?;
        requests.init().context("INIT")?;
        let share = daemon.share.clone();
        Ok(Self {
            requests,
            priority,
            owed: Vec::new(),
            share,
            _frontend: frontend,
        })
    }

    /// A path in the share on the host.
    pub(super) fn host_path(&self, name: &str) -> PathBuf {
        self.share.join(name)
    }

    /// The client, for requests one at a time.
    pub(super) fn client(&mut self) -> &mut FuseClient {
        &mut self.requests
    }

    /// Who asks from now on.
    pub(super) fn act_as(&mut self, uid: u32) {
        self.requests.caller = Caller {
            uid,
            gid: uid,
            pid: 1,
        };
    }

    /// Sleeps for replies, or looks for them without pause.
    pub(super) fn wait_by(&mut self, waiting: Waiting) {
        self.requests.set_waiting(waiting, LIMIT);
    }

    /// Sends `count` requests at once and takes all replies, to be judged by `on_reply`.
    ///
    /// Replies may come in any order; each is handed on with its request's number.
    pub(super) fn together<'a>(
        &mut self,
        count: u16,
        request: impl Fn(u16) -> Request<'a>,
        mut on_reply: impl FnMut(u16, &FuseClient, &Answer) -> Result<()>,
    ) -> Result<()> {
        let client = &mut self.requests;
        let mut started = [0_u64; DEPTH_MAX as usize];
        for number in 0..count {
            started[usize::from(number)] = client.start(&request(number))?;
        }
        client.publish();
        for _ in 0..count {
            let answer = client.finish()?;
            let number = (0..count)
                .find(|number| started[usize::from(*number)] == answer.unique)
                .context("a reply to nothing")?;
            on_reply(number, client, &answer)?;
        }
        Ok(())
    }

    /// [`Guest::together`] where nothing but success matters.
    pub(super) fn all<'a>(
        &mut self,
        count: u16,
        request: impl Fn(u16) -> Request<'a>,
    ) -> Result<()> {
        self.together(
            count,
            request,
            |_, client, answer| Ok(client.check(answer)?),
        )
    }

    /// [`Guest::together`] where each reply is an entry, which is owed from then on.
    pub(super) fn look_up<'a>(
        &mut self,
        count: u16,
        request: impl Fn(u16) -> Request<'a>,
    ) -> Result<()> {
        let mut found = [0; DEPTH_MAX as usize];
        self.together(count, request, |number, client, answer| {
            client.check(answer)?;
            found[usize::from(number)] = client.body::<EntryOut>(answer)?.nodeid;
            Ok(())
        })?;
        found[..usize::from(count)]
            .iter()
            .for_each(|node| self.owe(*node));
        Ok(())
    }

    /// Remembers to forget one lookup of a node.
    pub(super) fn owe(&mut self, nodeid: u64) {
        self.owed.push(ForgetOne { nodeid, nlookup: 1 });
    }

    /// Forgets all that is owed, and waits until the daemon has.
    pub(super) fn settle(&mut self) -> Result<()> {
        for some in self.owed.chunks(64) {
            self.priority.batch_forget(some)?;
        }
        self.owed.clear();
        Ok(())
    }
}
