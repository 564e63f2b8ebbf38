//! What front-ends in the field say while they connect.

use std::time::Duration;

use anyhow::{Result, ensure};
use virtiofs_testkit::frontend::message::{Code, NEED_REPLY, protocol_feature};
use virtiofs_testkit::frontend::{Connection, Launch};

const PATIENCE: Duration = Duration::from_secs(5);

/// User-mode Linux asks for an acknowledgement in the very message that
/// negotiates them, and waits for it without a limit.
#[test]
fn the_message_that_negotiates_acknowledgements_is_acknowledged() -> Result<()> {
    let shared = tempfile::tempdir()?;
    let daemon = Launch::new(shared.path()).start()?;
    let connection = Connection::open(daemon.socket(), PATIENCE)?;
    connection.send(Code::SetOwner, 0, &[], &[])?;
    connection.get_value::<u64>(Code::GetFeatures, &[])?;
    let offered: u64 = connection.get_value(Code::GetProtocolFeatures, &[])?;
    ensure!(
        offered & protocol_feature::REPLY_ACK != 0,
        "{offered:#x} is offered"
    );
    connection.send(
        Code::SetProtocolFeatures,
        NEED_REPLY,
        &protocol_feature::REPLY_ACK.to_ne_bytes(),
        &[],
    )?;
    let reply = connection.receive()?;
    ensure!(reply.payload == [0; 8], "{reply:?}");
    Ok(())
}
